"""Particles that are still being extracted: a refinement that takes in what its file has gained, between its iterations."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swiftres_plugin.engine.align import never_aligned
from swiftres_plugin.engine.checks import check_optics
from swiftres_plugin.engine.data.particles import Optics, Particles
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.spectra import RowsInPieces, Spectra
from swiftres_plugin.engine.data.state import RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.mrc import check_stacks
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.refine import iterate, planned, refine
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.errors import InputError, StateError
from swiftres_plugin.settings import StreamSettings

LOOK_S = 2.0  # between two looks at the file where there is nothing else to do
WIDEST = 0.15  # of the box: how far from the middle the last search looks

Load = Callable[[Particles], Spectra]


@dataclass
class Stream:
    """The particle file of a run, looked at again and again. `came_s`: when it last had something new (monotonic clock)."""

    path: Path
    settings: StreamSettings
    reporter: Reporter
    came_s: float
    refused: str = ""

    def grown(self, known: Particles) -> Particles | None:
        """The `known` particles, in their order, with those that came since behind them; None if none did.

        A file that cannot be used as it is, because it or a stack is being written, is looked at again later.
        """
        try:
            found = read_particles(str(self.path))
            check_optics(found.optics, str(self.path))
            check_stacks(found)
        except InputError as error:
            if str(error) != self.refused:
                self.refused = str(error)
                self.reporter.message(f"Waiting for the particles to be whole ({error})")
            return None
        joined = with_new(known, found)
        if len(joined) == len(known):
            return None
        self.came_s = time.monotonic()
        return joined

    def over(self, count: int) -> bool:
        """Whether no more is to be waited for, with `count` particles taken in."""
        enough = self.settings.follow_until and count >= self.settings.follow_until
        idle = time.monotonic() - self.came_s > 60 * self.settings.follow_idle
        return bool(enough or idle or sentinel(self.path).exists())


def sentinel(star: Path) -> Path:
    """The file that ends the wait for more particles."""
    return star.with_name(star.name + ".done")


def with_new(known: Particles, found: Particles) -> Particles:
    """All that was `found`, the `known` ones first and in their order. Raises `StateError` where one of them is gone."""
    place = {image: row for row, image in enumerate(images(found))}
    first = [place.pop(image, -1) for image in images(known)]
    if -1 in first:
        raise StateError(f"{images(known)[first.index(-1)]}: this particle is in the run and no longer in its file")
    if [optics_of(one) for one in found.optics[:len(known.optics)]] != [optics_of(one) for one in known.optics]:
        raise StateError("the optics groups of the particles have changed since the run began")
    order = np.array([*first, *place.values()], dtype=np.int64)
    return replace(found.take(order), particle_id=np.arange(len(order)))


def images(particles: Particles) -> list[tuple[str, int]]:
    """Stack and place of every image: who a particle is, wherever it stands in a file."""
    paths = [particles.stack_paths[number] for number in particles.stack_index]
    return list(zip(paths, particles.slice_index.tolist()))


def optics_of(optics: Optics) -> tuple[str, int, float, float]:
    """What tells one group from another, to the digits that files keep."""
    return optics.name, optics.box_px, round(optics.pixel_size_a, 3), round(optics.voltage_kv, 1)


def taken_in(engine: Engine, state: RefinementState, particles: Particles, load: Load) -> tuple[Engine, RefinementState]:
    """Engine and state with the new ones behind those they had: halves in balance, poses still to be searched."""
    known = len(engine.spectra)
    pieces = [engine.spectra.values, load(particles.take(np.arange(known, len(particles)))).values]
    spectra = Spectra(RowsInPieces(pieces), engine.spectra.band, particles)
    return replace(engine, spectra=spectra), with_room(state, particles, engine.settings.compute.seed)


def with_room(state: RefinementState, particles: Particles, seed: int) -> RefinementState:
    """The state of the first of the `particles`, with the others in it as never aligned."""
    new = len(particles) - len(state.half)
    half = np.concatenate([state.half, drawn(state.half, particles, seed)])
    noise, groups = state.noise, len(particles.optics)
    if groups > noise.shape[1]:  # until its own is known a group has the average
        average = noise.mean(1, keepdims=True).repeat(groups - noise.shape[1], axis=1)
        noise = np.concatenate([noise, average], axis=1)
    trust = None if state.trust is None else np.concatenate([state.trust, np.ones(new)])
    settled = None if state.settled is None else np.concatenate([state.settled, np.zeros(new, dtype=bool)])
    state = replace(state, half=half, noise=noise, trust=trust, settled=settled)
    if state.assignment is None:
        return state
    return replace(state, assignment=Assignment.joined([state.assignment, never_aligned(new)]), at_rest=False)


def drawn(half: np.ndarray, particles: Particles, seed: int) -> np.ndarray:
    """Halves of the particles that have none yet: as their file says, or drawn so that both halves are of equal size."""
    if particles.half is not None:
        return particles.half[len(half):]
    new = np.zeros(len(particles) - len(half), dtype=np.int64)
    ones = np.clip(len(particles) // 2 - half.sum(), 0, len(new))
    new[np.random.default_rng([seed, 1, len(half)]).permutation(len(new))[:ones]] = 1
    return new


def followed(engine: Engine, state: RefinementState, stream: Stream,
             load: Load) -> Iterator[tuple[Engine, RefinementState]]:
    """Engine and state after each iteration, with all particles that came before it; a search of all of them ends it."""
    most, since = engine.settings.schedule.iterations, 0
    while True:
        grown = stream.grown(engine.spectra.particles)
        if grown is not None:
            stream.reporter.message(f"{len(grown) - len(engine.spectra)} new particles: {len(grown)} now.")
            engine, state = taken_in(engine, state, grown, load)
            since = 0
        elif stream.over(len(engine.spectra)):
            break
        elif state.at_rest or since >= most:
            time.sleep(LOOK_S)
            continue
        state, since = iterate(engine, state, planned(engine, state)), since + 1
        yield engine, state
    stream.reporter.message(f"No more particles are waited for: a last search of all {len(engine.spectra)}.")
    yield from concluded(engine, state)


def concluded(engine: Engine, state: RefinementState) -> Iterator[tuple[Engine, RefinementState]]:
    """All particles searched once more against the map they led to, and refined until they are at rest."""
    plan = planned(engine, state)
    reach = engine.settings.search.max_shift or WIDEST * engine.spectra.band.box_a
    state = iterate(engine, state, replace(plan, exhaustive=True, share=1.0, shift_range_a=reach))
    yield engine, state
    schedule = replace(engine.settings.schedule, iterations=state.number + engine.settings.schedule.iterations)
    engine = replace(engine, settings=replace(engine.settings, schedule=schedule))
    for state in refine(engine, state):  # noqa: B020  (the generator keeps its own)
        yield engine, state
