"""The first searches of a large set: a part of its particles leads as far as all of them would.

The maps of the first two iterations only have to tell orientations to the next one, which searches every particle.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from swiftres_plugin.engine.data.state import RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.plan import FIRST_SEARCHES

LEFT_OUT = -1  # in place of a half set


def early_state(engine: Engine, state: RefinementState) -> RefinementState | None:
    """The state with all but its first particles left out of both halves; None where all take part.

    The last of the first searches is of all particles, so whatever a part leads to is searched by everyone before the
    resolution decides what follows.
    """
    schedule = engine.settings.schedule
    each = schedule.first_particles * len(state.classes) // 2
    sizes = [int((state.half == h).sum()) for h in (0, 1)]
    if not each or 2 * each >= min(sizes) or schedule.alignment == "local" or schedule.iterations <= FIRST_SEARCHES:
        return None
    if state.number >= FIRST_SEARCHES - 1 or not (state.assignment is None or state.unaligned):
        return None
    return replace(state, half=drawn(state.half, each, engine.settings.compute.seed))


def drawn(half: np.ndarray, each: int, seed: int) -> np.ndarray:
    """The half sets with `each` particles of both, chosen by chance, and the others left out."""
    part = np.full_like(half, LEFT_OUT)
    for h in (0, 1):
        rows = np.random.default_rng([seed, 2, h]).permutation(np.flatnonzero(half == h))[:each]
        part[rows] = h
    return part


def leads(engine: Engine, after: RefinementState) -> bool:
    """Whether an iteration of a part has come beyond what the starting maps held, in some class."""
    return after.last_shell > engine.spectra.band.shell_of(engine.settings.schedule.initial_resolution)
