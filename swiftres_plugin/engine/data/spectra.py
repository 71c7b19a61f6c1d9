"""Particles as the stages see them: their transforms, resident for the whole refinement."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Band


@dataclass(frozen=True, eq=False, slots=True)
class Spectra:
    """Transforms of N particles on a band, in half precision: values (N, L, 2), in memory, memory-mapped or on demand."""

    values: torch.Tensor
    band: Band
    particles: Particles

    def __len__(self) -> int:
        return len(self.values)


class RowsOnDemand:
    """Stands for an array of `count` rows that `load` makes when they are first asked for; the last `most` stay."""

    def __init__(self, count: int, load: Callable[[np.ndarray], torch.Tensor], most: int):
        self._count, self._load, self._most = count, load, most
        self._rows: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: tuple[slice | torch.Tensor, slice]) -> torch.Tensor:
        """Some rows, cut."""
        rows, cut = place
        numbers = torch.arange(self._count)[rows].tolist()
        missing = sorted(set(numbers) - set(self._rows))
        if len(self._rows) + len(missing) > self._most:
            self._rows = {number: self._rows[number] for number in set(numbers) - set(missing)}
        if missing:
            self._rows.update(zip(missing, self._load(np.array(missing))))
        return torch.stack([self._rows[number][cut] for number in numbers])


class RowsInPieces:
    """Stands for an array that lies in pieces, one behind the other."""

    def __init__(self, pieces: Sequence[torch.Tensor]):
        self._pieces: list[torch.Tensor] = []
        for piece in pieces:
            self._pieces += piece._pieces if isinstance(piece, RowsInPieces) else [piece]
        self._first = np.cumsum([0, *map(len, self._pieces)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, place: tuple[slice | torch.Tensor, slice]) -> torch.Tensor:
        """Some rows, cut."""
        rows, cut = place
        numbers = torch.arange(len(self))[rows]
        piece = torch.from_numpy(np.searchsorted(self._first, numbers.numpy(), side="right") - 1)
        found = {int(p): self._pieces[int(p)][numbers[piece == p] - int(self._first[p]), cut] for p in piece.unique()}
        if len(found) == 1:
            return next(iter(found.values()))
        out = next(iter(found.values())).new_empty((len(numbers), *next(iter(found.values())).shape[1:]))
        for p, values in found.items():
            out[piece == p] = values
        return out


@dataclass(frozen=True, eq=False, slots=True)
class ParticleBatch:
    """B particles on one device, cut to a band.

    rows: (B,) their place in the `Spectra`; images: (B, L) complex64; ctf: (B, L) float32; optics_group: (B,) int64.
    """

    rows: np.ndarray
    images: torch.Tensor
    ctf: torch.Tensor
    optics_group: torch.Tensor
    band: Band

    def up_to(self, shell: int) -> ParticleBatch:
        """The same particles on a shorter band."""
        band = self.band.up_to(shell)
        return ParticleBatch(self.rows, self.images[:, :len(band)], self.ctf[:, :len(band)], self.optics_group, band)

    def take(self, index: torch.Tensor) -> ParticleBatch:
        """The particles at positions `index` of the batch (repeats allowed)."""
        rows = self.rows[index.cpu().numpy()]
        return ParticleBatch(rows, self.images[index], self.ctf[index], self.optics_group[index], self.band)


class Comparison(Protocol):
    """How images and references become vectors whose inner product says how alike they are."""

    @property
    def band(self) -> Band:
        """The coefficients that are compared."""

    def to(self, device: torch.device) -> Comparison:
        """The same on `device`."""

    def of_references(self, slices: torch.Tensor) -> torch.Tensor:
        """(B, D) vectors of references (B, L)."""

    def of_particles(self, batch: ParticleBatch, noise: torch.Tensor, ramp: torch.Tensor) -> torch.Tensor:
        """(B, M, D) vectors of particles moved by `ramp` (B, M, L), with noise power (B, L)."""
