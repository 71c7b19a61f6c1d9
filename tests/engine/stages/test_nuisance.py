"""What pose and contrast may explain is taken away as the marginal likelihood has it; how far they vary is found."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.stages.nuisance import GROUPS, deviations, products, whitened

DEVIATION = torch.tensor([0.03, 0.03, 0.03, 0.8, 0.8, 0.25])


def drawn(count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """J (n, 6, L), and residuals (n, L) of changes of the given deviations and noise of unit power."""
    random = torch.Generator().manual_seed(3)
    size = torch.tensor([40.0, 50, 30, 2, 1.5, 6])[:, None] / length ** 0.5
    jacobian = size * torch.randn(count, 6, length, dtype=torch.complex64, generator=random)
    change = DEVIATION * torch.randn(count, 6, generator=random)
    noise = torch.randn(count, length, dtype=torch.complex64, generator=random)  # of power one: half in each part
    return jacobian, (change[..., None] * jacobian).sum(1) + noise


def test_deviations_are_found():
    jacobian, residual = drawn(1500, 60)
    found = deviations(products(jacobian, jacobian), products(jacobian, residual[:, None])[..., 0])
    for group in GROUPS:  # as well as so many tell them: within a tenth
        np.testing.assert_allclose(found[group], DEVIATION[group], rtol=0.1)


def test_what_does_not_vary_is_left_alone():
    jacobian, residual = drawn(800, 60)
    quiet = torch.randn(residual.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(4))
    found = deviations(products(jacobian, jacobian), products(jacobian, quiet[:, None])[..., 0])
    assert (found < 0.3 * DEVIATION).all()


def test_the_rest_is_the_marginal_likelihood():
    """r^T (1 + 2 J^T D^2 J)^-1 r, with changes integrated out as a dense matrix has them."""
    jacobian, residual = drawn(4, 12)
    overlap = products(jacobian, jacobian)
    taken = products(whitened(jacobian, overlap, DEVIATION), residual[:, None])[..., 0]
    flat, r = torch.view_as_real(jacobian).flatten(2), torch.view_as_real(residual).flatten(1)
    dense = torch.eye(24) + 2 * flat.transpose(1, 2) @ torch.diag(DEVIATION ** 2) @ flat
    expected = (r[:, None] @ torch.linalg.inv(dense) @ r[..., None])[:, 0, 0]
    np.testing.assert_allclose((r ** 2).sum(1) - (taken ** 2).sum(1), expected, rtol=1e-4)
