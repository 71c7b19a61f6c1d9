"""Noise power: one for white noise of variance one, per group and shell, from parts as from the whole."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra
from swiftres_plugin.engine.stages.noise import noise_power, per_sample, power_sums, shell_means

BAND = image_band(24, 2.0)


def batch_of(images: np.ndarray, groups: np.ndarray) -> ParticleBatch:
    spectra = images_to_spectra(torch.from_numpy(images.astype(np.float32)), BAND)
    return ParticleBatch(np.arange(len(images)), spectra, torch.ones(spectra.shape), torch.from_numpy(groups), BAND)


def white(count: int, deviation: float = 1.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 24, 24)) * deviation


def test_white_noise_of_variance_one_has_power_one():
    power = noise_power([power_sums(batch_of(white(400), np.zeros(400, int)), 1)])
    # shell 1 averages two coefficients of 400 images: a deviation of 3.5 %; four of these
    np.testing.assert_allclose(power, 1, atol=0.14)
    np.testing.assert_allclose(power[0, 4:], 1, atol=0.05)


def test_groups_have_their_own_power():
    images = np.concatenate([white(500), white(500, 2.0, 2)])
    power = noise_power([power_sums(batch_of(images, np.repeat([0, 1], 500)), 2)])
    assert power[0].mean() == pytest.approx(1 + 20 / 520 * 1.5, rel=0.03)  # each leans a little on the average, 2.5
    assert power[1].mean() == pytest.approx(4 - 20 / 520 * 1.5, rel=0.03)


def test_a_group_of_one_leans_on_all():
    images = np.concatenate([white(500), white(1, 10.0, 2)])
    power = noise_power([power_sums(batch_of(images, np.repeat([0, 1], [500, 1])), 2)])
    assert power[1].mean() < 10  # of itself it would be 100


def test_an_empty_group_takes_the_average():
    power = noise_power([power_sums(batch_of(white(50), np.zeros(50, int)), 3)])
    np.testing.assert_allclose(power[2], power[0], rtol=1e-6)


def test_parts_add_up():
    batch = batch_of(white(60), np.arange(60) % 2)
    parts = [power_sums(batch.take(torch.arange(a, b)), 2) for a, b in ((0, 7), (7, 40), (40, 60))]
    np.testing.assert_allclose(noise_power(parts), noise_power([power_sums(batch, 2)]), rtol=1e-5)


def test_what_the_map_explains_is_no_noise():
    images = white(200)
    signal = 5 * white(200, seed=9)
    batch = batch_of(images + signal, np.zeros(200, int))
    explained = images_to_spectra(torch.from_numpy(signal.astype(np.float32)), BAND)
    np.testing.assert_allclose(noise_power([power_sums(batch, 1, explained)]),
                               noise_power([power_sums(batch_of(images, np.zeros(200, int)), 1)]), rtol=1e-3)


def test_every_sample_gets_its_group_and_shell():
    noise = np.arange(2 * 12, dtype=np.float32).reshape(2, 12)
    batch = batch_of(white(3), np.array([1, 0, 1]))
    found = per_sample(noise, batch).numpy()
    np.testing.assert_array_equal(found, noise[:, BAND.shell.numpy()][[1, 0, 1]])


def test_shell_means_average_each_shell():
    values = torch.rand(2, len(BAND))
    found = shell_means(values, BAND)
    for shell in (1, 5, BAND.last_shell):
        torch.testing.assert_close(found[:, shell], values[:, BAND.shell == shell].mean(1))
    assert torch.equal(found[:, 0], found[:, 1])


def test_power_is_never_zero():
    """A division by it must be possible, whatever the images are."""
    images = np.zeros((5, 24, 24))
    images[:, 12, 12] = 1
    smooth = np.fft.fftshift(np.fft.irfft2(np.fft.rfft2(images) * (np.arange(13) < 3)), axes=(1, 2))
    assert noise_power([power_sums(batch_of(smooth, np.zeros(5, int)), 1)]).min() > 0
