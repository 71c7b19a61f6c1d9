"""Particles and what is known of each: optics, CTF, pose, half set, where its pixels are."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

NO_DISTORTION = (1.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False, slots=True)
class Optics:
    """One optics group: what a microscope session shares (signs and formulas: docs/conventions.md).

    beam_tilt_rad: x and y. odd_zernike, even_zernike: coefficients in RELION's order. magnification: the matrix M by rows;
    it carries frequencies of the image to those of the particle.
    """

    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    pixel_size_a: float
    box_px: int
    phase_flipped: bool = False
    name: str = "opticsGroup1"
    beam_tilt_rad: tuple[float, float] = (0.0, 0.0)
    odd_zernike: tuple[float, ...] = ()
    even_zernike: tuple[float, ...] = ()
    magnification: tuple[float, float, float, float] = NO_DISTORTION

    @property
    def box_a(self) -> float:
        return self.box_px * self.pixel_size_a

    @property
    def distorted(self) -> bool:
        return self.magnification != NO_DISTORTION

    @property
    def shifts_phases(self) -> bool:
        """Whether the images carry phases that no contrast transfer has."""
        return any(self.beam_tilt_rad) or any(self.odd_zernike)


@dataclass(frozen=True, eq=False, slots=True)
class Ctf:
    """Defocus of each particle; all fields (N,) float64.

    b_factor_a2 and scale multiply the transfer by scale * exp(-b_factor_a2 / 4 * k^2); None where no particle is damped.
    """

    defocus_u_a: np.ndarray
    defocus_v_a: np.ndarray
    defocus_angle_rad: np.ndarray
    phase_shift_rad: np.ndarray
    b_factor_a2: np.ndarray | None = None
    scale: np.ndarray | None = None

    def __post_init__(self) -> None:
        _same_length(self, tuple(name for name in Ctf.__slots__ if getattr(self, name) is not None))

    def __len__(self) -> int:
        return len(self.defocus_u_a)

    def take(self, rows: np.ndarray) -> Ctf:
        fields = (getattr(self, name) for name in Ctf.__slots__)
        return Ctf(*(None if values is None else values[rows] for values in fields))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, slots=True)
class Poses:
    """Orientation and centring move of each particle (see docs/conventions.md).

    image_to_volume: (N, 3, 3) rotation matrices; shift_a: (N, 2) angstroms, x then y, the move that centres the particle.
    """

    image_to_volume: np.ndarray
    shift_a: np.ndarray

    def __post_init__(self) -> None:
        if self.image_to_volume.shape[1:] != (3, 3) or self.shift_a.shape[1:] != (2,):
            raise ValueError(f"poses: matrices {self.image_to_volume.shape}, shifts {self.shift_a.shape}")
        _same_length(self, ("image_to_volume", "shift_a"))

    def __len__(self) -> int:
        return len(self.shift_a)

    def take(self, rows: np.ndarray) -> Poses:
        return Poses(self.image_to_volume[rows], self.shift_a[rows])


@dataclass(frozen=True, eq=False, slots=True)
class Particles:
    """Everything known of N particles but their pixels.

    particle_id: (N,) int64, stable through subsets and resumes.
    stack_paths: the files; stack_index (N,) into them; slice_index (N,) 0-based image within the file.
    optics: the groups; optics_group (N,) index into them.
    half: (N,) 0 or 1, or None when not yet drawn.
    scores: per-particle results by name, each (N,) (e.g. `log_likelihood`, `max_probability`, `class_id`).
    extra: columns of the input that the engine does not interpret, name -> (N,) strings, written back unchanged.
    extra_optics: the same for the optics table, name -> one string a group.
    """

    particle_id: np.ndarray
    stack_paths: tuple[str, ...]
    stack_index: np.ndarray
    slice_index: np.ndarray
    optics: tuple[Optics, ...]
    optics_group: np.ndarray
    ctf: Ctf
    half: np.ndarray | None = None
    poses: Poses | None = None
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    extra_optics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _same_length(self, ("particle_id", "stack_index", "slice_index", "optics_group", "ctf"))

    def __len__(self) -> int:
        return len(self.particle_id)

    @property
    def box_px(self) -> int:
        return self.optics[0].box_px

    @property
    def pixel_size_a(self) -> float:
        return self.optics[0].pixel_size_a

    def take(self, rows: np.ndarray) -> Particles:
        """The particles at `rows`, in that order."""
        return replace(
            self, particle_id=self.particle_id[rows], stack_index=self.stack_index[rows],
            slice_index=self.slice_index[rows], optics_group=self.optics_group[rows], ctf=self.ctf.take(rows),
            half=None if self.half is None else self.half[rows],
            poses=None if self.poses is None else self.poses.take(rows),
            scores={k: v[rows] for k, v in self.scores.items()}, extra={k: v[rows] for k, v in self.extra.items()})


class ParticleSource(Protocol):
    """The lazy door to pixels: MRC files in production, arrays in tests."""

    @property
    def particles(self) -> Particles:
        """What is known of the images."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Images of the particles at `rows`: (B, n, n) float32."""


@dataclass(frozen=True, eq=False, slots=True)
class ArraySource:
    """A `ParticleSource` over images already in memory, (N, n, n)."""

    particles: Particles
    images: np.ndarray

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.images[rows], dtype=np.float32)


def _same_length(noun: object, names: tuple[str, ...]) -> None:
    lengths = {name: len(getattr(noun, name)) for name in names}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{type(noun).__name__}: lengths differ: {lengths}")
