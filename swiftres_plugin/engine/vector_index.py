"""The vector search by itself: references to an index in a folder, and particles to their best matches in it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

import swiftres_plugin
from swiftres_plugin import layout
from swiftres_plugin.engine.align import SAMPLE_BYTES, image_noise, polish_candidates
from swiftres_plugin.engine.align_files import as_refinement
from swiftres_plugin.engine.checks import check_optics
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.data.search import Band, Candidates, Gallery
from swiftres_plugin.engine.data.spectra import Comparison
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.index_folder import (
    check_new_index,
    read_class,
    read_description,
    write_class,
    write_description,
)
from swiftres_plugin.engine.io.mrc import MrcSource, check_stacks
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.maths.aberrations import shift_of_image
from swiftres_plugin.engine.maths.fourier import image_band
from swiftres_plugin.engine.maths.geometry import shift_grid
from swiftres_plugin.engine.maths.metrics import MetricBasis
from swiftres_plugin.engine.maths.vectors import Basis
from swiftres_plugin.engine.opening import open_engine
from swiftres_plugin.engine.plan import plan_iteration
from swiftres_plugin.engine.refine import diameter, start
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.engine.run import Inputs, open_inputs, warn_of_faiss
from swiftres_plugin.engine.searching import index_search, joined, search_rows
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.index import FaissIndex, TorchIndex, visit_lists
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.search import IndexSearch
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import AlignSettings, RefineSettings

MATCHES = "matches.star"
Result = TypeVar("Result")


# ------------------------------------------------------------------------------------------------- train

def train(inputs: Inputs, settings: AlignSettings, output: Path, reporter: Reporter) -> dict[str, Any]:
    """Build an index of the references in the new folder `output`; what is written to its description.

    The particles tell noise, CTF and grey scale: they weigh what references are compared by. Raises `InputError` before
    any work where a file cannot be used.
    """
    check_new_index(output)
    chosen = as_refinement(settings)
    opened = open_inputs(inputs, chosen, reporter)
    output.mkdir(parents=True, exist_ok=True)

    def build(engine: Engine) -> dict[str, Any]:
        state = start(engine, opened.references, None if opened.mask is None else opened.mask.voxels)
        diameter_a = diameter(engine, state)
        plan = plan_iteration(state, engine.spectra.band, diameter_a, engine.settings)
        rows = np.arange(len(engine.spectra))
        noise = image_noise(engine, rows)
        for number, one in enumerate(state.classes, 1):
            volume = engine.volume(one.references[0], plan.search_shell)
            searcher = index_search(engine, volume, noise, rows, plan)
            index = searcher.index.index if isinstance(searcher.index, FaissIndex) else None
            density = Map(one.references[0].cpu().numpy(), opened.particles.pixel_size_a)
            write_class(output, number, arrays_of(searcher, index is None), index, density)
        told = described(searcher, inputs, settings, opened.particles, plan) | {"diameter_a": diameter_a}
        write_description(output, told)
        return told

    return over_particles(opened.particles, chosen, output, reporter, build)


def over_particles(particles: Particles, settings: RefineSettings, output: Path, reporter: Reporter,
                   work: Callable[[Engine], Result]) -> Result:
    """What `work` makes of an engine over the particles."""
    warn_of_faiss(reporter)
    return work(open_engine(MrcSource(particles), open_symmetry(settings.schedule.symmetry), settings, reporter, output))


def arrays_of(searcher: IndexSearch, with_vectors: bool) -> dict[str, np.ndarray]:
    """Everything of a search but its FAISS index, by name."""
    basis = searcher.basis
    found = {"image_to_volume": searcher.gallery.image_to_volume}
    if isinstance(basis, (Basis, MetricBasis)):
        found["weight"] = basis.weight
        if basis.components is not None:
            found["components"] = basis.components
    if isinstance(basis, Basis):
        found["power_weight"] = basis.power_weight
    if with_vectors:
        found["vectors"] = searcher.gallery.vectors
    arrays = {name: values.cpu().numpy() for name, values in found.items()}
    if isinstance(basis, MetricBasis):
        arrays["norm_weight"] = np.array(basis.norm_weight)
    return arrays


def described(searcher: IndexSearch, inputs: Inputs, settings: AlignSettings, particles: Particles,
              plan: IterationPlan) -> dict[str, Any]:
    """What index.json says."""
    vectors, shell = searcher.gallery.vectors, plan.search_shell
    return {
        "version": swiftres_plugin.__version__, "references": list(inputs.references), "particles": inputs.particles,
        "box_px": particles.box_px, "pixel_size_a": particles.pixel_size_a, "last_shell": shell,
        "resolution_a": particles.box_px * particles.pixel_size_a / shell, "symmetry": settings.target.symmetry,
        "metric": settings.search.metric, "wiener": settings.search.wiener, "recipe": settings.search.recipe,
        "index": searcher.index.description, "orientations": len(vectors), "length": vectors.shape[1],
        "angular_step_rad": searcher.gallery.angular_step_rad, "shift_step_a": plan.shift_step_a}


# ------------------------------------------------------------------------------------------------- query

def query(index: Path, particles_path: str, matches: int, settings: RefineSettings, output: Path, reporter: Reporter) -> None:
    """Write each particle with its best match to `particles.star`, and with its `matches` best to `matches.star`.

    Raises `InputError` before any work where the index does not fit the particles.
    """
    told = read_description(index)
    particles = read_particles(particles_path)
    check_optics(particles.optics, particles_path)
    check_fits(told, particles, index)
    check_stacks(particles)
    output.mkdir(parents=True, exist_ok=True)
    parts = over_particles(particles, settings, output, reporter, lambda engine: [
        matched(engine, index, number, told, matches) for number in range(1, len(told["references"]) + 1)])
    best, class_id = merged(parts, matches)
    name = "log_likelihood" if told["metric"] == "likelihood" or settings.search.rerank else "match_score"
    write_particles(output / layout.PARTICLES, as_particles(particles, best, class_id, name, 1))
    write_particles(output / MATCHES, as_particles(particles, best, class_id, name, matches))


def check_query(matches: int, output: Path) -> None:
    """Raises `InputError` where nothing is asked for, or results stand in the way."""
    if matches < 1:
        raise InputError("--matches says how many matches to write", found=matches, expected="at least 1")
    for name in (layout.PARTICLES, MATCHES):
        if (output / name).exists():
            raise InputError("the output folder already holds results", where=output / name, remedy="Name another folder.")


def check_fits(told: dict[str, Any], particles: Particles, index: Path) -> None:
    """Raises `InputError` unless the particles are sampled as those the index was made for."""
    same_pixel = abs(particles.pixel_size_a - told["pixel_size_a"]) <= 1e-3 * told["pixel_size_a"]
    if particles.box_px != told["box_px"] or not same_pixel:
        raise InputError("the index was made for particles of another box or pixel size", where=index,
                         found=f"particles of {particles.box_px} px of {particles.pixel_size_a:g} A",
                         expected=f"{told['box_px']} px of {told['pixel_size_a']:g} A",
                         remedy="Make an index for these particles with 'swiftres train'.")


def matched(engine: Engine, index: Path, number: int, told: dict[str, Any], matches: int) -> Candidates:
    """The candidates of every particle in one class, ranked and refined exactly unless the settings say otherwise."""
    rows, settings = np.arange(len(engine.spectra)), engine.settings
    searcher, density = open_searcher(engine, index, number, told)
    noise = image_noise(engine, rows)
    engine.reporter.stage(f"query, class {number}", len(rows))
    found = joined(search_rows(engine, searcher, noise, rows, np.zeros((len(rows), 2))))
    if not settings.search.rerank:
        return found
    band = searcher.basis.band
    volume = engine.volume(torch.from_numpy(np.ascontiguousarray(density.voxels)), told["last_shell"])

    def ranked(part: np.ndarray) -> Candidates:
        batch = engine.batch(part, band)
        power = per_sample(noise, batch)
        scored = local.score_candidates(batch, power, volume, found.take(part)).best(max(matches, 4 * settings.polish.basins))
        return polish_candidates(batch, power, volume, scored, told["diameter_a"], settings.polish.steps)

    return joined(engine.compute.map(ranked, engine.compute.batches(rows, len(band) * SAMPLE_BYTES)))


def open_searcher(engine: Engine, index: Path, number: int, told: dict[str, Any]) -> tuple[IndexSearch, Map]:
    """The vector search that was saved for a class, on the engine's device, and the map it searches."""
    arrays, saved, density = read_class(index, number)
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items() if values.ndim}
    band = image_band(told["box_px"], told["pixel_size_a"]).up_to(told["last_shell"])
    if len(band) != len(tensors["weight"]):
        raise InputError("the index holds another band than it says", where=index,
                         found=f"{len(tensors['weight'])} coefficients", expected=f"{len(band)}",
                         remedy="Make it anew with 'swiftres train'.")
    vectors = tensors.get("vectors", torch.zeros((0, told["length"])))
    gallery = Gallery(tensors["image_to_volume"], vectors, told["angular_step_rad"])
    asked = TorchIndex(vectors) if saved is None else FaissIndex(saved, told["index"])
    if saved is not None:
        visit_lists(saved, told["index"], engine.settings.search.nprobe)
    reach = engine.settings.search.max_shift or 0.1 * band.box_a
    shifts = torch.from_numpy(shift_grid(reach, told["shift_step_a"])).float()
    found = IndexSearch(comparison_of(arrays, tensors, band, told), gallery, asked, shifts)
    return found.to(engine.device), density


def comparison_of(arrays: dict[str, np.ndarray], tensors: dict[str, torch.Tensor], band: Band,
                  told: dict[str, Any]) -> Comparison:
    components = tensors.get("components")
    if told["metric"] == "likelihood":
        return Basis(band, tensors["weight"], components, 1.0, tensors["power_weight"])
    return MetricBasis(band, told["metric"], told["wiener"], tensors["weight"], components, float(arrays["norm_weight"]))


def merged(parts: list[Candidates], matches: int) -> tuple[Candidates, np.ndarray]:
    """The best of all classes: (N, matches) candidates and their classes from 0, descending in score."""
    every = Candidates(*(torch.cat([getattr(p, name).cpu() for p in parts], 1) for name in Candidates.__slots__))
    class_id = torch.cat([torch.full(p.score.shape, number) for number, p in enumerate(parts)], 1)
    order = every.score.sort(dim=1, descending=True, stable=True).indices[:, :matches]
    return every.best(matches), class_id.gather(1, order).numpy()


def as_particles(particles: Particles, best: Candidates, class_id: np.ndarray, name: str, matches: int) -> Particles:
    """Every particle with the first of its matches; with more than one, as often as it has matches, and their rank from 1."""
    rows, rank = np.nonzero(np.isfinite(best.score.numpy())[:, :matches])
    rotation, shift_a = (values.double().numpy()[rows, rank] for values in (best.image_to_volume, best.shift_a))
    scores = {name: best.score.numpy()[rows, rank], "class_id": class_id[rows, rank]}
    if matches > 1:
        scores["match_rank"] = rank + 1
    found = particles.take(rows)
    return replace(found, poses=Poses(rotation, shift_of_image(found, shift_a)), scores=scores)
