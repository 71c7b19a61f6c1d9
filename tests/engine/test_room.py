"""Maps that do not fit in memory: told before any work, kept in files without a name, and the same result."""
from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import PLACES_A, Phantom, particle_set, write_data_set, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine import room, scratch
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.io.mrc import read_map, write_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths import padded
from swiftres_plugin.engine.page.figures import coarse_map
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.room import housed, planned_storage
from swiftres_plugin.engine.scratch import Storage
from swiftres_plugin.errors import InputError

COUNT = 60
PHANTOMS = Phantom(), Phantom(places_a=PLACES_A + np.array([[0, 0, 0]] * 3 + [[-34, 10, 22], [0, 0, 0]]))
OPTIONS = ["--initial-resolution", "25", "--diameter", "110", "--threads", "1", "--device", "cpu", "--alignment", "local",
           "--iterations", "2", "--symmetry", "C1"]
SMALL_GB = 0.004  # less than the maps of two classes of 32 px take


class Told(SilentReporter):
    """Keeps what is told."""

    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)

    warning = message


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    first, second = (particle_set(COUNT, 0.3, phantom) for phantom in PHANTOMS)
    odd = (np.arange(COUNT) % 2 == 1)[:, None, None]
    write_data_set(folder, replace(first, images=np.where(odd, second.images, first.images)))
    for number, phantom in enumerate(PHANTOMS, 1):
        write_volume(folder / f"map{number}.mrc", phantom.map().voxels)
    return folder


def refine(data, output, *more):
    references = [word for number in (1, 2) for word in ("--reference", str(data / f"map{number}.mrc"))]
    return main(["refine", "--particles", str(data / "particles.star"), *references, "--output", str(output), *OPTIONS, *more])


@pytest.fixture(scope="module")
def in_memory(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "memory"
    assert refine(data, output) == 0
    return output


@pytest.fixture
def in_files(monkeypatch):
    """However small arrays are, they lie in files and are worked on in thin slabs; (shape, kind) of each that was made."""
    made = []

    def noted(shape, dtype, folder, make=scratch.filed):
        made.append((tuple(shape), dtype))
        return make(shape, dtype, folder)

    monkeypatch.setattr(scratch, "LEAST_FILE_BYTES", 0)
    monkeypatch.setattr(scratch, "filed", noted)
    monkeypatch.setattr(padded, "SLAB_BYTES", 1 << 17)
    return made


def assert_same_result(found, expected):
    """Sums over shells and pixels are taken in other pieces. A step of a pose is undone where its likelihood does not rise,
    which for a particle in fifty rounding may decide."""
    ours, theirs = (read_particles(run / layout.PARTICLES) for run in (found, expected))
    assert np.mean(ours.scores["class_id"] == theirs.scores["class_id"]) > 0.97
    apart = np.abs(ours.poses.image_to_volume - theirs.poses.image_to_volume).max((1, 2))
    assert np.mean(apart < 2e-3) > 0.95 and apart.max() < 0.1
    for number in (1, 2):
        for name in (layout.map_name(number), layout.half_name(1, number), layout.sharpened_name(number)):
            one, other = (read_map(run / name).voxels for run in (found, expected))
            assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999, name
        mask, other = (read_map(run / layout.mask_name(number)).voxels for run in (found, expected))
        assert np.mean(np.abs(mask - other) > 0.01) < 0.01


def test_a_refinement_on_disk_ends_as_in_memory(data, in_memory, in_files, tmp_path, capsys):
    """Its halves' sums, references and maps all lie in files, of which none is left; and it goes on after a stop."""
    folder = tmp_path / "scratch"
    assert refine(data, tmp_path / "run", "--memory", str(SMALL_GB), "--scratch", str(folder), "--iterations", "1") == 0
    assert f"they lie in files in {folder}" in capsys.readouterr().err
    assert main(["refine", "--resume", str(tmp_path / "run"), "--iterations", "2"]) == 0
    assert_same_result(tmp_path / "run", in_memory)
    assert list(folder.iterdir()) == []
    shapes = {shape for shape, _ in in_files}
    assert {(32, 32, 32), (32, 32, 17)} < shapes and any(kind == torch.complex64 and shape[0] > 32 for shape, kind in in_files)


def test_no_room_on_disk_is_told_before_any_work(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))
    assert refine(data, tmp_path / "run", "--memory", str(SMALL_GB)) == 2
    assert "fit neither in memory nor in the scratch folder" in capsys.readouterr().err
    assert not (tmp_path / "run" / layout.SETTINGS).exists()


def test_maps_stay_in_memory_where_they_fit(tmp_path):
    told = Told()
    assert not planned_storage(128, 1, 8e9, tmp_path, told).on_disk and not told.messages
    assert planned_storage(128, 1, 1e8, tmp_path / "not" / "there", told).on_disk and len(told.messages) == 1
    with pytest.raises(InputError, match="8000 px and 4 classes"):
        planned_storage(8000, 4, 8e9, tmp_path, told)


def test_a_gpu_without_room_leaves_the_work_to_the_processor(tmp_path):
    told, gpu = Told(), Compute(torch.device("cuda"), 4, 12 << 30, 64 << 30)
    assert housed(gpu, Storage(tmp_path), 320, told).device.type == "cuda" and not told.messages
    found = housed(gpu, Storage(tmp_path), 800, told)
    assert found.device.type == "cpu" and found.memory_bytes == 64 << 30 and len(told.messages) == 1
    assert found.storage.folder == tmp_path


def test_large_maps_are_shown_as_means_of_blocks(tmp_path, monkeypatch):
    density = Phantom().map()
    write_map(tmp_path / "map.mrc", density)
    monkeypatch.setattr("swiftres_plugin.engine.page.figures.LEAST_MAP_PX", 16)
    found = coarse_map(tmp_path / "map.mrc")
    assert found.pixel_size_a == 2 * density.pixel_size_a
    np.testing.assert_allclose(found.voxels, density.voxels.reshape(16, 2, 16, 2, 16, 2).mean((1, 3, 5)), atol=1e-6)
