"""MRC: what goes in comes out, mrcfile and this reader agree, and wrong files are named."""
from __future__ import annotations

import threading
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Ctf, Optics, Particles
from swiftres_plugin.engine.io.mrc import MrcSource, StackWriter, check_stacks, read_header, read_map, write_map
from swiftres_plugin.errors import InputError


def particles_in(paths: list[Path], stack_index: list[int], slice_index: list[int], box: int) -> Particles:
    """Particles of which only the place of their pixels matters."""
    count = len(stack_index)
    zeros = np.zeros(count)
    optics = Optics(300.0, 2.7, 0.1, 2.0, box)
    return Particles(
        particle_id=np.arange(count), stack_paths=tuple(map(str, paths)), stack_index=np.array(stack_index),
        slice_index=np.array(slice_index), optics=(optics,), optics_group=np.zeros(count, int),
        ctf=Ctf(zeros + 1e4, zeros + 1e4, zeros, zeros))


def write_with_mrcfile(path: Path, images: np.ndarray, big_endian: bool = False, extended: bytes = b"") -> Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(images)
        mrc.set_image_stack()
        mrc.voxel_size = 2.0
        if extended:
            mrc.set_extended_header(np.frombuffer(extended, "V1"))
    if big_endian:
        swap_bytes(path, images.dtype, len(extended))
    return path


def swap_bytes(path: Path, dtype: np.dtype, extended_bytes: int) -> None:
    """Rewrite a little-endian file in the other byte order."""
    raw = path.read_bytes()
    header = np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE).byteswap().copy()
    header["machst"] = (0x11, 0x11, 0, 0)
    data = np.frombuffer(raw[1024 + extended_bytes:], dtype).byteswap()
    path.write_bytes(header.tobytes() + raw[1024:1024 + extended_bytes] + data.tobytes())


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "uint16", "float16"])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("box", [7, 8])
def test_every_mode_order_and_box_reads_the_same_numbers(tmp_path, random, dtype, big_endian, box):
    images = (random.normal(size=(5, box, box)) * 20 + (60 if dtype == "uint16" else 0)).astype(dtype)
    images = np.abs(images) if dtype == "uint16" else images
    path = write_with_mrcfile(tmp_path / "s.mrcs", images, big_endian, extended=b"x" * 160)
    particles = particles_in([path], [0, 0, 0, 0], [4, 0, 2, 2], box)
    check_stacks(particles)
    read = MrcSource(particles).read(np.arange(4))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, images[[4, 0, 2, 2]].astype(np.float32))


def test_particles_over_more_files_than_may_be_open(tmp_path, random):
    images = random.normal(size=(40, 6, 6)).astype(np.float32)
    paths = [write_with_mrcfile(tmp_path / f"{i}.mrcs", images[2 * i:2 * i + 2]) for i in range(20)]
    order = random.permutation(40)
    particles = particles_in(paths, list(order // 2), list(order % 2), 6)
    source = MrcSource(particles, open_files=3)
    rows = random.permutation(40)[:25]
    np.testing.assert_array_equal(source.read(rows), images[order[rows]])


def test_threads_share_a_source(tmp_path, random):
    images = random.normal(size=(60, 6, 6)).astype(np.float32)
    paths = [write_with_mrcfile(tmp_path / f"{i}.mrcs", images[i:i + 1]) for i in range(60)]
    source = MrcSource(particles_in(paths, list(range(60)), [0] * 60, 6), open_files=2)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rows = np.random.default_rng(seed).integers(0, 60, 400)
        if not np.array_equal(source.read(rows), images[rows]):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_written_stack_is_valid_and_reads_back(tmp_path, random, dtype):
    images = random.normal(size=(7, 9, 9)).astype(dtype)
    path = tmp_path / "out.mrcs"
    with StackWriter(path, 7, 9, 1.25, dtype) as stack:
        stack.write(images[:3])
        stack.write(images[3:])
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, images)
        assert mrc.is_image_stack() and mrc.voxel_size.x == pytest.approx(1.25)
        # Single precision header fields.
        assert float(mrc.header.rms) == pytest.approx(images.astype(np.float64).std(), rel=1e-5)
    particles = particles_in([path], [0] * 7, list(range(7)), 9)
    np.testing.assert_array_equal(MrcSource(particles).read(np.arange(7)), images.astype(np.float32))


def test_an_unfinished_stack_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="2 images written, 3 announced"):
        with StackWriter(tmp_path / "a.mrcs", 3, 4, 1.0) as stack:
            stack.write(np.zeros((2, 4, 4)))
    with pytest.raises(KeyboardInterrupt):
        with StackWriter(tmp_path / "b.mrcs", 3, 4, 1.0) as stack:
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("box", [9, 10])
def test_map_round_trip(tmp_path, random, box):
    density = Map(random.normal(size=(box,) * 3).astype(np.float32), 1.0605, (-3.5, 0.0, 7.25))
    write_map(tmp_path / "m.mrc", density)
    assert mrcfile.validate(tmp_path / "m.mrc")
    with mrcfile.open(tmp_path / "m.mrc") as mrc:
        np.testing.assert_array_equal(mrc.data, density.voxels)
        assert mrc.is_volume() and int(mrc.header.nxstart) == 0
    again = read_map(tmp_path / "m.mrc")
    np.testing.assert_array_equal(again.voxels, density.voxels)
    assert again.pixel_size_a == pytest.approx(1.0605, abs=1e-6) and again.origin_a == density.origin_a


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2), (2, 1, 3)])
def test_axis_order_is_honoured(tmp_path, random, axes):
    """`axes` are mapc, mapr, maps: which of x, y, z runs along columns, rows and sections of the file."""
    zyx = random.normal(size=(5, 5, 5)).astype(np.float32)
    stored = zyx.transpose([3 - axis for axis in axes[::-1]])
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(np.ascontiguousarray(stored))
        mrc.voxel_size = 1.5
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = axes
    np.testing.assert_array_equal(read_map(tmp_path / "m.mrc").voxels, zyx)


def test_empty_machine_stamp_and_map_word(tmp_path, random):
    """As some older programs write it."""
    images = random.normal(size=(2, 6, 6)).astype(np.float32)
    path = write_with_mrcfile(tmp_path / "old.mrcs", images)
    raw = bytearray(path.read_bytes())
    raw[208:216] = bytes(8)
    path.write_bytes(raw)
    np.testing.assert_array_equal(MrcSource(particles_in([path], [0, 0], [0, 1], 6)).read(np.arange(2)), images)


# ------------------------------------------------------------------------------------------- bad input

def test_non_cubic_map(tmp_path):
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(np.zeros((4, 5, 6), np.float32))
        mrc.voxel_size = 1.0
    with pytest.raises(InputError, match="m.mrc: the map is not a cube; found 6 x 5 x 4"):
        read_map(tmp_path / "m.mrc")


def test_map_with_nan(tmp_path):
    voxels = np.zeros((4, 4, 4), np.float32)
    voxels[1, 2, 3] = np.nan
    write_map(tmp_path / "m.mrc", Map(voxels, 1.0))
    with pytest.raises(InputError, match="not finite; found 1 voxels"):
        read_map(tmp_path / "m.mrc")


@pytest.mark.parametrize("voxel, says", [((0, 0, 0), "no pixel size"), ((1, 1, 2), "not cubes")])
def test_map_without_one_pixel_size(tmp_path, voxel, says):
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(np.zeros((4, 4, 4), np.float32))
        mrc.voxel_size = voxel
    with pytest.raises(InputError, match=says):
        read_map(tmp_path / "m.mrc")


def test_truncated_map(tmp_path):
    write_map(tmp_path / "m.mrc", Map(np.zeros((4, 4, 4), np.float32), 1.0))
    (tmp_path / "m.mrc").write_bytes((tmp_path / "m.mrc").read_bytes()[:-8])
    with pytest.raises(InputError, match="truncated; found 1272 bytes; expected 1280"):
        read_map(tmp_path / "m.mrc")


@pytest.mark.parametrize("content", [b"", b"data_optics\n", b"\x00" * 2000, b"PK" + b"\xff" * 2000])
def test_not_mrc(tmp_path, content):
    (tmp_path / "m.mrc").write_bytes(content)
    with pytest.raises(InputError, match="is no MRC file"):
        read_header(tmp_path / "m.mrc")


def test_write_into_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="folder to write to does not exist"):
        write_map(tmp_path / "no" / "m.mrc", Map(np.zeros((4, 4, 4), np.float32), 1.0))


def test_missing_stack(tmp_path):
    with pytest.raises(InputError, match="gone.mrcs: cannot be opened"):
        check_stacks(particles_in([tmp_path / "gone.mrcs"], [0], [0], 8))


def test_truncated_stack(tmp_path):
    path = write_with_mrcfile(tmp_path / "s.mrcs", np.zeros((3, 8, 8), np.float32))
    path.write_bytes(path.read_bytes()[:-100])
    particles = particles_in([path], [0, 0], [0, 2], 8)
    with pytest.raises(InputError, match="s.mrcs: the file is truncated"):
        check_stacks(particles)
    with pytest.raises(InputError, match="000003@.*s.mrcs: the file ends before the image"):
        MrcSource(particles).read(np.array([0, 1]))


def test_image_index_past_the_end(tmp_path):
    path = write_with_mrcfile(tmp_path / "s.mrcs", np.zeros((3, 8, 8), np.float32))
    with pytest.raises(InputError, match="000004@.*particle 2 is past the end of its stack; found 3 images"):
        check_stacks(particles_in([path], [0, 0], [1, 3], 8))


def test_box_other_than_the_optics(tmp_path):
    path = write_with_mrcfile(tmp_path / "s.mrcs", np.zeros((3, 8, 8), np.float32))
    particles = particles_in([path], [0], [1], 10)
    with pytest.raises(InputError, match="found 8 x 8 px; expected 10 x 10 px"):
        check_stacks(particles)
    with pytest.raises(InputError, match="found 8 x 8 px; expected 10 x 10 px"):
        MrcSource(particles).read(np.array([0]))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # mrcfile notices as well
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_non_finite_pixel_names_file_and_image(tmp_path, bad, dtype):
    images = np.zeros((3, 8, 8), dtype)
    images[1, 4, 4] = bad
    path = write_with_mrcfile(tmp_path / "s.mrcs", images)
    source = MrcSource(particles_in([path], [0, 0, 0], [0, 1, 2], 8))
    source.read(np.array([0, 2]))
    with pytest.raises(InputError, match="000002@.*s.mrcs: the image holds pixels that are not finite"):
        source.read(np.array([2, 1]))
