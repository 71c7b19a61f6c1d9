"""Reconstruction: exact images give the map back, weights and symmetry do what they say, noise is damped."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.maths import padded
from swiftres_plugin.engine.maths.fourier import shells_3d
from swiftres_plugin.engine.maths.slices import empty_sums
from swiftres_plugin.engine.maths.symmetry import symmetry_operators, turns_of_axes
from swiftres_plugin.engine.stages.postprocess import correlation
from swiftres_plugin.engine.stages.reconstruct import finished, insert, mean_weight, solve

IDENTITY = torch.eye(3)[None]


def inserted(source, operators=IDENTITY, share=None, rows=None, shift_sign=1.0, noise=1.0, turns=None):
    """Accumulator of the particles at their true poses, and at mates: by insertion there, or by turns of the sums."""
    spectra = plain_spectra(source)
    rows = np.arange(len(spectra)) if rows is None else rows
    batch = engine_over(spectra).batch(rows, spectra.band)
    poses = source.particles.poses
    rotation, shift = (torch.from_numpy(a[rows]).float() for a in (poses.image_to_volume, poses.shift_a))
    sums = empty_sums(spectra.band.last_shell)
    insert(sums, batch, torch.full(batch.ctf.shape, noise), rotation, shift_sign * shift, operators, share)
    return finished(sums, float(len(rows)), turns)


def likeness(found: torch.Tensor, true: np.ndarray) -> tuple[float, float]:
    """Lowest FSC of shells 1..10, and the factor of the grey scale."""
    truth = torch.from_numpy(true)
    without_mean = truth - truth.mean()
    scale = float((found * without_mean).sum() / without_mean.square().sum())
    return float(correlation(found, truth)[1:11].min()), scale


@pytest.fixture(scope="module")
def source():
    return particle_set(500)


@pytest.fixture(scope="module")
def whole(source):
    return inserted(source)


def test_exact_images_give_the_map_back(whole):
    """With CTF and shifts, on the map's own grey scale."""
    fsc, scale = likeness(solve(whole, 32), Phantom().map().voxels)
    assert fsc > 0.995
    assert scale == pytest.approx(1, abs=0.03)


def test_an_odd_box_gives_the_map_back():
    odd = particle_set(500, box_px=33)
    fsc, scale = likeness(solve(inserted(odd), 33), Phantom().map(33).voxels)
    assert fsc > 0.995
    assert scale == pytest.approx(1, abs=0.03)


def test_shifts_the_other_way_do_not(source):
    assert likeness(solve(inserted(source, shift_sign=-1.0), 32), Phantom().map().voxels)[0] < 0.8


def test_noise_power_weighs_particles_and_not_the_map(source, whole):
    torch.testing.assert_close(solve(inserted(source, noise=25.0), 32), solve(whole, 32), atol=1e-3, rtol=0)
    torch.testing.assert_close(25 * inserted(source, noise=25.0).weight, whole.weight, rtol=1e-4, atol=1e-3)


def test_parts_add_up(source, whole):
    parts = inserted(source, rows=np.arange(200)) + inserted(source, rows=np.arange(200, 500))
    torch.testing.assert_close(parts.numerator, whole.numerator, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-4, atol=1e-3)
    assert parts.count == whole.count == 500


def test_slabs_change_nothing(whole, monkeypatch):
    ratio = np.linspace(3, 0, 17)
    expected = solve(whole, 32, ratio)
    monkeypatch.setattr(padded, "SLAB_BYTES", 50_000)  # two planes
    torch.testing.assert_close(solve(whole, 32, ratio), expected)


def test_a_share_of_zero_leaves_a_particle_out(source):
    share = torch.zeros(500)
    share[:200] = 1
    weighted, few = inserted(source, share=share), inserted(source, rows=np.arange(200))
    torch.testing.assert_close(weighted.numerator, few.numerator, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weighted.weight, few.weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("group", ["C3", "D2"])
def test_symmetry_inserts_all_mates(group):
    """Operators in one call, or every particle once more at each mate of its pose."""
    few = particle_set(20)
    operators = torch.from_numpy(symmetry_operators(group)).float()
    together = inserted(few, operators)
    mates = [inserted(few, operator[None]) for operator in operators]
    torch.testing.assert_close(together.weight, sum(m.weight for m in mates), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.numerator, sum(m.numerator for m in mates), rtol=1e-4, atol=1e-3)


def test_symmetry_makes_few_particles_many():
    """A third of the particles with C3 gives the map that all mates give; its transform is the same after a turn."""
    operators = symmetry_operators("C3")
    phantom = Phantom().symmetric(operators)
    few = particle_set(150, phantom=phantom)
    fsc, scale = likeness(solve(inserted(few, torch.from_numpy(operators).float()), 32), phantom.map().voxels)
    assert fsc > 0.99
    assert scale == pytest.approx(1, abs=0.03)


def test_weight_grows_with_particles(source, whole):
    few = mean_weight([inserted(source, rows=np.arange(100))], 16)
    np.testing.assert_allclose(few / mean_weight([whole], 16), 0.2, atol=0.08)


def test_low_signal_is_damped(whole):
    ratio = np.full(17, 1e6)
    ratio[6:] = 0.5
    plain, damped = solve(whole, 32), solve(whole, 32, ratio)
    first, second = (torch.fft.rfftn(v).abs() for v in (plain, damped))
    shells = shells_3d(32)
    assert float(second[shells == 3].norm() / first[shells == 3].norm()) == pytest.approx(1, abs=0.02)
    # weight / (weight + mean weight / 0.5): a third, more where the weight is above its mean
    assert 0.25 < float(second[shells == 9].norm() / first[shells == 9].norm()) < 0.45


def test_no_signal_gives_an_empty_shell(whole):
    ratio = np.zeros(17)
    ratio[:5] = 100
    spectrum = torch.fft.rfftn(solve(whole, 32, ratio)).abs()
    # but for what the correction of the gridding, a product in real space, spreads
    assert float(spectrum[shells_3d(32) > 7].max()) < 0.03 * float(spectrum.max())


def test_unseen_directions_do_not_blow_up():
    """All views along one axis: the missing wedge stays finite."""
    particles = particle_set(40)
    particles.particles.poses.image_to_volume[:] = np.eye(3)
    voxels = solve(inserted(particles), 32)
    assert bool(voxels.isfinite().all()) and float(voxels.abs().max()) < 100 * Phantom().map().voxels.max()


@pytest.mark.parametrize("group", ["C1", "C2", "D2", "D3", "C4", "D4", "T", "O", "I1", "I2"])
def test_turned_sums_are_those_of_slices_inserted_at_every_mate(source, group):
    """Turns that map axes onto axes are made on the grid: the same sums but for rounding, from as many insertions fewer."""
    operators, rows = symmetry_operators(group), np.arange(8)
    turns, others = turns_of_axes(operators)
    assert len(turns) * len(others) == len(operators)
    expected = inserted(source, torch.from_numpy(operators).float(), rows=rows)
    found = inserted(source, torch.from_numpy(others).float(), rows=rows, turns=turns)
    for name in ("numerator", "weight"):
        most = getattr(expected, name).abs().max()
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=2e-5 * float(most))
