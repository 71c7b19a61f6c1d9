"""The overfitting guard: silent where the halves are independent, loud where they share what they should not."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import BOX_PX, PIXEL_A, Phantom, particle_set

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Fsc
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.overfitting import Overfitting, Substitution, default_limit_a, guard, sentence
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.engine.stages.substitute import SubstitutedSource, with_phases_of
from swiftres_plugin.settings import from_flat

BOX_A = BOX_PX * PIXEL_A
SHARP = Phantom(width_a=3.0)  # so that there is something beyond 20 A


def refined(source: ArraySource, folder, **settings):
    """Engine and last state of a refinement from the phantom's own map."""
    chosen = from_flat({"max_shift": 10.0, "diameter": 100.0, "search_resolution": 20.0, **settings})
    compute = Compute(torch.device("cpu"), 1, 1 << 30)
    spectra = load_spectra(source, chosen.preprocess, compute, SilentReporter(), folder)
    engine = Engine(spectra, compute, symmetry_operators("C1"), chosen, SilentReporter())
    state = start(engine, [SHARP.map()], None)
    return engine, [state, *refine(engine, state)][-1]


def guarded(source, engine, state, folder, **how) -> Overfitting:
    found, = guard(source, (SHARP.map(),), None, state, engine, Substitution(**how), folder)
    return found


def test_independent_halves_overfit_next_to_nothing(tmp_path):
    """Signal to 10 A from halves that share nothing finer than 20 A. Chance alone correlates by 0.05 on a shell."""
    source = particle_set(100, noise=0.2, shift_a=3.0, phantom=SHARP)
    engine, state = refined(source, tmp_path, initial_resolution=20.0, iterations=3)
    found = guarded(source, engine, state, tmp_path, limit_a=14.0, iterations=2)
    assert found.mean(found.data) > 0.2 and found.share < 0.2
    assert f"{found.share:.0%} of that correlation is overfitting" in sentence(found)


def test_halves_with_one_reference_overfit_much(tmp_path):
    """Images that are nearly noise, aligned twice to one map as fine as 10 A: the halves agree on that map. Poses that were
    found with other noise hide a part of it, the whole refinement does not."""
    source = particle_set(100, noise=5.0, shift_a=0.0, phantom=SHARP)
    engine, state = refined(source, tmp_path, initial_resolution=10.0, iterations=1, max_shift=4.0)
    local, whole = (guarded(source, engine, state, tmp_path, limit_a=25.0, iterations=1, whole=w) for w in (False, True))
    assert local.mean(local.data) > 0.15
    assert whole.share > 0.6 > local.share > 0.05


def test_the_same_images_in_both_halves_overfit(tmp_path):
    """Every particle twice, once in each half, as if picked twice: noise agrees with itself."""
    few, twice = particle_set(50, noise=0.5, shift_a=3.0, phantom=SHARP), np.repeat(np.arange(50), 2)
    source = ArraySource(replace(few.particles.take(twice), half=np.tile([0, 1], 50)), few.images[twice])
    engine, state = refined(source, tmp_path, initial_resolution=25.0, iterations=1)
    assert guarded(source, engine, state, tmp_path, limit_a=16.0, iterations=1).share > 0.95


@pytest.mark.parametrize("box", [16, 17])
def test_phases_change_beyond_the_limit_and_nothing_else(box):
    random = np.random.default_rng(1)
    images, noise = (torch.from_numpy(random.standard_normal((3, box, box))) for _ in range(2))
    found = torch.fft.fft2(with_phases_of(images, noise, 4))
    before = torch.fft.fft2(images)
    axis = torch.fft.fftfreq(box, 1 / box)
    late = (axis[:, None] ** 2 + axis ** 2).sqrt().round() > 4
    torch.testing.assert_close(found[:, ~late], before[:, ~late])
    torch.testing.assert_close(found[:, late].abs(), before[:, late].abs())
    cosine = torch.cos((found / before).angle())[:, late]
    assert abs(float(cosine.mean())) < 0.15


def test_an_image_has_its_own_phases_each_time():
    source = particle_set(6, noise=1.0)
    substituted = SubstitutedSource(source, 4, 7)
    together, alone = substituted.read(np.arange(6)), substituted.read(np.array([4]))
    np.testing.assert_allclose(together[4], alone[0], atol=1e-5)
    assert np.abs(np.corrcoef(*(together - source.images).reshape(6, -1)[:2])[0, 1]) < 0.2
    assert substituted.particles is source.particles


def test_the_default_limit_is_a_fifth_short_and_leaves_shells():
    assert default_limit_a(4.0, 400.0) == pytest.approx(5.0)
    assert BOX_A / default_limit_a(BOX_A / 10, BOX_A) == pytest.approx(7)
    assert default_limit_a(float("inf"), BOX_A) == BOX_A


def test_a_data_set_without_detail_has_nothing_to_overfit():
    shells = np.arange(17)
    curve, zero = np.where(shells < 6, 1.0, 0.01), np.zeros(17)
    fsc = Fsc(shells / BOX_A, curve, curve, zero, curve)
    found = Overfitting(20.0, fsc, fsc, 8, 12)
    assert np.isnan(found.share) and "nothing beyond that limit" in sentence(found)
    np.testing.assert_allclose(found.true[8:], 0, atol=1e-9)
