"""Where a refinement stands, and what its next iteration will do."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import Fsc, HalfMaps
from swiftres_plugin.engine.data.search import Assignment


@dataclass(frozen=True, eq=False, slots=True)
class IterationPlan:
    """What one iteration does: a pure function of state and settings.

    last_shell: finest shell compared; search_shell: finest shell of the vector search; exhaustive: search all orientations
    or only refine the poses of the last iteration; angular_step_rad, shift_step_a, shift_range_a: the search's grid;
    share: of the particles to search, those that fit worst, while the others are refined, as `settled` ones are;
    own_support, trust, settled: see `RefinementState`; gallery_seed: orientations of the gallery are turned by chance, each by
    up to a quarter of their spacing, or stand on their grid (None).
    """

    number: int
    last_shell: int
    exhaustive: bool
    search_shell: int
    angular_step_rad: float
    shift_step_a: float
    shift_range_a: float
    share: float = 1.0
    own_support: float = 0.0
    gallery_seed: int | None = None
    trust: np.ndarray | None = None
    settled: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """Of `sampled` of the `searched` particles, `held` had the best pose of an exhaustive search among their candidates;
    index: how it was built."""

    held: int
    sampled: int
    searched: int
    index: str

    @staticmethod
    def of_all(parts: list[Recall]) -> Recall:
        """All of a search's parts together."""
        return Recall(sum(p.held for p in parts), sum(p.sampled for p in parts), sum(p.searched for p in parts),
                      ", ".join(sorted({p.index for p in parts})))


@dataclass(frozen=True, eq=False, slots=True)
class IterationRecord:
    """The figures of a finished iteration, as they stand in run.json.

    resolution_a: of the best class; class_sizes, class_resolution_a: particles and resolution of every class;
    class_changes: share of particles that changed class; class_entropy: mean entropy of their posterior over the classes, 0
    to 1; recall: share of `recall_particles` whose best pose the vector search found (not a number without a search);
    taken: share of particles that took part; searched: share of these that were searched, not only refined; untrusted: share
    of images that seem to show no particle; index: recipe of the vector search as built; busy: share of the time that the
    cores, or GPUs, could have worked.
    """

    number: int
    exhaustive: bool
    max_frequency: float
    resolution_a: float
    median_turn_rad: float
    median_move_a: float
    mean_max_probability: float
    seconds: dict[str, float] = field(default_factory=dict)
    class_sizes: tuple[int, ...] = ()
    class_resolution_a: tuple[float, ...] = ()
    class_changes: float = 0.0
    class_entropy: float = 0.0
    recall: float = float("nan")
    recall_particles: int = 0
    taken: float = 1.0
    searched: float = 0.0
    untrusted: float = 0.0
    index: str = ""
    busy: float = float("nan")


@dataclass(frozen=True, eq=False, slots=True)
class ClassState:
    """The maps of one class.

    references: one map (n, n, n) per half, what the next iteration aligns to; last_shell: finest shell the data supported;
    resolution_a: what was reached, at first the limit of the starting map; halves, combined, mask, fsc: of the last
    reconstruction.
    """

    references: tuple[torch.Tensor, torch.Tensor]
    last_shell: int
    resolution_a: float
    halves: HalfMaps | None = None
    combined: np.ndarray | None = None
    mask: np.ndarray | None = None
    fsc: Fsc | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RefinementState:
    """Everything needed to go on with a refinement of N particles.

    classes: the maps of each; noise: (2, groups, S) power per half; half: (N,) 0 or 1, or -1 for particles left out;
    assignment: of the last iteration, or None before the first; own_support: log-likelihood that a particle gains, on
    average, because it is itself part of the map it is compared with; trust: (N,) probability that each image shows the
    particle, its weight in the maps, or None while all count alike; shares: (N, K) of the particles in the classes, None
    with one class; settled: (N,) whether the last search left each particle, sure of its pose, where it stood, None before
    there were two.
    """

    number: int
    classes: tuple[ClassState, ...]
    noise: np.ndarray
    half: np.ndarray
    assignment: Assignment | None = None
    history: tuple[IterationRecord, ...] = ()
    at_rest: bool = False
    own_support: float = 0.0
    trust: np.ndarray | None = None
    shares: np.ndarray | None = None
    settled: np.ndarray | None = None

    @property
    def last_shell(self) -> int:
        """Finest shell that the best class supports: what particles of all classes are compared to."""
        return max(c.last_shell for c in self.classes)

    @property
    def unaligned(self) -> bool:
        """Whether particles of the halves were left out of the iterations before, or came since."""
        return self.assignment is not None and not self.assignment.aligned[self.half >= 0].all()
