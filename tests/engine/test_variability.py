"""The direction in which particles with and without a lobe vary is the lobe, also where few have it."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from test_classify import BODY, RESOLUTION_A, WITH_LOBE, mixed, setting_over

from swiftres_plugin.engine.given_poses import in_box_of, map_of_folds, small_engine
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
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
    """A sixth of the particles with the lobe: a small engine, the setting, and the window in its box."""
    source, label = mixed(0.17)
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
    """Along one map: log p of the residual at z, less that at 0, is 2 b z - A z^2."""
    engine, setting, window, _ = few
    rows = np.flatnonzero(setting.half == 0)[:6]
    mean = mean_map(engine, setting.noise[0], rows, setting.poses, window)
    seen, along = residuals(engine, setting.noise[0], rows, setting.poses, mean), found[0][:1]
    told = coordinates(engine, seen, along)
    shifted = residuals(engine, setting.noise[0], rows, setting.poses, mean + 0.7 * along[0])
    gained = (seen.values.abs() ** 2 - shifted.values.abs() ** 2).sum(dim=1).numpy()
    np.testing.assert_allclose(gained, 2 * told.linear[:, 0] * 0.7 - told.precision[:, 0, 0] * 0.49, rtol=2e-3, atol=0.02)


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
    exact = type(seen)(made * torch.from_numpy(z).float()[:, None], seen.transfer, seen.rotation)
    back = map_of_folds(engine, window, [weighted_sums(engine, exact, z)])
    assert np.corrcoef(back.numpy().ravel(), (lobe * torch.from_numpy(window)).numpy().ravel())[0, 1] > 0.98
