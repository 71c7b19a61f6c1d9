"""The corridor: iterate, and iterate until at rest. A generator of states; the caller writes files and reports."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from swiftres_plugin.engine.align import (
    RESIDUAL_BYTES,
    align_classes,
    given_candidates,
    image_noise,
    never_aligned,
    residual_noise,
    settled,
    to_search,
)
from swiftres_plugin.engine.busy import watched
from swiftres_plugin.engine.chance import trusted
from swiftres_plugin.engine.data.maps import Accumulator, Fsc, HalfMaps, Map
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.state import ClassState, IterationPlan, IterationRecord, Recall, RefinementState
from swiftres_plugin.engine.divide import (
    changes_classes,
    divided,
    new_shares,
    parted_anew,
    wants_classes,
    weight_in_class,
    with_classes,
)
from swiftres_plugin.engine.early import early_state, leads
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.grey_scale import starting_scale
from swiftres_plugin.engine.hands import are_opposite, inverted_sums, with_inverted
from swiftres_plugin.engine.insertion import reconstruct_half
from swiftres_plugin.engine.maths.aberrations import shift_of_particle
from swiftres_plugin.engine.maths.cubes import mapped
from swiftres_plugin.engine.maths.fourier import filter_shells, low_pass_gain
from swiftres_plugin.engine.maths.symmetry import closest_mates
from swiftres_plugin.engine.plan import at_rest, beyond_start, next_last_shell, plan_iteration, reconstructed_shell
from swiftres_plugin.engine.searching import (
    evenly,
    is_steered,
    telling_shell,
)
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.classes import entropy
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.postprocess import (
    averaged,
    compute_fsc,
    detail_fsc,
    join_low_resolution,
    masked_reference,
    particle_diameter_px,
    signal_to_noise,
    solvent_mask,
    sphere_mask,
)

SAMPLE = 500  # particles that tell how far maps favour their own
JOIN_A = 40.0  # the halves share what is coarser than this, so that they keep one orientation
LEAST_RECALL = 0.99  # share of particles whose best pose the vector search must find
UNLIKELY = 0.025  # probability below which a sample shows that it does not
LEAST_PARTICLES = 2  # in each half of a class: with fewer its map stays as it was


def draw_halves(particles: Particles, seed: int) -> np.ndarray:
    """(N,) 0 or 1: the input's half sets, or a seeded draw of two sets of equal size."""
    if particles.half is not None:
        return particles.half
    half = np.zeros(len(particles), dtype=np.int64)
    half[np.random.default_rng([seed, 1]).permutation(len(particles))[: len(particles) // 2]] = 1
    return half


def start(engine: Engine, references: Sequence[Map], mask: np.ndarray | None) -> RefinementState:
    """The state before the first iteration: the starting map of each class low-passed, on the scale of the particles."""
    particles = engine.spectra.particles
    half = draw_halves(particles, engine.settings.compute.seed)
    noise = np.stack([image_noise(engine, np.flatnonzero(half == h)) for h in (0, 1)])
    poses = input_poses(particles) if engine.settings.schedule.alignment == "local" else None
    classes = []
    for number, reference in enumerate(references, 1):
        alone = RefinementState(0, (started_class(engine, reference, mask),), noise, half, poses)
        name = "the starting map" if len(references) == 1 else f"starting map {number}"
        scale = starting_scale(engine, alone, diameter(engine, alone), name)
        voxels = mapped(partial(torch.mul, other=scale), alone.classes[0].references[:1], engine.storage.makes)
        classes.append(replace(alone.classes[0], references=(voxels, voxels)))
    return RefinementState(0, tuple(classes), noise, half, poses)


def started_class(engine: Engine, reference: Map, mask: np.ndarray | None) -> ClassState:
    """A class before the first iteration, on the grey scale of its starting map."""
    resolution_a = engine.settings.schedule.initial_resolution
    gain = low_pass_gain(reference.box_px, reference.pixel_size_a, resolution_a)
    empty = engine.storage.makes
    voxels = filter_shells(torch.from_numpy(reference.voxels), gain, empty)
    window = mask if mask is not None else sphere_mask(reference.box_px, 0.46 * reference.box_px, empty=empty)
    voxels = masked_reference(voxels, window, empty)
    return ClassState((voxels, voxels), engine.spectra.band.shell_of(resolution_a), resolution_a, mask=mask)


def input_poses(particles: Particles) -> Assignment:
    """The poses that came with the particles, as the result of an iteration that never was."""
    if particles.poses is None:
        raise ValueError("local refinement needs input poses")
    n = len(particles)
    shift_a = shift_of_particle(particles, particles.poses.shift_a)
    return Assignment(particles.poses.image_to_volume, shift_a, np.zeros(n), np.ones(n), np.zeros((n, 5, 5)),
                      np.zeros(n, dtype=np.int64))


def diameter(engine: Engine, state: RefinementState) -> float:
    """The particle's diameter in angstroms: what the user said, or what the widest reference shows."""
    if engine.settings.preprocess.diameter:
        return engine.settings.preprocess.diameter
    widest_px = max(particle_diameter_px(c.references[0].cpu().numpy()) for c in state.classes)
    return widest_px * engine.spectra.band.pixel_size_a


def planned(engine: Engine, state: RefinementState) -> IterationPlan:
    """The plan of the next iteration. A search goes as far as the particles need to tell their orientation."""
    band, settings, diameter_a = engine.spectra.band, engine.settings, diameter(engine, state)
    plan = plan_iteration(state, band, diameter_a, settings)
    if settings.search.search_resolution or not (plan.exhaustive and is_steered(settings.search)):
        return plan
    rows, last = np.flatnonzero(state.half == 0), state.last_shell
    shells = [telling_shell(engine, engine.volume(one.references[0], last), state.noise[0], rows, last)
              for one in state.classes]
    return plan_iteration(state, band, diameter_a, settings, max(shells))


def iterate(engine: Engine, state: RefinementState, plan: IterationPlan) -> RefinementState:
    """One iteration: each half alone, then their meeting, class by class. Particles of neither half take no part."""
    with watched(engine.compute) as busy:
        after = iterated(engine, state, plan)
    share = busy.share if engine.cluster is None else np.nan  # workers elsewhere are not seen from here
    return replace(after, history=(*after.history[:-1], replace(after.history[-1], busy=share)))


def iterated(engine: Engine, state: RefinementState, plan: IterationPlan) -> RefinementState:
    """The same, without an account of how busy it kept the devices."""
    engine.seconds.clear()
    engine.recalls.clear()
    diameter_a = diameter(engine, state)
    parts, noises = [], []
    for h in (0, 1):
        poses, noise = align_and_weigh(engine, state, h, plan, diameter_a)
        parts.append(poses)
        noises.append(noise)
    assignment = by_row(state.half, parts)
    now = replace(state, noise=np.stack(noises), trust=trusted(engine, state, plan, assignment, noises, diameter_a))
    now = replace(now, shares=new_shares(engine, now, plan, assignment))
    assignment = with_classes(assignment, now.shares)
    anew = searched_anew(engine, state, plan)
    now = replace(now, settled=newly_settled(engine, state, plan, anew, assignment, diameter_a))
    found = [renewed(engine, now, plan, assignment, number, diameter_a) for number in range(len(state.classes))]
    classes = tuple(one for one, _ in found)
    assignment = in_one_hand(assignment, state.half, [number for number, (_, opposite) in enumerate(found) if opposite])
    untrusted = 0.0 if now.trust is None else float(1 - now.trust.mean())
    record = figures(engine, plan, state, assignment, classes, now.shares)
    history = (*state.history, replace(record, untrusted=untrusted))
    warn_of_recall(engine, history[-1])
    return replace(now, number=plan.number, classes=classes, assignment=assignment, history=history,
                   at_rest=at_rest(history, diameter_a, engine.settings),
                   own_support=own_support(engine, state.half, noises, classes, assignment))


def searched_anew(engine: Engine, state: RefinementState, plan: IterationPlan) -> np.ndarray:
    """(N,) which particles the plan's iteration searches, each half for itself."""
    anew = np.zeros(len(state.half), dtype=bool)
    for h in (0, 1):
        rows = np.flatnonzero(state.half == h)
        anew[rows] = to_search(engine, rows, plan, state.assignment)
    return anew


def newly_settled(engine: Engine, state: RefinementState, plan: IterationPlan, anew: np.ndarray,
                  assignment: Assignment, diameter_a: float) -> np.ndarray | None:
    """(N,) whether searches, that of the iteration to `assignment` the last, leave no doubt where each particle stands."""
    if not plan.exhaustive or state.assignment is None or not state.history:
        return state.settled
    reach_rad = 1 / (state.history[-1].max_frequency * diameter_a)
    stands = settled(state.assignment, assignment, engine.operators, reach_rad)
    before = np.zeros_like(stands) if state.settled is None else state.settled
    return stands & (before | anew)


def own_support(engine: Engine, half: np.ndarray, noise: Sequence[np.ndarray], classes: Sequence[ClassState],
                assignment: Assignment) -> float:
    """Mean log-likelihood that particles gain because they are part of their own half's map, over that of the other half.

    A map favours the poses its particles were put in at, right or wrong; this is by how much. Only this figure passes
    between the halves.
    """
    gains = []
    with engine.timed("own support"):
        for number, one in enumerate(classes):
            rows = [evenly(np.flatnonzero((half == h) & (assignment.class_id == number)), SAMPLE) for h in (0, 1)]
            found = []
            for reference in one.references:  # one transform at a time
                volume = engine.volume(reference, one.last_shell)
                found.append([likelihood(engine, volume, noise[h], rows[h], assignment, one.last_shell) for h in (0, 1)])
            gains += [found[h][h] - found[1 - h][h] for h in (0, 1)]
    every = np.concatenate(gains)
    return max(0.0, float(every.mean())) if len(every) else 0.0


def likelihood(engine: Engine, volume: torch.Tensor, noise: np.ndarray, rows: np.ndarray, assignment: Assignment,
               last_shell: int) -> np.ndarray:
    """Log-likelihood of the poses of `rows`, up to `last_shell`."""
    band = engine.spectra.band.up_to(last_shell).to(engine.device)
    found = []
    for part in engine.compute.batches(rows, len(band) * RESIDUAL_BYTES):
        batch = engine.batch(part, band)
        poses = given_candidates(assignment, part, engine.device)
        found.append(local.score_candidates(batch, per_sample(noise, batch), volume, poses).score[:, 0].cpu().numpy())
    return np.concatenate(found) if found else np.empty(0)


def align_and_weigh(engine: Engine, state: RefinementState, h: int, plan: IterationPlan,
                    diameter_a: float) -> tuple[Assignment, np.ndarray]:
    """Poses, classes and noise of one half, from its own maps alone."""
    rows = np.flatnonzero(state.half == h)
    references = [c.references[h] for c in state.classes]
    poses = align_classes(engine, references, state.noise[h], rows, plan, state.assignment, diameter_a,
                          f"iteration {plan.number}, half {h + 1}")
    return poses, residual_noise(engine, references, rows, poses)


def by_row(half: np.ndarray, parts: list[Assignment]) -> Assignment:
    """The halves' results in the order of the particles; those of neither half were never aligned."""
    out = np.flatnonzero(half < 0)
    order = np.argsort(np.concatenate([*(np.flatnonzero(half == h) for h in (0, 1)), out]))
    return Assignment.joined([*parts, never_aligned(len(out))]).take(order)


def renewed(engine: Engine, state: RefinementState, plan: IterationPlan, assignment: Assignment, number: int,
            diameter_a: float) -> tuple[ClassState, bool]:
    """Class `number` (from 0) from the particles assigned to it, and whether its second half had to be inverted.

    Its maps stay where it holds hardly any.
    """
    weight = weight_in_class(state, assignment, number)
    members = [np.flatnonzero((state.half == h) & (weight > 0)) for h in (0, 1)]
    if min(len(rows) for rows in members) < LEAST_PARTICLES:
        engine.reporter.warning(f"Class {number + 1} is (nearly) empty: its map stays as it was. Fewer or other starting maps "
                                "may describe these particles better.")
        return left_as_it_was(engine, state.classes[number], diameter_a), False
    name = f"iteration {plan.number}" if len(state.classes) == 1 else f"iteration {plan.number}, class {number + 1}"
    last_shell = reconstructed_shell(plan, engine.spectra.band)
    sums = [reconstruct_half(engine, state.noise[h], rows, assignment.take(rows), f"{name}, half {h + 1}", last_shell,
                             weight[rows]) for h, rows in enumerate(members)]
    with engine.timed("postprocess"):
        solved = [engine.solved(one) for one in sums]
        opposite = plan.exhaustive and are_opposite(solved[0], solved[1], engine.storage.makes)
        if opposite:
            engine.reporter.message("The halves had come to opposite hands, as the starting map did not tell them apart: the "
                                    "second is inverted. The hand of the result is open.")
            sums[1] = inverted_sums(sums[1])
            solved[1] = engine.solved(sums[1])
        return meet(engine, state.classes[number], sums, solved, diameter_a), opposite


def in_one_hand(assignment: Assignment, half: np.ndarray, classes: Sequence[int]) -> Assignment:
    """The poses with those of the second half of the other hand in these classes."""
    if not classes:
        return assignment
    return with_inverted(assignment, (half == 1) & np.isin(assignment.class_id, classes))


def left_as_it_was(engine: Engine, now: ClassState, diameter_a: float) -> ClassState:
    """A class without particles: the maps it had, and no claim beyond the starting map's resolution."""
    band = engine.spectra.band
    limit = band.shell_of(engine.settings.schedule.initial_resolution)
    halves = now.halves or HalfMaps(*(Map(r.cpu().numpy(), band.pixel_size_a) for r in now.references))
    combined = averaged(halves, engine.storage.makes).voxels if now.combined is None else now.combined
    window = working_mask(engine, now, halves, diameter_a) if now.mask is None else now.mask
    shells = np.arange(band.box_px // 2 + 1)
    curve = (shells <= limit).astype(float)
    fsc = Fsc(shells / band.box_a, curve, curve, np.zeros_like(curve), curve)
    return ClassState(now.references, limit, band.box_a / limit, halves, combined, window, fsc)


def meet(engine: Engine, now: ClassState, sums: Sequence[Accumulator], solved: Sequence[torch.Tensor],
         diameter_a: float) -> ClassState:
    """FSC, mask, regularised maps and the limit that the class would set to the next iteration.

    solved: the plain map of each half's sums.
    What looks the same from everywhere tells no orientation: the next references hold what the halves share of the rest.
    """
    settings, band, empty = engine.settings, engine.spectra.band, engine.storage.makes
    pixel = band.pixel_size_a
    halves = HalfMaps(*(Map(voxels.cpu().numpy(), pixel) for voxels in solved))
    window = working_mask(engine, now, halves, diameter_a)
    fsc = compute_fsc(halves, window, settings.compute.seed, empty)
    limit = band.shell_of(settings.schedule.initial_resolution)
    detail = detail_fsc(halves, fsc, limit, window, settings.compute.seed, empty)
    ratio, resolution = signal_to_noise(detail), claimed(engine, fsc.resolution_a(), detail.resolution_a())
    held = now.last_shell <= limit and not beyond_start(fsc, band, limit)
    if held:
        ratio[limit + 1:] = 0
        resolution = max(resolution, band.box_a / limit)
    maps = [engine.solved(s, signal_to_noise=ratio) for s in sums]
    join = band.shell_of(max(JOIN_A, settings.schedule.initial_resolution))
    references = tuple(masked_reference(r, window, empty) for r in join_low_resolution(maps[0], maps[1], join, empty))
    combined = engine.solved(*sums, signal_to_noise=2 * ratio).cpu().numpy()
    reached = limit if held else next_last_shell(detail.resolution_a(), band, settings)
    return ClassState((references[0], references[1]), reached, resolution, halves, combined, window, fsc)


def claimed(engine: Engine, whole_a: float, detail_a: float) -> float:
    """The resolution of two halves: that of their FSC, unless what differs between directions is coarser by over a shell."""
    if engine.spectra.band.box_a * (1 / whole_a - 1 / detail_a) <= 1:
        return whole_a
    engine.reporter.message(f"The halves agree to {whole_a:.1f} A by what looks the same from everywhere; the rest, which "
                            f"counts, agrees to {detail_a:.1f} A.")
    return detail_a


def working_mask(engine: Engine, now: ClassState, halves: HalfMaps, diameter_a: float) -> np.ndarray:
    """The user's mask, else the solvent boundary of the current map, else a sphere."""
    box, pixel, empty = engine.spectra.band.box_px, engine.spectra.band.pixel_size_a, engine.storage.makes
    if engine.user_mask is not None:
        return engine.user_mask
    radius = min(0.48 * box, 0.5 * 1.15 * diameter_a / pixel + 3) if engine.settings.preprocess.diameter else 0.48 * box
    if not engine.settings.mask.auto_mask:
        return sphere_mask(box, radius - 4, empty=empty)
    return solvent_mask(averaged(halves, empty).voxels, pixel, min(now.resolution_a, 60.0), radius, empty)


def figures(engine: Engine, plan: IterationPlan, state: RefinementState, after: Assignment,
            classes: tuple[ClassState, ...], shares: np.ndarray | None) -> IterationRecord:
    """The record of an iteration that led from `state` to `after`, `classes` and `shares`."""
    before, turn, move, changes = state.assignment, np.nan, np.nan, np.nan
    aligned = after.aligned
    if before is not None:
        known = np.flatnonzero(aligned & before.aligned)
        now, then = after.take(known), before.take(known)
        turn = float(np.median(closest_mates(now.image_to_volume, then.image_to_volume, engine.operators)[1]))
        move = float(np.median(np.linalg.norm(now.shift_a - then.shift_a, axis=1)))
        changes = float(np.mean(now.class_id != then.class_id)) if state.number else np.nan
    sizes = np.bincount(after.class_id[aligned], minlength=len(classes)).tolist()
    resolutions = tuple(c.resolution_a for c in classes)
    recall = Recall.of_all(engine.recalls)
    return IterationRecord(
        plan.number, plan.exhaustive, plan.last_shell / engine.spectra.band.box_a, min(resolutions), turn, move,
        float(after.max_probability[aligned].mean()), dict(engine.seconds), class_sizes=tuple(sizes),
        class_resolution_a=resolutions, class_changes=changes, class_entropy=0.0 if shares is None else entropy(shares),
        taken=float(aligned.mean()), searched=recall.searched / (len(classes) * max(1, int(aligned.sum()))),
        index=recall.index, recall_particles=recall.sampled,
        recall=recall.held / recall.sampled if recall.sampled else np.nan)


def warn_of_recall(engine: Engine, record: IterationRecord) -> None:
    """Tell that the vector search loses particles, where its sample shows it and not by chance."""
    if np.isnan(record.recall):
        return
    missed = round((1 - record.recall) * record.recall_particles)
    if chance_of_misses(missed, record.recall_particles) < UNLIKELY:
        engine.reporter.warning(
            f"The vector search of iteration {record.number} ({record.index}) missed the best pose of {missed} of "
            f"{record.recall_particles} particles that were also searched exhaustively. Raise --candidates, --components or "
            "--nprobe, or use --recipe exact.")


def chance_of_misses(missed: int, sampled: int) -> float:
    """Probability that a search which finds `LEAST_RECALL` of all misses as many or more of a sample."""
    return 1 - sum(math.comb(sampled, k) * (1 - LEAST_RECALL) ** k * LEAST_RECALL ** (sampled - k) for k in range(missed))


def in_classes(engine: Engine, state: RefinementState) -> RefinementState:
    """A structure at rest divided into classes, or several parted anew, with a map of each."""
    diameter_a = diameter(engine, state)
    plan = plan_iteration(state, engine.spectra.band, diameter_a, engine.settings)
    now = divided(engine, state) if wants_classes(engine, state) else parted_anew(engine, state)
    if now.assignment is None:
        raise ValueError("classes need poses")
    if now.at_rest:
        return now
    classes = tuple(renewed(engine, now, plan, now.assignment, number, diameter_a)[0] for number in range(len(now.classes)))
    return replace(now, classes=classes)


def next_state(engine: Engine, state: RefinementState) -> RefinementState:
    """The state after the next iteration: of all particles, or of the first of a large set where these lead on."""
    early = early_state(engine, state)
    if early is not None:
        after = iterate(engine, early, planned(engine, early))
        if leads(engine, after):
            return replace(after, half=state.half)
        engine.reporter.message("The first particles lead no farther than the starting map: all of them are taken.")
    return iterate(engine, state, planned(engine, state))


def refine(engine: Engine, state: RefinementState) -> Iterator[RefinementState]:
    """States after each iteration, until the refinement (of all classes that were asked for) is at rest or has used its
    iterations."""
    while state.number < engine.settings.schedule.iterations:
        if changes_classes(engine, state):
            state = in_classes(engine, state)
        if state.at_rest:
            break
        state = next_state(engine, state)
        yield state
    if len(state.classes) < engine.settings.classes.classes:
        engine.reporter.warning("The iterations were used up before the particles could be divided into classes. Go on with "
                                "--resume and more --iterations.")
