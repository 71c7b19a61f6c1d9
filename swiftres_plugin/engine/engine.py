"""What every stage of a run shares."""
from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.search import Assignment, Band
from swiftres_plugin.engine.data.spectra import ParticleBatch, Spectra
from swiftres_plugin.engine.data.state import IterationPlan, Recall
from swiftres_plugin.engine.maths.slices import fourier_volume
from swiftres_plugin.engine.report import Reporter, SilentReporter
from swiftres_plugin.engine.scratch import Storage
from swiftres_plugin.engine.stages.preprocess import make_batch, window_power
from swiftres_plugin.engine.stages.reconstruct import solve
from swiftres_plugin.settings import RefineSettings

# Working memory per voxel of the twofold padded cube, as measured and a little more:
VOLUME_BYTES = 8  # to transform a map for the search
MAP_BYTES = 4  # to transform sums back to a map

PowerSums = list[tuple[np.ndarray, np.ndarray]]  # sums of power (groups, S) and numbers of particles (groups,), part by part


class Cluster(Protocol):
    """Processes elsewhere that hold the images of a run, and do what reads many of them; see the functions of these names."""

    def image_power(self, engine: Engine, rows: np.ndarray) -> PowerSums: ...

    def align_rows(self, engine: Engine, reference: torch.Tensor, noise: np.ndarray, rows: np.ndarray, anew: np.ndarray,
                   plan: IterationPlan, previous: Assignment | None, diameter_a: float, name: str) -> Assignment: ...

    def unexplained(self, engine: Engine, reference: torch.Tensor, rows: np.ndarray, poses: Assignment) -> PowerSums: ...

    def reconstruct_half(self, engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, name: str,
                         last_shell: int, share: np.ndarray | None) -> Accumulator: ...


@dataclass(frozen=True, eq=False, slots=True)
class Engine:
    """What every stage of a run shares: data, place of work, symmetry, and where to report.

    With a `cluster` the images lie there, and `spectra` reads the few that are needed here when they are asked for.
    """

    spectra: Spectra
    compute: Compute
    operators: np.ndarray
    settings: RefineSettings
    reporter: Reporter
    user_mask: np.ndarray | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    recalls: list[Recall] = field(default_factory=list)
    cluster: Cluster | None = None

    @property
    def device(self) -> torch.device:
        return self.compute.device

    def on(self, place: Compute) -> Engine:
        """The same run, for the part of the work that is done at `place`."""
        return self if place is self.compute else replace(self, compute=place)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to the account of `stage`."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def silent(self) -> Engine:
        """The same run for work on the side: it reports nothing and keeps its own accounts."""
        return replace(self, reporter=SilentReporter(), seconds={}, recalls=[])

    def unmeasured(self) -> Engine:
        """The same run, whose searches measure no recall."""
        return replace(self, settings=replace(self.settings, search=replace(self.settings.search, recall_sample=0)))

    def batch(self, rows: np.ndarray, band: Band) -> ParticleBatch:
        return make_batch(self.spectra, rows, band, self.device)

    def independent(self, rows: np.ndarray) -> np.ndarray:
        """(n,) part of the coefficients of each particle that is independent; see `window_power`."""
        particles = self.spectra.particles
        found: np.ndarray = window_power(particles, self.settings.preprocess)[particles.optics_group[rows]]
        return found

    @property
    def storage(self) -> Storage:
        return self.compute.storage

    def volume(self, reference: torch.Tensor, last_shell: int) -> torch.Tensor:
        """The Fourier volume of a map, on the device."""
        if self.storage.on_disk:
            return fourier_volume(reference.cpu(), last_shell, empty=self.storage.empty).to(self.device)
        place = self.compute.place(VOLUME_BYTES * (2 * len(reference)) ** 3)
        return fourier_volume(reference.to(place), last_shell).to(self.device)

    def solved(self, *sums: Accumulator, signal_to_noise: np.ndarray | None = None) -> torch.Tensor:
        """The map of `sums`, added up; on the device where its memory allows."""
        box_px = self.spectra.band.box_px
        if self.storage.on_disk:
            return solve(sums, box_px, signal_to_noise, empty=self.storage.empty)
        return solve(sums, box_px, signal_to_noise, self.compute.place(MAP_BYTES * (2 * box_px) ** 3))
