"""Gallery, index and search: every index gives the same answer, and the answer holds the true pose."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.data.search import Gallery
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.geometry import rotation_angle, so3_grid
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.stages.gallery import build_gallery, find_basis
from swiftres_plugin.engine.stages.index import TorchIndex, build_index, faiss_problem
from swiftres_plugin.engine.stages.search import distinct, search, shift_grid
from swiftres_plugin.errors import InputError

needs_faiss = pytest.mark.skipif(bool(faiss_problem()), reason=f"faiss cannot be used: {faiss_problem()}")
STEP_RAD, LAST_SHELL, COUNT, NOISE = np.deg2rad(18), 7, 40, 0.4


def random_vectors(count: int, length: int = 24) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(count).standard_normal((count, length), dtype=np.float32))


@needs_faiss
@pytest.mark.parametrize("recipe", ["auto", "Flat", "IVF16,Flat"])
def test_faiss_and_torch_agree(recipe):
    vectors, queries = random_vectors(2000), random_vectors(50)
    plain = TorchIndex(vectors).search(queries, 7)
    found = build_index(vectors, recipe, nprobe=16).search(queries, 7)
    torch.testing.assert_close(found[0], plain[0], atol=1e-4, rtol=1e-5)
    assert torch.equal(found[1], plain[1])


def test_blocks_change_nothing(monkeypatch):
    vectors, queries = random_vectors(300), random_vectors(17)
    whole = TorchIndex(vectors).search(queries, 5)
    monkeypatch.setattr("swiftres_plugin.engine.stages.index.TORCH_BLOCK", 1000)
    parts = TorchIndex(vectors).search(queries, 5)
    assert torch.equal(whole[1], parts[1])
    assert torch.equal((queries @ vectors.T).topk(5, dim=1).indices, whole[1])


@needs_faiss
def test_matches_that_an_index_does_not_find_are_missing():
    """Sixteen asked of one cell of four: those it lacks score -inf, and what is there is right."""
    vectors, queries = random_vectors(20), random_vectors(5)
    scores, ids = build_index(vectors, "IVF4,Flat", nprobe=1).search(queries, 16)
    missing = torch.isinf(scores)
    assert missing.any() and not missing.all() and (ids >= 0).all()
    torch.testing.assert_close(scores[~missing], (queries @ vectors.T).gather(1, ids)[~missing])


@needs_faiss
@pytest.mark.parametrize("recipe", ["Nonsense", "IVF100000,Flat"])
def test_a_recipe_that_cannot_be_built_is_named(recipe):
    with pytest.raises(InputError, match=recipe.split(",")[0]):
        build_index(random_vectors(100), recipe)


def test_shift_grid_fills_a_circle():
    grid = shift_grid(10.0, 3.0)
    assert np.array_equal(grid[0], [0, 0])
    radius = np.hypot(*grid.T)
    assert np.all(np.diff(radius) >= 0) and radius[-1] <= 11.5
    assert len(np.unique(grid, axis=0)) == len(grid)
    assert len(grid) == sum((3 * a) ** 2 + (3 * b) ** 2 <= 11.5 ** 2 for a in range(-9, 10) for b in range(-9, 10))


@pytest.fixture(scope="module")
def searched():
    """Forty noisy particles, their candidates, and the exact likelihood of every reference at every shift."""
    # with more noise the exact likelihood itself loses particles: thirty-two pixels hold little
    source = particle_set(COUNT, noise=NOISE, astigmatism_a=500.0, shift_a=3.0)
    engine = engine_over(plain_spectra(source))
    band = engine.spectra.band.up_to(LAST_SHELL)
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels), LAST_SHELL)
    rotations = so3_grid(STEP_RAD)
    batch = engine.batch(np.arange(COUNT), band)
    noise = torch.full(batch.ctf.shape, NOISE ** 2)
    basis = find_basis(volume, rotations, band, (batch.ctf ** 2 / noise).mean(0).sqrt(), 128)
    gallery = build_gallery(volume, rotations, STEP_RAD, basis, engine.compute)
    shifts = torch.from_numpy(shift_grid(8.0, 8.0)).float()
    found = search(batch, noise, torch.zeros(COUNT, 2), shifts, basis, gallery, TorchIndex(gallery.vectors), 24)
    exact = exhaustive(batch, noise, shifts, extract_slices(volume, gallery.image_to_volume, band.wave_px))
    return source.particles, gallery, shifts, found, exact


def exhaustive(batch, noise, shifts, slices) -> torch.Tensor:
    """(B, S, G) log-likelihoods, every sum in full."""
    power = (batch.ctf ** 2 / noise) @ (slices.abs() ** 2).T
    ramps = phase_ramp(batch.band.wave_px.float() / batch.band.box_a, -shifts)
    cross = [2 * ((batch.ctf * batch.images / noise * ramp) @ slices.conj().T).real for ramp in ramps]
    return torch.stack([c - power for c in cross], dim=1)


def test_best_of_the_exhaustive_search_is_found(searched):
    _, gallery, _, found, exact = searched
    best = exact.flatten(1).argmax(1)
    rotation = gallery.image_to_volume[best % len(gallery.vectors)].numpy()
    angle = rotation_angle(found.image_to_volume.numpy(), rotation[:, None])
    assert np.mean(angle.min(1) <= 1.5 * STEP_RAD) == 1.0
    # where the approximate score differs it takes a neighbour; the first candidate is nearly always that of the exact one
    assert np.mean(angle[:, 0] <= 1.5 * STEP_RAD) >= 0.9


def test_scores_of_candidates_are_nearly_exact(searched):
    *_, found, exact = searched
    best = exact.flatten(1).amax(1)
    assert float((found.score[:, 0] - best).abs().median()) < 0.15 * float(exact.std())


def test_true_poses_are_within_the_grid_step(searched):
    particles, gallery, _, found, exact = searched
    angle = rotation_angle(found.image_to_volume.numpy(), particles.poses.image_to_volume[:, None])
    distance = np.linalg.norm(found.shift_a.numpy() - particles.poses.shift_a[:, None], axis=-1)
    assert np.mean(((angle < 1.2 * STEP_RAD) & (distance < 9)).any(1)) >= 0.95
    # at this resolution five spots look alike from several sides: on the grid the exact score also errs for four in ten
    best = gallery.image_to_volume[exact.flatten(1).argmax(1) % len(gallery.vectors)].numpy()
    exact_share = np.mean(rotation_angle(best, particles.poses.image_to_volume) < 1.2 * STEP_RAD)
    assert np.mean(angle[:, 0] < 1.2 * STEP_RAD) >= exact_share - 0.1


def test_candidates_are_distinct_and_sorted(searched):
    found = searched[3]
    for rotations, scores in zip(found.image_to_volume.numpy(), found.score.numpy()):
        finite = np.isfinite(scores)
        assert np.all(np.diff(scores[finite]) <= 0) and np.all(~np.diff(finite.astype(int)).clip(0).astype(bool))
        angle = rotation_angle(rotations[finite][:, None], rotations[finite][None]) + 9 * np.eye(finite.sum())
        assert angle.min() > 1.49 * STEP_RAD


def test_missing_candidates_have_no_score():
    """Two references next to each other are one candidate."""
    near = so3_grid(0.05)[:2].astype(np.float32)
    gallery = Gallery(torch.from_numpy(near), torch.zeros(2, 3), 0.2)
    found = distinct(gallery, torch.zeros(1, 1, 2), torch.tensor([[3.0, 5.0]]), torch.tensor([[0, 1]]), 3)
    assert found.score.tolist() == [[5.0, -np.inf, -np.inf]]
    torch.testing.assert_close(found.image_to_volume[0, 0], torch.from_numpy(near[1]))


def test_best_shift_comes_with_its_candidate():
    far = so3_grid(1.0)[[0, 20]].astype(np.float32)
    gallery = Gallery(torch.from_numpy(far), torch.zeros(2, 3), 0.1)
    moves = torch.tensor([[[0.0, 0], [7, -7]]])
    found = distinct(gallery, moves, torch.tensor([[1.0, 2, 9, 4]]), torch.tensor([[0, 1, 1, 0]]), 2)
    assert found.score.tolist() == [[9.0, 4.0]]
    assert found.shift_a.tolist() == [[[7.0, -7], [7, -7]]]


def test_more_components_explain_more():
    source = particle_set(2)
    band = plain_spectra(source).band.up_to(LAST_SHELL)
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels), LAST_SHELL)
    explained = [find_basis(volume, so3_grid(0.5), band, torch.ones(len(band)), d).explained for d in (4, 16, 64, 4096)]
    assert explained == sorted(explained)
    assert explained[-1] == pytest.approx(1)
    assert explained[2] > 0.99


def test_components_are_orthonormal_and_few_keep_the_products():
    source = particle_set(2)
    band = plain_spectra(source).band.up_to(LAST_SHELL)
    volume = fourier_volume(torch.from_numpy(Phantom().map().voxels), LAST_SHELL)
    basis = find_basis(volume, so3_grid(0.5), band, torch.ones(len(band)), 64)
    torch.testing.assert_close(basis.components.T @ basis.components, torch.eye(64), atol=1e-5, rtol=0)
    slices = extract_slices(volume, torch.from_numpy(so3_grid(0.7)[::9]).float(), band.wave_px)
    exact = (slices @ slices.conj().T).real
    short = basis.of_references(slices)[:, :64]
    assert float((short @ short.T - exact).norm() / exact.norm()) < 0.01
