"""Soft assignment beside plain loops over particles, references and shifts."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.stages.local import score_poses
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.soft import References, soft_sums

COUNT, SHELL = 6, 5


@pytest.fixture(scope="module")
def case():
    """Particles at known poses; the references are slices at those poses, the shifts those of the particles."""
    source = particle_set(COUNT, noise=4.0)
    engine = engine_over(plain_spectra(source))
    band = engine.spectra.band.up_to(SHELL)
    batch = engine.batch(np.arange(COUNT), band)
    noise = per_sample(np.full((1, SHELL + 1), 16.0, np.float32), batch)
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels), SHELL)
    rotation = torch.from_numpy(source.particles.poses.image_to_volume).float()
    shifts = torch.from_numpy(source.particles.poses.shift_a).float()
    prior = torch.arange(COUNT).float().log_softmax(0)
    shift_prior = -torch.arange(COUNT).float().log_softmax(0)
    references = References(extract_slices(volume, rotation, band.wave_px), prior, shifts, shift_prior)
    return batch, noise, volume, rotation, references


def posterior(case) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, S, G) shares from the score of one pose at a time, and the log of their sum (B,)."""
    batch, noise, volume, rotation, references = case
    score = torch.empty((COUNT, COUNT, COUNT))
    for s in range(COUNT):
        for g in range(COUNT):
            here, there = rotation[g].expand(COUNT, 3, 3), references.shifts_a[s].expand(COUNT, 2)
            score[:, s, g] = (score_poses(batch, noise, volume, here, there) + references.log_prior[g]
                              + references.shift_log_prior[s])
    flat = score.flatten(1).double()
    return flat.softmax(1).view(score.shape), flat.logsumexp(1)


def test_shares_and_evidence_are_those_of_the_likelihood(case):
    share, evidence = posterior(case)
    found = soft_sums(case[0], case[1], case[4])
    np.testing.assert_allclose(found.evidence, evidence, rtol=1e-4)
    np.testing.assert_allclose(found.occupancy, share.sum((0, 1)), atol=1e-4)
    np.testing.assert_allclose(found.share, share.flatten(1).amax(1), atol=1e-4)
    best = share.flatten(1).argmax(1)
    assert (found.shift * COUNT + found.reference).tolist() == best.tolist()
    assert 0.3 < float(found.share.mean()) < 0.999  # neither certain nor lost: the test would see a wrong share


def test_sums_are_those_of_centred_particles(case):
    batch, noise, _, _, references = case
    share, _ = posterior(case)
    found = soft_sums(batch, noise, references)
    ramp = phase_ramp(batch.band.wave_px.float() / batch.band.box_a, -references.shifts_a).to(torch.complex128)
    numerator = torch.einsum("bsg,sl,bl->gl", share.to(torch.complex128), ramp,
                             (batch.ctf * batch.images / noise).to(torch.complex128))
    weight = torch.einsum("bsg,bl->gl", share, (batch.ctf ** 2 / noise).double())
    scale = float(numerator.abs().max())
    np.testing.assert_allclose(found.numerator, numerator, atol=1e-4 * scale)
    np.testing.assert_allclose(found.weight, weight, atol=1e-4 * float(weight.max()))


def test_parts_add_up(case):
    batch, noise, _, _, references = case
    whole = soft_sums(batch, noise, references)
    first, second = torch.arange(2), torch.arange(2, COUNT)
    both = soft_sums(batch.take(first), noise[first], references) + soft_sums(batch.take(second), noise[second], references)
    for name in ("numerator", "weight", "power", "evidence"):
        one, other = getattr(whole, name), getattr(both, name)
        np.testing.assert_allclose(other, one, atol=1e-5 * float(one.abs().max()))
    assert both.reference.tolist() == whole.reference.tolist()


def test_what_is_left_is_the_expected_residual(case):
    """The mean over particles of |X - C V|^2 / N at every pose, by its share."""
    batch, noise, _, _, references = case
    share, _ = posterior(case)
    ramp = phase_ramp(batch.band.wave_px.float() / batch.band.box_a, references.shifts_a)
    predicted = batch.ctf[:, None, None] * ramp[:, None] * references.slices
    residual = (batch.images[:, None, None] - predicted).abs() ** 2 / noise[:, None, None]
    expected = torch.einsum("bsg,bsgl->l", share, residual.double()) / COUNT
    found = soft_sums(batch, noise, references).unexplained(references)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
