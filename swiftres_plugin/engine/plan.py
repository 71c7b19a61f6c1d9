"""What the next iteration does, from what the last ones reached. No side effects."""
from __future__ import annotations

import numpy as np

from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.state import IterationPlan, IterationRecord, RefinementState
from swiftres_plugin.settings import RefineSettings

STEP_OF_RESOLUTION = 1.25  # grid spacing in units of (resolution / diameter); the local refinement reaches farther
MARGIN = 0.1  # share of shells beyond the FSC limit that are compared too: their weight is what their SNR deserves
STILL = 0.5  # an iteration is at rest when poses turn less than this share of the finest resolution's angle


def plan_iteration(state: RefinementState, band: Band, diameter_a: float, settings: RefineSettings) -> IterationPlan:
    """The plan of the iteration after `state`."""
    last = state.last_shell
    search_shell = min(last, band.shell_of(settings.search.search_resolution))
    finest_a = band.box_a / search_shell
    widest = settings.search.max_shift or 0.1 * band.box_a
    step = finest_a / 2
    known = state.assignment is not None and state.number > 0
    shift_range = min(widest, max(2 * step, 0.5 / state.history[-1].max_frequency)) if known else widest
    return IterationPlan(
        number=state.number + 1, last_shell=last, exhaustive=wants_search(state, settings), search_shell=search_shell,
        angular_step_rad=float(np.arcsin(min(0.7, STEP_OF_RESOLUTION * finest_a / diameter_a))), shift_step_a=step,
        shift_range_a=shift_range)


def wants_search(state: RefinementState, settings: RefineSettings) -> bool:
    """Search all orientations until a search no longer improves the resolution; never when only local work was asked for."""
    if settings.schedule.alignment == "local":
        return False
    searches = [r for r in state.history if r.exhaustive]
    if len(searches) < len(state.history):
        return False
    return len(searches) < 3 or searches[-1].resolution_a < 0.97 * searches[-2].resolution_a


def next_last_shell(resolution_a: float, band: Band, state: RefinementState, settings: RefineSettings) -> int:
    """Finest shell for the next alignment: the FSC limit and a margin, never past what the user allows."""
    start = band.shell_of(settings.schedule.initial_resolution)
    reached = band.box_a / resolution_a if np.isfinite(resolution_a) else 0.0
    shell = int(reached * (1 + MARGIN) + 1)
    finest = band.shell_of(settings.schedule.maximum_resolution) if settings.schedule.maximum_resolution else band.last_shell
    return max(start, min(shell, finest))


def at_rest(history: tuple[IterationRecord, ...], diameter_a: float) -> bool:
    """True when two local iterations in a row improved nothing and the poses hardly moved."""
    if len(history) < 3 or history[-1].exhaustive or history[-2].exhaustive:
        return False
    best = min(r.resolution_a for r in history[:-2])
    stuck = min(history[-1].resolution_a, history[-2].resolution_a) > 0.99 * best
    finest = history[-1].resolution_a / diameter_a if np.isfinite(history[-1].resolution_a) else np.inf
    return stuck and history[-1].median_turn_rad < STILL * finest
