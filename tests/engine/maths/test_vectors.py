"""The search's inner product is the log-likelihood: exactly so for all components and a CTF that is level on shells."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from synthetic import Phantom, particle_set, random_poses

from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.maths.vectors import Basis, as_real, shell_sizes, shell_sums_of
from swiftres_plugin.engine.stages.preprocess import particle_ctf


def setting(astigmatism_a: float = 0.0, level: bool = False):
    """Images, CTF (made constant on each shell if `level`), noise, references, and the plain score of every pair."""
    source = particle_set(6, noise=0.5, astigmatism_a=astigmatism_a)
    band = image_band(32, 4.0).up_to(10)
    images = images_to_spectra(torch.from_numpy(source.images), band)
    ctf = particle_ctf(Spectra(torch.empty(0), band, source.particles), np.arange(6), band, torch.device("cpu"))
    if level:
        ctf = (shell_sums_of(ctf, band) / shell_sizes(band, ctf.device))[:, band.shell - 1]
    noise = (0.2 + 0.1 * band.shell.float()).expand(6, -1)
    turns = torch.from_numpy(random_poses(20, 9).image_to_volume).float()
    slices = extract_slices(fourier_volume(torch.from_numpy(Phantom().map().voxels), 10), turns, band.wave_px)
    plain = np.array([[reference.log_likelihood(images[i].numpy(), (ctf[i] * s).numpy(), noise[i].numpy()) for s in slices]
                      for i in range(6)])
    return band, images, ctf, noise, slices, plain


def complete(band) -> Basis:
    """Every component: an orthonormal basis of the whole space, turned so that no axis is special."""
    random = torch.randn((2 * len(band),) * 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Basis(band, 0.5 + torch.rand(len(band), generator=torch.Generator().manual_seed(2)),
                 torch.linalg.qr(random)[0].float(), 1.0, 0.3 + torch.arange(float(band.last_shell)))


def scores(basis: Basis, images, ctf, noise, slices) -> np.ndarray:
    queries = basis.of_queries(ctf * images / noise, ctf ** 2 / noise)
    return (queries @ basis.of_references(slices).T).numpy()


def test_inner_product_is_the_log_likelihood():
    band, images, ctf, noise, slices, plain = setting(level=True)
    found = scores(complete(band), images, ctf, noise, slices)
    np.testing.assert_allclose(found, plain, atol=2e-4 * np.abs(plain).max())


def test_without_components_every_sample_is_kept():
    band, images, ctf, noise, slices, plain = setting(level=True)
    basis = replace(complete(band), components=None)
    assert basis.of_references(slices).shape[1] == 2 * len(band) + band.last_shell
    np.testing.assert_allclose(scores(basis, images, ctf, noise, slices), plain, atol=2e-4 * np.abs(plain).max())


@pytest.mark.parametrize("astigmatism_a", [0.0, 500.0])
def test_a_real_transfer_costs_little(astigmatism_a):
    """Only the power term, averaged over each shell, deviates; by far less than scores differ (6 % here)."""
    band, images, ctf, noise, slices, plain = setting(astigmatism_a)
    found = scores(complete(band), images, ctf, noise, slices)
    assert np.std(found - plain) < 0.1 * np.std(plain)


def test_queries_keep_leading_dimensions():
    band, images, ctf, noise, _, _ = setting()
    basis = complete(band)
    matched, strength = ctf * images / noise, ctf ** 2 / noise
    stacked = basis.of_queries(torch.stack([matched, 2 * matched], 1), torch.stack([strength, strength], 1))
    torch.testing.assert_close(stacked[:, 0], basis.of_queries(matched, strength))
    torch.testing.assert_close(stacked[:, 1], basis.of_queries(2 * matched, strength))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_shell_sums_add_what_is_on_the_shell(shape):
    band = image_band(16, 1.0)
    values = torch.randn((*shape, len(band)))
    found = shell_sums_of(values, band)
    assert found.shape == (*shape, band.last_shell)
    torch.testing.assert_close(found[..., 4], values[..., band.shell == 5].sum(-1))
    torch.testing.assert_close(shell_sums_of(torch.ones(len(band)), band), shell_sizes(band, torch.device("cpu")))


def test_real_form_keeps_products():
    a, b = (torch.randn(5, 7, dtype=torch.complex64) for _ in range(2))
    torch.testing.assert_close((as_real(a) * as_real(b)).sum(-1), (a.conj() * b).real.sum(-1))
