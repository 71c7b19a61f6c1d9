"""Refinement of poses: the likelihood of the definition, its true derivatives, and a climb that never falls."""
from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from scipy.spatial.transform import Rotation
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.data.search import Candidates
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.geometry import rotation_angle, rotation_vector_to_matrix
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.stages import local

COUNT, LAST_SHELL = 12, 11


def setting(noise: float):
    """A batch in double precision, its noise power, the volume, and the true poses."""
    source = particle_set(COUNT, noise=noise)
    batch = engine_over(plain_spectra(source)).batch(np.arange(COUNT), plain_spectra(source).band.up_to(LAST_SHELL))
    batch = ParticleBatch(batch.rows, batch.images.to(torch.complex128), batch.ctf.double(), batch.optics_group, batch.band)
    power = (0.1 + 0.02 * batch.band.shell.double()).expand(COUNT, -1)
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels).double(), LAST_SHELL)
    poses = source.particles.poses
    return batch, power, volume, torch.from_numpy(poses.image_to_volume), torch.from_numpy(poses.shift_a)


def perturbed(rotation: torch.Tensor, shift_a: torch.Tensor, angle_rad: float, move_a: float, seed: int = 1):
    """Every pose turned by exactly this angle about a random axis and moved by this distance."""
    generator = np.random.default_rng(seed)
    axis, move = generator.standard_normal((len(rotation), 3)), generator.standard_normal((len(rotation), 2))
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle_rad).as_matrix()
    move *= move_a / np.linalg.norm(move, axis=1, keepdims=True)
    return rotation @ torch.from_numpy(turn), shift_a + torch.from_numpy(move)


def test_score_is_the_plain_likelihood():
    batch, power, volume, rotation, shift = setting(0.3)
    found = local.score_poses(batch, power, volume, rotation, shift)
    slices = extract_slices(volume, rotation, batch.band.wave_px).numpy()
    k = batch.band.wave_px.numpy() / batch.band.box_a
    for i in range(COUNT):
        predicted = batch.ctf[i].numpy() * slices[i] * np.exp(2j * np.pi * k @ shift[i].numpy())
        expected = reference.log_likelihood(batch.images[i].numpy(), predicted, power[i].numpy())
        assert float(found[i]) == pytest.approx(expected, rel=1e-6)


def test_score_knows_no_interpolation_error_worth_a_degree():
    """The likelihood with slices by plain summation ranks the true pose above one a degree away, and so does this one."""
    batch, power, volume, rotation, shift = setting(0.0)
    true = local.score_poses(batch, power, volume, rotation, shift)
    for seed in range(5):
        off = local.score_poses(batch, power, volume, *perturbed(rotation, shift, np.deg2rad(2), 0.0, seed))
        assert float((true > off).double().mean()) > 0.9


def moved(rotation, shift, direction, step):
    vector = torch.zeros(COUNT, 5, dtype=torch.float64)
    vector[:, direction] = step
    return rotation @ rotation_vector_to_matrix(vector[:, :3]), shift + vector[:, 3:]


@pytest.mark.parametrize("direction", range(5), ids=["w_x", "w_y", "w_z", "t_x", "t_y"])
def test_gradient_is_the_derivative_of_the_score(direction):
    batch, power, volume, rotation, shift = setting(0.3)
    rotation, shift = perturbed(rotation, shift, 0.05, 2.0)
    fit = local.evaluate(batch, power, volume, rotation, shift)
    step = 1e-5
    up, down = (local.score_poses(batch, power, volume, *moved(rotation, shift, direction, s)) for s in (step, -step))
    numeric = (up - down) / (2 * step)
    # a few of the samples cross a face of the interpolation's cells
    torch.testing.assert_close(fit.gradient[:, direction], numeric, rtol=0.02, atol=2e-3 * float(numeric.abs().max()))


def test_curvature_is_that_of_the_linearised_model():
    """2 sum conj(J) J / N of the numeric Jacobian of what the map predicts."""
    batch, power, volume, rotation, shift = setting(0.3)
    fit = local.evaluate(batch, power, volume, rotation, shift)

    def predicted(r, t):
        ramp = phase_ramp(batch.band.wave_px.double() / batch.band.box_a, t)
        return batch.ctf * extract_slices(volume, r, batch.band.wave_px) * ramp

    step = 1e-5
    columns = [(predicted(*moved(rotation, shift, d, step)) - predicted(*moved(rotation, shift, d, -step))) / (2 * step)
               for d in range(5)]
    jacobian = torch.stack(columns, dim=1) * power.rsqrt()[:, None]
    expected = 2 * (jacobian.conj() @ jacobian.transpose(1, 2)).real
    scale = expected.diagonal(dim1=1, dim2=2).sqrt()
    scaled = (fit.curvature - expected).abs() / (scale[:, :, None] * scale[:, None])
    assert float(scaled.max()) < 0.02


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_polish_returns_to_the_true_pose(noise):
    batch, power, volume, rotation, shift = setting(noise)
    away = perturbed(rotation, shift, np.deg2rad(6), 4.0)
    fit = local.polish(batch, power, volume, *away, steps=20, tolerance_rad=1e-4, tolerance_a=1e-3, bound_rad=0.2, bound_a=8.0)
    angle = np.rad2deg(rotation_angle(fit.rotation.numpy(), rotation.numpy()))
    distance = (fit.shift_a - shift).norm(dim=1).numpy()
    assert np.median(angle) < (0.6 if noise == 0 else 2.0)
    assert np.median(distance) < (0.2 if noise == 0 else 0.7)
    # the true pose is not better than what was found, but for what interpolation and noise do
    assert bool((fit.score >= local.score_poses(batch, power, volume, rotation, shift) - 1e-6).double().mean() > 0.9)


def test_polish_never_lowers_the_likelihood():
    """Also from far away, where steps fail."""
    batch, power, volume, rotation, shift = setting(0.5)
    away = perturbed(rotation, shift, np.deg2rad(50), 20.0)
    before = local.score_poses(batch, power, volume, *away)
    for steps in (1, 2, 5, 12):
        fit = local.polish(batch, power, volume, *away, steps, 1e-4, 1e-3, 0.3, 10.0)
        assert bool((fit.score >= before - 1e-9).all())
        torch.testing.assert_close(fit.score, local.score_poses(batch, power, volume, fit.rotation, fit.shift_a))
        before = fit.score


def test_polish_leaves_its_input_alone_and_rotations_stay_rotations():
    batch, power, volume, rotation, shift = setting(0.3)
    kept = rotation.clone(), shift.clone()
    fit = local.polish(batch, power, volume, rotation, shift, 8, 1e-4, 1e-3, 0.2, 8.0)
    assert torch.equal(kept[0], rotation) and torch.equal(kept[1], shift)
    product = fit.rotation @ fit.rotation.transpose(1, 2)
    torch.testing.assert_close(product, torch.eye(3, dtype=product.dtype).expand_as(product), atol=1e-6, rtol=0)


def test_particles_do_not_know_of_each_other():
    """A batch of twelve gives what twelve batches of one give."""
    batch, power, volume, rotation, shift = setting(0.3)
    away = perturbed(rotation, shift, np.deg2rad(6), 4.0)
    whole = local.polish(batch, power, volume, *away, 6, 1e-4, 1e-3, 0.2, 8.0)
    for i in (0, 5):
        row = torch.tensor([i])
        alone = local.polish(batch.take(row), power[row], volume, away[0][row], away[1][row], 6, 1e-4, 1e-3, 0.2, 8.0)
        torch.testing.assert_close(alone.rotation[0], whole.rotation[i], atol=1e-8, rtol=0)
        torch.testing.assert_close(alone.shift_a[0], whole.shift_a[i], atol=1e-6, rtol=0)


def test_steps_are_cut_to_their_bounds():
    step = torch.tensor([[3.0, 0, 0, 0, 0], [0.1, 0, 0, 6, 8], [0, 0, 0, 0, 0]])
    found = local.bounded(step, 0.5, 5.0)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0, 0, 0, 0], [0.1, 0, 0, 3, 4], [0, 0, 0, 0, 0]]))


def test_missing_candidates_stay_missing():
    batch, power, volume, rotation, shift = setting(0.3)
    score = torch.zeros(COUNT, 2, dtype=torch.float64)
    score[3, 1] = -np.inf
    pair = Candidates(torch.stack([rotation, rotation], 1), torch.stack([shift, shift + 9], 1), score)
    found = local.score_candidates(batch, power, volume, pair)
    assert found.score[3, 1] == -np.inf
    torch.testing.assert_close(found.score[:, 0], local.score_poses(batch, power, volume, rotation, shift))
    assert bool((found.score[:, 0] > found.score[:, 1]).all())


def test_a_prior_has_true_derivatives_and_a_rotation_vector():
    _, _, _, rotation, shift = setting(0.3)
    away = perturbed(rotation, shift, 0.4, 3.0)
    turn = local.turn_between(rotation, away[0])
    np.testing.assert_allclose(turn.norm(dim=1), 0.4, atol=1e-9)
    torch.testing.assert_close(rotation @ rotation_vector_to_matrix(turn), away[0])
    prior = local.Prior(rotation, shift, 0.1, 2.0)
    near = perturbed(rotation, shift, 0.02, 1.0)
    nothing = local.Fit(*near, torch.zeros(COUNT).double(), torch.zeros(COUNT, 5).double(), torch.zeros(COUNT, 5, 5).double())
    fit = prior.added(nothing)
    torch.testing.assert_close(fit.score, torch.full((COUNT,), -0.5 * (0.2 ** 2 + 0.5 ** 2)).double())
    for axis in range(5):
        step = torch.zeros(COUNT, 5).double()
        step[:, axis] = 1e-5
        moved = [prior.added(local.Fit(near[0] @ rotation_vector_to_matrix(s * step[:, :3]), near[1] + s * step[:, 3:],
                                       *(getattr(nothing, n) for n in ("score", "gradient", "curvature")))).score
                 for s in (1, -1)]
        # to the order of the turn squared: a step in the image frame is not one of the rotation vector
        torch.testing.assert_close((moved[0] - moved[1]) / 2e-5, fit.gradient[:, axis], atol=1e-3, rtol=1e-2)


def test_a_strict_prior_holds_and_a_weak_one_changes_nothing():
    batch, power, volume, rotation, shift = setting(0.3)
    away = perturbed(rotation, shift, 0.05, 2.0)
    free, weak, strict = (local.polish(batch, power, volume, *away, 8, 1e-5, 1e-4, 0.2, 8.0, prior)
                          for prior in (None, local.Prior(*away, 100.0, 1e5), local.Prior(*away, 1e-4, 1e-3)))
    torch.testing.assert_close(weak.rotation, free.rotation, atol=1e-4, rtol=0)
    assert rotation_angle(strict.rotation.numpy(), away[0].numpy()).max() < 2e-3
    assert float((strict.shift_a - away[1]).norm(dim=1).max()) < 0.05
    only_angles = local.polish(batch, power, volume, *away, 8, 1e-5, 1e-4, 0.2, 8.0, local.Prior(*away, 1e-4, float("inf")))
    assert rotation_angle(only_angles.rotation.numpy(), away[0].numpy()).max() < 2e-3
    assert float((only_angles.shift_a - away[1]).norm(dim=1).min()) > 0.2
