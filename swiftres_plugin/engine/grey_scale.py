"""The grey scale of maps: the factor that brings one to the scale of the particles it is compared with."""
from __future__ import annotations

from functools import cache

import numpy as np
import torch

from swiftres_plugin.engine.align import given_candidates
from swiftres_plugin.engine.data.search import Assignment, Candidates
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.data.state import IterationPlan, RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.slices import extract_slices
from swiftres_plugin.engine.plan import plan_iteration
from swiftres_plugin.engine.searching import evenly, joined, search_rows, separations, steered_search, total_evidence
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.noise import per_sample

SAMPLE = 500  # particles that find the scale of a map at their poses,
SEARCHED = 150  # and that find it where no pose is known
FURTHEST_SCALE = 8  # factors of two that the scale of a map may be off the first guess
CERTAIN = 10.0  # log-likelihood by which the negative of a map has to explain particles better
MOST_LOST = 1.3  # factor by which a grid's poses make the likeliest scale too low: what is more is noise that fits
LEAST_TOLD = 6.0  # log-likelihood between orientations below which refinements began to fail (docs/method.md)


def starting_scale(engine: Engine, state: RefinementState, diameter_a: float, name: str) -> float:
    """Factor that brings the map of a state of one class to the particles' scale, found with a sample of them.

    `name` is what the user calls the map. Known poses give it by least squares. Else it is the likeliest at all poses
    together, which on a grid is a little low, corrected by that of the best poses, which alone would explain noise too. Warns
    when the negative of the map explains the particles better, and when the map tells no orientations.
    """
    rows = evenly(np.flatnonzero(state.half == 0), SAMPLE if state.assignment is not None else SEARCHED)
    batch = engine.batch(rows, engine.spectra.band.up_to(state.last_shell).to(engine.device))
    volume = engine.volume(state.classes[0].references[0], state.last_shell)
    if state.assignment is not None:
        return scale_at(engine, state.noise[0], batch, volume, state.assignment)
    plan = plan_iteration(state, engine.spectra.band, diameter_a, engine.settings)
    positive, likelihood = likeliest_scale(engine, state.noise[0], batch, volume, plan)
    _, negative_likelihood = likeliest_scale(engine, state.noise[0], batch, -volume, plan)
    if negative_likelihood > likelihood + CERTAIN:
        engine.reporter.warning(f"The particles look like the negative of {name}. Particles must be white on black: if "
                                "they are not, start again with --invert-contrast.")
        return positive
    told = float(separations(engine, volume * positive, state.noise[0], rows, state.last_shell)[:, -1].median())
    warn_of_start(engine, state, told, name)
    return positive * scale_at_best(engine, state.noise[0], batch, volume * positive, plan)


def scale_at(engine: Engine, noise: np.ndarray, batch: ParticleBatch, volume: torch.Tensor, poses: Assignment) -> float:
    """Least-squares factor of a Fourier volume at the `poses` of the batch's particles, which are those of all."""
    given = given_candidates(poses, batch.rows, engine.device)
    return max(fitted_scale(batch, per_sample(noise, batch), volume, given), 1e-6)


def scale_at_best(engine: Engine, noise: np.ndarray, batch: ParticleBatch, volume: torch.Tensor, plan: IterationPlan) -> float:
    """Least-squares factor of a Fourier volume, near its scale already, at the best pose of each particle."""
    found = joined(search_rows(engine, steered_search(engine, volume, noise, batch.rows, plan), noise, batch.rows,
                               np.zeros((len(engine.spectra), 2)), report=False)).best(1)
    return min(max(fitted_scale(batch, per_sample(noise, batch), volume, found), 1.0), MOST_LOST)


def warn_of_start(engine: Engine, state: RefinementState, told: float, name: str) -> None:
    """Tell that orientations of a starting map differ by too small a log-likelihood, `told`, to begin with."""
    if told < LEAST_TOLD:
        limit_a = engine.spectra.band.box_a / state.last_shell
        engine.reporter.warning(
            f"At {limit_a:.0f} A {name} hardly tells how these particles are turned: orientations differ by a log-likelihood "
            f"of {told:.1f}, where some {LEAST_TOLD:.0f} are needed. The refinement may end in a wrong structure or hand "
            "that both halves share. Begin it with finer detail: a smaller --initial-resolution, and a map that holds it.")


def likeliest_scale(engine: Engine, noise: np.ndarray, batch: ParticleBatch, volume: torch.Tensor,
                    plan: IterationPlan) -> tuple[float, float]:
    """Scale of a Fourier volume at which particles are likeliest, all poses taken together, and their log-likelihood there.

    The best pose alone would give too large a scale: it explains noise too. Scales are tried in factors of two, from one at
    which the map has a part of the images' power, and a parabola over the best three tells the rest.
    """
    few = extract_slices(volume, torch.eye(3, device=engine.device)[None], batch.band.wave_px)
    power = (batch.images.abs() ** 2).mean() / (few.abs() ** 2 * batch.ctf ** 2).mean()
    middle = 0.3 * float(power.sqrt())

    @cache
    def likelihood(step: int) -> float:
        searcher = steered_search(engine, volume * (middle * 2.0 ** step), noise, batch.rows, plan)
        return total_evidence(engine, searcher, noise, batch.rows)

    best = max(range(-1, 2), key=likelihood)
    onward = best  # 1 or -1, or 0 where the middle is best
    while 0 < abs(best) < FURTHEST_SCALE - 1 and likelihood(best + onward) > likelihood(best):
        best += onward
    below, top, above = (likelihood(best + step) for step in (-1, 0, 1))
    bend = below - 2 * top + above
    return middle * 2.0 ** (best + (0.5 * (below - above) / bend if bend < 0 else 0.0)), top


def fitted_scale(batch: ParticleBatch, power: torch.Tensor, volume: torch.Tensor, found: Candidates) -> float:
    """Least-squares factor of a Fourier volume at given poses."""
    slices = extract_slices(volume, found.image_to_volume[:, 0], batch.band.wave_px)
    predicted = local.model(batch, slices, found.shift_a[:, 0])
    cross = float(((batch.images * predicted.conj()).real / power).sum())
    square = float((predicted.abs() ** 2 / power).sum())
    return cross / max(square, 1e-30)


def scaled_reference(engine: Engine, reference: torch.Tensor, noise: np.ndarray, rows: np.ndarray, poses: Assignment,
                     resolution_a: float) -> torch.Tensor:
    """A map on the grey scale of the particles, by least squares over a sample of `rows` at their poses."""
    band = engine.spectra.band.up_to(engine.spectra.band.shell_of(resolution_a)).to(engine.device)
    few = evenly(rows, SAMPLE)
    batch = engine.batch(few, band)
    volume = engine.volume(reference, band.last_shell)
    return reference * scale_at(engine, noise, batch, volume, poses)
