"""What repeated alignments of the same particles agree on: an absolute majority of them, or nothing.

After the consensus of swiftalign, whose mean pose is Markley's (Markley et al. 2007, J. Guid. Control Dyn. 30, 1193). Two
changes: mates under the point group count as one pose, and the mean is of those that agree, so that outliers do not pull it.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.maths.geometry import mean_rotation
from swiftres_plugin.engine.maths.symmetry import closest_mates


def consensus(repeats: Sequence[Assignment], operators: np.ndarray, angle_rad: float,
              shift_a: float) -> tuple[Assignment, np.ndarray]:
    """One result for each of N particles, and the share (N,) of the repeats that agree with it.

    Alignments agree when they name one class, orientations within `angle_rad` and shifts within `shift_a`. Where more than
    half do, the pose is the mean of these; elsewhere it is that of the likeliest alignment. Scores and widths are those of
    the alignment with the most company, the likeliest of several.
    """
    ranked = by_likelihood(repeats)
    pairs = np.stack([agreement(ranked, one, operators, angle_rad, shift_a) for one in ranked])  # (R, R, N)
    centre = pairs.sum(1).argmax(0)  # the first, and so the likeliest, of several
    particle = np.arange(len(centre))
    company = pairs[centre, :, particle].T  # (R, N)
    chosen = picked(ranked, centre)
    mean = mean_pose(ranked, chosen, company, operators)
    share = agreement(ranked, mean, operators, angle_rad, shift_a).mean(0)
    agreed = share > 0.5
    return picked([mean, ranked[0]], np.where(agreed, 0, 1)), share


def by_likelihood(repeats: Sequence[Assignment]) -> list[Assignment]:
    """The same results, particle by particle in descending order of likelihood."""
    order = np.argsort(-np.stack([one.log_likelihood for one in repeats]), axis=0, kind="stable")
    return [picked(repeats, rank) for rank in order]


def picked(results: Sequence[Assignment], which: np.ndarray) -> Assignment:
    """Of each particle the result `which` (N,)."""
    particle = np.arange(len(which))
    return Assignment(*(np.stack([getattr(one, name) for one in results])[which, particle] for name in Assignment.__slots__))


def agreement(results: Sequence[Assignment], other: Assignment, operators: np.ndarray, angle_rad: float,
              shift_a: float) -> np.ndarray:
    """(R, N) whether each result is within the tolerances of `other`, in the same class."""
    near = []
    for one in results:
        _, turn = closest_mates(other.image_to_volume, one.image_to_volume, operators)
        move = np.linalg.norm(one.shift_a - other.shift_a, axis=1)
        near.append((turn <= angle_rad) & (move <= shift_a) & (one.class_id == other.class_id))
    return np.stack(near)


def mean_pose(results: Sequence[Assignment], centre: Assignment, company: np.ndarray, operators: np.ndarray) -> Assignment:
    """`centre` with the mean rotation and shift of the results that `company` (R, N) names."""
    mates = [closest_mates(centre.image_to_volume, one.image_to_volume, operators)[0] for one in results]
    rotation = np.stack([mate @ one.image_to_volume for mate, one in zip(mates, results)], axis=1)
    weight = company.T / company.sum(0)[:, None]  # (N, R)
    shift_a = np.einsum("nr,nrk->nk", weight, np.stack([one.shift_a for one in results], axis=1))
    return replace(centre, image_to_volume=mean_rotation(rotation, weight), shift_a=shift_a)
