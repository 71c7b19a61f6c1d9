"""Checkpoints: what is loaded is what was saved, and a write that fails costs nothing that was safe."""
from __future__ import annotations

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import Phantom, assignment_of, described, random_poses

from swiftres_plugin import layout
from swiftres_plugin.engine.data.maps import Fsc, HalfMaps, Map
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.state import ClassState, IterationRecord, RefinementState
from swiftres_plugin.engine.io import checkpoint
from swiftres_plugin.engine.io.checkpoint import load_state, save_state, slim
from swiftres_plugin.errors import StateError

COUNT = 9


def state_of(number: int) -> RefinementState:
    """A state with a different number in every place."""
    random = np.random.default_rng(number)
    poses = random_poses(COUNT, number)
    record = IterationRecord(number, True, 0.05, 12.5, float("nan"), float("nan"), 0.7, {"search": 1.5}, (6, 3),
                             (12.5, float("inf")), 0.25)
    classes = tuple(class_of(random, resolution_a) for resolution_a in (12.5, float("inf")))
    return RefinementState(
        number, classes, random.random((2, 1, 16), dtype=np.float32), np.arange(COUNT) % 2, assignment_of(poses, number),
        (record,), number == 3, trust=None if number == 1 else random.random(COUNT),
        settled=None if number == 1 else random.random(COUNT) < 0.5)


def class_of(random: np.random.Generator, resolution_a: float) -> ClassState:
    voxels = [Phantom().map().voxels * random.uniform(0.5, 2) for _ in range(6)]
    curves = [np.round(random.uniform(0, 1, 17), 4) for _ in range(4)]
    return ClassState(
        (torch.from_numpy(voxels[0]), torch.from_numpy(voxels[1])), int(random.integers(2, 12)), resolution_a,
        HalfMaps(Map(voxels[2], 4.0), Map(voxels[3], 4.0)), voxels[4], np.clip(voxels[5], 0, 1),
        Fsc(np.round(np.arange(17) / 128, 6), *curves))


def save(run, number: int):
    return save_state(run, state_of(number), described(random_poses(COUNT, number)))


def same(a: RefinementState, b: RefinementState) -> None:
    for name in ("number", "at_rest"):
        assert getattr(a, name) == getattr(b, name)
    for name in ("noise", "half", "trust", "settled"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in Assignment.__slots__:
        np.testing.assert_array_equal(getattr(a.assignment, name), getattr(b.assignment, name))
    assert len(a.classes) == len(b.classes)
    for one, two in zip(a.classes, b.classes):
        same_class(one, two)
    assert repr(a.history) == repr(b.history)  # as text, where NaN equals NaN


def same_class(a: ClassState, b: ClassState) -> None:
    assert (a.last_shell, a.resolution_a) == (b.last_shell, b.resolution_a)
    for name in ("combined", "mask"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("frequency", "unmasked", "masked", "randomised", "corrected"):
        np.testing.assert_array_equal(getattr(a.fsc, name), getattr(b.fsc, name))
    for x, y in zip(a.references, b.references):
        assert torch.equal(x, y)
    for half in ("first", "second"):
        np.testing.assert_array_equal(getattr(a.halves, half).voxels, getattr(b.halves, half).voxels)
        assert getattr(a.halves, half).pixel_size_a == getattr(b.halves, half).pixel_size_a


def test_what_is_loaded_is_what_was_saved(tmp_path):
    folder = save(tmp_path, 3)
    assert folder == tmp_path / "it003"
    same(load_state(folder), state_of(3))
    assert layout.finished_iterations(tmp_path) == [(3, folder)]


def test_saving_again_replaces(tmp_path):
    save(tmp_path, 2)
    folder = save_state(tmp_path, replace(state_of(5), number=2), described(random_poses(COUNT)))
    same(load_state(folder), replace(state_of(5), number=2))


@pytest.mark.parametrize("writer", ["write_map", "write_fsc", "write_particles", "_write_arrays"])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, writer):
    save(tmp_path, 1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, writer, full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2)
    assert [n for n, _ in layout.finished_iterations(tmp_path)] == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["it001"]
    same(load_state(tmp_path / "it001"), state_of(1))


def test_a_folder_still_being_written_is_no_checkpoint(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "it002.part").mkdir()
    (tmp_path / "it003").mkdir()
    assert [n for n, _ in layout.finished_iterations(tmp_path)] == [1]
    folder = save(tmp_path, 2)  # what a killed writer left is in nobody's way
    same(load_state(folder), state_of(2))


@pytest.mark.parametrize("name", [layout.STATE, "arrays.npz", layout.half_name(1), layout.fsc_name(), layout.mask_name(),
                                  layout.map_name(2), layout.fsc_name(2)])
@pytest.mark.parametrize("harm", ["missing", "cut", "empty"])
def test_a_damaged_checkpoint_is_named(tmp_path, name, harm):
    folder = save(tmp_path, 1)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(content[:len(content) // 3] if harm == "cut" else b"")
    with pytest.raises(StateError, match="it001"):
        load_state(folder)


def test_a_slim_folder_keeps_results_and_is_no_checkpoint(tmp_path):
    folder = save(tmp_path, 1)
    slim(folder)
    assert {p.name for p in folder.iterdir()} == {layout.STATE, layout.PARTICLES, layout.map_name(), layout.fsc_name(),
                                                  layout.map_name(2), layout.fsc_name(2)}
    assert json.loads((folder / layout.STATE).read_text())["number"] == 1
    with pytest.raises(StateError):
        load_state(folder)
    slim(folder)  # twice is no error


def test_a_state_before_the_first_iteration_cannot_be_saved(tmp_path):
    before = replace(state_of(1), classes=tuple(replace(c, halves=None) for c in state_of(1).classes))
    with pytest.raises(ValueError, match="after an iteration"):
        save_state(tmp_path, before, described(random_poses(COUNT)))
    assert list(tmp_path.iterdir()) == []
