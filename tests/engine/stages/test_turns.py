"""The search in the plane beside plain loops over rotations and shifts, and its refinement beside differences."""
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.polar import (
    cell_area,
    harmonics,
    polar_band,
    real_rings_of,
    ring_angles,
    rings_of,
    turned,
)
from swiftres_plugin.engine.stages.placing import Trial, evaluate, place
from swiftres_plugin.engine.stages.turns import Templates, best_turns, soft_turns

CLASSES, PARTICLES = 3, 4
BAND = polar_band(32, 4.0, 4)


@pytest.fixture(scope="module")
def case():
    """Random images and averages; noise such that no share is one or nothing."""
    draw = torch.Generator().manual_seed(3)
    images = torch.randn(PARTICLES, len(BAND), dtype=torch.complex64, generator=draw)
    ctf = torch.rand(PARTICLES, len(BAND), generator=draw) - 0.2
    batch = ParticleBatch(np.arange(PARTICLES), images, ctf, torch.zeros(PARTICLES, dtype=torch.int64), BAND)
    noise = torch.full(images.shape, 0.7)
    averages = 0.3 * torch.randn(CLASSES, len(BAND), dtype=torch.complex64, generator=draw)
    shifts = torch.tensor([[0.0, 0.0], [5.0, -3.0], [-8.0, 2.0]])
    prior = torch.arange(CLASSES).float().log_softmax(0)
    return batch, noise, Templates(averages, prior, shifts, -0.5 * torch.arange(3).float().log_softmax(0))


def rotations() -> torch.Tensor:
    return torch.arange(ring_angles(BAND)) * (2 * math.pi / ring_angles(BAND))


def plain_scores(case) -> torch.Tensor:
    """(B, P, S, K) log posterior, one rotation and shift at a time."""
    batch, noise, templates = case
    area, series = cell_area(BAND), harmonics(templates.averages, BAND)
    score = torch.empty(PARTICLES, ring_angles(BAND), 3, CLASSES)
    for p, psi in enumerate(rotations()):
        seen = rings_of(turned(series, psi.expand(CLASSES)))
        for s, shift in enumerate(templates.shifts_a):
            centred = batch.ctf * batch.images / noise * phase_ramp(BAND.wave_px / BAND.box_a, -shift)
            match = 2 * torch.einsum("l,bl,kl->bk", area.to(seen.dtype), centred.conj(), seen).real
            loss = torch.einsum("l,bl,kl->bk", area, batch.ctf ** 2 / noise, seen.abs() ** 2)
            score[:, p, s] = match - loss + templates.log_prior + templates.shift_log_prior[s]
    return score


def test_shares_and_sums_are_those_of_the_loops(case):
    batch, noise, templates = case
    score = plain_scores(case)
    share = score.flatten(1).softmax(1).view(score.shape)
    assert 0.05 < float(share.flatten(1).amax(1).mean()) < 0.95
    sums, weights = torch.zeros_like(templates.averages), torch.zeros(CLASSES, len(BAND))
    for p, psi in enumerate(rotations()):
        back = -psi.expand(PARTICLES)
        held = real_rings_of(turned(harmonics(batch.ctf ** 2 / noise, BAND), back))
        weights += share[:, p].sum(1).T @ held
        for s, shift in enumerate(templates.shifts_a):
            centred = batch.ctf * batch.images / noise * phase_ramp(BAND.wave_px / BAND.box_a, -shift)
            sums += share[:, p, s].T.to(sums.dtype) @ rings_of(turned(harmonics(centred, BAND), back))
    found = soft_turns(batch, noise, templates)
    np.testing.assert_allclose(rings_of(found.numerator), sums, atol=1e-4)
    np.testing.assert_allclose(real_rings_of(found.weight), weights, atol=1e-4)
    np.testing.assert_allclose(found.occupancy, share.sum((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(found.evidence, score.flatten(1).logsumexp(1) - math.log(ring_angles(BAND)), atol=1e-4)


def test_the_best_places_are_those_of_the_loops(case):
    score = plain_scores(case)
    found = best_turns(*case, count=2)
    of_class = score.permute(0, 3, 1, 2).flatten(2)
    best, order = of_class.amax(2).sort(dim=1, descending=True)
    np.testing.assert_allclose(found.log_posterior, best[:, :2], atol=1e-4)
    assert found.class_id.tolist() == order[:, :2].tolist()
    place = of_class.argmax(2).gather(1, order[:, :1])[:, 0]
    np.testing.assert_allclose(found.psi_rad[:, 0], rotations()[place // 3], atol=1e-5)
    assert torch.equal(found.shift_a[:, 0], case[2].shifts_a[place % 3])


def test_parts_of_a_batch_add_up(case):
    batch, noise, templates = case
    whole = soft_turns(batch, noise, templates)
    parts = [soft_turns(batch.take(rows), noise[rows], templates) for rows in torch.arange(PARTICLES).split([1, 3])]
    np.testing.assert_allclose((parts[0] + parts[1]).numerator, whole.numerator, atol=1e-5)
    np.testing.assert_allclose((parts[0] + parts[1]).evidence, whole.evidence, atol=1e-5)


def test_derivatives_are_those_of_the_score(case):
    batch, noise, templates = case
    series = harmonics(templates.averages, BAND)
    psi, shift = torch.tensor([0.3, 2.0]), torch.tensor([[2.0, 1.0], [-3.0, 4.0]])
    trial = Trial(torch.tensor([0, 2]), torch.tensor([1, 0]), psi, shift)
    here = evaluate(batch, noise, series, trial, psi, shift)
    for axis, step in enumerate((1e-2, 0.05, 0.05)):
        move = torch.zeros(2, 3)
        move[:, axis] = step
        ends = [evaluate(batch, noise, series, trial, psi + sign * move[:, 0], shift + sign * move[:, 1:]).score
                for sign in (1, -1)]
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), here.gradient[:, axis], rtol=0.02, atol=0.02)


def test_a_noise_free_image_is_put_where_it_was_made(case):
    """From a grid step away; the information then says how much noise would move it."""
    _, _, templates = case
    series = harmonics(templates.averages, BAND)
    psi, shift = torch.tensor([0.5, 4.0]), torch.tensor([[3.0, -2.0], [0.0, 5.0]])
    made = rings_of(turned(series[[0, 2]], psi)) * phase_ramp(BAND.wave_px / BAND.box_a, shift)
    batch = ParticleBatch(np.arange(2), made, torch.ones(made.shape), torch.zeros(2, dtype=torch.int64), BAND)
    noise = torch.full(made.shape, 0.01)
    trial = Trial(torch.arange(2), torch.tensor([0, 2]), psi + 0.1, shift + 3.0)
    fit = place(batch, noise, series, trial, 12, 0.2, 8.0)
    np.testing.assert_allclose(fit.psi_rad, psi, atol=1e-3)
    np.testing.assert_allclose(fit.shift_a, shift, atol=1e-2)
    worse = place(replace(batch), 100 * noise, series, trial, 12, 0.2, 8.0)
    np.testing.assert_allclose(fit.information, 100 * worse.information, rtol=0.05)
