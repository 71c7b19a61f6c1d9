"""Where work runs changes nothing about what comes out."""
from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set

from swiftres_plugin.engine.compute import (
    BATCHES_PER_DEVICE,
    Compute,
    _control_groups,
    _free_in_group,
    free_host_bytes,
    open_compute,
)
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.errors import InputError

CPU = torch.device("cpu")
TWO = Compute(torch.device("meta"), 2, 1 << 40, others=(torch.device("meta", 1),))


@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_the_order_of_their_parts(workers):
    """Also when later parts are done first."""
    first_may_end = threading.Event()

    def square(part: int) -> int:
        if workers > 1 and part == 0:
            first_may_end.wait(5)
        if part == 2:
            first_may_end.set()
        return part ** 2

    seen: list[int] = []
    assert Compute(CPU, workers, 1 << 30).map(square, [0, 1, 2, 3, 4], done=seen.append) == [0, 1, 4, 9, 16]
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_part_comes_out(workers):
    def fail(part: int) -> int:
        raise InputError(f"part {part}")
    with pytest.raises(InputError, match="part 0"):
        Compute(CPU, workers, 1 << 30).map(fail, [0, 1, 2])


def test_batches_cover_the_rows_in_order():
    rows = np.arange(100) * 3
    parts = Compute(CPU, 2, 1 << 30).batches(rows, 5e6)
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), rows)


def test_less_memory_makes_smaller_batches():
    rows = np.arange(1000)
    sizes = [len(Compute(CPU, 2, memory).batches(rows, 1e5)[0]) for memory in (1 << 20, 1 << 24, 1 << 32)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[0] == 1  # a particle at a time is the least
    assert sizes[1] * 1e5 <= (1 << 24)


def test_batches_of_nothing_are_nothing():
    assert Compute(CPU, 2, 1 << 30).batches(np.arange(0), 100) == []


def test_shares_are_even_and_none_is_empty():
    shares = Compute(CPU, 3, 1 << 30).shares(np.arange(10))
    assert [len(s) for s in shares] == [4, 3, 3]
    assert len(Compute(CPU, 8, 1 << 30).shares(np.arange(2))) == 2


def test_shares_are_fewer_where_their_sums_do_not_fit():
    """All of them together take a quarter of the memory; one there always is."""
    compute = Compute(CPU, 8, 1 << 30)
    assert [len(compute.shares(np.arange(100), size)) for size in (1 << 20, 1 << 26, 1 << 40)] == [8, 4, 1]


def test_cores_are_shared_by_few_parts():
    found = Compute(CPU, 4, 1 << 30).map(lambda part: torch.get_num_threads(), [0, 1])
    assert found == [2, 2]


def test_work_too_large_for_a_gpu_goes_to_the_processor():
    gpu = Compute(torch.device("cuda"), 4, 1 << 30)
    assert gpu.workers == 1
    assert gpu.place(1 << 20).type == "cuda" and gpu.place(1 << 31).type == "cpu"


@pytest.mark.parametrize("limit, expected", [("max\n", np.inf), ("5000\n", 5000 - 3000 + 800)])
def test_a_batch_system_limits_memory(tmp_path, limit, expected):
    """What the group uses is taken off, but for cached files."""
    job = tmp_path / "system" / "job1"
    job.mkdir(parents=True)
    for name, text in (("memory.max", limit), ("memory.current", "3000\n"), ("memory.stat", "anon 9\ninactive_file 800\n")):
        (job / name).write_text(text)
    own = tmp_path / "own"
    own.write_text("1:cpu:/elsewhere\n0::/system/job1\n")
    groups = _control_groups(tmp_path, own)
    assert groups == [job, tmp_path / "system", tmp_path]
    assert [_free_in_group(folder) for folder in groups] == [expected, np.inf, np.inf]


def test_products_keep_full_precision():
    open_compute("cpu", 1)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("device, inside", [("cuda", "high"), ("cpu", "highest")])
def test_products_are_rounded_where_that_is_allowed_and_on_gpus(device, inside):
    open_compute("cpu")
    with pytest.raises(ValueError, match="over"), Compute(torch.device(device), 1, 1 << 30).rounded_products():
        assert torch.get_float32_matmul_precision() == inside
        raise ValueError("over")
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_machine_has_memory_and_cores():
    found = open_compute("cpu", 2, memory_gb=0.5)
    assert found.workers == found.threads == 2
    assert found.memory_bytes <= 0.5e9
    assert free_host_bytes() >= 1 << 28


@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named(name):
    with pytest.raises(InputError, match="is not available; found 0 usable GPUs"):
        open_compute(name)


@pytest.mark.parametrize("name", ["gpu", "mps", "xpu:0", ""])
def test_an_unknown_device_is_named(name):
    with pytest.raises(InputError, match="device"):
        open_compute(name)


@pytest.mark.parametrize("name, expected", [("cuda", ["cuda"]), ("cuda:1", ["cuda:1"]), ("cuda:2,0", ["cuda:2", "cuda:0"])])
def test_several_gpus_are_named_by_their_numbers(monkeypatch, name, expected):
    """The least of their free memory is what batches are planned for."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((4 - (device.index or 0)) << 30, 8 << 30))
    found = open_compute(name)
    assert [str(device) for device in found.devices] == expected
    assert found.memory_bytes == int(0.8 * ({"cuda": 4, "cuda:1": 3, "cuda:2,0": 2}[name] << 30))


@pytest.mark.parametrize("name, says", [
    ("cuda:0,3", "3 usable GPUs"), ("cuda:0,0", "named twice"), ("cuda:", "unknown"), ("cuda:0;1", "unknown"),
    ("cuda:-1", "unknown"), ("cpu:0,1", "unknown")])
def test_gpus_that_cannot_be_are_refused(monkeypatch, name, says):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(InputError, match=says):
        open_compute(name)


def test_a_faster_device_does_more():
    """The slow one holds its first part until the other has done all the rest."""
    parts = list(range(9))
    rest_done = threading.Event()

    def preparing(place: Compute):
        def work(part: int) -> tuple[int, str]:
            if place.device.index == 1:
                assert rest_done.wait(30)
            return part, str(place.device)
        return work

    seen: list[int] = []

    def done(part: int) -> None:
        seen.append(part)
        if len(seen) == len(parts) - 1:
            rest_done.set()

    found = TWO.spread(preparing, parts, done)
    assert [part for part, _ in found] == parts and sorted(seen) == parts
    assert [device for _, device in found].count("meta:1") <= 1


def test_every_device_prepares_once_and_gathers_its_own():
    rows = np.arange(1000)
    sums = TWO.gathered(lambda place, parts: (place.device, sum(int(part.sum()) for part in parts)), rows, 1e6, 0)
    assert [device for device, _ in sums] == list(TWO.devices)
    assert sum(total for _, total in sums) == rows.sum()
    places = []
    TWO.spread(lambda place: places.append(place.device) or (lambda part: None), rows)
    assert sorted(map(str, places)) == ["meta", "meta:1"]


def test_an_error_on_one_device_ends_the_others():
    """The first part's fault leaves nothing in the queue."""
    worked = []

    def preparing(place: Compute):
        def work(part: int) -> None:
            worked.append(part)
            if part == 0:
                raise InputError("part 0")
            time.sleep(0.01)
        return work

    with pytest.raises(InputError, match="part 0"):
        TWO.spread(preparing, range(500))
    assert len(worked) < 100


def test_several_devices_get_several_batches_each():
    assert len(TWO.batches(np.arange(1000), 1.0)) == 2 * BATCHES_PER_DEVICE
    assert len(TWO.batches(np.arange(3), 1.0)) == 3


def test_one_and_three_workers_give_the_same_poses_and_maps(tmp_path):
    """To rounding: sums are added in another order."""
    source = particle_set(90, noise=0.3)
    states = []
    for workers in (1, 3):
        engine = engine_over(None, workers, initial_resolution=16.0, max_shift=14.0, diameter=100.0, iterations=1)
        spectra = load_spectra(source, engine.settings.preprocess, engine.compute, SilentReporter(), tmp_path / "cache")
        engine = engine_over(spectra, workers, initial_resolution=16.0, max_shift=14.0, diameter=100.0, iterations=1)
        states.append(next(refine(engine, start(engine, [Map(Phantom().map().voxels, 4.0)], None))))
    one, three = states
    np.testing.assert_allclose(three.assignment.image_to_volume, one.assignment.image_to_volume, atol=2e-3)
    np.testing.assert_allclose(three.assignment.shift_a, one.assignment.shift_a, atol=0.02)
    (one_class,), (three_class,) = one.classes, three.classes
    scale = np.abs(one_class.combined).max()
    np.testing.assert_allclose(three_class.combined, one_class.combined, atol=2e-3 * scale)
    np.testing.assert_allclose(three_class.fsc.corrected, one_class.fsc.corrected, atol=5e-3)
