"""Components that turn by a phase: what they hold of references at any angle, and the scores they give."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.maths import steering
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.geometry import (
    direction_grid,
    euler_to_matrix,
    random_rotations,
    rotations_from_directions,
)
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.maths.steering import find_steering
from swiftres_plugin.engine.maths.vectors import as_real

LAST_SHELL, COUNT, NOISE = 9, 30, 0.4


@pytest.fixture(scope="module")
def volume():
    return fourier_volume(torch.from_numpy(Phantom().map().voxels), LAST_SHELL)


@pytest.fixture(scope="module")
def frames():
    return torch.from_numpy(rotations_from_directions(direction_grid(0.25))).float()


@pytest.fixture(scope="module")
def batch():
    engine = engine_over(plain_spectra(particle_set(COUNT, noise=NOISE, shift_a=3.0)))
    return engine.batch(np.arange(COUNT), engine.spectra.band.up_to(LAST_SHELL))


def turned(numbers: torch.Tensor, order: torch.Tensor, psi_rad: np.ndarray) -> torch.Tensor:
    angle = torch.from_numpy(psi_rad).float()[:, None] * order
    return numbers * torch.polar(torch.ones_like(angle), angle)


@pytest.mark.parametrize("most", [8, 24, 4000])
def test_references_at_any_angle_are_held_as_far_as_the_components_say(volume, frames, batch, most, monkeypatch):
    """The power missing from references rebuilt at random angles is what is not explained."""
    monkeypatch.setattr(steering, "ENOUGH", 1.0)
    strength = (batch.ctf ** 2).mean(0)
    found = find_steering(volume, frames, batch.band, strength, most)
    psi = np.random.default_rng(2).uniform(0, 2 * np.pi, len(frames))
    numbers, power = found.of_references(volume, frames)
    slices = extract_slices(volume, frames @ torch.from_numpy(euler_to_matrix(0.0, 0.0, psi)).float(), batch.band.wave_px)
    rebuilt = torch.view_as_complex((as_real(turned(numbers, found.order, psi)) @ found.columns.T).unflatten(-1, (-1, 2)))
    missing = ((rebuilt - slices * found.weight).abs() ** 2).sum() / ((slices * found.weight).abs() ** 2).sum()
    # sums over coefficients are not quite integrals over rings, and between half rings values are interpolated
    assert float(missing) == pytest.approx(1 - found.explained, rel=0.15, abs=2e-3)
    assert (found.order[1:] % 2).diff().clamp(max=0).sum() == 0  # even orders first
    weighted = power @ found.power_of_particles(batch, torch.full(batch.ctf.shape, NOISE ** 2)).T
    exact = slices.abs() ** 2 @ (batch.ctf ** 2 / NOISE ** 2).T
    # a ring's power is that of all its angles; the innermost rings of a small box hold four coefficients
    np.testing.assert_allclose(weighted, exact, rtol=0.15)
    assert float((weighted / exact).mean()) == pytest.approx(1, abs=0.01)


def test_fewer_components_where_they_hold_enough(volume, frames, batch):
    strength = (batch.ctf ** 2).mean(0)
    found = find_steering(volume, frames, batch.band, strength, 4000)
    assert steering.ENOUGH <= found.explained < steering.ENOUGH + 0.01
    assert len(find_steering(volume, frames, batch.band, strength, 5).order) == 5


def test_scores_are_likelihoods(volume, frames, batch, monkeypatch):
    """Of particles against references at random angles and shifts, beside every coefficient of both."""
    monkeypatch.setattr(steering, "ENOUGH", 1.0)
    noise = torch.full(batch.ctf.shape, NOISE ** 2)
    found = find_steering(volume, frames, batch.band, (batch.ctf ** 2 / noise).mean(0), 4000)
    random = np.random.default_rng(4)
    rotation = torch.from_numpy(random_rotations(COUNT, random)).float()
    psi, shift_a = random.uniform(0, 2 * np.pi, COUNT), torch.from_numpy(random.normal(0, 4, (COUNT, 2))).float()
    ramp = phase_ramp(batch.band.wave_px.float() / batch.band.box_a, -shift_a)
    queries = found.of_particles(batch, noise, ramp[:, None])[:, 0]
    numbers, power = found.of_references(volume, rotation)
    cross = (queries.conj() * turned(numbers, found.order, psi)).real.sum(1)
    score = cross - (found.power_of_particles(batch, noise) * power).sum(1)
    slices = extract_slices(volume, rotation @ torch.from_numpy(euler_to_matrix(0.0, 0.0, psi)).float(), batch.band.wave_px)
    exact = (2 * (batch.ctf * batch.images * ramp * slices.conj()).real / noise).sum(1)
    exact -= (batch.ctf ** 2 * slices.abs() ** 2 / noise).sum(1)
    assert float((score - exact).std()) < 0.06 * float(exact.std())  # by the powers of the innermost rings
