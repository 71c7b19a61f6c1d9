"""What an alignment finds in images of noise, and with it which images show the particle (stages/trust.py)."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from swiftres_plugin.engine.align import Engine, align_classes, residual_noise
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.data.state import IterationPlan, RefinementState
from swiftres_plugin.engine.stages.noise import shell_means
from swiftres_plugin.engine.stages.preprocess import group_transforms
from swiftres_plugin.engine.stages.trust import probability_of_particle
from swiftres_plugin.settings import PreprocessSettings

NOISE_IMAGES = 200  # of each half, that tell what likelihood chance gives
MOST_TAKEN = 2.0  # factor by which fits may have lowered the power of noise


def trusted(engine: Engine, state: RefinementState, plan: IterationPlan, assignment: Assignment,
            noises: Sequence[np.ndarray], diameter_a: float) -> np.ndarray | None:
    """(N,) probability that each image shows the particle, found anew by iterations that search; None while unknown.

    Chance is what images of noise find against the references of each half, in the same search. Images that count in
    those references gain by it: at first the share of chance is therefore underrated, and fewer are left out.
    """
    if not plan.exhaustive or plan.share < 1 or state.number == 0:
        return state.trust
    found = np.ones(len(state.half))
    with engine.timed("chance"):
        for h in (0, 1):
            rows = np.flatnonzero(state.half == h)
            chance = by_chance(engine, state, h, rows[:: max(1, len(rows) // NOISE_IMAGES)], plan, noises[h], diameter_a)
            found[rows] = probability_of_particle(assignment.log_likelihood[rows], chance)
    return found


def by_chance(engine: Engine, state: RefinementState, h: int, rows: np.ndarray, plan: IterationPlan, noise: np.ndarray,
              diameter_a: float) -> np.ndarray:
    """Log-likelihoods that images of noise, with the optics of `rows`, find against the maps of half `h`.

    `noise` is what the maps left of the images. Fits take a part of the noise away; how much is seen on images of noise,
    and made good in those that count.
    """
    references = [c.references[h] for c in state.classes]

    def aligned(power: np.ndarray) -> tuple[Engine, Assignment]:
        blank = noise_images(engine.spectra, rows, power, engine.settings.preprocess, engine.settings.compute.seed + h)
        aside = replace(engine.silent(), spectra=blank)
        return aside, align_classes(aside, references, state.noise[h], np.arange(len(rows)), plan, None, diameter_a, "")

    aside, found = aligned(noise)
    left = residual_noise(aside, references, np.arange(len(rows)), found)
    return aligned(noise * np.clip(noise / left, 1, MOST_TAKEN))[1].log_likelihood


def noise_images(spectra: Spectra, rows: np.ndarray, noise: np.ndarray, settings: PreprocessSettings, seed: int) -> Spectra:
    """Images of noise of power `noise` (groups, S), each with the optics of one of the particles at `rows`.

    They pass the same window as the particles: what it makes neighbouring coefficients share is part of chance.
    """
    particles, band = spectra.particles.take(rows), spectra.band
    transforms = group_transforms(particles, band, settings)
    random = torch.Generator().manual_seed(seed)
    values = torch.empty((len(rows), len(band), 2), dtype=spectra.values.dtype)
    for g in np.unique(particles.optics_group):
        own = np.flatnonzero(particles.optics_group == g)
        box_px = particles.optics[g].box_px
        white = transforms[g].spectra(torch.randn((len(own), box_px, box_px), generator=random), band, invert=False)
        power = shell_means(white.real ** 2 + white.imag ** 2, band).mean(0).clamp(min=1e-30)
        coloured = white * (torch.from_numpy(noise[g]) / power).sqrt()[band.shell]
        values[own] = torch.view_as_real(coloured).to(values.dtype)
    return Spectra(values, band, particles)
