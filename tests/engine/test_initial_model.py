"""Starting maps from particles alone: the smaller box, the samples, and a phantom found again but for its hand."""
from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import Phantom, particle_set, plain_spectra

from swiftres_plugin.engine.coarse import coarse_spectra, samples
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.initial_model import find_models, in_box
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.maths.symmetry import angular_errors, in_frame_of, symmetry_operators
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.settings import InitialModelSettings, RefineSettings, from_flat

MIRROR = np.diag([1.0, 1.0, -1.0])


def engine_for(source, settings: InitialModelSettings) -> Engine:
    compute = Compute(torch.device("cpu"), 2, 1 << 32)
    spectra = load_spectra(source, settings.preprocess, compute, SilentReporter(), Path("unused"))
    shared = RefineSettings(preprocess=settings.preprocess, compute=settings.compute)
    return Engine(coarse_spectra(spectra, settings.model.finest_resolution), compute,
                  symmetry_operators(settings.model.symmetry), shared, SilentReporter())


def median_error_deg(found: Assignment, true: Particles, symmetry: str) -> float:
    """Against the truth or its mirror image, whichever is nearer, in the frame that the group leaves free."""
    operators = symmetry_operators(symmetry)
    poses = Poses(found.image_to_volume, found.shift_a)
    errors = []
    for hand in (np.eye(3), MIRROR):
        turned = Poses(hand @ true.poses.image_to_volume @ hand, true.poses.shift_a)
        carried, _, _ = in_frame_of(poses, turned, operators)
        errors.append(np.median(angular_errors(poses, carried, operators)[0]))
    return float(np.rad2deg(min(errors)))


def found_error_deg(symmetry: str, seed: int, **choices: object) -> float:
    source = particle_set(300, noise=0.5, phantom=Phantom().symmetric(symmetry_operators(symmetry)), shift_a=4.0)
    settings = from_flat({"symmetry": symmetry, "seed": seed, "diameter": 100.0, "max_offset": 12.0,
                          "finest_resolution": 16.0, **choices}, InitialModelSettings)
    found = find_models(engine_for(source, settings), settings.model, 32)
    return median_error_deg(found.assignment, source.particles, symmetry)


def test_a_smaller_box_shows_the_same_particles():
    """Coefficients and CTFs up to the resolution are those of the large box."""
    spectra = plain_spectra(particle_set(3, box_px=48))
    small = coarse_spectra(spectra, 20.0)
    assert small.band.box_px < 48 and small.band.box_a == pytest.approx(spectra.band.box_a)
    assert torch.equal(small.values, spectra.values[:, :len(small.band)])
    for one, other in zip(small.band.frequency(), spectra.band.frequency()):
        np.testing.assert_allclose(one, other[:len(one)], rtol=1e-6)


def test_a_map_keeps_its_slices_in_the_particles_box():
    """Slices of the map written out are those of the small map: the grey scale of the particles is kept."""
    spectra = plain_spectra(particle_set(2, box_px=48))
    settings = InitialModelSettings()
    engine = Engine(coarse_spectra(spectra, 24.0), Compute(torch.device("cpu"), 1, 1 << 30), np.eye(3)[None],
                    RefineSettings(preprocess=settings.preprocess), SilentReporter())
    small = engine.spectra.band
    voxels = torch.from_numpy(Phantom(width_a=12.0).map(small.box_px, small.pixel_size_a).voxels)
    large = in_box(engine, voxels, 48)
    assert isinstance(large, Map) and large.box_px == 48 and large.pixel_size_a == pytest.approx(4.0)
    turn = torch.eye(3)[None]
    before = extract_slices(fourier_volume(voxels, 6), turn, small.up_to(6).wave_px)
    after = extract_slices(fourier_volume(torch.from_numpy(large.voxels), 6), turn, small.up_to(6).wave_px)
    np.testing.assert_allclose(after, before, atol=0.02 * float(before.abs().max()))


def test_every_particle_is_sampled_before_any_comes_twice():
    drawn = list(itertools.islice(samples(50, 20, np.random.default_rng(1)), 4))
    assert [len(rows) for rows in drawn] == [20] * 4
    assert len(np.unique(np.concatenate(drawn[:2]))) == 40 and len(np.unique(np.concatenate(drawn[2:]))) == 40
    assert all(np.all(np.diff(rows) > 0) for rows in drawn)


def test_the_phantom_is_found_from_its_particles():
    """D2, 300 particles: the median error ends far below the last grid's step of some 9 degrees; by chance it is some 50."""
    assert found_error_deg("D2", seed=2, starts=6) < 9


@pytest.mark.slow
def test_most_seeds_find_the_phantom():
    """Of four seeds all ended between 2.6 and 3.6 degrees when it was written."""
    errors = [found_error_deg("D2", seed, starts=8) for seed in range(1, 5)]
    assert sum(error < 9 for error in errors) >= 3, errors
