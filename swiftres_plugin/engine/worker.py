"""What a worker of a cluster does with its block of particles: plain arrays in, plain arrays out.

A block is a dictionary of arrays: what is known of its particles, and `values`, their transforms. A job is a file in the
folder of the run with all that is alike for every block: a map, the noise, the plan, the settings.
"""
from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch

from swiftres_plugin import __version__
from swiftres_plugin.engine.align import align_rows, image_power, unexplained_by
from swiftres_plugin.engine.compute import Compute, open_compute
from swiftres_plugin.engine.data.particles import Ctf, Optics, Particles, Poses
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.insertion import unfinished_half
from swiftres_plugin.engine.io.files import written_atomically
from swiftres_plugin.engine.io.mrc import MrcSource
from swiftres_plugin.engine.maths.fourier import image_band
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.searching import Searcher, prepare_search
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import RefineSettings

Arrays = dict[str, np.ndarray]
Made = TypeVar("Made")



class Kept:
    """The last few things that were made, by name."""

    def __init__(self, most: int):
        self._most = most
        self._things: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, name: Hashable, make: Callable[[], Made]) -> Made:
        if name not in self._things:
            while len(self._things) >= self._most:
                self._things.popitem(last=False)
            self._things[name] = make()
        self._things.move_to_end(name)
        return self._things[name]


_jobs, _places = Kept(1), Kept(1)  # of the process: galleries take too long to make for every block, and much memory
_one_at_a_time = Lock()  # a task uses all cores and memory of its worker, however many threads the worker was given


# ------------------------------------------------------------------------------------------------ what travels

def described(particles: Particles) -> Arrays:
    """What the engine must know of particles, as arrays; text as JSON in bytes."""
    used, stack_index = np.unique(particles.stack_index, return_inverse=True)
    arrays = {"particle_id": particles.particle_id, "stack_index": stack_index.astype(np.int64),
              "slice_index": particles.slice_index, "optics_group": particles.optics_group,
              "stack_paths": as_bytes([particles.stack_paths[number] for number in used]),
              "optics": as_bytes([asdict(optics) for optics in particles.optics])}
    if particles.poses is not None:  # what priors on poses keep to
        arrays |= {"image_to_volume": particles.poses.image_to_volume, "shift_a": particles.poses.shift_a}
    ctf = {name: getattr(particles.ctf, name) for name in Ctf.__slots__}
    return {**arrays, **{f"ctf_{name}": values for name, values in ctf.items() if values is not None}}


def particles_from(arrays: Arrays) -> Particles:
    """The particles that `described` made arrays of."""
    ctf = Ctf(**{name: arrays[f"ctf_{name}"] for name in Ctf.__slots__ if f"ctf_{name}" in arrays})
    poses = Poses(arrays["image_to_volume"], arrays["shift_a"]) if "image_to_volume" in arrays else None
    return Particles(arrays["particle_id"], tuple(from_bytes(arrays["stack_paths"])), arrays["stack_index"],
                     arrays["slice_index"], tuple(_optics(values) for values in from_bytes(arrays["optics"])),
                     arrays["optics_group"], ctf, poses=poses)


def _optics(values: dict[str, Any]) -> Optics:
    """JSON knows lists and no tuples."""
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Optics(**known)


def as_bytes(value: object) -> np.ndarray:
    """JSON as an array of bytes."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def from_bytes(array: np.ndarray) -> Any:
    return json.loads(array.tobytes())


def assignment_of(poses: Arrays, rows: np.ndarray, count: int) -> Assignment:
    """Results for `count` particles, of which those at `rows` have these `poses` and the others none that counts."""
    empty = {"image_to_volume": (3, 3), "shift_a": (2,), "covariance": (5, 5)}
    arrays = {name: np.zeros((count, *empty.get(name, ()))) for name in Assignment.__slots__}
    for name, values in poses.items():
        arrays[name][rows] = values
    return Assignment(**arrays)


# -------------------------------------------------------------------------------------------------------- jobs

@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """What is alike for every block of a stage.

    reference: map (n, n, n); noise: (groups, S); sample: particles whose spectra decide how images are compared; those of
    the stage that needs none of them are left out.
    """

    settings: RefineSettings
    operators: np.ndarray
    noise: np.ndarray | None = None
    reference: np.ndarray | None = None
    plan: IterationPlan | None = None
    diameter_a: float = 0.0
    last_shell: int = 0
    sample: Arrays | None = None


def write_job(path: Path, job: Job) -> None:
    told = {"version": __version__, "settings": job.settings.to_dict(), "plan": None if job.plan is None else asdict(job.plan),
            "diameter_a": float(job.diameter_a), "last_shell": job.last_shell}
    arrays = {"told": as_bytes(told), "operators": job.operators}
    for name in ("noise", "reference"):
        if (values := getattr(job, name)) is not None:
            arrays[name] = values
    sample = {f"sample_{name}": values for name, values in (job.sample or {}).items()}
    with written_atomically(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays, **sample)


def read_job(path: str) -> Job:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    told = from_bytes(arrays["told"])
    if told["version"] != __version__:
        raise InputError("a worker has another version of swiftres", found=__version__, expected=told["version"])
    sample = {name.removeprefix("sample_"): values for name, values in arrays.items() if name.startswith("sample_")}
    plan = None if told["plan"] is None else IterationPlan(**told["plan"])
    return Job(RefineSettings.from_dict(told["settings"]), arrays["operators"], arrays.get("noise"),
               arrays.get("reference"), plan, told["diameter_a"], told["last_shell"], sample or None)


class Prepared:
    """A job as it was read, and what its blocks share once it is made."""

    def __init__(self, path: str):
        self.job = read_job(path)
        self._made = Kept(2)

    def volume(self, engine: Engine, last_shell: int) -> torch.Tensor:
        voxels = torch.from_numpy(needed(self.job.reference))
        return self._made.get("volume", lambda: engine.volume(voxels, last_shell))

    def searcher(self, volume: torch.Tensor, compute: Compute) -> Searcher:
        """The vector search, in every worker by the same sample of the particles."""
        engine = engine_over(needed(self.job.sample), self.job, compute)
        rows = np.arange(len(engine.spectra))
        return self._made.get(
            "searcher", lambda: prepare_search(engine, volume, needed(self.job.noise), rows, needed(self.job.plan)))


def needed(value: Made | None) -> Made:
    if value is None:
        raise ValueError("the job lacks what its stage needs")
    return value


@contextmanager
def at_work(path: str, block: Arrays) -> Iterator[tuple[Prepared, Engine]]:
    """The job in the file `path` and an engine over the block, for one task at a time."""
    with _one_at_a_time:
        prepared = _jobs.get(path, lambda: Prepared(path))
        yield prepared, engine_over(block, prepared.job, _place(prepared.job.settings))


def _place(settings: RefineSettings) -> Compute:
    asked = (settings.compute.device, settings.compute.threads, settings.compute.memory)
    compute = _places.get(asked, lambda: open_compute(*asked))
    torch.set_num_threads(compute.threads)  # of this thread: a worker may run each task in another
    return compute


def engine_over(block: Arrays, job: Job, compute: Compute) -> Engine:
    particles = particles_from(block)
    band = image_band(particles.box_px, particles.pixel_size_a)
    values = torch.from_numpy(block["values"])
    return Engine(Spectra(values, band, particles), compute, job.operators, job.settings, SilentReporter())


# ------------------------------------------------------------------------------------------------------- tasks

def load(described_block: Arrays, settings: str, scratch: str, defocus_a: float) -> Arrays:
    """The block with its images read and transformed; `defocus_a` is the median of the whole run."""
    chosen = RefineSettings.from_dict(json.loads(settings))
    with _one_at_a_time:
        source = MrcSource(particles_from(described_block))
        spectra = load_spectra(source, chosen.preprocess, _place(chosen), SilentReporter(), Path(scratch), defocus_a)
        return {**described_block, "values": spectra.values.numpy()}


def power(block: Arrays, path: str, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    with at_work(path, block) as (_, engine):
        return image_power(engine, rows)


def align(block: Arrays, path: str, rows: np.ndarray, anew: np.ndarray, previous: Arrays | None,
          measures: bool) -> tuple[Arrays, list[tuple[int, int, int, str]]]:
    """Poses of `rows` of the block, and samples of recall where it `measures` that. `previous`: their last poses."""
    with at_work(path, block) as (prepared, engine):
        job = prepared.job
        if not measures:
            engine = engine.unmeasured()
        plan, noise = needed(job.plan), needed(job.noise)
        volume = prepared.volume(engine, plan.last_shell)
        searcher = prepared.searcher(volume, engine.compute) if anew.any() else None
        last = None if previous is None else assignment_of(previous, rows, len(engine.spectra))
        found = align_rows(engine, volume, searcher, noise, rows, anew, plan, last, job.diameter_a, "")
        recalls = [(recall.held, recall.sampled, recall.searched, recall.index) for recall in engine.recalls]
        return {name: getattr(found, name) for name in Assignment.__slots__}, recalls


def residual(block: Arrays, path: str, rows: np.ndarray, poses: Arrays) -> list[tuple[np.ndarray, np.ndarray]]:
    with at_work(path, block) as (prepared, engine):
        volume = prepared.volume(engine, engine.spectra.band.last_shell)
        return unexplained_by(engine, volume, rows, assignment_of(poses, np.arange(len(rows)), len(rows)))


def insert(block: Arrays, path: str, rows: np.ndarray, poses: Arrays,
           share: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Unfinished sums (2K+1, 2K+1, K+1, 3) of `rows` of the block at their `poses`, weighed by their `share`; their number."""
    with at_work(path, block) as (prepared, engine):
        job, found = prepared.job, assignment_of(poses, np.arange(len(rows)), len(rows))
        sums = unfinished_half(engine, needed(job.noise), rows, found, job.last_shell, share)
        return sums.permute(1, 2, 3, 0).numpy(), float(len(rows))


def add(first: tuple[np.ndarray, float], second: tuple[np.ndarray, float]) -> tuple[np.ndarray, float]:
    return first[0] + second[0], first[1] + second[1]
