"""Metrics as inner products: each equals its definition written out, and the Wiener filter undoes the transfer."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import image_band, phase_ramp
from swiftres_plugin.engine.maths.metrics import MetricBasis, metric_weights, wiener_corrected
from swiftres_plugin.engine.maths.vectors import as_real

BAND = image_band(16, 4.0).up_to(5)
SHIFTS_A = torch.tensor([[0.0, 0.0], [5.0, -3.0]])


def drawn(count: int, seed: int) -> torch.Tensor:
    return torch.randn((count, len(BAND)), generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


def batch_of(images: torch.Tensor) -> ParticleBatch:
    ctf = torch.rand(images.shape, generator=torch.Generator().manual_seed(3)) - 0.3
    return ParticleBatch(np.arange(len(images)), images, ctf, torch.zeros(len(images), dtype=torch.int64), BAND)


def ramps(count: int) -> torch.Tensor:
    return phase_ramp(BAND.wave_px.float() / BAND.box_a, -SHIFTS_A).expand(count, -1, -1)


def written_out(metric: str, image: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> float:
    """The metric of two real vectors from its textbook formula; distances relative to an empty reference."""
    if metric == "cosine":
        return float(image @ reference / np.linalg.norm(image) / np.linalg.norm(reference))
    if metric == "pearson":
        return float(np.corrcoef(image, reference)[0, 1])
    return float((weight * image ** 2).sum() - (weight * (image - reference) ** 2).sum())


@pytest.mark.parametrize("metric", ["euclidean", "weighted", "cosine", "pearson"])
@pytest.mark.parametrize("norm_weight", [1.0, 0.02])
def test_the_inner_product_is_the_metric(metric, norm_weight):
    weight = metric_weights(metric, 0.5 + torch.rand(len(BAND), generator=torch.Generator().manual_seed(5)))
    basis = MetricBasis(BAND, metric, False, weight, None, norm_weight)
    images, references = drawn(3, 1), drawn(4, 2)
    queries = basis.of_particles(batch_of(images), torch.ones(3, len(BAND)), ramps(3))
    found = (queries @ basis.of_references(references).T).numpy()
    moved, double = as_real(images[:, None] * ramps(3)).numpy(), np.repeat(weight.numpy() ** 2, 2)
    expected = [[[written_out(metric, image, reference, double) for reference in as_real(references).numpy()]
                 for image in shifted] for shifted in moved]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_all_components_turned_change_nothing():
    random = torch.randn((2 * len(BAND),) * 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turned = MetricBasis(BAND, "euclidean", True, torch.ones(len(BAND)), torch.linalg.qr(random)[0].float())
    plain = MetricBasis(BAND, "euclidean", True, torch.ones(len(BAND)), None)
    batch, references = batch_of(drawn(3, 1)), drawn(4, 2)
    scores = [basis.of_particles(batch, torch.ones(3, len(BAND)), ramps(3)) @ basis.of_references(references).T
              for basis in (turned, plain)]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-3)


def test_the_wiener_filter_undoes_a_level_transfer():
    """Of a transfer of +-1 a tenth of the energy is added: what is left is the image over 1.1."""
    images = drawn(2, 1)
    sign = torch.where(torch.arange(len(BAND)) % 2 == 0, 1.0, -1.0).expand(2, -1)
    torch.testing.assert_close(wiener_corrected(sign * images, sign), images / 1.1)
    assert torch.equal(wiener_corrected(images, torch.tensor([[0.0], [1.0]]) * torch.ones(2, len(BAND)))[1], images[1] / 1.1)
