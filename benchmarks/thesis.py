"""The searches of the thesis this engine comes from, one beside the other, and what the default gains over each.

    swiftres simulate --count 1000 --box 64 --pixel-size 4.5 --symmetry D2 --output FOLDER     (or any set with known poses)
    python benchmarks/thesis.py FOLDER --symmetry D2 [--particles 300] [--resolution 20] [--only TEXT ...]

FOLDER holds particles_true.star (true poses) and true_map.mrc, as `swiftres simulate` writes them. Each row is one global
alignment of the same particles to the true map, low-passed to the resolution. `thesis` corrects particles by a Wiener filter,
compares by euclidean distance and takes the first match as it is, on the grid; the rows after it change one thing each. Errors
are angles to the true poses, symmetry mates counting as one; lost are those beyond 10 degrees. Seconds are of the processor,
index included.
"""
from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swiftres_plugin.engine.align import align_half
from swiftres_plugin.engine.align_files import as_refinement
from swiftres_plugin.engine.compute import open_compute
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.state import RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.mrc import MrcSource, read_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.maths.symmetry import angular_errors
from swiftres_plugin.engine.plan import plan_iteration
from swiftres_plugin.engine.refine import diameter, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.consensus import consensus
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.settings import AlignSettings, SearchSettings, TargetSettings

LOST_RAD = np.deg2rad(10)
REPEATS = 5


@dataclass(frozen=True)
class Method:
    """A way to search; `repeats` alignments against perturbed galleries."""

    name: str
    search: SearchSettings
    repeats: int = 1


@dataclass(frozen=True)
class Result:
    """What a method reached: median errors (degrees, px), share lost, seconds; agreed: share with a consensus and, of
    these, the share lost."""

    name: str
    angle_deg: float
    shift_px: float
    lost: float
    seconds: float
    agreed: tuple[float, float] | None


DEFAULT = Method("default: likelihood, 128 components, exact ranking and refinement", SearchSettings(recall_sample=0))
GRID = replace(DEFAULT.search, rerank=False)
THESIS = replace(GRID, metric="euclidean", wiener=True, recipe="exact")
METHODS = (
    Method("thesis: Wiener, euclidean, every coefficient", THESIS),
    Method("  128 principal components", replace(THESIS, recipe="PCA128")),
    Method("  64 principal components", replace(THESIS, recipe="PCA64")),
    Method("  scalar quantiser, 8 bits", replace(THESIS, recipe="SQ8")),
    Method("  scalar quantiser, half precision", replace(THESIS, recipe="SQfp16")),
    Method("  OPQ, IVF, PQ of 48 bytes, 1 list visited", replace(THESIS, recipe="IVFPQ48", nprobe=1)),
    Method("  OPQ, IVF, PQ of 48 bytes, 64 lists visited", replace(THESIS, recipe="IVFPQ48")),
    Method("  OPQ, IVF, PQ of 32 bytes, 64 lists visited", replace(THESIS, recipe="IVFPQ32")),
    Method("  without Wiener filter", replace(THESIS, wiener=False)),
    Method("  weighted euclidean", replace(THESIS, metric="weighted")),
    Method("  cosine", replace(THESIS, metric="cosine")),
    Method("  Pearson", replace(THESIS, metric="pearson")),
    Method(f"  cosine, consensus of {REPEATS} galleries", replace(THESIS, metric="cosine"), REPEATS),
    Method("likelihood on the grid, every coefficient", replace(GRID, recipe="exact")),
    Method("likelihood on the grid, 128 components", GRID),
    Method(f"  consensus of {REPEATS} galleries", GRID, REPEATS),
    Method("likelihood, PQ of 48 bytes, exact ranking and refinement", replace(DEFAULT.search, recipe="IVFPQ48")))


def opened(folder: Path, symmetry: str, resolution_a: float, count: int, scratch: Path) -> tuple[Engine, RefinementState]:
    """The first `count` particles, and the true map as their reference."""
    particles = read_particles(folder / "particles_true.star")
    particles = particles.take(np.arange(min(count, len(particles))))
    target = TargetSettings(resolution=resolution_a, symmetry=symmetry)
    search = replace(DEFAULT.search, search_resolution=resolution_a)
    settings = as_refinement(AlignSettings(target=target, search=search))
    compute = open_compute("cpu", 1)
    spectra = load_spectra(MrcSource(particles), settings.preprocess, compute, SilentReporter(), scratch)
    engine = Engine(spectra, compute, open_symmetry(symmetry), settings, SilentReporter())
    return engine, start(engine, [read_map(folder / "true_map.mrc")], None)


def aligned(engine: Engine, state: RefinementState, repeats: int) -> tuple[Assignment, np.ndarray | None]:
    """As `swiftres align` does it, but with one gallery for all particles. The result, and the share that agrees with it."""
    diameter_a, rows = diameter(engine, state), np.arange(len(engine.spectra))
    plan = plan_iteration(state, engine.spectra.band, diameter_a, engine.settings)
    plans = [plan] if repeats == 1 else [replace(plan, gallery_seed=r) for r in range(repeats)]
    reference, noise = state.classes[0].references[0], state.noise[0]
    found = [align_half(engine, reference, noise, rows, one, None, diameter_a, "") for one in plans]
    if repeats == 1:
        return found[0], None
    return consensus(found, engine.operators, plan.angular_step_rad, plan.shift_step_a)


def measured(method: Method, engine: Engine, state: RefinementState) -> Result:
    """One alignment of all particles by `method`."""
    search = replace(method.search, search_resolution=engine.settings.search.search_resolution)
    asked = replace(engine, settings=replace(engine.settings, search=search))
    began = time.process_time()
    found, share = aligned(asked, state, method.repeats)
    seconds = time.process_time() - began
    particles: Particles = engine.spectra.particles
    angle, shift = angular_errors(Poses(found.image_to_volume, found.shift_a), particles.poses, engine.operators)
    lost, agreed = angle > LOST_RAD, None
    if share is not None:
        agreed = float(np.mean(share > 0.5)), float(np.mean(lost[share > 0.5]))
    return Result(method.name, float(np.degrees(np.median(angle))), float(np.median(shift)) / particles.pixel_size_a,
                  float(np.mean(lost)), seconds, agreed)


def line(row: Result, best: Result) -> str:
    """A line of the table: the figures, and those of the default against them."""
    gain = "" if row is best else f"{row.angle_deg / best.angle_deg:8.1f} x {100 * (row.lost - best.lost):+9.1f} %"
    text = f"{row.name:68s}{row.angle_deg:8.2f}{row.shift_px:8.2f}{row.lost:8.1%}{row.seconds:9.1f}{gain}"
    if row.agreed:
        text += f"\n{'':10s}consensus: {row.agreed[0]:.1%} of the particles, of whom {row.agreed[1]:.1%} are lost"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--resolution", type=float, default=20.0, help="of the map and of the search, in A")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these words")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        engine, state = opened(args.folder, args.symmetry, args.resolution, args.particles, Path(scratch))
        print(f"{len(engine.spectra)} particles to {args.resolution:g} A\n{'':68s}{'degrees':>8s}{'px':>8s}{'lost':>8s}"
              f"{'seconds':>9s}   default: nearer, fewer lost", flush=True)
        best = measured(DEFAULT, engine, state)
        print(line(best, best), flush=True)
        for method in METHODS:
            if any(word in method.name for word in args.only):
                print(line(measured(method, engine, state), best), flush=True)


if __name__ == "__main__":
    main()
