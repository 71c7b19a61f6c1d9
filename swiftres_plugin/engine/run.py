"""A whole run: open and check what was given, refine, and write every state; the part between a door and the corridor."""
from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import swiftres_plugin
from swiftres_plugin import layout
from swiftres_plugin.engine.checks import (
    check_different,
    check_mask,
    check_optics,
    check_output_folder,
    check_reference,
    check_search,
)
from swiftres_plugin.engine.cluster import check_cluster, clustered
from swiftres_plugin.engine.compute import Compute, host_memory, open_compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.data.state import RefinementState
from swiftres_plugin.engine.engine import Cluster, Engine
from swiftres_plugin.engine.finish import sharpen_classes
from swiftres_plugin.engine.follow import Stream, followed, with_new
from swiftres_plugin.engine.hand_of_start import in_hand_of_start
from swiftres_plugin.engine.io.checkpoint import load_state, save_state, slim
from swiftres_plugin.engine.io.files import held, written_atomically
from swiftres_plugin.engine.io.mrc import MrcSource, check_stacks, read_map
from swiftres_plugin.engine.io.runs import recorded
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.engine.io.symmetry import absolute, open_symmetry
from swiftres_plugin.engine.io.tables import add_to_json, write_json
from swiftres_plugin.engine.maths.aberrations import shift_of_image
from swiftres_plugin.engine.maths.axes import Axes, find_axes, turned
from swiftres_plugin.engine.maths.fourier import crop_or_pad, resample_cube
from swiftres_plugin.engine.overfitting import Substitution, check_limit, figures, guard, sentence, write_overfitting
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.report import Reporter, TeeReporter
from swiftres_plugin.engine.room import housed, planned_storage
from swiftres_plugin.engine.scratch import Storage
from swiftres_plugin.engine.stages.index import faiss_problem
from swiftres_plugin.engine.stages.preprocess import load_spectra, typical_defocus_a
from swiftres_plugin.errors import InputError, StateError
from swiftres_plugin.settings import RefineSettings

# Correlation of a low-passed starting map with its symmetry mates: below the first it hardly has the symmetry; a gain by
# turning it above the second is a misplaced axis, and above the third worth the interpolation when turning is asked for.
LEAST_SYMMETRY, MISPLACED_SYMMETRY, NOTICEABLE_SYMMETRY = 0.7, 0.05, 0.002
WORTH_TELLING = 0.05  # share of images without a particle that the user hears of
SAME_PIXEL = 1e-3  # relative difference of pixel sizes that is a rounding and not another sampling


@dataclass(frozen=True)
class Inputs:
    """The files of a run, as absolute paths."""

    particles: str
    references: tuple[str, ...]
    mask: str = ""


@dataclass(frozen=True, eq=False)
class Opened:
    """The files of a run, read and checked."""

    inputs: Inputs
    particles: Particles
    source: MrcSource
    references: tuple[Map, ...]
    mask: Map | None
    storage: Storage


def open_inputs(inputs: Inputs, settings: RefineSettings, reporter: Reporter, output: Path | None = None) -> Opened:
    """Read metadata and maps and check everything that can be known before the work starts.

    output: the folder of a run whose maps may lie on disk while it works; all others hold them in memory.
    """
    operators = open_symmetry(settings.schedule.symmetry)
    check_search(settings.search)
    check_cluster(settings.cluster.cluster)
    if settings.cluster.cluster and settings.stream.follow:
        raise InputError("--follow works in one process", found="--cluster too", remedy="Leave out one of them.")
    particles = read_particles(inputs.particles)
    check_optics(particles.optics, inputs.particles)
    check_stacks(particles)
    if len(particles) < 4:
        raise InputError("too few particles", where=inputs.particles, found=str(len(particles)), expected="at least 4")
    if settings.schedule.alignment == "local" and particles.poses is None:
        raise InputError("local alignment needs poses", where=inputs.particles, found="no angle columns",
                         remedy="Use --alignment global.")
    check_limit(settings.postprocess.guard_resolution, particles)
    check_choices(settings, particles, inputs)
    storage = Storage() if output is None else storage_of(settings, particles, len(inputs.references), output, reporter)
    references = [read_map(path, empty=storage.empty) for path in inputs.references]
    for reference, path in zip(references, inputs.references):
        check_reference(reference, path)
    mask = read_map(inputs.mask, empty=storage.empty) if inputs.mask else None
    if mask is not None:
        check_mask(mask, particles.box_px, particles.pixel_size_a, inputs.mask)
    finest = 2 * particles.pixel_size_a
    if settings.schedule.initial_resolution < finest:
        raise InputError("the initial resolution is finer than the particles",
                         found=f"{settings.schedule.initial_resolution:g} A", expected=f"at least {finest:g} A (Nyquist)")
    on_grid = tuple(fitted(reference, particles, reporter) for reference in references)
    on_grid = tuple(on_axes(one, path, operators, settings, mask is not None, reporter)
                    for one, path in zip(on_grid, inputs.references))
    check_different(on_grid, inputs.references, settings.schedule.initial_resolution, storage.makes)
    return Opened(inputs, particles, MrcSource(particles), on_grid, mask, storage)


def storage_of(settings: RefineSettings, particles: Particles, references: int, output: Path, reporter: Reporter) -> Storage:
    """Where the maps of a run lie. Raises `InputError` where there is no room for them."""
    folder, classes = Path(settings.compute.scratch or output), max(references, settings.classes.classes)
    return planned_storage(particles.box_px, classes, host_memory(settings.compute.memory), folder, reporter)


def check_choices(settings: RefineSettings, particles: Particles, inputs: Inputs) -> None:
    """Raises `InputError` for choices that these inputs, or other choices, leave no room for."""
    if particles.poses is None and (settings.polish.angle_prior or settings.polish.shift_prior):
        raise InputError("a prior needs poses to keep to", where=inputs.particles, found="no angle columns",
                         remedy="Leave --angle-prior and --shift-prior out.")
    if settings.classes.classes > 1 and (settings.cluster.cluster or settings.stream.follow):
        raise InputError("classes are found in one process, from particles that are all there", found="--classes with "
                         "--cluster or --follow", remedy="Divide the finished run with 'swiftres classify'.")
    if settings.classes.classes > 1 and len(inputs.references) > 1:
        raise InputError("several starting maps are classes of their own",
                         found=f"{len(inputs.references)} maps and --classes {settings.classes.classes}",
                         remedy="Give one map, or leave --classes out.")


def fitted(reference: Map, particles: Particles, reporter: Reporter) -> Map:
    """A map in the box and at the pixel size of the particles."""
    box, pixel = particles.box_px, particles.pixel_size_a
    same_pixel = abs(reference.pixel_size_a - pixel) <= SAME_PIXEL * pixel
    if same_pixel and reference.box_px == box:
        return Map(reference.voxels, pixel, reference.origin_a)
    reporter.message(f"The map ({reference.box_px} px of {reference.pixel_size_a:g} A) is resampled to the "
                     f"particles' {box} px of {pixel:g} A.")
    voxels = torch.from_numpy(np.ascontiguousarray(reference.voxels, dtype=np.float32))
    if not same_pixel:
        size = padded_size(reference.box_px, reference.pixel_size_a / pixel)
        voxels = crop_or_pad(voxels, size)
        voxels = resample_cube(voxels, round(size * reference.pixel_size_a / pixel))
    return Map(crop_or_pad(voxels, box).numpy(), pixel)


def on_axes(reference: Map, path: str, operators: np.ndarray, settings: RefineSettings, masked: bool,
            reporter: Reporter) -> Map:
    """The starting map on the axes of the group if that is asked for; else as it is, with a warning where they differ.

    Raises `InputError` where poses or a mask in the frame of the map would no longer fit it.
    """
    if len(operators) == 1:
        return reference
    wanted, group = settings.schedule.align_symmetry_axes, settings.schedule.symmetry
    if wanted and (masked or settings.schedule.alignment == "local"):
        raise InputError("the starting map cannot be turned onto the symmetry axes", where=path,
                         found="a mask" if masked else "--alignment local", remedy="Both belong to the map as it stands: "
                         "turn map and mask beforehand, and leave out --align-symmetry-axes.")
    axes = find_axes(reference, operators, settings.schedule.initial_resolution)
    if wanted and axes.found > axes.given + NOTICEABLE_SYMMETRY:
        reporter.message(f"{path} is turned by {math.degrees(axes.angle_rad):.1f} degrees and moved by "
                         f"{np.linalg.norm(axes.move_a):.1f} A onto the axes of {group} (its correlation with its symmetry "
                         f"mates rises from {axes.given:.2f} to {axes.found:.2f}).")
        return turned(reference, axes)
    if axes.given < LEAST_SYMMETRY or axes.found > axes.given + MISPLACED_SYMMETRY:
        reporter.warning(f"{path} does not stand in the axes of {group}: its correlation with its symmetry mates is "
                         f"{axes.given:.2f}. {advice(axes, group)}")
    return reference


def advice(axes: Axes, group: str) -> str:
    """What to do about a map that does not stand in the axes of the group."""
    if axes.found < LEAST_SYMMETRY:
        return f"No turn brings it above {axes.found:.2f}: is {group} its symmetry?"
    return (f"A turn by {math.degrees(axes.angle_rad):.1f} degrees and a move by {np.linalg.norm(axes.move_a):.1f} A bring "
            f"it to {axes.found:.2f}; --align-symmetry-axes does that.")


def padded_size(box_px: int, ratio: float) -> int:
    """The box from `box_px` on whose size times `ratio` is nearest to an integer, so that resampling keeps the scale."""
    sizes = np.arange(box_px, 2 * box_px + 1)
    error = np.abs(sizes * ratio - np.round(sizes * ratio)) / (sizes * ratio)
    good = np.flatnonzero(error < 2e-4)
    return int(sizes[good[0]] if len(good) else sizes[np.argmin(error)])


def new_run(inputs: Inputs, settings: RefineSettings, output: Path, reporter: Reporter, database: Path | None = None) -> None:
    """Refine from the start into the new folder `output`; `database` keeps a record of it."""
    check_output_folder(output)
    schedule = replace(settings.schedule, symmetry=absolute(settings.schedule.symmetry))
    settings = replace(settings, schedule=schedule)
    opened = open_inputs(inputs, settings, reporter, output)
    output.mkdir(parents=True, exist_ok=True)
    with held(output), recorded(database, output, asked_for(inputs, settings), reporter):
        carry_on(opened, settings, output, reporter, None)


def resume_run(output: Path, changes: dict[str, dict[str, object]], reporter: Reporter, database: Path | None = None) -> None:
    """Go on with the run in `output` after its last finished iteration; `changes` to its settings, by branch."""
    opened, settings, state = open_run(output, changes, reporter)
    with held(output), recorded(database, output, asked_for(opened.inputs, settings), reporter):
        carry_on(opened, settings, output, reporter, state)


def open_run(output: Path, changes: dict[str, dict[str, object]],
             reporter: Reporter) -> tuple[Opened, RefineSettings, RefinementState | None]:
    """The files and settings (with `changes`, by branch) of the run in `output`, and where it stands; None at its start."""
    try:
        asked = json.loads((output / layout.SETTINGS).read_text())
        for branch, values in changes.items():
            asked["settings"][branch].update(values)
        inputs = found_again(Inputs(**asked["inputs"]), Path(asked.get("folder", output)), output)
        settings = RefineSettings.from_dict(asked["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{output}: this folder holds no run that can go on ({error})") from error
    opened = open_inputs(inputs, settings, reporter, output)
    finished = layout.finished_iterations(output)
    state = load_state(finished[-1][1], opened.storage.empty) if finished else None
    if state is not None and settings.stream.follow:
        opened = as_before(opened, finished[-1][1])
    if state is not None and len(state.half) != len(opened.particles):
        raise StateError(f"{inputs.particles}: holds {len(opened.particles)} particles, "
                         f"the run in {output} has {len(state.half)}")
    return opened, settings, state


def found_again(inputs: Inputs, before: Path, now: Path) -> Inputs:
    """The files of a run that lay in the folder `before`: those that are gone are looked for beside the folder `now`.

    So a project that was moved or copied as a whole goes on.
    """
    def place(path: str) -> str:
        beside = Path(os.path.normpath(now.resolve() / os.path.relpath(path or ".", before)))
        return str(beside) if path and not Path(path).exists() and beside.exists() else path

    return Inputs(place(inputs.particles), tuple(map(place, inputs.references)), place(inputs.mask))


def as_before(opened: Opened, checkpoint: Path) -> Opened:
    """The particles that the run had at its last checkpoint, in their order; those that came since are left for later."""
    known = read_particles(str(checkpoint / layout.PARTICLES))
    particles = with_new(known, opened.particles).take(np.arange(len(known)))
    return replace(opened, particles=particles, source=MrcSource(particles))


def carry_on(
        opened: Opened, settings: RefineSettings, output: Path, reporter: Reporter, state: RefinementState | None) -> None:
    """Iterate from `state` (or from the start) and write what comes out."""
    began = time.time()
    reporter = TeeReporter(reporter)  # keeps the warnings for run.json
    warn_of_faiss(reporter)
    compute = open_compute(settings.compute.device, settings.compute.threads, settings.compute.memory)
    compute = housed(compute, opened.storage, opened.particles.box_px, reporter)
    with images(opened, settings, compute, reporter, output) as (spectra, cluster):
        write_asked(opened.inputs, settings, output)
        mask = None if opened.mask is None else opened.mask.voxels
        operators = open_symmetry(settings.schedule.symmetry)
        room = compute.beside(spectra.values) if cluster is None else compute
        engine = Engine(spectra, room, operators, settings, reporter, mask, cluster=cluster)
        carried(engine, opened, output, reporter, state, began)


@contextmanager
def images(opened: Opened, settings: RefineSettings, compute: Compute, reporter: Reporter,
           output: Path) -> Iterator[tuple[Spectra, Cluster | None]]:
    """The transforms of the images: read by this process, or by the workers of a cluster."""
    if not settings.cluster.cluster:
        scratch = Path(settings.compute.scratch or output)
        resident = not settings.stream.follow  # what comes later has to lie beside what came first
        yield load_spectra(opened.source, settings.preprocess, compute, reporter, scratch, resident=resident), None
        return
    with clustered(opened.particles, settings, compute, reporter, output) as found:
        yield found


def carried(engine: Engine, opened: Opened, output: Path, reporter: TeeReporter, state: RefinementState | None,
            began: float) -> None:
    """To the end of the run, with every state written."""
    if state is None:
        state = start(engine, opened.references, engine.user_mask)
    else:  # what a kill may have kept from the top of the run
        publish(output / layout.iteration_name(state.number), state, opened, output)
    for engine, state in iterations(engine, opened, state, output):  # noqa: B020  (the generator keeps its own)
        if state.at_rest or state.number == engine.settings.schedule.iterations:
            state = in_hand_of_start(engine, state, opened.references)
        if len(engine.spectra) > len(opened.particles):
            opened = replace(opened, particles=engine.spectra.particles, source=MrcSource(engine.spectra.particles))
        folder = save_state(output, state, with_poses(opened.particles, state))
        publish(folder, state, opened, output)
        tell(state, reporter)
        write_json(output / layout.RUN, provenance(opened, state, engine, began, reporter.warnings))
    if not (output / layout.RUN).exists():
        write_json(output / layout.RUN, provenance(opened, state, engine, began, reporter.warnings))
    add_to_json(output / layout.RUN, finished_figures(opened, state, engine, output))
    conclude(state, output, reporter)


def iterations(engine: Engine, opened: Opened, state: RefinementState,
               output: Path) -> Iterator[tuple[Engine, RefinementState]]:
    """Engine and state after each iteration; where particles are followed the engine holds more and more of them."""
    settings = engine.settings
    if not settings.stream.follow:
        for state in refine(engine, state):  # noqa: B020  (the generator keeps its own)
            yield engine, state
        return
    defocus_a, scratch = typical_defocus_a(opened.particles), Path(settings.compute.scratch or output)

    def load(particles: Particles) -> Spectra:
        return load_spectra(MrcSource(particles), settings.preprocess, engine.compute, engine.reporter, scratch, defocus_a)

    stream = Stream(Path(opened.inputs.particles), settings.stream, engine.reporter, time.monotonic())
    yield from followed(engine, state, stream, load)


def finished_figures(opened: Opened, state: RefinementState, engine: Engine, output: Path) -> dict:
    """Sharpened maps, and the overfitting guard where it is asked for: written to the top of the run, and told."""
    told = sharpen_classes(engine, state, output)
    chosen = engine.settings.postprocess
    if chosen.overfitting_guard:
        mask = None if opened.mask is None else opened.mask.voxels
        found = guard(opened.source, opened.references, mask, state, engine, Substitution(limit_a=chosen.guard_resolution),
                      Path(engine.settings.compute.scratch or output))
        for number, one in enumerate(found, 1):
            write_overfitting(one, output, number)
            engine.reporter.message(sentence(one))
        told["class_overfitting"] = [figures(one) for one in found]
    return told


def asked_for(inputs: Inputs, settings: RefineSettings) -> dict:
    return {"inputs": dataclasses.asdict(inputs), "settings": settings.to_dict()}


def write_asked(inputs: Inputs, settings: RefineSettings, output: Path) -> None:
    """Keep what was asked for; only now, when every image has been read, is there a run to go on with."""
    write_json(output / layout.SETTINGS, {"folder": str(output.resolve()), **asked_for(inputs, settings)})


def warn_of_faiss(reporter: Reporter) -> None:
    if problem := faiss_problem():
        reporter.warning(f"FAISS cannot be used ({problem}): searches run as plain matrix products, and recipes of FAISS are "
                         "refused.")


def with_poses(particles: Particles, state: RefinementState) -> Particles:
    """The particles that were aligned, with the state's poses, half sets and scores."""
    if state.assignment is None:
        return particles
    done = with_results(particles, state.assignment)
    scores = done.scores if state.trust is None else {**done.scores, "trust": state.trust}
    return replace(done, half=state.half, scores=scores).take(np.flatnonzero(state.assignment.aligned))


def with_results(particles: Particles, found: Assignment) -> Particles:
    """The particles with the poses and scores that an alignment found."""
    scores = {"log_likelihood": found.log_likelihood, "max_probability": found.max_probability, "class_id": found.class_id}
    poses = Poses(found.image_to_volume, shift_of_image(particles, found.shift_a))
    return replace(particles, poses=poses, scores={**particles.scores, **scores})


def publish(folder: Path, state: RefinementState, opened: Opened, output: Path) -> None:
    """Copy the results of a state's folder to the top of the run, and thin out folders no resume needs."""
    for number in range(1, len(state.classes) + 1):
        for name in (layout.map_name(number), layout.half_name(1, number), layout.half_name(2, number),
                     layout.fsc_name(number), layout.mask_name(number)):
            with written_atomically(output / name) as part:
                shutil.copyfile(folder / name, part)
    write_particles(output / layout.PARTICLES, with_poses(opened.particles, state))
    for number, old in layout.finished_iterations(output):
        if number < state.number - 1:
            slim(old)


def tell(state: RefinementState, reporter: Reporter) -> None:
    last = state.history[-1]
    turn = "" if math.isnan(last.median_turn_rad) else f", poses turned {math.degrees(last.median_turn_rad):.2f} degrees"
    recall = f", recall {last.recall:.0%} of {last.recall_particles}" if last.recall_particles else ""
    blank = f", {last.untrusted:.0%} of the images show no particle" if last.untrusted > WORTH_TELLING else ""
    busy = "" if math.isnan(last.busy) else f" (devices {last.busy:.0%} busy)"
    kind = ("global" if last.searched == 1 else f"global for {last.searched:.0%}") if last.exhaustive else "local"
    kind += f" of {last.taken:.0%} of the particles" if last.taken < 1 else ""
    reporter.message(f"Iteration {last.number} ({kind}, to {1 / last.max_frequency:.1f} A): resolution "
                     f"{last.resolution_a:.2f} A{turn}{recall}{blank}, {sum(last.seconds.values()):.0f} s{busy}")
    if len(state.classes) > 1:
        sizes = zip(last.class_sizes, last.class_resolution_a)
        changes = "" if math.isnan(last.class_changes) else f"; {last.class_changes:.1%} changed class"
        reporter.message("  classes: " + ", ".join(f"{n} particles at {a:.2f} A" for n, a in sizes) + changes)


def conclude(state: RefinementState, output: Path, reporter: Reporter) -> None:
    last = state.history[-1]
    why = "at rest" if state.at_rest else "at its ceiling of iterations"
    maps = ", ".join(str(output / layout.map_name(c + 1)) for c in range(len(state.classes)))
    reporter.message(f"Finished {why} after {state.number} iterations: {last.resolution_a:.2f} A (FSC 0.143). "
                     f"Map: {maps}  Particles: {output / layout.PARTICLES}")


def provenance(opened: Opened, state: RefinementState, engine: Engine, began: float, warnings: list[str]) -> dict:
    """What stands in run.json."""
    last = state.history[-1]
    iterations = [{k: _finite(v) for k, v in dataclasses.asdict(r).items()} for r in state.history]
    places = engine.compute.devices
    names = [torch.cuda.get_device_name(d) if d.type == "cuda" else platform.processor() or platform.machine()
             for d in places]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "settings": engine.settings.to_dict(), "particles": len(opened.particles), "versions": versions(),
        "device": {"kind": engine.device.type, "name": ", ".join(names), "count": len(places),
                   "threads": engine.compute.threads},
        "resolution_a": _finite(last.resolution_a), "class_sizes": last.class_sizes,
        "class_resolution_a": _finite(last.class_resolution_a), "at_rest": state.at_rest, "iterations": iterations,
        "seconds": round(time.time() - began, 1), "warnings": warnings, "peak_memory_bytes": peak,
        "peak_device_memory_bytes": max(torch.cuda.max_memory_allocated(d) if d.type == "cuda" else 0 for d in places)}


def _finite(value: object) -> object:
    """JSON has no infinity and no NaN."""
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    found = {"swiftres": swiftres_plugin.__version__, "python": platform.python_version(), "numpy": np.__version__,
             "torch": torch.__version__}
    if not faiss_problem():
        import faiss
        found["faiss"] = faiss.__version__
    return found
