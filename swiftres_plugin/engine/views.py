"""Classes in the plane as observations of the particle: what all particles of a class say together of one view.

Where the particles of a class show one view A, the log-likelihoods of all of them add up to that of a single image,

    log p = sum over the class (2 Re<q, A> - <C^2 / N, |A|^2>) = 2 Re<Q, A> - <W, |A|^2>,   q = C X / N turned and centred,

with Q and W the sums of the class. So an average is compared with a map like a particle, and every CTF in it is accounted for.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from swiftres_plugin.engine.class_averages import INSERT_BYTES, added
from swiftres_plugin.engine.class_search import polar_batch, search_band
from swiftres_plugin.engine.data.classes import ClassSearch
from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.polar import angle_count, cell_area, polar_band, real_rings_of, ring_angles, rings_of
from swiftres_plugin.engine.maths.resample import images_from
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.turns import Placings
from swiftres_plugin.settings import ClassSettings

EMPTY = 1e-6  # of the mean weight: a class that holds no particle
EDGE = 0.15  # of an average's highest density: what is above belongs to the particle
CLASS_TRUST = (1 / 40, 1 / 4)  # of log-likelihoods at the first and the last step: a class does not quite show one view;
PARTICLE_TRUST = (1 / 5, 1.0)  # a particle does
WIDE = 0.9  # the diameter is that of the class at this quantile: views along the longest axis show less of it


@dataclass(frozen=True, eq=False, slots=True)
class Views:
    """Sums of K classes on a band of rings: harmonics (K, R, M) of Q (numerator) and W (weight), and how far their
    log-likelihoods are trusted in the first and the last step."""

    numerator: torch.Tensor
    weight: torch.Tensor
    band: Band
    trust: tuple[float, float]

    def __len__(self) -> int:
        return len(self.numerator)

    def take(self, rows: np.ndarray) -> Views:
        return Views(self.numerator[rows], self.weight[rows], self.band, self.trust)

    def batch(self, rings: int) -> ParticleBatch:
        """The classes as images Q / sqrt(W) of transfer sqrt(W) and noise power 1, on the first rings and as many angles as
        these need."""
        band = polar_band(self.band.box_px, self.band.pixel_size_a, rings).to(self.numerator.device)
        orders, scale = angle_count(rings) // 2 + 1, angle_count(rings) / ring_angles(self.band)
        root = (scale * real_rings_of(self.weight[:, :rings, :orders])).clamp(min=1e-12).sqrt()
        images = scale * rings_of(self.numerator[:, :rings, :orders]) / root
        group = torch.zeros(len(self), dtype=torch.int64, device=images.device)
        return ParticleBatch(np.arange(len(self)), images, root, group, band)


def class_views(engine: Engine, search: ClassSearch, placings: Placings, settings: ClassSettings) -> Views:
    """Views of the classes that hold particles, each particle in its likeliest ones by its shares in them."""
    band = search_band(engine, settings)

    def of_part(part: np.ndarray) -> torch.Tensor:
        batch, rows = polar_batch(engine, part, band), torch.from_numpy(part).to(engine.device)
        one_half = torch.zeros(len(part), dtype=torch.int64, device=engine.device)
        return torch.stack(added(batch, per_sample(search.noise, batch), placings.take(rows), one_half, len(search.share)))

    parts = engine.compute.batches(np.arange(len(engine.spectra)), len(band) * 4 * INSERT_BYTES)
    numerator, weight = torch.stack(engine.compute.map(of_part, parts)).sum(0)[:, :, 0]
    total = weight[:, :, 0].real.sum(1)
    held = torch.nonzero(total > EMPTY * total.mean())[:, 0].cpu().numpy()
    return Views(numerator, weight, band, CLASS_TRUST).take(held)


def particle_views(engine: Engine, search: ClassSearch, placings: Placings, settings: ClassSettings,
                   rows: np.ndarray) -> Views:
    """Views of the single particles at `rows`, centred as in their likeliest class."""
    band = search_band(engine, settings)

    def of_part(part: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        batch, best = polar_batch(engine, part, band), placings.take(torch.from_numpy(part).to(engine.device)).best()
        number, zero = torch.arange(len(part), device=engine.device), torch.zeros_like(best.psi_rad)
        alone = Placings(number[:, None], zero, best.shift_a, zero)
        return added(batch, per_sample(search.noise, batch), alone, torch.zeros_like(number), len(part))

    parts = engine.compute.map(of_part, engine.compute.batches(rows, len(band) * 4 * INSERT_BYTES))
    numerator, weight = (torch.cat(sums)[:, 0] for sums in zip(*parts))
    return Views(numerator, weight, band, PARTICLE_TRUST)


def particle_diameter(search: ClassSearch, band: Band) -> float:
    """The particle's diameter in angstroms, as the averages on the rings of `band` show it."""
    images = images_from(search.averages * cell_area(band), band.wave_px, band.box_px)
    axis = torch.arange(band.box_px, device=images.device) - band.box_px // 2
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    highest = images.amax((1, 2), keepdim=True)
    density = torch.where(images > EDGE * highest, images, 0)
    order = radius.flatten().argsort()
    held = density.flatten(1)[:, order].cumsum(1)
    reach = radius.flatten()[order][(held < 0.98 * held[:, -1:]).sum(1).clamp(max=held.shape[1] - 1)]
    return float(2 * reach.quantile(WIDE)) * band.pixel_size_a
