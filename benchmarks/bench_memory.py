"""Memory as the engine plans it beside the peak that is measured: python benchmarks/bench_memory.py [--box 64 128 256]

Runs the stages on particles of noise, on two workers of the processor, in batches of the size that the engine makes, and
prints for each what was planned, how much the process grew at its peak, and the ratio. Ends with exit code 1 when a stage
grew by more than `--factor` times its plan and `--slack` megabytes (what allocators and threads keep for themselves).
With `--whole K` a refinement of K classes makes two iterations instead, in a process of its own that may not take more than
`--memory` gigabytes, and `BASE_BYTES` beyond what it takes at its start; what does not fit lies in files in
`--scratch`. Linux only.
"""
from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import numpy as np
import torch

from swiftres_plugin.engine import align, insertion, searching
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import ArraySource, Ctf, Optics, Particles
from swiftres_plugin.engine.data.search import Assignment, Candidates
from swiftres_plugin.engine.data.state import ClassState, RefinementState
from swiftres_plugin.engine.engine import MAP_BYTES, VOLUME_BYTES, Engine
from swiftres_plugin.engine.maths.geometry import random_rotations
from swiftres_plugin.engine.maths.slices import empty_sums
from swiftres_plugin.engine.plan import plan_iteration
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.room import planned_storage
from swiftres_plugin.engine.stages.preprocess import IMAGE_BYTES, load_spectra
from swiftres_plugin.settings import from_flat

WORKERS = 2
CANDIDATES = 16
PIXEL_A = 2.0
WHOLE_PARTICLES = 40
BASE_BYTES = 800_000_000  # libraries, slabs, and what the allocator keeps, whatever the box


@dataclass(frozen=True)
class Stage:
    """Work, the rows that are in it at the same time, and what it is planned to take: bytes."""

    name: str
    work: Callable[[], object]
    planned: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--box", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--factor", type=float, default=1.25)
    parser.add_argument("--slack", type=float, default=24.0, metavar="MB")
    parser.add_argument("--whole", type=int, default=0, metavar="K")
    parser.add_argument("--memory", type=float, default=4.0, metavar="GB")
    parser.add_argument("--scratch", type=Path, default=Path("."), metavar="FOLDER")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the process of its own
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.here:
        print(json.dumps(whole(args.box[0], args.whole, args.memory * 1e9, args.scratch.resolve())))
        return
    if args.whole:
        sys.exit(0 if all([whole_fits(box, args.whole, args.memory, args.scratch) for box in args.box]) else 1)
    print(f"{'box':>4} {'stage':<34} {'planned MB':>11} {'measured MB':>12} {'ratio':>6}")
    passed = True
    for box in args.box:
        for stage in stages(box):
            measured = growth(stage.work)
            fits = measured <= args.factor * stage.planned + args.slack * 1e6
            passed &= fits
            ratio = measured / stage.planned
            print(f"{box:>4} {stage.name:<34} {stage.planned / 1e6:>11.1f} {measured / 1e6:>12.1f} {ratio:>6.2f}"
                  f"{'' if fits else '   MORE THAN PLANNED'}", flush=True)
    sys.exit(0 if passed else 1)


def whole_fits(box: int, classes: int, memory_gb: float, scratch: Path) -> bool:
    """Whether a refinement of that size goes through under the cap; tells it."""
    command = [sys.executable, __file__, "--here", "--box", str(box), "--whole", str(classes), "--memory", str(memory_gb),
               "--scratch", str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True)
    told = f"box {box:>4}, {classes} classes, {memory_gb:g} GB"
    if done.returncode:
        print(f"{told}; FAILED: {done.stderr.strip().splitlines()[-1][:150]}", flush=True)
        return False
    found = json.loads(done.stdout.splitlines()[-1])
    where = f"on disk ({found['disk'] / 1e9:.2f} GB)" if found["disk"] else "in memory"
    print(f"{told}; maps {where}; peak {found['peak'] / 1e9:.2f} GB of memory over {found['base'] / 1e9:.2f} GB before, "
          f"{found['seconds']:.0f} s of processor time", flush=True)
    return True


def whole(box: int, classes: int, memory: float, scratch: Path) -> dict[str, float]:
    """Peaks of memory and disk in bytes, and processor seconds, of two iterations of particles of noise.

    Memory is what no file stands behind, as the system counts it, which also refuses more than the cap and `BASE_BYTES`:
    pages of files it gives back by itself when others need them.
    """
    allowed = int(_status("VmData") + memory + BASE_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    storage = planned_storage(box, classes, memory, scratch, SilentReporter())
    place = Compute(torch.device("cpu"), 1, int(memory), int(memory), storage=storage)
    base, began = _status("RssAnon"), time.process_time()
    with Peaks(scratch) as peaks:
        engine, _ = engine_and_source(box, place, WHOLE_PARTICLES, "auto")
        random = np.random.default_rng(5)
        maps = [Map(storage.empty((box,) * 3).numpy(), PIXEL_A) for _ in range(classes)]
        for plane in (plane for one in maps for plane in one.voxels):
            random.standard_normal(dtype=np.float32, out=plane)
        for state in refine(engine, start(engine, maps, None)):
            if state.number == 2:
                break
    return {"peak": peaks.memory - base, "base": base, "disk": peaks.disk, "seconds": time.process_time() - began}


class Peaks:
    """Looks every few milliseconds how much memory this process takes, and how much of the disk of a folder is gone."""

    def __init__(self, folder: Path):
        self.memory, self.disk = 0.0, 0.0
        self._folder, self._done = folder.resolve(), Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.01):
            self.memory = max(self.memory, _status("RssAnon"))
            self.disk = max(self.disk, self._files())

    def _files(self) -> float:
        """Bytes of the files without a name that this process has mapped from the folder."""
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(self._folder) in line]
        return float(sum(int(end, 16) - int(first, 16) for first, end in (line[0].split("-") for line in lines)))


def growth(work: Callable[[], object]) -> float:
    """Bytes by which the process is larger at the peak of `work` than before it."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(lines[name].split()[0]) * 1024


def stages(box: int) -> Iterator[Stage]:
    """The stages of an iteration, each ready to run."""
    engine, source = engine_and_source(box)
    compute, rows = engine.compute, np.arange(len(source.particles))
    whole, spectra = engine.spectra.band, engine.spectra

    def batch(bytes_per_row: float, at_once: int = WORKERS) -> float:
        parts = compute.batches(rows, bytes_per_row)
        return min(at_once, len(parts)) * len(parts[0]) * bytes_per_row

    yield Stage("reading", lambda: read_again(engine, source),
                batch(box ** 2 * IMAGE_BYTES) + spectra.values.nbytes)
    yield Stage("noise of the images", lambda: align.image_noise(engine, rows), batch(len(whole) * align.IMAGE_BYTES))
    noise, poses = align.image_noise(engine, rows), assignment(len(rows))
    reference = torch.from_numpy(np.random.default_rng(2).standard_normal((box,) * 3).astype(np.float32))
    yield Stage("map to Fourier volume", lambda: engine.volume(reference, whole.last_shell),
                VOLUME_BYTES * (2 * box) ** 3)
    yield from alignment(engine, reference, noise, rows, poses, batch)
    residual = VOLUME_BYTES * (2 * box) ** 3 + batch(len(whole) * align.RESIDUAL_BYTES)
    yield Stage("noise of the residuals", lambda: align.residual_noise(engine, [reference], rows, poses), residual)
    sums = empty_sums(whole.last_shell, "meta").nbytes
    workers = len(compute.shares(rows, sums))
    yield Stage("insertion into sums", lambda: insertion.reconstruct_half(engine, noise, rows, poses, "half"),
                (workers + 1) * sums + batch(len(whole) * insertion.INSERT_BYTES, workers))
    total = insertion.reconstruct_half(engine, noise, rows, poses, "half")
    yield Stage("sums to map", lambda: engine.solved(total), MAP_BYTES * (2 * box) ** 3)


def alignment(engine: Engine, reference: torch.Tensor, noise: np.ndarray, rows: np.ndarray, poses: Assignment,
              batch: Callable[..., float]) -> Iterator[Stage]:
    """Search and refinement of an exhaustive iteration."""
    band = engine.spectra.band
    maps = ClassState((reference, reference), band.last_shell, 10.0)
    state = RefinementState(0, (maps,), np.stack([noise, noise]), rows % 2, None)
    diameter_a = 0.7 * band.box_a
    plan = replace(plan_iteration(state, band, diameter_a, engine.settings), exhaustive=True)
    volume = engine.volume(reference, plan.last_shell)
    searcher = searching.prepare_search(engine, volume, noise, rows, plan)
    size, centre = searcher.bytes_per_particle(engine.settings.search.candidates), np.zeros((len(rows), 2))
    yield Stage("search", lambda: searching.search_rows(engine, searcher, noise, rows, centre), batch(size))
    found = Candidates(*(torch.from_numpy(v).float() for v in (
        random_rotations(len(rows) * CANDIDATES, np.random.default_rng(3)).reshape(len(rows), CANDIDATES, 3, 3),
        np.zeros((len(rows), CANDIDATES, 2)), np.zeros((len(rows), CANDIDATES)))))
    length = len(band.up_to(plan.last_shell))
    yield Stage("refinement of candidates", lambda: align.refine_rows(
        engine, volume, noise, rows, plan, found, poses, diameter_a, "half"), batch(length * align.SAMPLE_BYTES * 2))


def engine_and_source(box: int, compute: Compute | None = None, count: int = 0,
                      recipe: str = "torch") -> tuple[Engine, ArraySource]:
    """Particles of noise, a few batches of them or as many as are asked for, and an engine that holds their transforms."""
    count = count or max(12, min(2000, (1 << 23) // box ** 2))
    random = np.random.default_rng(1)
    defocus = random.uniform(8000, 22000, count)
    ctf = Ctf(defocus, defocus - 300, np.zeros(count), np.zeros(count))
    particles = Particles(
        particle_id=np.arange(count), stack_paths=("none.mrcs",), stack_index=np.zeros(count, np.int64),
        slice_index=np.arange(count), optics=(Optics(300.0, 2.7, 0.1, PIXEL_A, box),),
        optics_group=np.zeros(count, np.int64), ctf=ctf, poses=None)
    source = ArraySource(particles, random.standard_normal((count, box, box)).astype(np.float32))
    settings = from_flat({"search_resolution": max(20.0, 0.1 * box * PIXEL_A), "initial_resolution": 4 * PIXEL_A,
                          "candidates": CANDIDATES, "recipe": recipe})
    compute = compute or Compute(torch.device("cpu"), WORKERS, 4 << 30)
    with TemporaryDirectory() as folder:
        spectra = load_spectra(source, settings.preprocess, compute, SilentReporter(), Path(folder))
    return Engine(spectra, compute, np.eye(3)[None], settings, SilentReporter()), source


def read_again(engine: Engine, source: ArraySource) -> None:
    with TemporaryDirectory() as folder:
        load_spectra(source, engine.settings.preprocess, engine.compute, SilentReporter(), Path(folder))


def assignment(count: int) -> Assignment:
    """Random poses with narrow posteriors."""
    return Assignment(random_rotations(count, np.random.default_rng(4)), np.zeros((count, 2)), np.zeros(count), np.ones(count),
                      np.tile(1e-4 * np.eye(5), (count, 1, 1)), np.zeros(count, dtype=np.int64))


if __name__ == "__main__":
    main()
