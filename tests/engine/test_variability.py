"""The direction in which particles with and without a lobe vary is the lobe, also where few have it."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_classify import BODY, RESOLUTION_A, WITH_LOBE, mixed, setting_over

from swiftres_plugin.engine.given_poses import in_box_of, map_of_folds, small_engine
from swiftres_plugin.engine.maths.geometry import rotation_vector_to_matrix
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.stages.nuisance import products
from swiftres_plugin.engine.variability import (
    coordinates,
    find_coordinates,
    find_directions,
    mean_map,
    residuals,
    weighted_sums,
)


@pytest.fixture(scope="module")
def few():
    """A sixth of the particles with the lobe, uneven in contrast and pose: small engine, setting, window in its box."""
    source, label = mixed(0.17, uneven=True)
    engine, setting = setting_over(source)
    small, window = small_engine(engine, setting.window, RESOLUTION_A)
    return small, setting, window, label


@pytest.fixture(scope="module")
def found(few):
    """Two directions of the second half, and the coordinates of the first half's particles on them."""
    engine, setting, window, _ = few
    halves = [np.flatnonzero(setting.half == h) for h in (0, 1)]
    maps = find_directions(engine, setting.noise[1], halves[1], setting.poses, window, 2, np.random.default_rng(1))
    mean = mean_map(engine, setting.noise[0], halves[0], setting.poses, window)
    return maps, find_coordinates(engine, setting.noise[0], halves[0], setting.poses, mean, maps)


def test_the_lobe_is_a_direction(few, found):
    lobe = in_box_of(few[0], torch.from_numpy(WITH_LOBE.map().voxels - BODY.map().voxels)).numpy().ravel()
    spanned = np.linalg.qr(np.stack([one.numpy().ravel() for one in found[0]], axis=1))[0]
    assert np.linalg.norm(spanned.T @ lobe) / np.linalg.norm(lobe) > 0.6


def test_particles_of_the_other_half_are_told_apart_along_it(few, found):
    _, setting, _, label = few
    own = label[setting.half == 0] - label[setting.half == 0].mean()
    where = np.linalg.solve(found[1].precision + 0.01 * np.eye(2), found[1].linear[..., None])[..., 0]
    spanned = np.linalg.qr(where - where.mean(axis=0))[0]
    assert np.linalg.norm(spanned.T @ own) / np.linalg.norm(own) > 0.7


def test_coordinates_are_those_of_the_likelihood(few, found):
    """Along one map: log p of the residual at z, less that at 0, is 2 b z - A z^2, less what pose and contrast may explain."""
    engine, setting, window, _ = few
    rows = np.flatnonzero(setting.half == 0)[:6]
    mean = mean_map(engine, setting.noise[0], rows, setting.poses, window)
    seen, along = residuals(engine, setting.noise[0], rows, setting.poses, mean), found[0][:1]
    told = coordinates(engine, seen, along)
    volume = fourier_volume(along[0], engine.spectra.band.last_shell)
    made = 0.7 * extract_slices(volume, seen.rotation, engine.spectra.band.wave_px) * seen.transfer
    hidden = products(seen.nuisance, made[:, None])[..., 0]
    assert (hidden.norm(dim=1) > 0.1 * made.norm(dim=1)).any()  # part of a lobe looks like a change of pose or contrast
    gained = 2 * (seen.values * made.conj()).real.sum(1) - made.abs().square().sum(1) + hidden.square().sum(1)
    expected = 2 * told.linear[:, 0] * 0.7 - told.precision[:, 0, 0] * 0.49
    np.testing.assert_allclose(gained.numpy(), expected, rtol=2e-3, atol=0.02)


def test_brighter_particles_and_poses_a_little_off_are_no_directions(few, found):
    """Images made of the map alone, each of its own contrast and turned a little: nothing is left along the lobe."""
    engine, setting, window, _ = few
    rows = np.flatnonzero(setting.half == 0)
    mean = mean_map(engine, setting.noise[0], rows, setting.poses, window)
    seen = residuals(engine, setting.noise[0], rows, setting.poses, mean)
    volume = fourier_volume(mean, engine.spectra.band.last_shell)
    wave = engine.spectra.band.wave_px
    random = torch.Generator().manual_seed(5)
    turned = seen.rotation @ rotation_vector_to_matrix(0.03 * torch.randn(len(rows), 3, generator=random))
    brighter = extract_slices(volume, turned, wave) * (1 + 0.2 * torch.randn(len(rows), 1, generator=random))
    change = (brighter - extract_slices(volume, seen.rotation, wave)) * seen.transfer
    left = change - (products(seen.nuisance, change[:, None]) * seen.nuisance).sum(1)
    assert left.abs().square().sum() < 0.5 * change.abs().square().sum()


def test_sums_along_known_coordinates_give_the_direction_back(few):
    """Residuals made of one map times coordinates, of both signs, and no noise."""
    engine, setting, window, _ = few
    rows = np.flatnonzero(setting.half == 0)
    nothing = torch.zeros((engine.spectra.band.box_px,) * 3)
    seen = residuals(engine, setting.noise[0], rows, setting.poses, nothing)
    lobe = torch.from_numpy(window) * torch.roll(torch.from_numpy(window), 3, 0)
    volume = fourier_volume(lobe, engine.spectra.band.last_shell)
    z = np.random.default_rng(3).normal(size=len(rows))
    made = extract_slices(volume, seen.rotation, engine.spectra.band.wave_px) * seen.transfer
    exact = replace(seen, values=made * torch.from_numpy(z).float()[:, None])
    back = map_of_folds(engine, window, [weighted_sums(engine, exact, z)])
    assert np.corrcoef(back.numpy().ravel(), (lobe * torch.from_numpy(window)).numpy().ravel())[0, 1] > 0.98
