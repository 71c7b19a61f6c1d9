"""What the next iteration does, from what the last ones reached. No side effects."""
from __future__ import annotations

import numpy as np

from swiftres_plugin.engine.data.maps import Fsc
from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.state import IterationPlan, IterationRecord, RefinementState
from swiftres_plugin.settings import RefineSettings

STEP_OF_RESOLUTION = 1.0  # grid spacing in units of (resolution / diameter); the local refinement reaches farther
MARGIN = 0.1  # share of shells beyond the FSC limit that are compared too: their weight is what their SNR deserves
GAIN = 0.97  # a search improves the resolution when it brings it under this part of what it was
STILL = 0.15  # an iteration is at rest when poses turn less than this share of the finest resolution's angle
STEADY = 0.01  # and when fewer than this share of the particles change their class
DOUBTED = 0.25  # share of the particles that is searched once more in the end: nearly all that are misplaced fit worst
FINER_AGAIN = 0.75  # finest resolution of that search, in units of the first ones'
COARSEST_SEARCH_A = 20.0  # a search ends no coarser than this, where the map reaches it
FIRST_SEARCHES = 3  # iterations that search all orientations whatever they gain, for all particles,
MOST_SEARCHES = 8  # and how many do while poses still turn
TURNING = 2.0  # by more than this share of the angle that the resolution can tell apart: they do not stand where they belong,
STIRRING = 0.5  # or by this share where a search improves the resolution though it is not finer than the one before


def plan_iteration(state: RefinementState, band: Band, diameter_a: float, settings: RefineSettings,
                   telling_shell: int = 0) -> IterationPlan:
    """The plan of the iteration after `state`.

    telling_shell: up to which the particles have to be compared to tell their orientation (see `telling`).
    """
    history = since_gain(state.history)
    again = not all(r.exhaustive for r in history)
    search_a = (settings.search.search_resolution or COARSEST_SEARCH_A) * (FINER_AGAIN if again else 1.0)
    search_shell = min(state.last_shell, max(band.shell_of(search_a), telling_shell))
    finest_a = band.box_a / search_shell
    widest = settings.search.max_shift or 0.1 * band.box_a
    step, reach = finest_a / 2, widest
    if again:
        reach = settings.search.max_shift or 0.15 * band.box_a
    elif state.assignment is not None and history and not state.unaligned:
        reach = min(widest, max(3 * step, 0.5 / history[-1].max_frequency))
    return IterationPlan(
        number=state.number + 1, last_shell=state.last_shell, exhaustive=wants_search(state, settings, diameter_a, band),
        search_shell=search_shell,
        angular_step_rad=float(np.arcsin(min(0.7, STEP_OF_RESOLUTION * finest_a / diameter_a))), shift_step_a=step,
        shift_range_a=reach, share=DOUBTED if again else 1.0, own_support=state.own_support, trust=state.trust,
        settled=state.settled if len(state.history) >= FIRST_SEARCHES or mostly(state.settled) else None)


def mostly(settled: np.ndarray | None) -> bool:
    """Whether most particles are settled, so that the maps they come from can be trusted in this early."""
    return settled is not None and bool(settled.mean() > 0.5)


def since_gain(history: tuple[IterationRecord, ...]) -> tuple[IterationRecord, ...]:
    """The iterations since the last search after local ones that improved the resolution: there all begins anew."""
    later = [i for i in range(1, len(history)) if history[i].exhaustive and not history[i - 1].exhaustive]
    gains = [i for i in later if history[i].resolution_a < GAIN * min(r.resolution_a for r in history[:i])]
    return history[gains[-1]:] if gains else history


def wants_search(state: RefinementState, settings: RefineSettings, diameter_a: float, band: Band) -> bool:
    """Search all orientations at first, while that leads to finer detail or turns poses, and once more in the end.

    The last search, of the particles that fit worst, gives those that the early, coarse maps misplaced another chance. Where
    that improves the resolution, it was not the last.
    """
    history = since_gain(state.history)
    if settings.schedule.alignment == "local":
        return False
    if all(r.exhaustive for r in history):
        if len(history) < FIRST_SEARCHES:
            return True
        leads = state.last_shell > round(history[-1].max_frequency * band.box_a) or turning(history[-1], diameter_a, STIRRING)
        gains = leads and history[-1].resolution_a < GAIN * history[-2].resolution_a
        return gains or len(history) < MOST_SEARCHES and turning(history[-1], diameter_a, TURNING)
    return not searched_again(history) and resting(history, diameter_a)


def turning(last: IterationRecord, diameter_a: float, share: float) -> bool:
    """Whether an iteration turned poses by more than a share of the angle that its resolution can tell apart."""
    return bool(last.median_turn_rad > share * last.resolution_a / diameter_a)


def searched_again(history: tuple[IterationRecord, ...]) -> bool:
    """Whether a search followed the first local refinements."""
    kinds = [r.exhaustive for r in history]
    return False in kinds and True in kinds[kinds.index(False):]


def next_last_shell(resolution_a: float, band: Band, settings: RefineSettings) -> int:
    """Finest shell for the next alignment: the FSC limit and a margin, never past what the user allows."""
    start = band.shell_of(settings.schedule.initial_resolution)
    reached = band.box_a / resolution_a if np.isfinite(resolution_a) else 0.0
    shell = int(reached * (1 + MARGIN) + 1)
    finest = band.shell_of(settings.schedule.maximum_resolution) if settings.schedule.maximum_resolution else band.last_shell
    return max(start, min(shell, finest))


def reconstructed_shell(plan: IterationPlan, band: Band) -> int:
    """Finest shell to reconstruct: poses found on a few coarse shells do not place detail many times finer."""
    return min(band.last_shell, 4 * plan.last_shell + 10)


def beyond_start(fsc: Fsc, band: Band, limit: int) -> bool:
    """Whether the halves agree on more than the starting map, whose finest shell is `limit`, told them both.

    Noise aligned to one map agrees up to that map's limit, and the masks of images and maps spread this over two
    shells more, falling some fifty-fold a shell in power. Without the solvent mask, which would spread it farther.
    """
    loose, strict = (band.box_a / fsc.resolution_a(threshold, "unmasked", stays=1) for threshold in (0.143, 0.5))
    return loose > limit + 3 or strict > limit + 2


def resting(history: tuple[IterationRecord, ...], diameter_a: float) -> bool:
    """True when a local iteration improved nothing, and poses and classes hardly changed."""
    if len(history) < 3 or history[-1].exhaustive:
        return False
    best = min(r.resolution_a for r in history[:-1])
    last = history[-1]
    finest = last.resolution_a / diameter_a if np.isfinite(last.resolution_a) else np.inf
    still = last.median_turn_rad < STILL * finest and last.class_changes < STEADY
    return last.resolution_a > 0.99 * best and still


def at_rest(history: tuple[IterationRecord, ...], diameter_a: float, settings: RefineSettings) -> bool:
    """True when the refinement is done: at rest after its last search (or without one, when only local work was asked for)."""
    latest = since_gain(history)
    return resting(latest, diameter_a) and (settings.schedule.alignment == "local" or searched_again(latest))
