"""Many machines: workers that hold the particles, what they are asked to do, and their results merged in a fixed order.

dask.distributed moves data and does the share of a lost worker again (docs/decisions/0004). A run cuts its particles into
blocks, always the same ones; what is made of each does not depend on the worker, so neither does the result on how many
there are.
"""
from __future__ import annotations

import json
import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swiftres_plugin import layout
from swiftres_plugin.engine import worker
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.spectra import RowsOnDemand, Spectra
from swiftres_plugin.engine.data.state import IterationPlan, Recall
from swiftres_plugin.engine.engine import Engine, PowerSums
from swiftres_plugin.engine.io.mrc import MrcSource
from swiftres_plugin.engine.maths.fourier import image_band
from swiftres_plugin.engine.maths.symmetry import turns_of_axes
from swiftres_plugin.engine.report import Reporter, SilentReporter
from swiftres_plugin.engine.searching import COMPARED, evenly
from swiftres_plugin.engine.stages.preprocess import load_spectra, typical_defocus_a
from swiftres_plugin.engine.stages.reconstruct import finished
from swiftres_plugin.errors import InputError, SwiftresError
from swiftres_plugin.settings import RefineSettings

BLOCKS = 24  # of a run: so many workers find something to do, and as many sums are added
FEW_BLOCKS = 8  # where particles are few: each has work of its own beside that of its particles
SMALLEST, WORTH_ONE, LARGEST = 32, 200, 20_000  # particles of a block, at least, where there are many blocks, and at most
SAMPLED = 4000  # images that the process which asks keeps for itself
PATIENCE_S = 5.0  # between two looks at who is there
ANSWER_S = 30.0  # for a scheduler to answer
# Of the C library: dask has workers give memory back after every batch, and ask for it again page by page
MEMORY = {"MALLOC_TRIM_THRESHOLD_": 1 << 30, "MALLOC_MMAP_THRESHOLD_": 1 << 25}
KILLS = 20  # workers that may be lost in the middle of one task before it is held to be its fault
SLURM_OPTIONS = {"queue": str, "account": str, "cores": int, "memory": str, "walltime": str}
PLACES = "local:N, slurm:N[,queue=...,account=...,cores=...,memory=...,walltime=...], HOST:PORT or a scheduler file (.json)"


@dataclass(frozen=True, eq=False, slots=True)
class DaskCluster:
    """The `Cluster` of the engine. block: future arrays of each; first_row: (blocks + 1,) where each begins, and the end."""

    client: Any
    folder: Path
    settings: RefineSettings
    first_row: np.ndarray
    block: tuple[Any, ...]

    def image_power(self, engine: Engine, rows: np.ndarray) -> PowerSums:
        with self._job(engine) as path:
            tasks = [self._task(worker.power, block, path, local) for _, local, block in self._parts(rows)]
            return [sums for part in self._results(tasks, engine.reporter) for sums in part]

    def align_rows(self, engine: Engine, reference: torch.Tensor, noise: np.ndarray, rows: np.ndarray, anew: np.ndarray,
                   plan: IterationPlan, previous: Assignment | None, diameter_a: float, name: str) -> Assignment:
        """One block measures the recall of the search, with as many particles as all of them would: each takes long."""
        parts = list(self._parts(rows))
        engine.reporter.stage(f"{name}: {'search and refinement' if anew.any() else 'refinement'}", len(rows))
        sample = sampled(engine, rows[anew], plan.search_shell) if anew.any() else None
        with engine.timed("search" if anew.any() else "refinement"), self._job(
                engine, noise=noise, reference=reference.cpu().numpy(), plan=replace(plan, trust=None, settled=None),
                diameter_a=diameter_a, sample=sample) as path:
            tasks = [self._task(worker.align, block, path, local, anew[at], poses_of(previous, rows[at]), number == 0)
                     for number, (at, local, block) in enumerate(parts)]
            results = self._results(tasks, engine.reporter, [len(at) for at, _, _ in parts])
        engine.recalls.extend(Recall(*recall) for _, recalls in results for recall in recalls)
        order = np.argsort(np.concatenate([at for at, _, _ in parts]))
        return Assignment.joined([Assignment(**found) for found, _ in results]).take(order)

    def unexplained(self, engine: Engine, reference: torch.Tensor, rows: np.ndarray, poses: Assignment) -> PowerSums:
        with self._job(engine, reference=reference.cpu().numpy()) as path:
            tasks = [self._task(worker.residual, block, path, local, poses_of(poses, at))
                     for at, local, block in self._parts(rows)]
            return [sums for part in self._results(tasks, engine.reporter) for sums in part]

    def reconstruct_half(self, engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, name: str,
                         last_shell: int, share: np.ndarray | None = None) -> Accumulator:
        """Sums of each block, added in pairs on the workers. Raises `SwiftresError` unless every particle is in it once."""
        engine.reporter.stage(f"{name}: reconstruction", len(rows))
        with engine.timed("reconstruction"), self._job(engine, noise=noise, last_shell=last_shell) as path:
            parts = list(self._parts(rows))
            sums = [self._task(worker.insert, block, path, local, poses_of(poses, at, spread=True),
                               None if share is None else share[at]) for at, local, block in parts]
            total = self._total(sums)
            self._results(sums, engine.reporter, [len(at) for at, _, _ in parts], fetch=False)
            values, count = self._results([total], engine.reporter)[0]
            if count != len(rows):
                raise SwiftresError(f"{name}: {count:.0f} particles in the sums, expected {len(rows)}")
            turns, _ = turns_of_axes(engine.operators)
            return finished(torch.from_numpy(values.copy()).permute(3, 0, 1, 2), count, turns)

    def _total(self, sums: Sequence[Any]) -> Any:
        while len(sums) > 1:
            sums = [self._task(worker.add, *sums[i:i + 2]) if i + 1 < len(sums) else sums[i]
                    for i in range(0, len(sums), 2)]
        return sums[0]

    def _parts(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
        """Places in `rows` that lie in one block, their rows in it, and the block."""
        for first, end, block in zip(self.first_row[:-1], self.first_row[1:], self.block):
            places = np.flatnonzero((rows >= first) & (rows < end))
            if len(places):
                yield places, rows[places] - first, block

    @contextmanager
    def _job(self, engine: Engine, **alike: Any) -> Iterator[str]:
        """A file with what is alike for all blocks."""
        path = self.folder / f"{uuid.uuid4().hex}.npz"  # a name that no worker has looked for in vain
        worker.write_job(path, worker.Job(self.settings, engine.operators, **alike))
        try:
            yield str(path)
        finally:
            path.unlink(missing_ok=True)

    def _task(self, function: Callable[..., Any], *given: Any) -> Any:
        return self.client.submit(function, *given, pure=False)

    def _results(self, tasks: Sequence[Any], reporter: Reporter, sizes: Sequence[int] = (), fetch: bool = True) -> list[Any]:
        return results_of(self.client, tasks, reporter, sizes, fetch)


def results_of(client: Any, tasks: Sequence[Any], reporter: Reporter, sizes: Sequence[int], fetch: bool) -> list[Any]:
    """Results in the order of the tasks, left where they are without `fetch`; tells how far they are and who came or went."""
    from distributed import TimeoutError as StillWaiting
    from distributed import wait
    number = {task.key: n for n, task in enumerate(tasks)}
    results: list[Any] = [None] * len(tasks)
    waiting, there = set(tasks), set(client.nthreads())
    while waiting:
        try:
            with client.as_current():
                done, waiting = wait(list(waiting), timeout=PATIENCE_S, return_when="FIRST_COMPLETED")
        except StillWaiting:
            done = set()
        there = tell_of_workers(there, set(client.nthreads()), reporter)
        for task in done:
            results[number[task.key]] = result_of(task, fetch)
            if sizes:
                reporter.advance(sizes[number[task.key]])
    return results


def result_of(task: Any, fetch: bool) -> Any:
    """Raises what went wrong in the worker, and `SwiftresError` where the cluster itself failed."""
    from distributed import CancelledError, KilledWorker
    try:
        if task.status == "error" or fetch:
            return task.result()
        return None
    except (CancelledError, KilledWorker, OSError) as error:
        raise SwiftresError(f"the cluster failed ({type(error).__name__}: {error}). Go on with --resume.") from error


def tell_of_workers(before: set[str], now: set[str], reporter: Reporter) -> set[str]:
    if lost := before - now:
        reporter.message(f"{len(lost)} of {len(before)} workers lost: what they held is done again.")
    if joined := now - before:
        reporter.message(f"{len(joined)} workers joined: {len(now)} now.")
    if before and not now:
        reporter.warning("No workers are left; waiting for others.")
    return now


def poses_of(poses: Assignment | None, rows: np.ndarray, spread: bool = False) -> worker.Arrays | None:
    """What a worker must know of the poses at `rows`; `spread`: their uncertainty too."""
    if poses is None:
        return None
    names = ("image_to_volume", "shift_a", *(("covariance",) if spread else ()))
    return {name: getattr(poses, name)[rows] for name in names}


def sampled(engine: Engine, rows: np.ndarray, last_shell: int) -> worker.Arrays:
    """Particles that decide, in every worker alike, how images are compared."""
    chosen = evenly(rows, COMPARED)
    length = len(engine.spectra.band.up_to(last_shell))
    values = engine.spectra.values[torch.from_numpy(chosen), :length]
    return {**worker.described(engine.spectra.particles.take(chosen)), "values": values.numpy()}


# ----------------------------------------------------------------------------------------------------- opening

@contextmanager
def clustered(particles: Particles, settings: RefineSettings, compute: Compute, reporter: Reporter,
              output: Path) -> Iterator[tuple[Spectra, DaskCluster]]:
    """Workers that have read the particles, and spectra that read again the few that are needed here."""
    with ExitStack() as opened:
        folder = opened.enter_context(exchange(output))
        scratch = settings.compute.scratch or str(folder)
        there = workers_settings(settings, compute)
        client = opened.enter_context(connected(settings.cluster.cluster, there, folder))
        reporter.message(f"Waiting for workers ({settings.cluster.cluster}).")
        client.wait_for_workers(1)
        first_row = block_bounds(len(particles))
        defocus_a = typical_defocus_a(particles)
        blocks = []
        for first, end in zip(first_row[:-1], first_row[1:]):
            known = worker.described(particles.take(np.arange(first, end)))
            blocks.append(client.submit(worker.load, known, json.dumps(there.to_dict()), scratch, defocus_a, pure=False))
        reporter.stage("reading particles", len(particles))
        results_of(client, blocks, reporter, np.diff(first_row).tolist(), fetch=False)

        def load(rows: np.ndarray) -> torch.Tensor:
            source = MrcSource(particles.take(rows))
            return load_spectra(source, settings.preprocess, compute, SilentReporter(), Path(scratch), defocus_a).values

        band = image_band(particles.box_px, particles.pixel_size_a)
        spectra = Spectra(RowsOnDemand(len(particles), load, SAMPLED), band, particles)
        yield spectra, DaskCluster(client, folder, there, first_row, tuple(blocks))


@contextmanager
def exchange(output: Path) -> Iterator[Path]:
    """A folder in that of the run for what passes between its processes; without what a killed one left."""
    folder = output.resolve() / layout.CLUSTER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def block_bounds(count: int) -> np.ndarray:
    """Where the blocks of so many particles begin, and the end: whatever the workers are, so that sums come out alike."""
    blocks = max(min(FEW_BLOCKS, count // SMALLEST), min(BLOCKS, count // WORTH_ONE), math.ceil(count / LARGEST), 1)
    return np.linspace(0, count, blocks + 1).round().astype(np.int64)


def workers_settings(settings: RefineSettings, compute: Compute) -> RefineSettings:
    """The settings of each worker: those of one machine divide its cores and memory."""
    kind, _, text = settings.cluster.cluster.partition(":")
    if kind != "local":
        return settings
    count = int(text)
    own = replace(settings.compute, threads=max(1, compute.threads // count), memory=compute.memory_bytes / count / 1e9)
    return replace(settings, compute=own)


def check_cluster(place: str) -> None:
    """Raises `InputError` when a cluster is asked for by a name that cannot be understood, or without the library."""
    if not place:
        return
    kind, _, text = place.partition(":")
    count = text.partition(",")[0]
    if kind in ("local", "slurm") and not (count.isdecimal() and int(count) > 0):
        raise InputError("the cluster is not understood", found=f"'{place}'", expected=PLACES)
    if kind == "slurm":
        slurm_options(text)
    elif kind != "local" and ":" not in place and not place.endswith(".json"):
        raise InputError("the cluster is not understood", found=f"'{place}'", expected=PLACES)
    try:
        import distributed  # noqa: F401
        if kind == "slurm":
            import dask_jobqueue  # noqa: F401
    except ImportError as error:
        raise InputError("--cluster needs dask", found=str(error),
                         remedy="Install it with: pip install 'scipion-em-swiftres[cluster]'") from error


def slurm_options(text: str) -> dict[str, Any]:
    """'8,queue=gpu,cores=16' -> what dask-jobqueue is told."""
    found: dict[str, Any] = {}
    for option in text.split(",")[1:]:
        name, _, value = option.partition("=")
        if name not in SLURM_OPTIONS or not value or (SLURM_OPTIONS[name] is int and not value.isdecimal()):
            raise InputError("the cluster is not understood", found=f"'{option}'", expected=PLACES)
        found[name] = SLURM_OPTIONS[name](value)
    return found


@contextmanager
def connected(place: str, settings: RefineSettings, folder: Path) -> Iterator[Any]:
    """A client of the cluster; clusters that are made for the run end with it. Raises `InputError` where none answers."""
    import dask
    from distributed import Client
    kind, _, text = place.partition(":")
    chosen = {"distributed.scheduler.allowed-failures": KILLS,
              **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in MEMORY.items()}}
    with dask.config.set(chosen), ExitStack() as opened:
        try:
            if kind == "local":
                where: Any = opened.enter_context(local_workers(int(text), settings, folder))
            elif kind == "slurm":
                where = opened.enter_context(slurm_jobs(text, folder))
            else:
                where = None
            named = {"scheduler_file": place} if place.endswith(".json") else {"address": where or place}
            client = opened.enter_context(Client(**named, timeout=ANSWER_S, set_as_default=False))
        except (OSError, ValueError) as error:
            raise InputError("the cluster cannot be reached", where=place, found=str(error),
                             remedy="docs/cluster.md tells how one is started.") from error
        yield client


def local_workers(count: int, settings: RefineSettings, folder: Path) -> Any:
    """Processes on this machine, started afresh: none is forked from one that has loaded torch."""
    from distributed import LocalCluster
    threads = str(settings.compute.threads)
    return LocalCluster(
        n_workers=count, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0", memory_limit=0,
        local_directory=str(folder), silence_logs=logging.CRITICAL,
        env={"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")})


def slurm_jobs(text: str, folder: Path) -> Any:
    """Jobs of Slurm, one worker each; a job that ends before the run does is submitted again."""
    from dask_jobqueue import SLURMCluster
    options = slurm_options(text)
    cluster = SLURMCluster(
        **options, processes=1, log_directory=str(folder), local_directory=str(folder),
        scheduler_options={"dashboard_address": ":0"},
        worker_extra_args=["--nthreads", "1", "--memory-limit", "0"])  # a task uses all cores, and plans its memory itself
    jobs = int(text.partition(",")[0])
    cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
    return cluster
