"""The overfitting guard: refine once more with noise in place of detail, and see what correlates that cannot be signal."""
from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.data.maps import Fsc, Map
from swiftres_plugin.engine.data.particles import Particles, ParticleSource, Poses
from swiftres_plugin.engine.data.state import ClassState, RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.tables import write_table
from swiftres_plugin.engine.maths.aberrations import shift_of_image
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.stages.postprocess import compute_fsc
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.engine.stages.substitute import SubstitutedSource
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import RefineSettings

COARSER = 0.8  # the default limit, as a share of the frequency that was reached
SPREAD_SHELLS = 2  # past the limit, where the masks of images and maps spread what lies before it
LEAST_CORRELATION = 0.05  # of the data beyond the limit; less is nothing that overfitting could have made
LOCAL_ITERATIONS = 8  # enough to climb from the starting map past the limit: before that nothing beyond it is compared


@dataclass(frozen=True)
class Substitution:
    """How to refine once more. limit_a: images lose their phases beyond, 0 for the resolution reached over 0.8;
    whole: from the start as the run did, rather than locally from its poses; iterations: at most, 0 for eight local ones
    or as many as the run might."""

    limit_a: float = 0.0
    whole: bool = False
    iterations: int = 0


@dataclass(frozen=True, eq=False)
class Overfitting:
    """FSC of the run and of noise in its place, beyond `limit_a`; first_shell, last_shell: where the two are compared."""

    limit_a: float
    data: Fsc
    noise: Fsc
    first_shell: int
    last_shell: int

    @property
    def true(self) -> np.ndarray:
        """(S,) what is left of the masked FSC without that of noise: (FSC - FSC_noise) / (1 - FSC_noise) (Chen et al.)."""
        noise = np.where(np.arange(len(self.noise.masked)) >= self.first_shell, self.noise.masked, 0.0)
        return (self.data.masked - noise) / np.maximum(1 - noise, 1e-3)

    def mean(self, fsc: Fsc) -> float:
        """Mean correlation over the shells that are compared, without what the mask alone correlates."""
        return float(fsc.corrected[self.first_shell:self.last_shell + 1].mean())

    @property
    def share(self) -> float:
        """Of the correlation beyond the limit, the part that noise shows too: 0 to 1, NaN where there is none to speak of."""
        data = self.mean(self.data)
        return float(np.clip(self.mean(self.noise) / data, 0, 1)) if data >= LEAST_CORRELATION else math.nan


def check_limit(limit_a: float, particles: Particles) -> None:
    """Raises `InputError` for a limit that leaves no shell to compare; 0, the default one, does."""
    finest_a, coarsest_a = 2 * particles.pixel_size_a, particles.pixel_size_a * particles.box_px
    if limit_a and not finest_a < limit_a < coarsest_a:
        raise InputError("the limit of the overfitting guard leaves nothing to compare", found=f"{limit_a:g} A",
                         expected=f"between {finest_a:g} A (Nyquist) and {coarsest_a:g} A (the box)")


def default_limit_a(resolution_a: float, box_a: float) -> float:
    """A fifth short of the frequency reached, at least as coarse as leaves a shell to compare."""
    shell = min(COARSER * box_a / resolution_a, box_a / resolution_a - SPREAD_SHELLS - 1)
    return box_a / max(1, int(shell))


def refine_substituted(
        source: ParticleSource, references: tuple[Map, ...], mask: np.ndarray | None, done: RefinementState,
        engine: Engine, how: Substitution, limit_a: float, scratch: Path) -> RefinementState:
    """The last state of a refinement of the images of `source` with noise beyond the limit.

    As the run that led to `done`, with its halves, starting maps and settings; `engine` is that of the run.
    """
    settings = guarded_settings(engine.settings, how)
    last_shell = engine.spectra.band.shell_of(limit_a)
    substituted = SubstitutedSource(source, last_shell, settings.compute.seed)
    spectra = load_spectra(substituted, settings.preprocess, engine.compute, engine.reporter, scratch)
    particles = starting_particles(source.particles, done, how)
    again = Engine(replace(spectra, particles=particles), engine.compute, engine.operators, settings, engine.reporter, mask)
    state = start(again, references, mask)
    for state in refine(again, state):  # noqa: B020  (the generator keeps its own)
        reached_a = state.history[-1].resolution_a
        engine.reporter.message(f"Noise beyond {limit_a:.1f} A, iteration {state.number}: {reached_a:.2f} A")
    return state


def guarded_settings(settings: RefineSettings, how: Substitution) -> RefineSettings:
    """Those of the run, with few and local iterations unless the whole refinement is repeated."""
    few = how.iterations or (settings.schedule.iterations if how.whole else LOCAL_ITERATIONS)
    alignment = settings.schedule.alignment if how.whole else "local"
    return replace(settings, schedule=replace(settings.schedule, iterations=few, alignment=alignment))


def starting_particles(particles: Particles, done: RefinementState, how: Substitution) -> Particles:
    """The particles in the halves of the run, with its poses if they are to be refined from there."""
    found = done.assignment
    if how.whole or found is None:
        return replace(particles, half=done.half)
    return replace(particles, half=done.half, poses=Poses(found.image_to_volume, shift_of_image(particles, found.shift_a)))


def compared(done: ClassState, noise: ClassState, limit_a: float, seed: int) -> Overfitting:
    """The two curves of a class, both inside the mask of the run."""
    if done.fsc is None or noise.halves is None or done.mask is None:
        raise ValueError("both refinements must have made an iteration")
    pixel_a = noise.halves.first.pixel_size_a
    box_a, last = len(done.mask) * pixel_a, len(done.fsc.frequency) - 1
    first = min(int(box_a / limit_a + 1e-6) + SPREAD_SHELLS, last)
    reached = int(box_a / done.resolution_a) if math.isfinite(done.resolution_a) else 0
    return Overfitting(limit_a, done.fsc, compute_fsc(noise.halves, done.mask, seed), first,
                       min(max(reached, first + 1), last))


def guard(source: ParticleSource, references: tuple[Map, ...], mask: np.ndarray | None, done: RefinementState, engine: Engine,
          how: Substitution, scratch: Path) -> list[Overfitting]:
    """What noise in place of detail shows, for every class of the run."""
    band = engine.spectra.band
    reached_a = min(one.resolution_a for one in done.classes)
    limit_a = how.limit_a or default_limit_a(reached_a, band.box_a)
    noise = refine_substituted(source, references, mask, done, engine, how, limit_a, scratch)
    seed = engine.settings.compute.seed
    return [compared(a, b, limit_a, seed) for a, b in zip(done.classes, noise.classes)]


def figures(found: Overfitting) -> dict[str, Any]:
    """What stands in run.json and overfitting.json."""
    share = found.share
    return {"limit_a": found.limit_a, "from_a": float(1 / found.data.frequency[found.first_shell]),
            "to_a": float(1 / found.data.frequency[found.last_shell]), "data_correlation": found.mean(found.data),
            "noise_correlation": found.mean(found.noise), "overfitted_share": None if math.isnan(share) else share,
            "sentence": sentence(found)}


def sentence(found: Overfitting) -> str:
    """The result in words."""
    data, noise = found.mean(found.data), found.mean(found.noise)
    start = f"With the images' phases made random beyond {found.limit_a:.1f} A, the halves correlate there by {noise:.2f}"
    if math.isnan(found.share):
        return f"{start}; with the true images by {data:.2f}: there is nothing beyond that limit that could be overfitted."
    return f"{start}, with the true images by {data:.2f}: {found.share:.0%} of that correlation is overfitting."


def write_overfitting(found: Overfitting, output: Path, number: int) -> None:
    """Table, and picture where matplotlib is installed, of class `number` (from 1)."""
    write_table(output / layout.overfitting_name(number), {
        "frequency": found.data.frequency, "data": found.data.masked, "noise": found.noise.masked, "true": found.true,
        "data_corrected": found.data.corrected, "noise_corrected": found.noise.corrected})
    if importlib.util.find_spec("matplotlib") is not None:
        from swiftres_plugin.engine.io.pictures import draw_overfitting
        picture = (output / layout.overfitting_name(number)).with_suffix(".png")
        draw_overfitting(picture, found.data, found.noise, found.true, found.limit_a)
