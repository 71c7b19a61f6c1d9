"""Sums slab by slab: the same as at once, in as little memory as is allowed, with the arrays in files without a name."""
from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from other_device import OTHER, other_device
from synthetic import engine_over, particle_set, plain_spectra

from swiftres_plugin.engine import scratch
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.insertion import fits, mirrored_slabs, reconstruct_half
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.refine import input_poses
from swiftres_plugin.engine.scratch import Storage
from swiftres_plugin.errors import InputError

COUNT, BOX = 40, 32
PLANE_BYTES = 12 * 67 * 34  # of sums up to the last shell of this box


@pytest.fixture(scope="module")
def source():
    return particle_set(COUNT)


def on_disk(engine, folder, monkeypatch, memory, workers=1):
    monkeypatch.setattr(scratch, "LEAST_FILE_BYTES", 0)
    return replace(engine, compute=replace(engine.compute, storage=Storage(folder), memory_bytes=memory, threads=workers))


def summed(engine, source, **more):
    noise, poses = np.ones((1, 17), np.float32), input_poses(source.particles)
    poses = replace(poses, covariance=np.tile(1e-4 * np.eye(5), (COUNT, 1, 1)))
    return reconstruct_half(engine, noise, np.arange(COUNT), poses, "", share=np.linspace(0.1, 1, COUNT), **more)


@pytest.mark.parametrize("last_shell", [15, 8])
@pytest.mark.parametrize("workers", [1, 3])
def test_slab_by_slab_gives_the_same_map(source, tmp_path, monkeypatch, last_shell, workers):
    """Every point of the grid gets the same numbers in the same order, whoever adds them, but compilers may round a product
    before it is added or after: a few units of the last place of single precision."""
    engine = engine_over(plain_spectra(source))
    small = on_disk(engine, tmp_path, monkeypatch, 4 * 7 * PLANE_BYTES * workers, workers)
    whole, parts = (summed(one, source, last_shell=last_shell) for one in (engine, small))
    assert parts.weight.shape[-1] <= whole.weight.shape[-1] and parts.count == whole.count
    ratio = np.full(BOX // 2 + 1, 3.0)
    for chosen in (None, ratio):
        expected = engine.solved(whole, signal_to_noise=chosen)
        torch.testing.assert_close(small.solved(parts, signal_to_noise=chosen), expected, rtol=0,
                                   atol=1e-6 * float(expected.abs().max()))


def test_mates_are_inserted_where_they_cannot_be_turned(source, tmp_path, monkeypatch):
    """At once, mates by half turns are made on the sums: other roundings, single precision."""
    engine = replace(engine_over(plain_spectra(source)), operators=symmetry_operators("D2"))
    small = on_disk(engine, tmp_path, monkeypatch, 4 * 7 * PLANE_BYTES)
    expected = engine.solved(summed(engine, source))
    found = small.solved(summed(small, source))
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_sums_that_do_not_fit_on_a_device_are_made_in_slabs(source):
    """Where maps lie in memory: the grid of a box of 32 takes 5.5 MB there, with what it is added by."""
    engine = engine_over(plain_spectra(source))
    with other_device():
        there = replace(engine, compute=Compute(OTHER, 1, 1 << 23))
        assert fits(engine) and not fits(there) and fits(replace(there, compute=Compute(OTHER, 1, 1 << 24)))
        found = there.solved(summed(there, source))
    expected = engine.solved(summed(engine, source))
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_sums_of_both_halves_are_added_as_they_are_read(source):
    engine = engine_over(plain_spectra(source))
    one = summed(engine, source)
    torch.testing.assert_close(engine.solved(one, one), engine.solved(one + one), rtol=0, atol=0)


@pytest.mark.parametrize(("middle", "most"), [(33, 7), (33, 1), (5, 100), (8, 4)])
def test_slabs_hold_every_plane_once_beside_its_mirror_image(middle, most):
    slabs = mirrored_slabs(middle, most)
    assert sorted(np.concatenate(slabs)) == list(range(2 * middle + 1))
    assert max(map(len, slabs)) <= max(3, most)
    for slab in slabs:
        np.testing.assert_array_equal(slab, 2 * middle - slab[::-1])


def test_arrays_lie_in_files_that_nobody_sees(tmp_path):
    storage = Storage(tmp_path / "new")
    array = storage.empty((300, 1000), torch.complex64)
    array[7] = 1 + 2j
    assert complex(array[7, 999]) == 1 + 2j and array.dtype == torch.complex64
    assert list((tmp_path / "new").iterdir()) == []
    files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    maps = open("/proc/self/maps").read()
    assert str(tmp_path / "new") in maps or any(str(tmp_path / "new") in name for name in files)
    del array
    assert str(tmp_path / "new") not in open("/proc/self/maps").read()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="fit neither in memory nor in the scratch folder.*--scratch"):
        Storage(tmp_path).empty((1000, 1000))
