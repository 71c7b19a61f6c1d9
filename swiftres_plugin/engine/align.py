"""One half of the particles against its own maps: search, rank, refine, and what is left of it as noise."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.search import NEVER, Assignment, Candidates
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.engine import Engine, PowerSums
from swiftres_plugin.engine.maths.aberrations import shift_of_particle
from swiftres_plugin.engine.maths.slices import extract_slices
from swiftres_plugin.engine.maths.symmetry import closest_mates
from swiftres_plugin.engine.searching import RECALL_LEAST, Searcher, joined, measure_recall, prepare_search, search_rows
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.noise import noise_power, per_sample, power_sums
from swiftres_plugin.settings import PolishSettings

# Working memory in bytes, as measured and a little more. Per coefficient of a particle:
SAMPLE_BYTES = 300  # and pose of the local refinement
RESIDUAL_BYTES = 80
IMAGE_BYTES = 40
TOLERANCE = 0.06  # a refinement is done when its step is this share of what the resolution can tell apart
SURE = 0.9999  # share of the posterior over what a search found that leaves no doubt
FIRST_ASKED = 0.2  # of a share that is searched anew is asked first, where that is
LEAST_ASKED = 100  # particles at least,
WORTH_ASKING = 0.02  # and the others where more than this share of them turns away
LEAST_TRUST = 0.05  # probability to show the particle below which an image is not searched again
SURVIVORS = 20.0  # candidates whose log-likelihood is farther below the best are not refined further,
OFF_PEAK = 0.1  # unless they reach nine tenths of the best: strong particles lose as much between two grid points


def never_aligned(count: int) -> Assignment:
    """Particles that no search has seen."""
    return Assignment(np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 2)), np.full(count, NEVER), np.zeros(count),
                      np.zeros((count, 5, 5)), np.zeros(count, dtype=np.int64))


def with_previous(found: Candidates, previous: Assignment | None, rows: np.ndarray) -> Candidates:
    """The candidates and, in front of them, each particle's pose of the last iteration."""
    if previous is None:
        return found
    first = given_candidates(previous, rows, found.score.device)
    return Candidates(torch.cat([first.image_to_volume, found.image_to_volume], 1),
                      torch.cat([first.shift_a, found.shift_a], 1), torch.cat([first.score, found.score], 1))


def given_candidates(poses: Assignment, rows: np.ndarray, device: torch.device) -> Candidates:
    """The poses of `rows` as one candidate each, of score 0."""
    rotation, shift = posed(poses, rows, device)
    return Candidates(rotation[:, None], shift[:, None], torch.zeros((len(rows), 1), device=device))


def refine_candidates(engine: Engine, volume: torch.Tensor, noise: np.ndarray, plan: IterationPlan, rows: np.ndarray,
                      found: Candidates, diameter_a: float, before: Candidates | None = None) -> Assignment:
    """From candidates to one refined pose per particle: exact ranking, then rounds of refinement on finer bands.

    before: the last pose of each particle, which the map favours because that is where the particle was put into it.
    """
    band = engine.spectra.band.up_to(plan.last_shell).to(engine.device)
    full = engine.batch(rows, band)
    prior = prior_of_input(engine, rows)
    as_found = plan.exhaustive and not engine.settings.search.rerank
    for shell, keep, steps in [] if as_found else rounds(plan, engine.settings.polish, found.score.shape[1]):
        batch = full.up_to(shell)
        power = per_sample(noise, batch)
        if keep < found.score.shape[1]:
            found = local.score_candidates(batch, power, volume, found).best(keep)
        found = polish_candidates(batch, power, volume, found, diameter_a, steps, prior)
    if plan.exhaustive and before is not None:
        reach = local.resolution_steps(band, diameter_a)
        found = without_own_support(found, before, plan.own_support, engine.operators, reach)
    return decided(full, per_sample(noise, full), volume, found, engine.independent(rows), prior)


def prior_of_input(engine: Engine, rows: np.ndarray) -> local.Prior | None:
    """What the poses that came with the particles at `rows` say, if they are to be kept to."""
    settings, particles = engine.settings.polish, engine.spectra.particles
    if particles.poses is None or not (settings.angle_prior or settings.shift_prior):
        return None
    few = particles.take(rows)
    shift_a = shift_of_particle(few, particles.poses.shift_a[rows])
    return local.Prior(torch.from_numpy(particles.poses.image_to_volume[rows]).float().to(engine.device),
                       torch.from_numpy(shift_a).float().to(engine.device),
                       np.deg2rad(settings.angle_prior) or np.inf, settings.shift_prior or np.inf)


def rounds(plan: IterationPlan, settings: PolishSettings, candidates: int) -> list[tuple[int, int, int]]:
    """(finest shell, candidates kept, steps) of each round of refinement: many candidates coarsely, few finely.

    Candidates stand on a grid, so they are compared only after a step. The next iteration goes on from a search, so that
    need not end at rest.
    """
    if not plan.exhaustive:
        return [(plan.last_shell, candidates, settings.steps)]
    middle = int(round((plan.search_shell * plan.last_shell) ** 0.5))
    found = [(plan.search_shell, 2 * settings.basins, 1)]
    if middle < 0.9 * plan.last_shell:
        found.append((middle, settings.basins, max(2, settings.steps // 4)))
    return [*found, (plan.last_shell, max(1, settings.basins // 2), max(2, settings.steps // 2))]


def polish_candidates(batch: ParticleBatch, power: torch.Tensor, volume: torch.Tensor, found: Candidates, diameter_a: float,
                      steps: int, prior: local.Prior | None = None) -> Candidates:
    """Every candidate refined on the batch's band, sorted by score; hopeless ones are left as they are."""
    count = found.score.shape[1]
    angle, shift = local.resolution_steps(batch.band, diameter_a)
    worth = torch.ones_like(found.score, dtype=torch.bool)
    if count > 1:
        best = found.score.amax(1, keepdim=True)
        worth = found.score >= best - (OFF_PEAK * best).clamp(min=SURVIVORS)
    particle, place = torch.nonzero(worth & found.score.isfinite(), as_tuple=True)
    fit = local.polish(batch.take(particle), power[particle], volume, found.image_to_volume[particle, place],
                       found.shift_a[particle, place], steps, TOLERANCE * angle, TOLERANCE * shift, 1.5 * angle, 1.5 * shift,
                       None if prior is None else prior.take(particle))
    rotation, move, score = found.image_to_volume.clone(), found.shift_a.clone(), torch.full_like(found.score, -torch.inf)
    rotation[particle, place], move[particle, place], score[particle, place] = fit.rotation, fit.shift_a, fit.score
    return without_twins(Candidates(rotation, move, score).best(count), 0.25 * angle, 0.5 * shift)


def without_twins(found: Candidates, angle_rad: float, shift_a: float) -> Candidates:
    """Sorted candidates in which those that came to the same pose as a better one have score -inf."""
    flat = found.image_to_volume.flatten(2)
    near = (flat @ flat.transpose(1, 2) - 1) / 2 > np.cos(angle_rad)
    near &= torch.cdist(found.shift_a, found.shift_a) < shift_a
    twin = torch.tril(near, diagonal=-1).any(2)
    return Candidates(found.image_to_volume, found.shift_a, found.score.masked_fill(twin, -torch.inf))


def without_own_support(found: Candidates, before: Candidates, support: float, operators: np.ndarray,
                        reach: tuple[float, float]) -> Candidates:
    """The candidates with `support` taken from the score of those near the pose `before` (one each) or a mate of it.

    support: log-likelihood a particle gains because the map holds it at that pose; reach: (angle in rad, shift in A).
    """
    mates = torch.from_numpy(operators).to(before.image_to_volume) @ before.image_to_volume
    trace = found.image_to_volume.flatten(2) @ mates.flatten(2).transpose(1, 2)
    near = (trace.amax(2) - 1) / 2 > np.cos(reach[0])
    near &= (found.shift_a - before.shift_a).norm(dim=2) < reach[1]
    return Candidates(found.image_to_volume, found.shift_a, found.score - support * near).best(found.score.shape[1])


def decided(batch: ParticleBatch, power: torch.Tensor, volume: torch.Tensor, found: Candidates, independent: np.ndarray,
            prior: local.Prior | None = None) -> Assignment:
    """The best candidate, its share of the posterior and its widths from the curvature of the likelihood (and the prior).

    independent: (B,) part of the coefficients that is independent, of which alone the posterior is made.
    A particle whose likelihood is no number keeps no pose: it stands unrotated, with the widest posterior.
    """
    fit = local.evaluate(batch, power, volume, found.image_to_volume[:, 0], found.shift_a[:, 0])
    part = torch.from_numpy(independent).to(found.score)[:, None]
    fit_of_part = replace(fit, curvature=fit.curvature * part[..., None])
    probability = torch.softmax(found.score * part, dim=1)[:, 0]
    rotation, shift, score, probability, covariance = (v.double().cpu().numpy() for v in (
        fit.rotation, fit.shift_a, fit.score, probability, local.covariance(local.held(fit_of_part, prior))))
    lost = ~(np.isfinite(score) & np.isfinite(probability) & np.isfinite(covariance).all((1, 2)))
    rotation[lost], shift[lost], score[lost], probability[lost] = np.eye(3), 0, 0, 0
    covariance[lost] = local.WIDEST_VARIANCE * np.eye(5)
    return Assignment(rotation, shift, score, probability, covariance, np.zeros(len(score), dtype=np.int64))


def align_half(engine: Engine, reference: torch.Tensor, noise: np.ndarray, rows: np.ndarray, plan: IterationPlan,
               previous: Assignment | None, diameter_a: float, name: str) -> Assignment:
    """Poses of the particles at `rows` against `reference`: searched anew for the plan's share of them, else refined.

    Of a share those that fit worst are asked first; where hardly one of them moves, the others stay where they are.
    """
    if previous is None and not plan.exhaustive:
        raise ValueError("local refinement needs poses to start from")
    anew = to_search(engine, rows, plan, previous)
    align = aligning(engine, reference, noise, rows[anew], plan, previous, diameter_a, name)
    first = asked_first(engine, rows, anew, plan, previous)
    found, later = align(rows, first), anew & ~first
    reach_rad, _ = local.resolution_steps(engine.spectra.band.up_to(plan.last_shell), diameter_a)
    if previous is None or not later.any() or moved(previous.take(rows[first]), found.take(first), engine.operators,
                                                    reach_rad) < WORTH_ASKING:
        return found
    return found.replaced(later, align(rows[later], np.ones(int(later.sum()), dtype=bool)))


def aligning(engine: Engine, reference: torch.Tensor, noise: np.ndarray, searched: np.ndarray, plan: IterationPlan,
             previous: Assignment | None, diameter_a: float, name: str) -> Callable[[np.ndarray, np.ndarray], Assignment]:
    """What aligns rows to a map, those searched that it is told to, here or on a cluster; `searched`: those that may be."""
    cluster = engine.cluster
    if cluster is not None:
        return lambda rows, anew: cluster.align_rows(engine, reference, noise, rows, anew, plan, previous, diameter_a, name)
    volume, searcher = engine.volume(reference, plan.last_shell), None
    if len(searched):
        with engine.timed("gallery"):
            searcher = prepare_search(engine, volume, noise, searched, plan)
    return lambda rows, anew: align_rows(engine, volume, searcher, noise, rows, anew, plan, previous, diameter_a, name)


def align_rows(engine: Engine, volume: torch.Tensor, searcher: Searcher | None, noise: np.ndarray, rows: np.ndarray,
               anew: np.ndarray, plan: IterationPlan, previous: Assignment | None, diameter_a: float, name: str) -> Assignment:
    """Poses of the particles at `rows` against a Fourier volume: those `anew` by its `searcher`, the others refined."""
    parts = []
    if searcher is not None and anew.any():
        found = searched_candidates(engine, volume, searcher, noise, rows[anew], plan, previous, name)
        parts.append(refine_rows(engine, volume, noise, rows[anew], replace(plan, exhaustive=True), found, previous,
                                 diameter_a, name))
    if previous is not None and not anew.all():
        found = given_candidates(previous, rows[~anew], engine.device)
        parts.append(refine_rows(engine, volume, noise, rows[~anew], replace(plan, exhaustive=False), found, previous,
                                 diameter_a, name))
    order = np.argsort(np.concatenate([np.flatnonzero(anew), np.flatnonzero(~anew)]))
    return Assignment.joined(parts).take(order)


def to_search(engine: Engine, rows: np.ndarray, plan: IterationPlan, previous: Assignment | None) -> np.ndarray:
    """Whether to search each of `rows` anew: none, all that are not settled, or the plan's share that fits worst.

    Of what settled too early most fits badly, and is among the last. Images that show no particle fit worst of all, and no
    search mends that. Particles that were never aligned are searched by every plan.
    """
    if previous is None:
        return np.full(len(rows), plan.exhaustive)
    if not plan.exhaustive:
        return ~previous.aligned[rows]
    if plan.share < 1:
        return worst_fitting(engine, rows, plan, previous)
    return np.ones(len(rows), dtype=bool) if plan.settled is None else ~plan.settled[rows]


def asked_first(engine: Engine, rows: np.ndarray, anew: np.ndarray, plan: IterationPlan,
                previous: Assignment | None) -> np.ndarray:
    """Which of the particles that are searched `anew` tell whether others are worth asking: of a large share the worst."""
    if plan.share == 1 or previous is None or previous.class_id.any():
        return anew
    worst = to_search(engine, rows, replace(plan, share=FIRST_ASKED * plan.share), previous)
    return worst if worst.sum() >= LEAST_ASKED else anew


def moved(before: Assignment, after: Assignment, operators: np.ndarray, reach_rad: float) -> float:
    """Share of particles that turned farther than `reach_rad`."""
    return float(np.mean(closest_mates(after.image_to_volume, before.image_to_volume, operators)[1] > reach_rad))


def worst_fitting(engine: Engine, rows: np.ndarray, plan: IterationPlan, previous: Assignment) -> np.ndarray:
    """Whether each of `rows` is of the plan's share that fits worst among those of its optics group that show a particle."""
    group = engine.spectra.particles.optics_group[rows]
    likelihood = previous.log_likelihood[rows]
    shown = np.ones(len(rows), dtype=bool) if plan.trust is None else plan.trust[rows] > LEAST_TRUST
    worst = np.zeros(len(rows), dtype=bool)
    for number in np.unique(group):
        own = np.flatnonzero((group == number) & shown)
        worst[own[np.argsort(likelihood[own], kind="stable")[:int(np.ceil(plan.share * len(own)))]]] = True
    return worst


def settled(before: Assignment, after: Assignment, operators: np.ndarray, reach_rad: float) -> np.ndarray:
    """(N,) whether a search is sure of each particle, and left it in its class and near where it stood, if anywhere."""
    turn = closest_mates(after.image_to_volume, before.image_to_volume, operators)[1]
    stood = (turn < reach_rad) & (after.class_id == before.class_id)
    return (after.max_probability > SURE) & (stood | ~before.aligned)


def searched_candidates(engine: Engine, volume: torch.Tensor, searcher: Searcher, noise: np.ndarray, rows: np.ndarray,
                        plan: IterationPlan, previous: Assignment | None, name: str) -> Candidates:
    """What the vector search finds for `rows`, and their last poses. Where poses are doubted, so are positions."""
    known = previous is not None and plan.share >= 1
    centre = previous.shift_a if previous is not None and known else np.zeros((len(engine.spectra), 2))
    engine.reporter.stage(f"{name}: search", len(rows))
    with engine.timed("search"):
        found = joined(search_rows(engine, searcher, noise, rows, centre))
    with engine.timed("recall"):
        least = RECALL_LEAST if plan.share >= 1 else 0
        engine.recalls.append(measure_recall(engine, searcher, volume, noise, rows, centre, found, least))
    return with_previous(found, previous, rows) if engine.settings.search.rerank else found.best(1)


def refine_rows(engine: Engine, volume: torch.Tensor, noise: np.ndarray, rows: np.ndarray, plan: IterationPlan,
                found: Candidates, previous: Assignment | None, diameter_a: float, name: str) -> Assignment:
    """The candidates `found` of `rows` refined, in batches, on every device."""
    engine.reporter.stage(f"{name}: refinement", len(rows))

    def refining(place: Compute) -> Callable[[np.ndarray], Assignment]:
        here, volume_here = engine.on(place), volume.to(place.device)

        def refined(part: np.ndarray) -> Assignment:
            piece = found.take(part).to(place.device)
            before = None if previous is None else given_candidates(previous, rows[part], place.device)
            return refine_candidates(here, volume_here, noise, plan, rows[part], piece, diameter_a, before)

        return refined

    length = len(engine.spectra.band.up_to(plan.last_shell))
    parts = engine.compute.batches(np.arange(len(rows)), length * SAMPLE_BYTES * (2 if plan.exhaustive else 1))
    with engine.timed("refinement"):
        return Assignment.joined(engine.compute.spread(refining, parts, done=lambda part: engine.reporter.advance(len(part))))


def align_classes(engine: Engine, references: Sequence[torch.Tensor], noise: np.ndarray, rows: np.ndarray,
                  plan: IterationPlan, previous: Assignment | None, diameter_a: float, name: str) -> Assignment:
    """Poses and classes of the particles at `rows`: each is aligned to the reference of every class."""
    names = [name] if len(references) == 1 else [f"{name}, class {c + 1}" for c in range(len(references))]
    return classified([align_half(engine, reference, noise, rows, plan, previous, diameter_a, called)
                       for reference, called in zip(references, names)], engine.independent(rows))


def classified(found: Sequence[Assignment], independent: np.ndarray) -> Assignment:
    """For each particle its result in the class where it is likeliest; `found` are the same particles in every class.

    independent: (N,) part of their coefficients that is independent.
    """
    score = np.stack([one.log_likelihood for one in found])
    best, particle = score.argmax(0), np.arange(score.shape[1])
    share = 1 / np.exp((score - score.max(0)) * independent).sum(0)
    chosen = Assignment(*(np.stack([getattr(one, name) for one in found])[best, particle] for name in Assignment.__slots__))
    return replace(chosen, max_probability=chosen.max_probability * share, class_id=best)


def residual_noise(engine: Engine, references: Sequence[torch.Tensor], rows: np.ndarray, poses: Assignment) -> np.ndarray:
    """Noise power (groups, S) of what each particle's class leaves unexplained; `poses` are those of `rows`, in order."""
    parts = []
    with engine.timed("noise"):
        for number, reference in enumerate(references):
            members = np.flatnonzero(poses.class_id == number)
            parts += unexplained(engine, reference, rows[members], poses.take(members))
    return noise_power(parts)


def unexplained(engine: Engine, reference: torch.Tensor, rows: np.ndarray, poses: Assignment) -> PowerSums:
    """The power that the reference leaves of `rows` at their `poses`."""
    if engine.cluster is not None:
        return engine.cluster.unexplained(engine, reference, rows, poses)
    return unexplained_by(engine, engine.volume(reference, engine.spectra.band.last_shell), rows, poses)


def unexplained_by(engine: Engine, volume: torch.Tensor, rows: np.ndarray, poses: Assignment) -> PowerSums:
    """The same for a Fourier volume, batch by batch."""
    whole = engine.spectra.band
    groups = len(engine.spectra.particles.optics)

    def summing(place: Compute) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        here, volume_here, band = engine.on(place), volume.to(place.device), whole.to(place.device)

        def sums(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            batch = here.batch(rows[part], band)
            rotation, shift = posed(poses, part, here.device)
            slices = extract_slices(volume_here, rotation, band.wave_px)
            return power_sums(batch, groups, local.model(batch, slices, shift))

        return sums

    parts = engine.compute.batches(np.arange(len(rows)), len(whole) * RESIDUAL_BYTES)
    return engine.compute.spread(summing, parts)


def image_noise(engine: Engine, rows: np.ndarray) -> np.ndarray:
    """Noise power (groups, S) of the images themselves: what there is before anything is aligned."""
    return noise_power(image_power(engine, rows) if engine.cluster is None else engine.cluster.image_power(engine, rows))


def image_power(engine: Engine, rows: np.ndarray) -> PowerSums:
    """The power of images, batch by batch."""
    whole = engine.spectra.band
    groups = len(engine.spectra.particles.optics)

    def summing(place: Compute) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        here, band = engine.on(place), whole.to(place.device)
        return lambda part: power_sums(here.batch(part, band), groups)

    parts = engine.compute.batches(rows, len(whole) * IMAGE_BYTES)
    return engine.compute.spread(summing, parts)


def posed(poses: Assignment, part: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations (B, 3, 3) and shifts (B, 2) of the particles at places `part`, in single precision on a device."""
    rotation = torch.from_numpy(poses.image_to_volume[part]).float().to(device)
    return rotation, torch.from_numpy(poses.shift_a[part]).float().to(device)
