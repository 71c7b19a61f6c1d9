"""What a small change of a particle's pose or contrast would explain, and what is left to tell structures apart.

Poses are not quite right, and particles are not equally bright: ice, defocus and what leaves the box see to that. Both make
images differ, often by more than two conformations do, and in the same way in both halves of the particles. The change
a = (turn, move, contrast) of a particle is not known, but small: with a Gaussian prior on it and J = d model / d a,

    log p(r) = -|r|^2 + |G^(-1/2) J r|^2,   G = J J^T + 1 / (2 deviation^2),

all in units of the noise, so that what J can explain counts the less the more the particles vary in it. How much they
do is found from the particles (empirical Bayes).
"""
from __future__ import annotations

import torch

GROUPS = (slice(0, 3), slice(3, 5), slice(5, 6))  # turn (rad), move (A), contrast: each has one deviation
START = (0.05, 2.0, 0.2)
ROUNDS = 20


def deviations(overlap: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
    """(6,) how far the particles' poses and contrast vary, from J J^T (n, 6, 6) and J r (n, 6), by EM."""
    variance = linear.new_empty(6)
    for group, value in zip(GROUPS, START):
        variance[group] = value ** 2
    for _ in range(ROUNDS):
        inverse = torch.linalg.inv(overlap + torch.diag(0.5 / variance))
        mean = (inverse @ linear[..., None])[..., 0]
        second = (mean ** 2 + 0.5 * inverse.diagonal(dim1=1, dim2=2)).mean(0)
        for group in GROUPS:
            variance[group] = second[group].mean()
    return variance.sqrt()


def whitened(jacobian: torch.Tensor, overlap: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """(n, 6, L) G^(-1/2) J: what its product with a residual takes away is what pose and contrast may explain."""
    factor = torch.linalg.cholesky(overlap + torch.diag(0.5 / deviation ** 2))
    return torch.linalg.solve_triangular(factor.to(jacobian.dtype), jacobian, upper=False)


def products(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(n, D, E) real products of (n, D, L) and (n, E, L) complex, L taken as 2 L real numbers."""
    flat = [torch.view_as_real(one.resolve_conj()).flatten(2) for one in (first, second)]
    return flat[0] @ flat[1].transpose(1, 2)
