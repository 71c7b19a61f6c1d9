"""Between search and reconstruction: candidates that meet, poses drawn from the posterior, the grey scale of the start."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.align import without_twins
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.search import Candidates
from swiftres_plugin.engine.refine import start
from swiftres_plugin.engine.stages.reconstruct import WIDEST_RAD, drawn_poses


def test_twins_leave_one_candidate():
    """Of three candidates the second stands 1 degree from the first and goes; the third, 20 degrees off, stays."""
    turns = Rotation.from_euler("z", [0, 1, 20], degrees=True).as_matrix()
    found = Candidates(torch.from_numpy(turns).float()[None], torch.zeros((1, 3, 2)), torch.tensor([[3.0, 2.0, 1.0]]))
    kept = without_twins(found, angle_rad=np.radians(3), shift_a=1.0)
    assert kept.score[0].tolist() == [3.0, -np.inf, 1.0]
    apart = Candidates(found.image_to_volume, torch.tensor([[[0.0, 0], [5, 0], [0, 0]]]), found.score)
    assert torch.isfinite(without_twins(apart, np.radians(3), 1.0).score).all()


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
