"""Classes: how far a class's map may leave the map of all, whom it holds, and which class is which.

Classes collapse by attraction: the map of a large class shows what all classes share more clearly, and so fits every particle
better than that of a small class. Here each class is compared as the map of all particles plus what sets the class apart,
damped by how far that part repeats itself between two sets of its own particles: shell by shell (`difference_gain`), then
region by region (`local_gain`), since what differs stands in one place and noise everywhere.

That a particle is not compared with a map it is in is left to engine/classify.py.
"""
from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

LEAST_GAIN = 0.05  # of a difference that does not repeat itself yet, or classes that begin alike would stay so
REACH_A = 10.0  # deviation of the Gaussian that says what a region is


def posterior(scores: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(N, K) probabilities of the classes from log-likelihoods (N, K) and their prior (K,); -inf leaves a class out."""
    with np.errstate(divide="ignore"):
        weighted = scores + np.log(prior)
    share = np.exp(weighted - weighted.max(axis=1, keepdims=True))
    return share / share.sum(axis=1, keepdims=True)


def one_class_each(shares: np.ndarray) -> np.ndarray:
    """(N, K) the whole of each particle in its likeliest class."""
    return np.eye(shares.shape[1])[shares.argmax(axis=1)]


def entropy(shares: np.ndarray) -> float:
    """Mean entropy of the class posterior, in units of log K: 0 when every particle is sure, 1 when none is."""
    if shares.shape[1] < 2:
        return 0.0
    return float(-(shares * np.log(shares.clip(min=1e-30))).sum(axis=1).mean() / np.log(shares.shape[1]))


def certainty(shares: np.ndarray) -> float:
    """Part of the doubt about its class, which the sizes of the classes leave, that a particle removes: 1 where each is
    sure of its class, 0 where none tells more than the sizes do."""
    prior = entropy(shares.mean(axis=0, keepdims=True))
    return 1 - entropy(shares) / prior if prior > 1e-9 else 0.0


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Part of the particles (N, K) that moved to another class."""
    return float(np.abs(after - before).sum(axis=1).mean() / 2)


def difference_gain(curve: np.ndarray, sets: float) -> np.ndarray:
    """Gain (S,) per shell of a difference map, from its Fourier shell correlation (S,) between two sets of particles.

    sets: how many such sets the map to be damped is made of.
    """
    smooth = np.convolve(np.pad(curve, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    return np.maximum(wiener(smooth, sets), LEAST_GAIN)


def local_gain(first: torch.Tensor, second: torch.Tensor, sets: float, pixel_size_a: float) -> torch.Tensor:
    """Gain (n, n, n) of a difference map at every place, from how well two sets of particles agree in it thereabouts.

    first, second: the map (n, n, n) from each set; sets: as for `difference_gain`.
    """
    a, b = first.cpu().numpy(), second.cpu().numpy()
    shared, power = (gaussian_filter(values, REACH_A / pixel_size_a) for values in (a * b, (a ** 2 + b ** 2) / 2))
    agreement = shared / np.maximum(power, 1e-30 + 1e-6 * power.max())
    return torch.from_numpy(wiener(agreement, sets)).float().to(first.device)


def wiener(agreement: np.ndarray, sets: float) -> np.ndarray:
    """Gain SNR / (1 + SNR) of the mean of so many `sets`, any two of which agree to this correlation."""
    within = agreement.clip(0, 0.99)
    ratio = within / (1 - within) * sets
    gain: np.ndarray = ratio / (1 + ratio)
    return gain


def uncorrelated(values: np.ndarray) -> np.ndarray:
    """Values (n, D) turned into others of mean zero, variance one and no correlation that span the same."""
    centred = values - values.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    ridge = 1e-9 * np.trace(covariance) + 1e-30
    whole: np.ndarray = centred @ np.linalg.inv(np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))).T
    return whole


def matching(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) the class of `second` that is each class of `first`, by their maps (K, ...), and the correlation of each pair."""
    flat = [maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second)]
    unit = [maps / np.linalg.norm(maps, axis=1, keepdims=True).clip(min=1e-30) for maps in flat]
    likeness = unit[0] @ unit[1].T
    _, partner = linear_sum_assignment(-likeness)
    return partner, likeness[np.arange(len(partner)), partner]
