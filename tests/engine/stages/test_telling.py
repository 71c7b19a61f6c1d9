"""What particles tell their orientations by: beside every pair of orientations, and of maps with little to tell."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.searching import telling_shell
from swiftres_plugin.engine.stages.local import log_likelihood
from swiftres_plugin.engine.stages.telling import separation, variance

COUNT, NOISE, LAST_SHELL = 40, 0.4, 12


@pytest.fixture(scope="module")
def engine():
    return engine_over(plain_spectra(particle_set(COUNT, noise=NOISE)))


@pytest.fixture(scope="module")
def batch(engine):
    return engine.batch(np.arange(4), engine.spectra.band.up_to(LAST_SHELL))


def volume_of(phantom: Phantom) -> torch.Tensor:
    return fourier_volume(torch.from_numpy(phantom.map().voxels), LAST_SHELL)


def turns(count: int) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(count, random_state=2).as_matrix()).float()


def test_it_is_the_mean_difference_of_the_log_likelihood(batch):
    """Of images without noise, over all pairs of what they show and what they are taken for."""
    volume, rotation = volume_of(Phantom()), turns(30)
    noise = torch.full(batch.ctf.shape, NOISE ** 2)
    slices = extract_slices(volume, rotation, batch.band.wave_px)
    gaps = []
    for shown in slices:
        seen = replace(batch, images=batch.ctf * shown)
        own = log_likelihood(seen, noise, batch.ctf * shown)
        gaps += [own - log_likelihood(seen, noise, batch.ctf * taken_for) for taken_for in slices]
    found = separation(batch, noise, variance(volume, rotation, batch.band.wave_px))
    torch.testing.assert_close(found[:, -1], torch.stack(gaps).mean(0), rtol=1e-3, atol=1e-2)
    assert bool((found[:, 1:] >= found[:, :-1]).all())


def test_a_ball_tells_nothing(batch):
    ball = Phantom(np.zeros((1, 3)), np.array([4.0]), 12.0)
    noise = torch.full(batch.ctf.shape, NOISE ** 2)
    spreads = (variance(volume_of(p), turns(50), batch.band.wave_px) for p in (ball, Phantom()))
    nothing, something = (separation(batch, noise, spread)[:, -1].mean() for spread in spreads)
    assert nothing < 1e-3 * something


def test_a_shell_with_fine_marks_is_searched_farther_than_a_body_of_lobes(engine):
    """Its forty marks are evenly spread: from afar they are a sphere."""
    rng = np.random.default_rng(0)
    z = np.linspace(-0.95, 0.95, 40)
    around = np.arange(40) * np.pi * (3 - 5 ** 0.5)
    wide = np.sqrt(1 - z ** 2)
    shell = Phantom(40 * np.stack([wide * np.cos(around), wide * np.sin(around), z], 1), 0.25 * (1 + 0.1 * rng.random(40)))
    noise = np.full((1, engine.spectra.band.last_shell + 1), NOISE ** 2)
    coarse, fine = (telling_shell(engine, volume_of(p), noise, np.arange(COUNT), LAST_SHELL) for p in (Phantom(), shell))
    assert coarse < fine <= LAST_SHELL
