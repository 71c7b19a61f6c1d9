"""From the searched classes to averages: places refined among the likeliest few classes, then sums of whole images.

Every pass compares particles with averages at finer rings than the search, weighted by the signal-to-noise ratio that the
averages of two random halves of each class show. The halves share their places, so their correlation says how well an
average is determined, not that it is free of bias; it is trusted beyond the resolution that places were refined at.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch

from swiftres_plugin.engine.align import image_noise
from swiftres_plugin.engine.class_search import (
    average_rings,
    bytes_to_share,
    polar_batch,
    search_band,
    shifts_of,
    templates_of,
)
from swiftres_plugin.engine.coarse import radius_px
from swiftres_plugin.engine.data.classes import ClassAverages, ClassSearch, Placements
from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.planes import complete_axis, empty_planes, insert_planes
from swiftres_plugin.engine.maths.polar import cell_area, harmonics, polar_band, ring_angles, rings_of, turned
from swiftres_plugin.engine.maths.resample import images_from, spectra_at
from swiftres_plugin.engine.stages.averages import (
    average_images,
    half_correlation,
    resolutions_a,
    ring_correlation,
    signal_to_noise,
)
from swiftres_plugin.engine.stages.noise import noise_power, per_sample, power_sums
from swiftres_plugin.engine.stages.placing import Trial, place
from swiftres_plugin.engine.stages.preprocess import circular_window
from swiftres_plugin.engine.stages.turns import Placings, best_turns
from swiftres_plugin.settings import ClassSettings

CANDIDATES = 5  # classes that a particle may still go to after the search
OUT_OF_REACH = 12.0  # log posterior below the best at which a class is no longer tried
LEAST_SHARE = 0.02  # of a particle that is worth adding to a class
PLACE_STEPS = 4
TRIAL_BYTES = 160  # working memory per sample and trial
INSERT_BYTES = 120  # and per coefficient inserted
THRESHOLD = 0.143


@dataclass(frozen=True, eq=False, slots=True)
class Pass:
    """What a pass over particles finds: numerator, weight (K, 2, R, M), harmonics of the sums of both halves; residual
    power sums; the renewed placings; deviation (B, 3) of rotation and shift at each best place. All add up."""

    numerator: torch.Tensor
    weight: torch.Tensor
    residual: list[tuple[np.ndarray, np.ndarray]]
    placings: list[Placings]
    deviation: list[torch.Tensor]

    def __add__(self, other: Pass) -> Pass:
        return Pass(*(getattr(self, name) + getattr(other, name) for name in Pass.__slots__))


def searched(engine: Engine, search: ClassSearch, settings: ClassSettings) -> Placings:
    """The best place of every particle in each of its likeliest classes, at the search resolution."""
    band = search_band(engine, settings)
    templates = templates_of(engine, search, band, settings, 1.0)
    rows = np.arange(len(engine.spectra))
    engine.reporter.stage("all particles, all classes", len(rows))

    def found(part: np.ndarray) -> Placings:
        batch = polar_batch(engine, part, band)
        return best_turns(batch, per_sample(search.noise, batch), templates, CANDIDATES)

    parts = engine.compute.batches(rows, bytes_to_share(templates, band))
    return Placings.joined(engine.compute.map(found, parts, lambda part: engine.reporter.advance(len(part))))


def conclude(engine: Engine, whole: Engine, search: ClassSearch, settings: ClassSettings,
             half: np.ndarray) -> tuple[ClassAverages, Placements]:
    """Averages of the particles of `whole.spectra` and where each was put; `engine` holds them in the box of the search.

    half: (N,) 0 or 1.
    """
    coarse = search_band(engine, settings)
    band = polar_band(coarse.box_px, coarse.pixel_size_a, engine.spectra.band.shell_of(settings.finest_resolution))
    band = band.to(engine.device)
    averages, noise, placings = on_rings(search, coarse, band), search.noise, searched(engine, search, settings)
    reach = (2 * np.pi / ring_angles(coarse), float(shifts_of(engine, settings, coarse).norm(dim=1)[1:].min()))
    for number in range(settings.passes):
        rows = np.arange(len(engine.spectra))
        engine.reporter.stage(f"pass {number + 1} of {settings.passes}", len(rows))
        found = over_particles(engine, averages, noise, placings, half, band, reach)
        placings = Placings.joined(found.placings)
        ratio = signal_to_noise(ring_correlation(found.numerator, found.weight))[..., None]
        averages = average_rings(engine, found.numerator.sum(1), found.weight.sum(1), band, ratio)
        noise = with_shells(noise, noise_power(found.residual))
    placements = placements_of(placings, torch.cat(found.deviation))
    everywhere = with_shells(image_noise(whole, np.arange(len(half))), noise)  # hardly any signal lies past the passes' rings
    sums = summed(whole, everywhere, placings, half, len(averages))
    return by_size(averaged(whole, sums, placements), placements)


def with_shells(noise: np.ndarray, renewed: np.ndarray) -> np.ndarray:
    """The noise (groups, S) with its first shells as renewed."""
    joined = noise.copy()
    joined[:, :renewed.shape[1]] = renewed
    return joined


def on_rings(search: ClassSearch, coarse: Band, fine: Band) -> torch.Tensor:
    """The averages of the search on the rings of the band `fine`, empty where the search did not reach."""
    images = images_from(search.averages * cell_area(coarse), coarse.wave_px, coarse.box_px)
    values = spectra_at(images, fine.wave_px)
    values[:, len(fine.up_to(coarse.last_shell)):] = 0
    return values


def over_particles(engine: Engine, averages: torch.Tensor, noise: np.ndarray, placings: Placings, half: np.ndarray, band: Band,
                   reach: tuple[float, float]) -> Pass:
    """Refine the places of all particles, and sum them; no step is longer than `reach` (rad, A)."""
    series = harmonics(averages, band)
    halves = torch.from_numpy(half).to(engine.device)

    def of_part(part: np.ndarray) -> Pass:
        batch = polar_batch(engine, part, band)
        power, rows = per_sample(noise, batch), torch.from_numpy(part).to(engine.device)
        after, deviation = replaced(batch, power, series, placings.take(rows), reach)
        sums = added(batch, power, after, halves[rows], len(averages))
        engine.reporter.advance(len(part))
        return Pass(*sums, [power_sums(batch, len(noise), explained(batch, series, after))], [after], [deviation])

    def of_share(share: np.ndarray) -> Pass:
        return reduce(add, (of_part(part) for part in engine.compute.batches(share, 2 * len(band) * TRIAL_BYTES)))

    shares = engine.compute.shares(np.arange(len(engine.spectra)), 4 * series.nbytes)
    return reduce(add, engine.compute.map(of_share, shares))


def replaced(batch: ParticleBatch, noise: torch.Tensor, series: torch.Tensor, before: Placings,
             reach: tuple[float, float]) -> tuple[Placings, torch.Tensor]:
    """Placings refined where they come near the best, out of the question elsewhere; deviations (B, 3) of the best."""
    near = before.log_posterior > before.log_posterior.amax(1, keepdim=True) - OUT_OF_REACH
    row, column = torch.nonzero(near, as_tuple=True)
    trial = Trial(row, before.class_id[row, column], before.psi_rad[row, column], before.shift_a[row, column])
    fit = place(batch, noise, series, trial, PLACE_STEPS, *reach)
    psi, shift, score = before.psi_rad.clone(), before.shift_a.clone(), torch.full_like(before.log_posterior, -torch.inf)
    psi[row, column], shift[row, column], score[row, column] = fit.psi_rad, fit.shift_a, fit.score
    number = torch.zeros_like(before.class_id)
    number[row, column] = torch.arange(len(row), device=row.device)
    best = number.gather(1, score.argmax(1, keepdim=True))[:, 0]
    return Placings(before.class_id, psi, shift, score), deviations(fit.information[best])


def deviations(information: torch.Tensor) -> torch.Tensor:
    """(B, 3) standard deviations by information (B, 3, 3); infinite where there is none."""
    trace = information.diagonal(dim1=1, dim2=2).sum(1)
    there = trace > 0
    regular = torch.where(there[:, None, None], information, torch.eye(3, device=information.device))
    floor = 1e-9 * regular.diagonal(dim1=1, dim2=2).amax(1)
    spread = torch.linalg.inv(regular.double() + floor[:, None, None].double() * torch.eye(3, device=floor.device))
    return torch.where(there[:, None], spread.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().float(), torch.inf)


def counted(placings: Placings) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows and columns (T,) of the placings that hold more than a little of their particle, and its shares (T,)."""
    share = torch.softmax(placings.log_posterior, 1)
    share = torch.where(share > LEAST_SHARE, share, 0)
    share = share / share.sum(1, keepdim=True)
    row, column = torch.nonzero(share, as_tuple=True)
    return row, column, share[row, column]


def added(batch: ParticleBatch, noise: torch.Tensor, placings: Placings, half: torch.Tensor,
          classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numerator and weight (K, 2, R, M) of the sums that the particles add to the halves of their classes."""
    row, column, share = counted(placings)
    psi, place = -placings.psi_rad[row, column], 2 * placings.class_id[row, column] + half[row]
    ramp = phase_ramp(batch.band.wave_px / batch.band.box_a, -placings.shift_a[row, column])
    found = []
    for values in ((batch.ctf * batch.images / noise)[row] * ramp, (batch.ctf ** 2 / noise)[row]):
        parts = turned(harmonics(values * share[:, None], batch.band), psi)
        sums = parts.new_zeros((2 * classes, *parts.shape[1:])).index_add_(0, place, parts)
        found.append(sums.unflatten(0, (classes, 2)))
    return found[0], found[1]


def explained(batch: ParticleBatch, series: torch.Tensor, placings: Placings) -> torch.Tensor:
    """(B, L) what each particle's likeliest average predicts of its image."""
    best = placings.best()
    averages = rings_of(turned(series[best.class_id[:, 0]], best.psi_rad[:, 0]))
    return batch.ctf * averages * phase_ramp(batch.band.wave_px / batch.band.box_a, best.shift_a[:, 0])


def placements_of(placings: Placings, deviation: torch.Tensor) -> Placements:
    """The likeliest place of every particle."""
    best = placings.best()
    probability = torch.softmax(placings.log_posterior, 1).amax(1)
    numbers = (best.class_id[:, 0], best.psi_rad[:, 0], best.shift_a[:, 0], best.log_posterior[:, 0], probability, deviation)
    return Placements(*(values.double().cpu().numpy() if values.is_floating_point() else values.cpu().numpy()
                        for values in numbers))


def summed(whole: Engine, noise: np.ndarray, placings: Placings, half: np.ndarray, classes: int) -> torch.Tensor:
    """(K, 2, 3, 2k+1, k+1) completed sums of the halves of every class, all frequencies."""
    band = whole.spectra.band.to(whole.device)
    halves = torch.from_numpy(half).to(whole.device)
    size = 2 * classes * empty_planes(1, band.last_shell).nbytes
    whole.reporter.stage("averages", len(whole.spectra))

    def of_share(share: np.ndarray) -> torch.Tensor:
        sums = empty_planes(2 * classes, band.last_shell, whole.device)
        for part in whole.compute.batches(share, 2 * len(band) * INSERT_BYTES):
            rows = torch.from_numpy(part).to(whole.device)
            insert_batch(sums, whole.batch(part, band), noise, placings.take(rows), halves[rows])
            whole.reporter.advance(len(part))
        return sums

    sums = reduce(add, whole.compute.map(of_share, whole.compute.shares(np.arange(len(whole.spectra)), size)))
    return complete_axis(sums).unflatten(0, (classes, 2))


def insert_batch(sums: torch.Tensor, batch: ParticleBatch, noise: np.ndarray, placings: Placings, half: torch.Tensor) -> None:
    """Add the particles of a batch to the sums of their classes' halves, by their shares."""
    row, column, share = counted(placings)
    weight = batch.ctf[row] / per_sample(noise, batch)[row] * share[:, None]
    wave = batch.band.wave_px.float() / batch.band.box_a
    values = batch.images[row] * phase_ramp(wave, -placings.shift_a[row, column]) * weight
    plane = 2 * placings.class_id[row, column] + half[row]
    insert_planes(sums, plane, values, weight * batch.ctf[row], placings.psi_rad[row, column], batch.band.wave_px)


def averaged(engine: Engine, sums: torch.Tensor, placements: Placements) -> ClassAverages:
    """Averages of sums (K, 2, 3, ...), weighted by the signal-to-noise ratio of each class and shell."""
    band = engine.spectra.band
    window = circular_window(band.box_px, radius_px(engine)).to(engine.device)
    halves = average_images(sums.flatten(0, 1), band.box_px).unflatten(0, (len(sums), 2))
    correlation = half_correlation(halves, window)
    images = average_images(sums.sum(1), band.box_px, signal_to_noise(correlation)) * window
    size = np.bincount(placements.class_id, minlength=len(sums))
    numbers = (images, correlation, resolutions_a(correlation, band, THRESHOLD))
    images, correlation, resolution = (values.cpu().numpy() for values in numbers)
    rotation, shift = class_errors(placements, len(sums))
    return ClassAverages(images, band.pixel_size_a, size, resolution, correlation, rotation, shift)


def class_errors(placements: Placements, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(K,) median deviation of the particles' rotations (rad) and, per axis, of their shifts (A); infinite without any."""
    rotation, shift = np.full(classes, np.inf), np.full(classes, np.inf)
    for number in np.unique(placements.class_id):
        turn, across, down = placements.deviation[placements.class_id == number].T
        rotation[number], shift[number] = np.median(turn), np.median(np.hypot(across, down)) / np.sqrt(2)
    return rotation, shift


def by_size(averages: ClassAverages, placements: Placements) -> tuple[ClassAverages, Placements]:
    """Both with the classes numbered from the largest to the smallest."""
    order = np.argsort(-averages.size, kind="stable")
    place = np.argsort(order)
    names = ("images", "size", "resolution_a", "correlation", "rotation_error_rad", "shift_error_a")
    sorted_averages = replace(averages, **{name: getattr(averages, name)[order] for name in names})
    return sorted_averages, replace(placements, class_id=place[placements.class_id])
