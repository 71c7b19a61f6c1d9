"""Several starting maps: particles come to the class that made them, and every class has its files."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import (
    PLACES_A,
    Phantom,
    assignment_of,
    engine_over,
    particle_set,
    plain_spectra,
    random_poses,
    write_data_set,
    write_volume,
)

from swiftres_plugin import layout
from swiftres_plugin.engine.align import classified, residual_noise
from swiftres_plugin.engine.checks import check_different
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.data.state import IterationRecord
from swiftres_plugin.engine.io.mrc import read_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths.geometry import rotation_angle
from swiftres_plugin.engine.refine import refine, start, warn_of_recall
from swiftres_plugin.errors import InputError

MOVED_A = PLACES_A + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [-34, 10, 22], [0, 0, 0]])  # one Gaussian of five
PHANTOMS = (Phantom(), Phantom(places_a=MOVED_A))
COUNT = 160
OPTIONS = ["--initial-resolution", "25", "--search-resolution", "16", "--max-shift", "14", "--diameter", "110",
           "--threads", "2", "--device", "cpu", "--candidates", "8"]


def mixture(count: int = COUNT, noise: float = 0.3) -> tuple[ArraySource, np.ndarray]:
    """Particles of both phantoms, two of three from the first, and which made each (N,)."""
    sources = [particle_set(count, noise, phantom) for phantom in PHANTOMS]
    truth = (np.arange(count) % 3 == 2).astype(np.int64)
    images = np.where(truth[:, None, None] == 0, sources[0].images, sources[1].images)
    return replace(sources[0], images=images), truth


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    source, truth = mixture()
    write_data_set(folder, source, with_poses=False)
    for number, phantom in enumerate(PHANTOMS, 1):
        write_volume(folder / f"map{number}.mrc", number * phantom.map().voxels)  # of different grey scales
    return folder, truth


def run(folder, output, *more: str) -> int:
    return main(["refine", "--particles", str(folder / "particles.star"), "--reference", str(folder / "map1.mrc"),
                 "--reference", str(folder / "map2.mrc"), "--output", str(output), *OPTIONS, *more])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    assert run(data[0], output, "--iterations", "3") == 0
    return output


def test_particles_come_to_the_class_that_made_them(data, finished):
    found = read_particles(finished / layout.PARTICLES).scores["class_id"]
    assert np.mean(found == data[1]) >= 0.9


def test_each_class_has_its_own_map(finished):
    """Correlation inside the mask is highest with the phantom whose map was given in that place."""
    truths = [phantom.map().voxels for phantom in PHANTOMS]
    for number in (1, 2):
        density = read_map(finished / layout.map_name(number)).voxels
        alike = [np.corrcoef(density.ravel(), truth.ravel())[0, 1] for truth in truths]
        assert int(np.argmax(alike)) == number - 1 and alike[number - 1] > 0.9, alike


def test_every_class_has_every_file_and_figure(data, finished):
    for number in (1, 2):
        for name in (layout.map_name(number), layout.half_name(1, number), layout.half_name(2, number),
                     layout.fsc_name(number), layout.mask_name(number)):
            assert (finished / name).stat().st_size > 0
    told = json.loads((finished / layout.RUN).read_text())
    sizes = np.bincount(read_particles(finished / layout.PARTICLES).scores["class_id"]).tolist()
    assert told["class_sizes"] == told["iterations"][-1]["class_sizes"] == sizes
    assert told["resolution_a"] == min(told["class_resolution_a"])
    searches = [r for r in told["iterations"] if r["exhaustive"]]
    assert searches[0]["recall_particles"] > 0 and all(r["index"] for r in searches)
    assert all(r["recall"] > 0.7 for r in searches if r["recall_particles"])
    assert told["iterations"][0]["class_changes"] is None and 0 <= told["iterations"][-1]["class_changes"] < 0.1


def test_a_run_of_classes_goes_on_to_the_same_end(data, finished, tmp_path):
    """To the rounding of angles in files and of sums in another order."""
    assert run(data[0], tmp_path / "run", "--iterations", "2") == 0
    assert main(["refine", "--resume", str(tmp_path / "run"), "--iterations", "3"]) == 0
    one, two = (read_particles(r / layout.PARTICLES) for r in (finished, tmp_path / "run"))
    np.testing.assert_array_equal(one.scores["class_id"], two.scores["class_id"])
    np.testing.assert_allclose(one.poses.image_to_volume, two.poses.image_to_volume, atol=1e-4)
    for number in (1, 2):
        first, second = (read_map(r / layout.map_name(number)).voxels for r in (finished, tmp_path / "run"))
        np.testing.assert_allclose(first, second, atol=1e-3 * np.abs(first).max())


def test_the_likeliest_class_is_taken_and_shares_the_probability():
    first, second = (assignment_of(random_poses(3, seed), seed) for seed in (1, 2))
    first = replace(first, log_likelihood=np.array([5.0, 0, 700]), max_probability=np.ones(3))
    second = replace(second, log_likelihood=np.array([5.0 - np.log(3), 1000, 699]), max_probability=np.full(3, 0.5))
    found = classified([first, second], np.ones(3))
    assert found.class_id.tolist() == [0, 1, 0] and found.class_id.dtype == np.int64
    np.testing.assert_allclose(found.max_probability, [0.75, 0.5, 1 / (1 + np.exp(-1))])
    np.testing.assert_array_equal(found.shift_a, [first.shift_a[0], second.shift_a[1], first.shift_a[2]])


def test_noise_is_what_the_own_class_leaves():
    """Without noise the right classes leave less than a hundredth of what the wrong ones do."""
    source, truth = mixture(24, noise=0.0)
    engine = engine_over(plain_spectra(source))
    references = [torch.from_numpy(phantom.map().voxels) for phantom in PHANTOMS]
    poses = replace(assignment_of(source.particles.poses), class_id=truth)
    rows = np.arange(24)
    right = residual_noise(engine, references, rows, poses)
    wrong = residual_noise(engine, references[::-1], rows, poses)
    assert right[:, 1:8].sum() < 0.01 * wrong[:, 1:8].sum()


def test_an_empty_class_keeps_its_map_and_is_told():
    """One particle made all images; the other starting map is of something else, and no image is likelier there."""
    source = particle_set(60, noise=0.2)
    settings = {"initial_resolution": 25.0, "max_shift": 14.0, "diameter": 100.0, "iterations": 2, "candidates": 8}
    engine = engine_over(plain_spectra(source), **settings)
    warnings: list[str] = []
    engine.reporter.warning = warnings.append  # type: ignore[method-assign]
    blob = Phantom(places_a=np.array([[0.0, 0, 0]]), weights=np.ones(1), width_a=9.0)
    begun = start(engine, [Phantom().map(), blob.map()], None)
    for state in refine(engine, begun):
        full, empty = state.classes
        assert state.history[-1].class_sizes == (60, 0)
        assert torch.equal(empty.references[0], begun.classes[1].references[0])
        assert np.isfinite(empty.combined).all() and empty.fsc.resolution_a() > 128 / 6
        assert state.last_shell == full.last_shell and state.history[-1].resolution_a == full.resolution_a
    assert any("Class 2" in text for text in warnings) and not any("Class 1" in text for text in warnings)


def test_a_search_as_the_thesis_did_it_leaves_poses_on_the_grid():
    """Wiener-corrected particles by cosine, every coefficient, no likelihood after it: most within 1.5 steps of the grid."""
    source = particle_set(60, noise=0.2)
    settings = {"initial_resolution": 25.0, "max_shift": 14.0, "diameter": 100.0, "iterations": 1, "metric": "cosine",
                "wiener": True, "rerank": False, "recipe": "exact"}
    engine = engine_over(plain_spectra(source), **settings)
    state = list(refine(engine, start(engine, [Phantom().map()], None)))[-1]
    errors = rotation_angle(state.assignment.image_to_volume, source.particles.poses.image_to_volume)
    assert np.deg2rad(2) < np.median(errors) < 1.5 * np.arcsin(25 / 100)
    assert (state.assignment.max_probability == 1).all()


@pytest.mark.parametrize("recall, told", [(0.92, 1), (0.98, 0), (1.0, 0), (np.nan, 0)])
def test_a_search_that_loses_particles_is_told(recall, told):
    engine = engine_over(plain_spectra(particle_set(2)))
    warnings: list[str] = []
    engine.reporter.warning = warnings.append  # type: ignore[method-assign]
    record = IterationRecord(1, True, 0.05, 20.0, 0.0, 0.0, 1.0, recall=recall, recall_particles=50, index="SQ8")
    warn_of_recall(engine, record)
    assert len(warnings) == told and all("missed the best pose of 4 of 50" in text for text in warnings)


def test_maps_that_differ_in_grey_scale_or_detail_alone_are_the_same():
    first, voxels = Phantom().map(), Phantom().map().voxels
    ripple = 0.2 * voxels.max() * np.cos(np.pi * np.arange(32, dtype=np.float32))  # at the Nyquist frequency
    for other in (3 * voxels + 1, voxels + ripple):
        with pytest.raises(InputError, match="the same"):
            check_different([first, Map(other, 4.0)], ["one.mrc", "two.mrc"], 25.0)
    check_different([p.map() for p in PHANTOMS], ["one.mrc", "two.mrc"], 60.0)
    check_different([], [], 60.0)
    check_different([PHANTOMS[0].map()], ["one.mrc"], 60.0)
