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
    or only refine the poses of the last iteration; angular_step_rad, shift_step_a, shift_range_a: the search's grid.
    """

    number: int
    last_shell: int
    exhaustive: bool
    search_shell: int
    angular_step_rad: float
    shift_step_a: float
    shift_range_a: float


@dataclass(frozen=True, eq=False, slots=True)
class IterationRecord:
    """The figures of a finished iteration, as they stand in run.json."""

    number: int
    exhaustive: bool
    max_frequency: float
    resolution_a: float
    median_turn_rad: float
    median_move_a: float
    mean_max_probability: float
    seconds: dict[str, float] = field(default_factory=dict)
    search_recall: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RefinementState:
    """Everything needed to go on with a refinement of N particles.

    references: one map (n, n, n) per half, what the next iteration aligns to; noise: (2, groups, S) power per half;
    assignment: of the last iteration, or None before the first; halves, mask, fsc: of the last reconstruction;
    last_shell: finest shell the data supported then.
    """

    number: int
    references: tuple[torch.Tensor, torch.Tensor]
    noise: np.ndarray
    half: np.ndarray
    last_shell: int
    assignment: Assignment | None = None
    halves: HalfMaps | None = None
    combined: np.ndarray | None = None
    mask: np.ndarray | None = None
    fsc: Fsc | None = None
    history: tuple[IterationRecord, ...] = ()
    at_rest: bool = False
