"""The search for 2D classes: stochastic expectation maximisation on rings of Fourier space, coarse resolution first.

Each step takes other particles, gives every one its posterior over all classes, rotations and shifts (stages/turns.py), and
lets their sums fade into those of the steps before, as `initial_model.py` does. So that no class draws all particles to
itself while the averages are still blurred, a class starts at a handicap: the log prior of a class is -b log(its share of
the particles, in units of the even share), with b falling from 1 (crowds pay for their size) to 0 (all classes alike) while
the resolution rises. A class that starves is begun again from particles of its own.
"""
from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import torch

from swiftres_plugin.engine.align import image_noise
from swiftres_plugin.engine.coarse import radius_px, samples
from swiftres_plugin.engine.data.classes import ClassSearch
from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.fourier import spectra_to_images
from swiftres_plugin.engine.maths.geometry import shift_grid
from swiftres_plugin.engine.maths.polar import (
    cell_area,
    harmonics,
    polar_band,
    real_rings_of,
    ring_angles,
    rings_of,
    turned,
)
from swiftres_plugin.engine.maths.resample import images_from, spectra_at
from swiftres_plugin.engine.stages.noise import per_sample, shell_means
from swiftres_plugin.engine.stages.preprocess import circular_window, particle_ctf
from swiftres_plugin.engine.stages.turns import Templates, TurnSums, soft_turns
from swiftres_plugin.settings import ClassSettings

FADING = 0.15  # part of the sums that a step replaces
COARSE_STEPS, FINE_STEPS = 0.2, 0.9  # shares of the steps at which the resolution begins and ends to rise
EVEN_STEPS = 0.8  # share of the steps after which all classes are equally likely
SIGNAL_TO_NOISE = 4.0  # of the sums, assumed on every ring in use
STARVED = 0.15  # of the even share: below it a class begins again
SCORE_BYTES = 28  # working memory per score
RING_BYTES = 60  # and per sample of a moved image
LEAN = 20  # particles that the common noise weighs as much as, beside those of a group


def class_count(settings: ClassSettings, particles: int) -> int:
    return settings.classes or int(np.clip(particles // 40, 5, 50))


def batch_size(settings: ClassSettings, classes: int) -> int:
    return settings.batch or max(200, 10 * classes)


def polar_batch(engine: Engine, rows: np.ndarray, band: Band) -> ParticleBatch:
    """The particles at `rows` on a band of rings."""
    whole = engine.spectra.band.up_to(min(engine.spectra.band.last_shell, band.last_shell + 2))
    plain = engine.batch(rows, whole)
    images = spectra_to_images(plain.images, plain.band)
    values = spectra_at(images, band.wave_px.to(engine.device))
    return ParticleBatch(rows, values, particle_ctf(engine.spectra, rows, band, engine.device), plain.optics_group,
                         band.to(engine.device))


def find_classes(engine: Engine, settings: ClassSettings) -> ClassSearch:
    """Classes of the particles of `engine.spectra` up to the search resolution."""
    particles = len(engine.spectra)
    count = class_count(settings, particles)
    batch = batch_size(settings, count)
    generator = np.random.default_rng([engine.settings.compute.seed, 5])
    engine.reporter.stage("finding classes", settings.steps, "steps")
    search = random_start(engine, settings, count, batch, generator)
    for number, rows in zip(range(settings.steps), samples(particles, batch, generator)):
        search = stepped(engine, search, settings, number / settings.steps, rows, generator)
        engine.reporter.advance(1)
    return search


def search_band(engine: Engine, settings: ClassSettings) -> Band:
    band = engine.spectra.band
    return polar_band(band.box_px, band.pixel_size_a, band.shell_of(settings.search_resolution)).to(engine.device)


def random_start(engine: Engine, settings: ClassSettings, count: int, batch: int,
                 generator: np.random.Generator) -> ClassSearch:
    """Each average from a few particles of its own, at random rotations."""
    particles = len(engine.spectra)
    noise = image_noise(engine, np.arange(particles))
    band = search_band(engine, settings)
    rows = generator.permutation(particles)[:min(particles, batch)]
    numerator, weight = seeds(engine, noise, band, np.array_split(rows, count), count, generator)
    averages = average_rings(engine, numerator, weight, band)
    return ClassSearch(numerator, weight, averages, noise, np.full(count, 1 / count))


def seeds(engine: Engine, noise: np.ndarray, band: Band, members: list[np.ndarray], count: int,
          generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of classes that hold these particles at random rotations, as if they stood for one of `count` even classes."""
    found = []
    for rows in members:
        batch = polar_batch(engine, np.sort(rows), band)
        power = per_sample(noise, batch)
        psi = torch.from_numpy(generator.uniform(0, 2 * np.pi, len(rows))).float().to(engine.device)
        parts = (turned(harmonics(values, batch.band), -psi).sum(0)
                 for values in (batch.ctf * batch.images / power, batch.ctf ** 2 / power))
        found.append([part * (len(engine.spectra) / count / len(rows)) for part in parts])
    numerator, weight = zip(*found)
    return torch.stack(numerator), torch.stack(weight)


def average_rings(engine: Engine, numerator: torch.Tensor, weight: torch.Tensor, band: Band,
                  signal_to_noise: torch.Tensor | float = SIGNAL_TO_NOISE) -> torch.Tensor:
    """(K, L) averages on the rings of `band`, without what lies outside the particle.

    numerator, weight: (K, R, M); signal_to_noise: of the sums, or (K, R, 1) of every class and ring.
    """
    rings = numerator.shape[1]
    sums, held = (values.unflatten(-1, (rings, -1)) for values in (rings_of(numerator), real_rings_of(weight)))
    floor = held.mean(-1, keepdim=True) / torch.as_tensor(signal_to_noise).to(held).clamp(min=1e-6) + 1e-12
    return masked_rings((sums / (held.clamp(min=0) + floor)).flatten(1), band, radius_px(engine))


def masked_rings(values: torch.Tensor, band: Band, radius_px: float) -> torch.Tensor:
    """Images (K, L) on rings, without what lies outside a circle."""
    window = circular_window(band.box_px, radius_px).to(values.device)
    images = images_from(values * cell_area(band), band.wave_px, band.box_px)
    level = (images * (1 - window)).sum((1, 2)) / (1 - window).sum()
    return spectra_at((images - level[:, None, None]) * window, band.wave_px)


def stepped(engine: Engine, search: ClassSearch, settings: ClassSettings, progress: float, rows: np.ndarray,
            generator: np.random.Generator) -> ClassSearch:
    """The search after the particles at `rows` have been shared out and summed."""
    whole = search_band(engine, settings)
    rings = rings_at(engine, settings, progress)
    band = whole.up_to(rings)
    templates = templates_of(engine, search, band, settings, progress)
    found = shared_out(engine, search.noise, templates, band, rows)
    fading, fresh = FADING if search.evidence else 1.0, len(engine.spectra) / len(rows)
    numerator, weight = search.numerator.clone(), search.weight.clone()
    for sums, name in ((numerator, "numerator"), (weight, "weight")):
        total = reduce(add, (getattr(one, name) for one in found.values()))
        sums[:, :rings] = (1 - fading) * sums[:, :rings] + fading * fresh * total
        sums[:, rings:] = 0
    counts = reduce(add, (one.occupancy for one in found.values())).double().cpu().numpy()
    share = (1 - FADING) * search.share + FADING * counts / counts.sum()
    noise = renewed_noise(search.noise, found, templates, band)
    evidence = float(torch.cat([one.evidence for one in found.values()]).mean())
    averages = average_rings(engine, numerator, weight, whole)
    after = ClassSearch(numerator, weight, averages, noise, share, (*search.evidence, evidence))
    return fed(engine, after, whole, rows, generator) if progress < EVEN_STEPS else after


def fed(engine: Engine, search: ClassSearch, band: Band, rows: np.ndarray, generator: np.random.Generator) -> ClassSearch:
    """The search with starved classes begun again from a few of the particles at `rows`."""
    count = len(search.share)
    starved = np.flatnonzero(search.share < STARVED / count)
    if not len(starved):
        return search
    own = max(3, len(rows) // count)
    members = [generator.choice(rows, own, replace=False) for _ in starved]
    place = torch.from_numpy(starved).to(engine.device)
    numerator, weight, averages = search.numerator.clone(), search.weight.clone(), search.averages.clone()
    numerator[place], weight[place] = seeds(engine, search.noise, band, members, count, generator)
    averages[place] = average_rings(engine, numerator[place], weight[place], band)
    share = search.share.copy()
    share[starved] = 0.5 / count
    return replace(search, numerator=numerator, weight=weight, averages=averages, share=share / share.sum())


def rings_at(engine: Engine, settings: ClassSettings, progress: float) -> int:
    """Rings that are compared at a share `progress` of the steps."""
    rising = np.clip((progress - COARSE_STEPS) / (FINE_STEPS - COARSE_STEPS), 0, 1)
    first, last = (engine.spectra.band.shell_of(limit) for limit in (settings.coarsest_resolution, settings.search_resolution))
    return round(first * (last / first) ** rising)


def templates_of(engine: Engine, search: ClassSearch, band: Band, settings: ClassSettings, progress: float) -> Templates:
    """The averages as they are compared at a share `progress` of the steps, with the handicap of crowded classes."""
    handicap = max(0.0, 1 - progress / EVEN_STEPS)
    crowd = np.log(np.maximum(search.share * len(search.share), STARVED))
    log_prior = torch.from_numpy(-handicap * crowd).float().to(engine.device)
    shifts = shifts_of(engine, settings, band)
    width_a = float(shifts.norm(dim=1).max()) / 2
    shift_log_prior = torch.log_softmax(-(shifts ** 2).sum(1) / (2 * max(width_a, 1e-6) ** 2), 0)
    return Templates(search.averages[:, :len(band)], torch.log_softmax(log_prior, 0), shifts, shift_log_prior)


def shifts_of(engine: Engine, settings: ClassSettings, band: Band) -> torch.Tensor:
    """(S, 2) shifts at half of what the finest ring resolves."""
    widest = settings.max_offset or 0.1 * band.box_a
    return torch.from_numpy(shift_grid(widest, band.box_a / band.last_shell / 2)).float().to(engine.device)


def shared_out(engine: Engine, noise: np.ndarray, templates: Templates, band: Band, rows: np.ndarray) -> dict[int, TurnSums]:
    """Sums of the particles at `rows` for each optics group among them, every worker for a share of them."""
    size = bytes_to_share(templates, band)

    def of_share(share: np.ndarray) -> TurnSums:
        parts = []
        for part in engine.compute.batches(share, size):
            batch = polar_batch(engine, part, band)
            parts.append(soft_turns(batch, per_sample(noise, batch), templates))
        return reduce(add, parts)

    group = engine.spectra.particles.optics_group[rows]
    return {int(one): reduce(add, engine.compute.map(of_share, engine.compute.shares(rows[group == one])))
            for one in np.unique(group)}


def bytes_to_share(templates: Templates, band: Band) -> int:
    """Working memory of one particle."""
    shifts = len(templates.shifts_a)
    return shifts * (ring_angles(band) * len(templates) * SCORE_BYTES + len(band) * RING_BYTES)


def renewed_noise(noise: np.ndarray, found: dict[int, TurnSums], templates: Templates, band: Band) -> np.ndarray:
    """The noise of each group faded towards what the averages leave of its particles, on the rings that were compared."""
    left = {group: unexplained(one, templates, band) for group, one in found.items()}
    counts = {group: len(one.evidence) for group, one in found.items()}
    common = sum(left.values()) / sum(counts.values())
    renewed = noise.copy()
    for group, values in left.items():
        ratio = ((values + LEAN * common) / (counts[group] + LEAN)).clip(0.1, 10)
        renewed[group, :band.last_shell + 1] *= (1 - FADING) + FADING * ratio
    return renewed.astype(np.float32)


def unexplained(found: TurnSums, templates: Templates, band: Band) -> np.ndarray:
    """(R + 1,) power that the averages leave of the particles, in units of their noise, summed over the particles."""
    sums, held = rings_of(found.numerator), real_rings_of(found.weight)
    averages = templates.averages
    explained = (2 * (averages.conj() * sums).real - averages.abs() ** 2 * held).sum(0)
    return shell_means((found.power - explained)[None], band)[0].double().cpu().numpy()
