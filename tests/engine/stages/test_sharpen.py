"""The B-factor put in comes out, and the sharpened map has it no more."""
from __future__ import annotations

import numpy as np
import pytest
from finished_maps import particle

from swiftres_plugin.engine.data.maps import Fsc
from swiftres_plugin.engine.stages.postprocess import compute_fsc, sphere_mask
from swiftres_plugin.engine.stages.sharpen import figure_of_merit, guinier, mean_amplitudes, sharpened

PIXEL_A = 1.6
BOX = 64


MASK = sphere_mask(BOX, 0.31 * BOX)


def fsc_of(halves) -> Fsc:
    return compute_fsc(halves, MASK)


def test_figure_of_merit_is_that_of_the_average_and_ends_at_the_first_empty_shell():
    curve = np.array([1, 1, 0.5, 0.143, -0.1, 0.3])
    fsc = Fsc(np.arange(6) / 10, curve, curve, curve * 0, curve)
    np.testing.assert_allclose(figure_of_merit(fsc), [1, 1, (1 / 1.5) ** 0.5, 0.5, 0, 0], atol=1e-3)


@pytest.mark.parametrize("b_factor_a2, noise", [(40.0, 0.01), (40.0, 0.3), (120.0, 0.01)])
def test_the_b_factor_comes_back(b_factor_a2, noise):
    """Within 8 A^2: a line through some 25 shells of a few hundred random amplitudes each."""
    halves = particle(BOX, PIXEL_A, b_factor_a2, noise)
    fsc = fsc_of(halves)
    found = guinier(halves.average, MASK, fsc, max(fsc.resolution_a(), 3.6))
    assert found.b_factor_a2 == pytest.approx(-b_factor_a2, abs=8)
    assert np.isfinite(found.log_amplitude[found.fitted]).all()
    ends = 1 / np.sqrt(found.square_frequency[found.fitted])
    assert ends.max() <= 10 and ends.min() >= 3.6


def test_too_few_shells_give_no_line():
    halves = particle(BOX, PIXEL_A, 40.0, 0.01)
    found = guinier(halves.average, MASK, fsc_of(halves), 8.0)
    assert found.fitted.sum() < 5 and np.isnan(found.b_factor_a2)


def test_sharpening_levels_the_amplitudes_and_stops_at_the_resolution():
    halves = particle(BOX, PIXEL_A, 80.0, 0.001)
    fsc = fsc_of(halves)
    made = sharpened(halves.average, fsc, -80.0, 5.0)
    amplitude = mean_amplitudes(made.voxels, np.ones_like(made.voxels))
    limit = int(BOX * PIXEL_A / 5.0)
    level = amplitude[8:limit - 1]
    assert level.std() < 0.1 * level.mean()
    assert amplitude[limit + 3:].max() < 1e-3 * level.mean()
    assert made.pixel_size_a == PIXEL_A and made.voxels.dtype == np.float32
