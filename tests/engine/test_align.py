"""Between search and reconstruction: candidates that meet, poses drawn from the posterior, the grey scale of the start."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from synthetic import Phantom, assignment_of, engine_over, particle_set, plain_spectra, random_poses

from swiftres_plugin.engine.align import (
    NEVER,
    align_half,
    asked_first,
    decided,
    residual_noise,
    settled,
    to_search,
    without_own_support,
    without_twins,
)
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Poses
from swiftres_plugin.engine.data.search import Assignment, Candidates
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.maths.geometry import direction_grid, rotation_angle
from swiftres_plugin.engine.maths.slices import fourier_volume
from swiftres_plugin.engine.maths.symmetry import in_asymmetric_unit, symmetry_operators
from swiftres_plugin.engine.refine import input_poses, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.searching import check_gallery, coarsest_step
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.engine.stages.reconstruct import WIDEST_RAD, drawn_poses
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import PreprocessSettings


def test_twins_leave_one_candidate():
    """Of three candidates the second stands 1 degree from the first and goes; the third, 20 degrees off, stays."""
    turns = Rotation.from_euler("z", [0, 1, 20], degrees=True).as_matrix()
    found = Candidates(torch.from_numpy(turns).float()[None], torch.zeros((1, 3, 2)), torch.tensor([[3.0, 2.0, 1.0]]))
    kept = without_twins(found, angle_rad=np.radians(3), shift_a=1.0)
    assert kept.score[0].tolist() == [3.0, -np.inf, 1.0]
    apart = Candidates(found.image_to_volume, torch.tensor([[[0.0, 0], [5, 0], [0, 0]]]), found.score)
    assert torch.isfinite(without_twins(apart, np.radians(3), 1.0).score).all()


@pytest.mark.parametrize("group", ["C1", "C4"])
def test_the_pose_a_map_was_made_with_loses_what_the_map_favours_it_by(group):
    """The last pose scores 5 better than another, of which 6 are the map's favour: the other is taken. At a mate too."""
    operators = symmetry_operators(group)
    last, other = torch.from_numpy(Rotation.from_euler("xyz", [[10, 20, 30], [60, 0, 0]], degrees=True).as_matrix()).float()
    mate = torch.from_numpy(operators[-1]).float() @ last
    found = Candidates(torch.stack([mate, other])[None], torch.zeros((1, 2, 2)), torch.tensor([[25.0, 20.0]]))
    before = Candidates(last[None, None], torch.zeros((1, 1, 2)), torch.zeros((1, 1)))
    kept = without_own_support(found, before, 6.0, operators, (np.radians(3), 2.0))
    assert kept.score[0].tolist() == [20.0, 19.0] and torch.equal(kept.image_to_volume[0, 0], other)
    elsewhere = Candidates(before.image_to_volume, before.shift_a + 5.0, before.score)
    assert without_own_support(found, elsewhere, 6.0, operators, (np.radians(3), 2.0)).score[0].tolist() == [25.0, 20.0]


def test_a_share_of_every_optics_group_is_searched_again_the_worst_fitting():
    source = particle_set(40, groups=2)
    engine = engine_over(plain_spectra(source))
    last = assignment_of(source.particles.poses)
    last.log_likelihood[1::2] += 1000  # the second group's particles fit better, all of them
    rows = np.arange(4, 40)
    anew = to_search(engine, rows, plan_of(share=0.25), last)
    for group in (0, 1):
        likelihood = last.log_likelihood[rows[rows % 2 == group]]
        chosen = anew[rows % 2 == group]
        assert chosen.sum() == 5 and likelihood[chosen].max() < likelihood[~chosen].min()
    trust = (np.arange(40) % 4 > 1).astype(float)  # half of them
    anew = to_search(engine, rows, replace(plan_of(share=0.25), trust=trust), last)
    assert anew.sum() == 6 and trust[rows][anew].all()
    assert to_search(engine, rows, plan_of(), last).all()
    assert not to_search(engine, rows, plan_of(exhaustive=False), last).any()


def test_settled_particles_are_not_searched_again():
    """But for those that fit worst, in the end."""
    source = particle_set(40)
    engine, last = engine_over(plain_spectra(source)), assignment_of(source.particles.poses)
    last.log_likelihood[:] = np.arange(40)
    plan, rows = replace(plan_of(), settled=np.arange(40) % 2 == 0), np.arange(40)
    assert np.array_equal(to_search(engine, rows, plan, last), ~plan.settled)
    assert np.flatnonzero(to_search(engine, rows, replace(plan, share=0.25), last)).tolist() == list(range(10))


def test_a_particle_settles_that_is_sure_to_stand_where_it_stood():
    """Up to a mate; not one that turned, has another place nearly as likely, or changed its class. One that stood nowhere
    settles where it is sure."""
    before = assignment_of(random_poses(6))
    operators = symmetry_operators("C4")
    turned = before.image_to_volume.copy()
    turned[1] = operators[2] @ turned[1]
    turned[[2, 5]] = turned[[2, 5]] @ Rotation.from_euler("x", 20, degrees=True).as_matrix()
    before.log_likelihood[5] = NEVER
    probability, classes = np.ones(6), before.class_id.copy()
    probability[3], classes[4] = 0.99, 1 - classes[4]
    after = replace(before, image_to_volume=turned, max_probability=probability, class_id=classes)
    assert settled(before, after, operators, np.radians(10)).tolist() == [True, True, False, False, False, True]


def test_the_others_are_asked_where_the_worst_of_a_share_move():
    """Of 2,000 particles, 500 may be searched, and 100 are asked first."""
    source = particle_set(2000)
    engine, last = engine_over(plain_spectra(source)), falling_behind(source.particles.poses)
    plan, rows = plan_of(share=0.25), np.arange(2000)
    anew = to_search(engine, rows, plan, last)
    first = asked_first(engine, rows, anew, plan, last)
    assert np.flatnonzero(anew).tolist() == list(range(500)) and np.flatnonzero(first).tolist() == list(range(100))
    assert np.array_equal(asked_first(engine, rows[:1900], anew[:1900], plan, last), anew[:1900])  # too few to tell
    whole = plan_of()
    assert asked_first(engine, rows, to_search(engine, rows, whole, last), whole, last).all()


@pytest.mark.parametrize("lost, searched", [(0, 100), (4, 500)])
def test_a_last_search_ends_early_where_the_worst_stay(lost, searched):
    """Particles that stand right stay; where 4 of the worst 100 were turned away the others are searched too."""
    source = particle_set(2000, noise=0.1, shift_a=2.0)
    engine, poses = engine_over(plain_spectra(source), 2), source.particles.poses
    last = falling_behind(poses)
    turned = poses.image_to_volume.copy()
    turned[:lost] = turned[:lost] @ Rotation.from_euler("x", 100, degrees=True).as_matrix()
    noise = np.full((1, engine.spectra.band.last_shell + 1), 0.1 ** 2, dtype=np.float32)
    found = align_half(engine, torch.from_numpy(Phantom().map().voxels.copy()), noise, np.arange(2000), plan_of(share=0.25),
                       replace(last, image_to_volume=turned), 60.0, "")
    off = Rotation.from_matrix(poses.image_to_volume.transpose(0, 2, 1) @ found.image_to_volume).magnitude()
    assert np.degrees(off).max() < 5 and sum(recall.searched for recall in engine.recalls) == searched


def falling_behind(poses: Poses) -> Assignment:
    """Poses of one class, of which the first fit worst."""
    return replace(assignment_of(poses), log_likelihood=np.arange(float(len(poses))), class_id=np.zeros(len(poses), np.int64))


def plan_of(exhaustive: bool = True, share: float = 1.0) -> IterationPlan:
    return IterationPlan(2, 8, exhaustive, 6, 0.3, 4.0, 8.0, share)


def test_misplaced_particles_that_fit_worst_are_found_again():
    """A quarter of the particles are turned away and score lowest: the search of that quarter brings all back."""
    phantom, source = Phantom(), particle_set(60, noise=0.1, shift_a=2.0)
    engine = engine_over(plain_spectra(source), 2)
    poses = source.particles.poses
    last = assignment_of(poses)
    lost = np.arange(0, 60, 4)
    last.log_likelihood[lost] = -1.0
    turned = poses.image_to_volume.copy()
    turned[lost] = turned[lost] @ Rotation.from_euler("x", 100, degrees=True).as_matrix()
    last = replace(last, image_to_volume=turned)
    voxels = torch.from_numpy(phantom.map().voxels.copy())
    noise = np.full((1, engine.spectra.band.last_shell + 1), 0.1 ** 2, dtype=np.float32)
    found = align_half(engine, voxels, noise, np.arange(60), plan_of(share=0.25), last, 60.0, "")
    off = Rotation.from_matrix(poses.image_to_volume.transpose(0, 2, 1) @ found.image_to_volume).magnitude()
    assert np.degrees(off).max() < 5


def test_draws_have_the_covariance_they_are_given():
    """20,000 draws: angles and shifts spread as the matrix says, to 3 % (the error of a deviation from as many is 0.5 %)."""
    generator = torch.Generator().manual_seed(1)
    mixing = 0.01 * torch.randn((5, 5), generator=generator, dtype=torch.float64)
    covariance = mixing @ mixing.T
    count = 20_000
    base = torch.from_numpy(Rotation.random(random_state=2).as_matrix()).float()
    rotation, shift = drawn_poses(base.expand(count, 3, 3), torch.zeros((count, 2)), covariance.expand(count, 5, 5),
                                  torch.randn((count, 5), generator=generator, dtype=torch.float64))
    turns = Rotation.from_matrix((base.T @ rotation).numpy()).as_rotvec()
    spread = np.cov(np.concatenate([turns, shift.numpy()], axis=1).T)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs((spread - covariance.numpy()) / scale).max() < 0.03


def test_draws_go_no_farther_than_the_curvature_holds():
    wide = torch.eye(5, dtype=torch.float64)[None] * 4.0
    rotation, _ = drawn_poses(torch.eye(3)[None], torch.zeros((1, 2)), wide, torch.ones((1, 5), dtype=torch.float64))
    turned = Rotation.from_matrix(rotation[0].double().numpy()).magnitude()
    assert turned == pytest.approx(WIDEST_RAD, rel=1e-3)


def started(factor: float, invert: bool = False):
    """Warnings and the reference of the start, with the phantom's map times `factor`."""
    source = particle_set(120, noise=0.3)
    spectra = plain_spectra(source)
    engine = engine_over(spectra, initial_resolution=25.0)
    warnings: list[str] = []
    engine.reporter.warning = warnings.append  # type: ignore[method-assign]
    voxels = Phantom().map().voxels * factor
    state = start(engine, [Map(-voxels if invert else voxels, source.particles.pixel_size_a)], None)
    return state.classes[0].references[0].numpy(), warnings


def test_grey_scale_of_the_start_does_not_matter():
    """Maps of scales ten thousand apart start the refinement from the same reference, to a per cent."""
    small, large = started(0.01)[0], started(100.0)[0]
    assert np.abs(small - large).max() < 0.01 * np.abs(large).max()


def test_inverted_contrast_is_told():
    assert not started(1.0)[1]
    assert any("--invert-contrast" in text for text in started(1.0, invert=True)[1])


@pytest.mark.parametrize("group", ["C1", "C13", "D7", "T", "O", "I1", "I2", "I3", "I4"])
def test_the_coarsest_grid_has_directions_in_every_asymmetric_unit(group):
    operators = symmetry_operators(group)
    directions = direction_grid(min(0.775, coarsest_step(len(operators))))
    assert in_asymmetric_unit(directions, operators).sum() >= 3


def test_a_grid_beyond_the_memory_is_refused():
    compute = Compute(torch.device("cpu"), 1, 1 << 30)
    check_gallery(100_000, 150, compute)
    with pytest.raises(InputError, match="10,000,000 references, 12.0 GB; expected at most 0.5 GB"):
        check_gallery(10_000_000, 150, compute)


def fitted(power: float):
    """Three particles decided on at their true poses, the second one's noise of the given power."""
    source = particle_set(3, noise=0.1)
    batch = engine_over(plain_spectra(source)).batch(np.arange(3), plain_spectra(source).band)
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels), batch.band.last_shell)
    rotation, shift = (torch.from_numpy(a).float() for a in (
        source.particles.poses.image_to_volume, source.particles.poses.shift_a))
    found = Candidates(rotation[:, None], shift[:, None], torch.zeros((3, 1)))
    noise = torch.ones(batch.ctf.shape)
    noise[1] = power
    return source, batch, noise, volume, found


def test_a_particle_without_a_likelihood_has_no_pose_and_harms_no_other():
    source, batch, noise, volume, found = fitted(np.nan)
    poses = decided(batch, noise, volume, found, np.ones(3))
    np.testing.assert_allclose(poses.image_to_volume[[0, 2]], source.particles.poses.image_to_volume[[0, 2]], atol=1e-6)
    np.testing.assert_array_equal(poses.image_to_volume[1], np.eye(3))
    assert poses.max_probability.tolist() == [1, 0, 1]
    assert all(np.isfinite(getattr(poses, name)).all() for name in poses.__slots__)


def test_posterior_widths_are_those_of_the_errors(tmp_path):
    """Against the true map, of windowed images, whose coefficients are not independent; 300 particles tell it to 4 %."""
    source, rows = particle_set(300, noise=0.7, shift_a=2.0), np.arange(300)
    spectra = load_spectra(source, PreprocessSettings(), Compute(torch.device("cpu"), 1, 1 << 30), SilentReporter(), tmp_path)
    engine, truth = engine_over(spectra), input_poses(source.particles)
    reference = torch.from_numpy(Phantom().map().voxels) / 0.7
    noise = residual_noise(engine, [reference], rows, truth)
    plan = IterationPlan(1, spectra.band.last_shell, False, 6, 0.2, 1.0, 1.0)
    found = align_half(engine, reference, noise, rows, plan, truth, 60.0, "")
    turn = rotation_angle(found.image_to_volume, source.particles.poses.image_to_volume)
    move = np.linalg.norm(found.shift_a - source.particles.poses.shift_a, axis=1)
    for error, width in ((turn, found.angle_spread_rad), (move, found.shift_spread_a)):
        assert 0.9 < np.sqrt(np.mean(error ** 2) / np.mean(width ** 2)) < 1.15  # 1.35 if coefficients counted as independent


def test_steps_that_are_no_numbers_are_not_taken():
    source, batch, noise, volume, found = fitted(np.nan)
    fit = local.polish(batch, noise, volume, found.image_to_volume[:, 0], found.shift_a[:, 0], 4, 1e-3, 0.01, 0.2, 3.0)
    assert torch.equal(fit.rotation[1], found.image_to_volume[1, 0])
    assert torch.isfinite(fit.rotation).all() and torch.isfinite(fit.shift_a).all()


def test_covariance_is_bounded_where_the_image_says_nothing():
    _, batch, noise, volume, found = fitted(1.0)
    empty = local.evaluate(batch, noise, 0 * volume, found.image_to_volume[:, 0], found.shift_a[:, 0])
    torch.testing.assert_close(local.covariance(empty), local.WIDEST_VARIANCE * torch.eye(5).double().expand(3, 5, 5))
