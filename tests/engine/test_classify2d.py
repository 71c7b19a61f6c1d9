"""2D classes of particles of a few known views: found apart, averaged as they are, and never all in one."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from other_device import CPU, OTHER, other_device
from scipy.spatial.transform import Rotation
from synthetic import Phantom, described, images_of

from swiftres_plugin.engine.class_averages import by_size, conclude
from swiftres_plugin.engine.class_search import class_count, find_classes, rings_at, templates_of
from swiftres_plugin.engine.coarse import coarse_spectra
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.classes import ClassAverages, ClassSearch, Placements
from swiftres_plugin.engine.data.particles import ArraySource, Poses
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.polar import polar_band
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.averages import average_images, half_correlation, resolutions_a, signal_to_noise
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.settings import Classify2dSettings, ClassSettings, RefineSettings, from_flat

VIEWS, EACH = 3, 50


def set_of_views(noise: float, groups: int = 1) -> tuple[ArraySource, np.ndarray]:
    """Particles of three views at random in-plane rotations and shifts, and the view of each."""
    random = np.random.default_rng(4)
    view = np.arange(VIEWS * EACH) % VIEWS
    directions = Rotation.from_euler("ZY", [[10, 20], [80, 95], [200, 60]], degrees=True).as_matrix()
    turns = Rotation.from_euler("Z", random.uniform(0, 2 * np.pi, len(view))).as_matrix()
    particles = described(Poses(directions[view] @ turns, random.normal(size=(len(view), 2)) * 4), groups=groups)
    return ArraySource(particles, images_of(Phantom(), particles, noise)), view


def engines(source: ArraySource, settings: Classify2dSettings, workers: int = 2,
            device: torch.device = CPU) -> tuple[Engine, Engine]:
    """For the search, in its small box, and for the averages."""
    compute = Compute(device, workers, 1 << 32)
    spectra = load_spectra(source, settings.preprocess, compute, SilentReporter(), Path("unused"))
    shared = RefineSettings(preprocess=settings.preprocess, compute=settings.compute)
    whole = Engine(spectra, compute, np.eye(3)[None], shared, SilentReporter())
    return replace(whole, spectra=coarse_spectra(spectra, settings.classification.finest_resolution)), whole


def classified(source: ArraySource, workers: int = 2, device: torch.device = CPU,
               **choices) -> tuple[ClassAverages, Placements]:
    settings = from_flat({"classes": 5, "diameter": 100.0, "max_offset": 10.0, "coarsest_resolution": 40.0, "steps": 25,
                          "search_resolution": 16.0, "finest_resolution": 14.0, "batch": 60, "passes": 2, **choices},
                         Classify2dSettings)
    engine, whole = engines(source, settings, workers, device)
    search = find_classes(engine, settings.classification)
    return conclude(engine, whole, search, settings.classification, np.arange(len(source.images)) % 2)


@pytest.fixture(scope="module")
def found():
    source, view = set_of_views(noise=1.0, groups=2)
    return source, view, *classified(source)


def test_views_are_told_apart(found):
    """Each class holds one view, and no class all particles."""
    _, view, averages, placements = found
    table = np.zeros((len(averages), VIEWS), int)
    np.add.at(table, (placements.class_id, view), 1)
    assert table.max(1).sum() / len(view) > 0.95, table
    assert averages.size.max() < 0.6 * len(view)
    assert averages.size.tolist() == sorted(averages.size, reverse=True)
    np.testing.assert_array_equal(table.sum(1), averages.size)


def test_particles_of_a_class_are_turned_and_moved_alike(found):
    """Within a class the true and the found rotation differ by a constant, and the centres agree after it."""
    source, view, averages, placements = found
    true = source.particles.poses
    members = np.flatnonzero((placements.class_id == 0) & (view == np.bincount(view[placements.class_id == 0]).argmax()))
    in_plane = Rotation.from_matrix(true.image_to_volume[members]).as_euler("ZYZ")[:, 2]
    turn = np.exp(1j * (placements.psi_rad[members] - in_plane))
    assert np.abs(turn.mean()) > 0.98
    centre = placements.shift_a[members] - true.shift_a[members]
    c, s = np.cos(placements.psi_rad[members]), np.sin(placements.psi_rad[members])
    common = np.stack([c * centre[:, 0] - s * centre[:, 1], s * centre[:, 0] + c * centre[:, 1]], axis=1)
    assert np.median(np.linalg.norm(common - np.median(common, axis=0), axis=1)) < 2.0


def test_an_average_is_the_projection_of_its_view(found):
    source, view, averages, placements = found
    members = np.flatnonzero(placements.class_id == 0)
    best = members[np.argmax(placements.log_likelihood[members])]
    true = source.particles.poses
    psi = placements.psi_rad[best]
    unturned = Rotation.from_euler("Z", -psi).as_matrix()
    rest = placements.shift_a[best] - true.shift_a[best]
    offset = np.array([np.cos(psi) * rest[0] - np.sin(psi) * rest[1], np.sin(psi) * rest[0] + np.cos(psi) * rest[1]])
    projection = Phantom().projections(Poses((true.image_to_volume[best] @ unturned)[None], -offset[None]))[0]
    axis = np.arange(32) - 16
    inside = np.hypot(axis[:, None], axis[None]) < 12
    assert np.corrcoef(averages.images[0][inside], projection[inside])[0, 1] > 0.93


def test_figures_of_the_classes_make_sense(found):
    _, _, averages, placements = found
    assert 8.0 <= averages.resolution_a[0] < 20.0
    assert 0 < np.rad2deg(averages.rotation_error_rad[0]) < 10 and 0 < averages.shift_error_a[0] < 4
    assert ((placements.max_probability > 0.19) & (placements.max_probability <= 1)).all()
    assert np.isfinite(placements.log_likelihood).all()


def test_one_worker_finds_what_two_find(found):
    source, _, averages, placements = found
    again, places = classified(source, workers=1)
    assert (places.class_id == placements.class_id).mean() > 0.97
    np.testing.assert_allclose(again.size, averages.size, atol=4)


def test_a_classification_stays_on_its_device():
    """No operation mixes devices (other_device.py), and the other device finds what the processor finds."""
    source, _ = set_of_views(noise=0.5, groups=2)
    source = ArraySource(source.particles.take(np.arange(30)), source.images[:30])
    few = {"classes": 3, "steps": 5, "batch": 20, "passes": 1}
    expected, places = classified(source, workers=1, **few)
    with other_device():
        averages, found = classified(source, workers=1, device=OTHER, **few)
    assert (found.class_id == places.class_id).mean() > 0.9
    np.testing.assert_allclose(averages.size, expected.size, atol=3)


def test_crowded_classes_pay_at_first_and_not_at_last():
    source, _ = set_of_views(noise=1.0)
    settings = from_flat({"classes": 5, "finest_resolution": 14.0}, Classify2dSettings)
    engine, _ = engines(source, settings)
    band = polar_band(32, 4.0, 3)
    share = np.array([0.8, 0.05, 0.05, 0.05, 0.05])
    search = ClassSearch(*(torch.zeros(5, 1, 1) for _ in range(2)), torch.zeros(5, len(band)), np.ones((1, 17)), share)
    early, late = (templates_of(engine, search, band, settings.classification, progress).log_prior for progress in (0.0, 0.9))
    assert float(early[1] - early[0]) == pytest.approx(np.log(16), rel=1e-4)
    np.testing.assert_allclose(late, -np.log(5), rtol=1e-5)
    rings = [rings_at(engine, settings.classification, progress) for progress in (0.0, 0.5, 1.0)]
    assert rings[0] == 3 and rings[2] == 6 and rings[0] <= rings[1] <= rings[2]


def test_the_number_of_classes_follows_the_particles():
    assert [class_count(ClassSettings(), n) for n in (50, 400, 10 ** 6)] == [5, 10, 50]
    assert class_count(ClassSettings(classes=7), 10 ** 6) == 7


def test_correlation_of_halves_and_its_resolution():
    """Halves with a common image: 2 c / (1 - c) is the ratio of the powers of signal and noise in their mean."""
    draw = torch.Generator().manual_seed(5)
    signal = torch.randn(40, 1, 32, 32, generator=draw)
    halves = signal + torch.randn(40, 2, 32, 32, generator=draw)
    correlation = half_correlation(halves, torch.ones(32, 32))
    assert float(correlation[:, 1:16].mean()) == pytest.approx(0.5, abs=0.03)
    assert float(signal_to_noise(correlation[:, 1:16].mean(0, keepdim=True)).mean()) == pytest.approx(2.0, rel=0.15)
    steep = torch.tensor([[1.0] * 9 + [0.0] * 8, [0.0] * 17])
    found = resolutions_a(steep, polar_band(32, 4.0, 15), 0.143)
    assert float(found[0]) == pytest.approx(128 / 9) and float(found[1]) == np.inf


def test_an_empty_class_has_an_empty_average():
    assert not average_images(torch.zeros(1, 3, 67, 34), 32).any()


def test_classes_are_numbered_by_size():
    size = np.array([2, 5, 3])
    images = np.arange(3.0)[:, None, None] * np.ones((3, 4, 4))
    averages = ClassAverages(images, 1.0, size, *(np.arange(3.0) for _ in range(4)))
    class_id = np.repeat([0, 1, 2], size)
    placements = Placements(class_id, *(np.zeros(10) for _ in range(5)))
    sorted_averages, sorted_placements = by_size(averages, placements)
    assert sorted_averages.size.tolist() == [5, 3, 2] and sorted_averages.images[:, 0, 0].tolist() == [1, 2, 0]
    assert np.bincount(sorted_placements.class_id).tolist() == [5, 3, 2]
    assert sorted_placements.class_id[0] == 2
