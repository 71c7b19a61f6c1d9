"""Likelihoods in one pass beside those of torch, and poses that are none."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.maths import fused, slices
from swiftres_plugin.engine.maths.geometry import random_rotations
from swiftres_plugin.engine.maths.slices import fourier_volume
from swiftres_plugin.engine.stages import local

pytestmark = pytest.mark.skipif(fused.kernels() is None, reason="Numba cannot be used")
COUNT = 12


@pytest.fixture(scope="module", params=[32, 33])
def problem(request):
    """Particles with CTF, noise and shifts, at random poses of theirs; even and odd boxes."""
    engine = engine_over(plain_spectra(particle_set(COUNT, noise=0.4, box_px=request.param, astigmatism_a=500.0)))
    band = engine.spectra.band.up_to(11)
    volume = fourier_volume(torch.from_numpy(Phantom().map(request.param).voxels), 11)
    random = np.random.default_rng(8)
    rotation = torch.from_numpy(random_rotations(COUNT, random)).float()
    shift_a = torch.from_numpy(random.normal(0, 6, (COUNT, 2))).float()
    batch = engine.batch(np.arange(COUNT), band)
    noise = torch.from_numpy(random.uniform(0.1, 0.3, batch.ctf.shape)).float()
    return batch, noise, volume, rotation, shift_a


def test_one_pass_gives_what_torch_gives(problem):
    assert fused.can_fuse(problem[0], problem[2])
    score, gradient, curvature = fused.fused_derivatives(*problem)
    plain = local.plain_evaluate(*problem)
    for found, expected in ((score, plain.score), (gradient, plain.gradient), (curvature, plain.curvature)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6 * float(expected.abs().max()))
    torch.testing.assert_close(fused.fused_scores(*problem), local.plain_scores(*problem), rtol=1e-5, atol=1e-3)


def test_poses_that_are_none_have_no_likelihood(problem):
    """A rotation or a shift that is no number, or a matrix that leads out of the volume: no number, and no harm."""
    batch, noise, volume, rotation, shift_a = problem
    rotation, shift_a = rotation.clone(), shift_a.clone()
    rotation[0, 0, 0], rotation[1] = torch.nan, 30 * rotation[1]
    shift_a[2, 0] = torch.nan
    scores = fused.fused_scores(batch, noise, volume, rotation, shift_a)
    assert scores[:3].isnan().all() and scores[3:].isfinite().all()
    for part in fused.fused_derivatives(batch, noise, volume, rotation, shift_a):
        assert part[:2].isnan().all() and part[2].isnan().any() and part[3:].isfinite().all()


def test_a_volume_too_small_for_the_band_is_not_read_beyond(problem):
    batch, noise, volume, rotation, shift_a = problem
    small = fourier_volume(torch.from_numpy(Phantom().map(batch.band.box_px).voxels), 4)
    assert fused.fused_scores(batch, noise, small, rotation, shift_a).isnan().all()


def test_frequencies_that_are_not_whole_and_other_layouts_are_left_to_torch(problem):
    batch, _, volume, _, _ = problem
    assert not fused.can_fuse(batch, volume.contiguous())
    rings = type(batch.band)(32, 4.0, batch.band.wave_px.float(), batch.band.shell)
    assert not fused.can_fuse(type(batch)(batch.rows, batch.images, batch.ctf, batch.optics_group, rings), volume)


def test_slices_and_sums_are_those_of_torch(problem):
    """At whole frequencies and on rings; where a band leaves the volume torch does it."""
    batch, noise, volume, rotation, _ = problem
    rings = batch.band.wave_px.float() * 0.97
    assert slices.reaches(volume, rotation, rings) and not slices.reaches(volume, 1.4 * rotation, rings)
    for wave in (batch.band.wave_px, rings):
        expected = slices.plain_slices(volume, rotation, wave)
        torch.testing.assert_close(fused.fused_slices(volume, rotation, wave), expected, rtol=1e-4, atol=1e-3)
    found, expected = slices.empty_sums(11), slices.empty_sums(11)
    fused.fused_insertion(found, batch.images, noise, rotation, batch.band.wave_px)
    slices.insert_plainly(expected, batch.images, noise, rotation, batch.band.wave_px)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6 * float(expected.abs().max()))


def test_sums_of_some_planes_are_those_of_the_whole_grid(problem):
    """In machine code and step by step."""
    batch, noise, _, rotation, _ = problem
    expected, planes = slices.empty_sums(11), torch.tensor([3, 20, 21, 24, 27, 28, 45])
    slices.insert_plainly(expected, batch.images, noise, rotation, batch.band.wave_px)
    place = torch.full((expected.shape[2],), -1)
    place[planes] = torch.arange(len(planes))
    for one in (torch.float32, torch.float64):  # machine code takes single precision only
        found = slices.empty_sums(11, rows=len(planes)).to(one)
        slices.insert_slices(found, batch.images.to(found.dtype.to_complex()), noise.to(one), rotation.to(one),
                             batch.band.wave_px, place)
        torch.testing.assert_close(found.float(), expected[:, :, planes], rtol=1e-4, atol=2e-6 * float(expected.abs().max()))


def test_without_numba_torch_does_it(problem, monkeypatch):
    monkeypatch.setattr(fused, "kernels", lambda: None)
    assert not fused.can_fuse(problem[0], problem[2])
    torch.testing.assert_close(local.evaluate(*problem).score, local.plain_evaluate(*problem).score)
