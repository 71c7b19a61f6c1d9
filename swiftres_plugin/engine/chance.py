"""What an alignment finds in images of noise, and with it which images show the particle (stages/trust.py)."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from swiftres_plugin.engine.align import align_classes, residual_noise
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.data.state import IterationPlan, RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.searching import evenly
from swiftres_plugin.engine.stages.noise import shell_means
from swiftres_plugin.engine.stages.preprocess import group_transforms, typical_defocus_a
from swiftres_plugin.engine.stages.trust import LEAST_CHANCE, probability_of_particle
from swiftres_plugin.settings import PreprocessSettings

FEW_IMAGES = 40  # of noise, of each half, that tell whether any particle fits as badly
NOISE_IMAGES = 120  # of each half, that tell what likelihood chance gives
MOST_TAKEN = 2.0  # factor by which fits may have lowered the power of noise


def trusted(engine: Engine, state: RefinementState, plan: IterationPlan, assignment: Assignment,
            noises: Sequence[np.ndarray], diameter_a: float) -> np.ndarray | None:
    """(N,) probability that each image shows the particle, found anew by iterations that search; None while unknown.

    Images that count in the references gain by it: at first the share of chance is therefore underrated, and fewer are
    left out. `noises`: what the maps left of the images of each half.
    """
    if not plan.exhaustive or plan.share < 1 or state.number == 0:
        return state.trust
    found = np.ones(len(state.half))
    with engine.timed("chance"):
        for h in (0, 1):
            rows = np.flatnonzero(state.half == h)
            chance = Chance(engine, state, h, plan, diameter_a)
            found[rows] = chance.probability_of_particle(rows, assignment.log_likelihood[rows], noises[h])
    return found


@dataclass(frozen=True, eq=False, slots=True)
class Chance:
    """What images of noise find against the references of half `h` of a state, in the search of `plan`."""

    engine: Engine
    state: RefinementState
    h: int
    plan: IterationPlan
    diameter_a: float

    def probability_of_particle(self, rows: np.ndarray, likelihood: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """That of each image at `rows`, of these likelihoods. `noise` (groups, S) is what the maps left of them.

        A few images of noise tell whether it is worth asking more, and how much of the noise fits take away, which is made
        good in those that count.
        """
        few = evenly(rows, FEW_IMAGES)
        blank, found = self.aligned(few, noise)
        if np.mean(likelihood < np.quantile(found.log_likelihood, 0.95)) < LEAST_CHANCE / 2:
            return np.ones(len(rows))
        left = residual_noise(blank, self.references, np.arange(len(few)), found)
        some = evenly(rows, NOISE_IMAGES)
        chance = self.aligned(some, noise * np.clip(noise / left, 1, MOST_TAKEN))[1].log_likelihood
        return probability_of_particle(likelihood, chance)

    @property
    def references(self) -> list[torch.Tensor]:
        return [one.references[self.h] for one in self.state.classes]

    def aligned(self, rows: np.ndarray, noise: np.ndarray) -> tuple[Engine, Assignment]:
        """An engine over images of noise with the optics of `rows`, and what their alignment finds."""
        settings = self.engine.settings
        blank = noise_images(self.engine.spectra, rows, noise, settings.preprocess, settings.compute.seed + self.h)
        aside = replace(self.engine.silent().unmeasured(), spectra=blank, cluster=None)
        return aside, align_classes(aside, self.references, self.state.noise[self.h], np.arange(len(rows)), self.plan, None,
                                    self.diameter_a, "")


def noise_images(spectra: Spectra, rows: np.ndarray, noise: np.ndarray, settings: PreprocessSettings, seed: int) -> Spectra:
    """Images of noise of power `noise` (groups, S), each with the optics of one of the particles at `rows`.

    They pass the same window as the particles: what it makes neighbouring coefficients share is part of chance.
    """
    particles, band = spectra.particles.take(rows), spectra.band
    transforms = group_transforms(particles, band, settings, typical_defocus_a(spectra.particles))
    random = torch.Generator().manual_seed(seed)
    values = torch.empty((len(rows), len(band), 2), dtype=torch.float16)
    for g in np.unique(particles.optics_group):
        own = np.flatnonzero(particles.optics_group == g)
        box_px = particles.optics[g].box_px
        white = transforms[g].spectra(torch.randn((len(own), box_px, box_px), generator=random), band, invert=False)
        power = shell_means(white.real ** 2 + white.imag ** 2, band).mean(0).clamp(min=1e-30)
        coloured = white * (torch.from_numpy(noise[g]) / power).sqrt()[band.shell]
        values[own] = torch.view_as_real(coloured).to(values.dtype)
    return Spectra(values, band, particles)
