"""MRC maps and particle stacks (MRC2014, https://www.ccpem.ac.uk/mrc-format/mrc2014/).

Modes 0, 1, 2, 6 and 12, both byte orders, extended headers. Maps are read whole, stacks image by image.
"""
from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from mrcfile.dtypes import HEADER_DTYPE

from ...errors import InputError
from ..data.maps import HalfMaps, Map
from ..data.particles import Particles
from ..maths.padded import Empty
from .files import written_atomically

HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
LITTLE_ENDIAN_STAMP = (0x44, 0x44, 0, 0)
OPEN_FILES = 128
STATISTICS_BYTES = 64 << 20  # of a map that is looked at at once for its header


@dataclass(frozen=True, eq=False, slots=True)
class MrcHeader:
    """What is needed of an MRC header.

    shape: (sections, rows, columns); dtype with its byte order; data_offset in bytes; axes: the mapc, mapr, maps fields
    (1 = x, 2 = y, 3 = z); voxel_size_a (x, y, z), zero where the header does not say; origin_a (x, y, z).
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    data_offset: int
    axes: tuple[int, int, int]
    voxel_size_a: tuple[float, float, float]
    origin_a: tuple[float, float, float]

    @property
    def image_bytes(self) -> int:
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """The least size of a file with this header."""
        return self.data_offset + self.shape[0] * self.image_bytes


def read_header(path: Path | str) -> MrcHeader:
    """The header of an MRC file; raises `InputError` when it is missing or no MRC file."""
    try:
        with open(path, "rb") as file:
            raw = file.read(HEADER_BYTES)
    except OSError as error:
        raise InputError("cannot be opened", where=path, found=error.strerror,
                         remedy="Check the path and the permissions of the file.") from error
    order = _byte_order(raw) if len(raw) == HEADER_BYTES else ""
    if not order:
        raise InputError("is no MRC file", where=path, expected=f"MRC with mode {', '.join(map(str, MODES))}",
                         remedy="Convert it to MRC with real (not complex) values.")
    return _header_of(np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0], order)


def _byte_order(raw: bytes) -> str:
    """'<' or '>' by the machine stamp; old programs leave it empty, then by which makes sense; '' if neither does."""
    stamped = {0x44: "<", 0x41: "<", 0x11: ">"}.get(raw[212], "<>")
    return next((order for order in stamped if _plausible(np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0])), "")


def _plausible(fields: np.void) -> bool:
    sizes = [int(fields[name]) for name in ("nx", "ny", "nz")]
    axes = [int(fields[name]) for name in ("mapc", "mapr", "maps")]
    return (int(fields["mode"]) in MODES and all(0 < size < 2 ** 26 for size in sizes)
            and all(0 <= axis <= 3 for axis in axes) and 0 <= int(fields["nsymbt"]) < 2 ** 26)


def _header_of(fields: np.void, order: str) -> MrcHeader:
    cell, sampling = fields["cella"], [int(fields[name]) for name in ("mx", "my", "mz")]
    voxel = tuple(float(cell[axis]) / size if size > 0 else 0.0 for axis, size in zip("xyz", sampling))
    axes = tuple(int(fields[name]) for name in ("mapc", "mapr", "maps"))
    axes = axes if sorted(axes) == [1, 2, 3] else (1, 2, 3)
    origin = tuple(float(fields["origin"][axis]) for axis in "xyz")
    if not any(origin):  # CCP4's way to say the same: the index of the first voxel
        starts = [int(fields[name]) for name in ("nxstart", "nystart", "nzstart")]
        origin = tuple(starts[axes.index(axis)] * voxel[axis - 1] for axis in (1, 2, 3))
    return MrcHeader(
        shape=(int(fields["nz"]), int(fields["ny"]), int(fields["nx"])),
        dtype=np.dtype(order + MODES[int(fields["mode"])]), data_offset=HEADER_BYTES + int(fields["nsymbt"]),
        axes=(axes[0], axes[1], axes[2]), voxel_size_a=(voxel[0], voxel[1], voxel[2]),
        origin_a=(origin[0], origin[1], origin[2]))


# ------------------------------------------------------------------------------------------------ maps

def read_map(path: Path | str, pixel_size_a: float = 0.0, empty: Empty | None = None) -> Map:
    """The cubic map in `path`, axes in (z, y, x) order whatever their order in the file.

    A `pixel_size_a` other than 0 is taken instead of what the header says. empty: makes the array, else it is in memory.

    Raises `InputError` when the file is no MRC file, truncated, not cubic, without a pixel size, not isotropic, or
    holds NaN or infinity.
    """
    header = read_header(path)
    if len(set(header.shape)) != 1:
        raise InputError("the map is not a cube", where=path, found=" x ".join(map(str, header.shape[::-1])),
                         expected="the same size along x, y and z", remedy="Crop or pad it to a cube.")
    _check_complete(path, header)
    pixel_size_a = pixel_size_a or _isotropic_voxel(path, header)
    stored = header.axes[::-1]
    raw: np.ndarray = np.memmap(path, header.dtype, "r", header.data_offset, header.shape)
    planes = raw.transpose([stored.index(axis) for axis in (3, 2, 1)])
    voxels = np.empty(planes.shape, np.float32) if empty is None else empty(planes.shape, torch.float32).numpy()
    strange = 0
    for plane, into in zip(planes, voxels):
        into[:] = plane
        strange += into.size - np.count_nonzero(np.isfinite(into))
    if strange:
        raise InputError("the map holds voxels that are not finite", where=path,
                         found=f"{strange} voxels with NaN or infinity",
                         remedy="Replace them with numbers, or make the map again.")
    return Map(voxels, pixel_size_a, header.origin_a)


def read_half_maps(first: Path | str, second: Path | str, pixel_size_a: float = 0.0) -> HalfMaps:
    """Two maps of one box and pixel size. Raises `InputError` when they differ, or when either cannot be read."""
    a, b = read_map(first, pixel_size_a), read_map(second, pixel_size_a)
    if a.box_px != b.box_px:
        raise InputError("the maps have different boxes", where=second, found=f"{b.box_px} px",
                         expected=f"{a.box_px} px as in {first}", remedy="Resample one of them.")
    if not math.isclose(a.pixel_size_a, b.pixel_size_a, rel_tol=0.001):
        raise InputError("the maps have different pixel sizes", where=second, found=f"{b.pixel_size_a:g} A",
                         expected=f"{a.pixel_size_a:g} A as in {first}", remedy="Resample one, or correct its header.")
    return HalfMaps(a, b)


def write_map(path: Path | str, density: Map) -> None:
    """Write `density` as MRC mode 2 with its pixel size and origin; whole or not at all.

    Raises `InputError` when the folder does not exist.
    """
    voxels = np.ascontiguousarray(density.voxels, dtype="<f4")
    values = _Statistics()
    for planes in np.array_split(voxels, max(1, voxels.nbytes // STATISTICS_BYTES)):
        values.add(planes)
    fields = _new_header(voxels.shape, 2, density.pixel_size_a, sections_are_volume=True)
    for axis, value in zip("xyz", density.origin_a):
        fields["origin"][axis] = value
    values.fill(fields)
    with written_atomically(path) as part, open(part, "wb") as file:
        file.write(fields.tobytes())
        file.write(voxels.data)


def _isotropic_voxel(path: Path | str, header: MrcHeader) -> float:
    sizes = header.voxel_size_a
    if min(sizes) <= 0:
        raise InputError("the header gives no pixel size", where=path, expected="a positive cell",
                         remedy="Write the pixel size into the header.")
    if max(sizes) - min(sizes) > 1e-3 * max(sizes):
        raise InputError("the voxels are not cubes", where=path, found=" x ".join(f"{s:g}" for s in sizes) + " A",
                         remedy="Resample the map to one pixel size.")
    # The cell is stored in single precision: seven digits are all there is.
    return float(f"{sizes[0]:.7g}")


def _check_complete(path: Path | str, header: MrcHeader) -> None:
    size = os.path.getsize(path)
    if size < header.file_bytes:
        raise InputError("the file is truncated", where=path, found=f"{size} bytes",
                         expected=f"{header.file_bytes} bytes by its header", remedy="Copy or make the file again.")


# ------------------------------------------------------------------------------------- reading stacks

class _OpenFile:
    """A descriptor that is closed when nobody holds it any more: threads may finish reading an evicted file."""

    __slots__ = ("descriptor",)

    def __init__(self, path: str):
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class MrcSource:
    """A `ParticleSource` over MRC stacks; reads only the images asked for. May be shared between threads.

    At most `open_files` files are kept open, the least recently used is let go first.
    """

    def __init__(self, particles: Particles, open_files: int = OPEN_FILES):
        self.particles = particles
        self._limit = open_files
        self._open: OrderedDict[int, tuple[_OpenFile, MrcHeader]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Images of the particles at `rows`, whose optics groups have one box: (B, n, n) float32.

        Raises `InputError` naming file and image when one cannot be read or holds NaN or infinity.
        """
        rows = np.asarray(rows)
        box = self.particles.optics[self.particles.optics_group[rows[0]]].box_px
        images = np.empty((len(rows), box, box), np.float32)
        stacks, slices = self.particles.stack_index[rows], self.particles.slice_index[rows]
        # By file and place within it: neighbouring images share a file, and disks like to read forwards.
        for b in np.lexsort((slices, stacks)):
            self._read_one(int(stacks[b]), int(slices[b]), images[b])
        self._check_finite(images, stacks, slices)
        return images

    def _read_one(self, stack: int, image: int, out: np.ndarray) -> None:
        file, header = self._file(stack)
        if header.shape[1:] != out.shape:
            raise _wrong_box(self.particles.stack_paths[stack], header, out.shape[0])
        offset = header.data_offset + image * header.image_bytes
        raw = out if header.dtype == np.float32 else np.empty(out.shape, header.dtype)
        if os.preadv(file.descriptor, [memoryview(raw.reshape(-1).view(np.uint8))], offset) != header.image_bytes:
            name = image_name(self.particles.stack_paths[stack], image)
            raise InputError("the file ends before the image", where=name,
                             found=f"{header.shape[0]} images by its header", remedy="Copy or make the stack again.")
        if raw is not out:
            out[...] = raw

    def _file(self, stack: int) -> tuple[_OpenFile, MrcHeader]:
        with self._lock:
            if stack in self._open:
                self._open.move_to_end(stack)
                return self._open[stack]
        path = self.particles.stack_paths[stack]
        opened = read_header(path), _OpenFile(path)
        with self._lock:
            self._open[stack] = opened[1], opened[0]
            while len(self._open) > self._limit:
                self._open.popitem(last=False)
        return opened[1], opened[0]

    def _check_finite(self, images: np.ndarray, stacks: np.ndarray, slices: np.ndarray) -> None:
        sums = images.sum(axis=(1, 2))
        for b in np.flatnonzero(~np.isfinite(sums)):
            if not np.isfinite(images[b]).all():
                name = image_name(self.particles.stack_paths[stacks[b]], slices[b])
                raise InputError("the image holds pixels that are not finite", where=name, found="NaN or infinity",
                                 remedy="Extract the particle again, or remove it from the STAR file.")


def image_name(path: str, image: int) -> str:
    """The image (0-based) as people and RELION name it: 000001@stack.mrcs is the first."""
    return f"{int(image) + 1:06d}@{path}"


def check_stacks(particles: Particles) -> None:
    """Look at every stack before work starts; raises `InputError` naming the file (and particle).

    Each must exist, be MRC, be as long as its header says, hold every image asked of it, and have the optics' box.
    """
    last = np.full(len(particles.stack_paths), -1, np.int64)
    np.maximum.at(last, particles.stack_index, particles.slice_index)
    for stack, path in enumerate(particles.stack_paths):
        if last[stack] < 0:
            continue
        header = read_header(path)
        for group in np.unique(particles.optics_group[particles.stack_index == stack]):
            box = particles.optics[group].box_px
            if header.shape[1:] != (box, box):
                raise _wrong_box(path, header, box)
        _check_complete(path, header)
        if last[stack] >= header.shape[0]:
            row = np.flatnonzero((particles.stack_index == stack) & (particles.slice_index == last[stack]))[0]
            raise InputError(f"particle {row + 1} is past the end of its stack", where=image_name(path, last[stack]),
                             found=f"{header.shape[0]} images in the stack", expected=f"at least {last[stack] + 1}",
                             remedy="Take the stack that belongs to this STAR file.")


def _wrong_box(path: str, header: MrcHeader, box: int) -> InputError:
    return InputError("the images have another size than the optics table says", where=path,
                      found=f"{header.shape[2]} x {header.shape[1]} px", expected=f"{box} x {box} px",
                      remedy="Correct rlnImageSize, or take the stack that belongs to this STAR file.")


# ------------------------------------------------------------------------------------- writing stacks

class StackWriter:
    """Write a stack of `count` images in order, a batch at a time; the file appears when the `with` block ends well.

    dtype: "float32" (mode 2) or "float16" (mode 12). Raises `InputError` when the folder does not exist, `ValueError`
    when the images do not fit `count` and `box_px`.
    """

    def __init__(self, path: Path | str, count: int, box_px: int, pixel_size_a: float, dtype: str = "float32"):
        self._mode = {"float32": 2, "float16": 12}[dtype]
        self._shape = (count, box_px, box_px)
        self._fields = _new_header(self._shape, self._mode, pixel_size_a, sections_are_volume=False)
        self._values = _Statistics()
        self._written = 0
        self._steps = self._writing(path)

    def _writing(self, path: Path | str) -> Generator[None, None, None]:
        with written_atomically(path) as part, open(part, "wb") as self._file:
            self._file.write(self._fields.tobytes())
            yield
            if self._written != self._shape[0]:
                raise ValueError(f"{path}: {self._written} images written, {self._shape[0]} announced")
            self._values.fill(self._fields)
            self._file.seek(0)
            self._file.write(self._fields.tobytes())

    def __enter__(self) -> StackWriter:
        next(self._steps)
        return self

    def write(self, images: np.ndarray) -> None:
        """Append images (B, n, n)."""
        if images.shape[1:] != self._shape[1:] or self._written + len(images) > self._shape[0]:
            raise ValueError(f"images {images.shape} do not fit a stack of {self._shape} after {self._written}")
        stored = np.ascontiguousarray(images, dtype="<" + MODES[self._mode])
        self._values.add(stored)
        self._file.write(stored.data)
        self._written += len(images)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if error is None:
            next(self._steps, None)
        else:
            self._steps.close()


class _Statistics:
    """Running minimum, maximum, mean and deviation for the header."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0
        self.smallest, self.largest = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        if values.size:
            self.count += values.size
            self.total += float(values.sum(dtype=np.float64))
            self.squares += float(np.square(values, dtype=np.float64).sum())
            self.smallest = min(self.smallest, float(values.min()))
            self.largest = max(self.largest, float(values.max()))

    def fill(self, fields: np.ndarray) -> None:
        mean = self.total / max(self.count, 1)
        deviation = np.sqrt(max(self.squares / max(self.count, 1) - mean ** 2, 0.0))
        numbers = (self.smallest, self.largest, mean, deviation) if self.count else (0.0, -1.0, -2.0, -1.0)
        for name, value in zip(("dmin", "dmax", "dmean", "rms"), numbers):
            fields[name] = value


def _new_header(shape: tuple[int, ...], mode: int, pixel_size_a: float, sections_are_volume: bool) -> np.ndarray:
    """A little-endian MRC2014 header as a structured scalar array; image stacks have space group 0 and mz = 1."""
    fields = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    sections, rows, columns = shape
    sampling = (columns, rows, sections if sections_are_volume else 1)
    for axis, size, sampled in zip("xyz", (columns, rows, sections), sampling):
        fields["n" + axis], fields["m" + axis] = size, sampled
        fields["cella"][axis] = sampled * pixel_size_a
    for angle in ("alpha", "beta", "gamma"):
        fields["cellb"][angle] = 90
    fields["mode"], fields["ispg"] = mode, int(sections_are_volume)
    fields["mapc"], fields["mapr"], fields["maps"] = 1, 2, 3
    fields["map"], fields["machst"], fields["nversion"] = b"MAP ", LITTLE_ENDIAN_STAMP, 20141
    fields["nlabl"] = 1
    fields["label"][0] = b"swiftres"
    return fields
