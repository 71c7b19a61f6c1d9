"""What a search compares, against what, and what it finds."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

NEVER = -np.inf  # log-likelihood of a particle that was not aligned yet


@dataclass(frozen=True, eq=False, slots=True)
class Band:
    """The Fourier coefficients of an image that are compared, ordered by shell and then by angle.

    wave_px: (L, 2) integers kx, ky in cycles per box on the half plane; shell: (L,) their rounded radius. Because of the
    order a lower resolution limit is a prefix of the vector.
    """

    box_px: int
    pixel_size_a: float
    wave_px: torch.Tensor
    shell: torch.Tensor

    def __len__(self) -> int:
        return len(self.shell)

    @property
    def last_shell(self) -> int:
        return int(self.shell[-1])

    @property
    def box_a(self) -> float:
        return self.box_px * self.pixel_size_a

    def frequency(self) -> tuple[torch.Tensor, torch.Tensor]:
        """x and y spatial frequencies in 1/A, each (L,) float32."""
        wave = self.wave_px.to(torch.float32) / self.box_a
        return wave[:, 0], wave[:, 1]

    def up_to(self, shell: int) -> Band:
        """The part of the band up to and including `shell`."""
        length = int(torch.searchsorted(self.shell, shell, right=True))
        return Band(self.box_px, self.pixel_size_a, self.wave_px[:length], self.shell[:length])

    def shell_of(self, resolution_a: float) -> int:
        """The last shell at or below 1/resolution_a, within the band."""
        return max(1, min(self.last_shell, int(self.box_a / resolution_a + 1e-6)))

    def to(self, device: torch.device | str) -> Band:
        return Band(self.box_px, self.pixel_size_a, self.wave_px.to(device), self.shell.to(device))


@dataclass(frozen=True, eq=False, slots=True)
class Gallery:
    """References sampled from one map, as vectors.

    image_to_volume: (G, 3, 3) the orientation of each; vectors: (G, D) principal components followed by shell powers;
    angular_step_rad: spacing of the orientations.
    """

    image_to_volume: torch.Tensor
    vectors: torch.Tensor
    angular_step_rad: float

    def to(self, device: torch.device) -> Gallery:
        return Gallery(self.image_to_volume.to(device), self.vectors.to(device), self.angular_step_rad)


@dataclass(frozen=True, eq=False, slots=True)
class SteeredGallery:
    """References of G directions, each at P angles in its plane, as numbers that turn by a phase (maths/steering.py).

    frames: (G, 3, 3) the orientation of each direction at psi = 0; psi_rad: (P,), P even, evenly over a whole turn; numbers:
    (G, J) complex, of orders `order` (J,), even ones first; power: (G, R) mean power on each ring; angular_step_rad: spacing
    of the orientations.
    """

    frames: torch.Tensor
    psi_rad: torch.Tensor
    numbers: torch.Tensor
    order: torch.Tensor
    power: torch.Tensor
    angular_step_rad: float

    def __len__(self) -> int:
        return len(self.frames) * len(self.psi_rad)

    def to(self, device: torch.device) -> SteeredGallery:
        return SteeredGallery(self.frames.to(device), self.psi_rad.to(device), self.numbers.to(device), self.order.to(device),
                              self.power.to(device), self.angular_step_rad)

    @property
    def even_orders(self) -> int:
        """How many numbers have an even order."""
        return int((self.order % 2 == 0).sum())

    def phases(self) -> torch.Tensor:
        """(P, J) complex: what the numbers are multiplied with at each angle."""
        angle = self.psi_rad[:, None] * self.order
        return torch.polar(torch.ones_like(angle), angle)

    def orientations(self, direction: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        """(..., 3, 3) of the references of these directions and angles (...,): frame @ Rz(psi)."""
        cosine, sine = self.psi_rad[turn].cos()[..., None], self.psi_rad[turn].sin()[..., None]
        x, y, beam = self.frames[direction].unbind(-1)
        return torch.stack([cosine * x + sine * y, cosine * y - sine * x, beam], dim=-1)

    def all_orientations(self) -> torch.Tensor:
        """(G * P, 3, 3)."""
        direction = torch.arange(len(self.frames), device=self.frames.device)[:, None]
        turn = torch.arange(len(self.psi_rad), device=self.frames.device)
        return self.orientations(direction.expand(-1, len(turn)), turn.expand(len(direction), -1)).flatten(0, 1)


class VectorIndex(Protocol):
    """Something that finds the references with the largest inner product."""

    @property
    def description(self) -> str:
        """How it was built, in the words of FAISS's factory, and what it visits."""

    def search(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and reference numbers of the `count` best, descending, for queries (Q, D): both (Q, count)."""

    def over(self, vectors: torch.Tensor) -> VectorIndex:
        """The same index where `vectors`, a copy of those it was built from, lie."""


@dataclass(frozen=True, eq=False, slots=True)
class Candidates:
    """The k best poses of B particles: image_to_volume (B, k, 3, 3), shift_a (B, k, 2), score (B, k) (log-likelihood).

    Descending in score. Missing candidates have score -inf.
    """

    image_to_volume: torch.Tensor
    shift_a: torch.Tensor
    score: torch.Tensor

    def to(self, device: torch.device) -> Candidates:
        return Candidates(self.image_to_volume.to(device), self.shift_a.to(device), self.score.to(device))

    def take(self, rows: np.ndarray) -> Candidates:
        """Those of the particles at `rows`."""
        return Candidates(self.image_to_volume[rows], self.shift_a[rows], self.score[rows])

    def best(self, count: int) -> Candidates:
        """The `count` candidates of highest score, sorted."""
        score, order = self.score.sort(dim=1, descending=True, stable=True)
        order = order[:, :count]
        rows = torch.arange(len(order), device=order.device)[:, None]
        return Candidates(self.image_to_volume[rows, order], self.shift_a[rows, order], score[:, :count])


@dataclass(frozen=True, eq=False, slots=True)
class Assignment:
    """What the alignment decided for N particles (numpy, host).

    log_likelihood: (N,) of the best pose, relative to an empty reference; max_probability: (N,) posterior share of the
    best of the refined candidates of all classes; covariance: (N, 5, 5) of the posterior at the best pose, over rotation
    about the image axes (rad) and shift (A); class_id: (N,) int64 from 0.
    """

    image_to_volume: np.ndarray
    shift_a: np.ndarray
    log_likelihood: np.ndarray
    max_probability: np.ndarray
    covariance: np.ndarray
    class_id: np.ndarray

    @property
    def aligned(self) -> np.ndarray:
        """(N,) whether a search has seen each particle."""
        found: np.ndarray = self.log_likelihood != NEVER
        return found

    @property
    def angle_spread_rad(self) -> np.ndarray:
        """(N,) posterior width of the orientation."""
        return np.sqrt(np.trace(self.covariance[:, :3, :3], axis1=1, axis2=2))

    @property
    def shift_spread_a(self) -> np.ndarray:
        """(N,) posterior width of the shift."""
        return np.sqrt(np.trace(self.covariance[:, 3:, 3:], axis1=1, axis2=2))

    def take(self, rows: np.ndarray) -> Assignment:
        """Those of the particles at `rows`."""
        return Assignment(*(getattr(self, name)[rows] for name in Assignment.__slots__))

    def replaced(self, chosen: np.ndarray, others: Assignment) -> Assignment:
        """With `others` in place of those that are `chosen` (N,)."""
        order = np.arange(len(chosen))
        order[chosen] = len(chosen) + np.arange(int(chosen.sum()))
        return Assignment.joined([self, others]).take(order)

    @staticmethod
    def joined(parts: list[Assignment]) -> Assignment:
        """Concatenate parts in order."""
        fields = Assignment.__slots__
        return Assignment(*(np.concatenate([getattr(p, f) for p in parts]) for f in fields))
