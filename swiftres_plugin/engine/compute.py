"""Room 2: where work runs. The processor with all its cores, one GPU or several; batches sized to the memory that is free."""
from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
import torch

from swiftres_plugin.engine.scratch import Storage
from swiftres_plugin.errors import InputError

Part = TypeVar("Part")
Result = TypeVar("Result")

BATCH_BYTES = 64 << 20  # work of one processor thread at a time: larger batches fall out of the caches and run no faster
BATCHES_PER_DEVICE = 4  # at least, where there are several devices: the last batch of the slowest keeps the others waiting
DEVICE_NAMES = "auto, cpu, cuda, or cuda:0,1 for the GPUs 0 and 1"


@dataclass(frozen=True, eq=False, slots=True)
class Compute:
    """The device that does the work, how many threads feed it and how much memory may be planned for.

    `others` are further devices that take their part of what is cut into batches. Of `memory_bytes`, on each device,
    batches that are worked on at the same time take a quarter, and sums that every worker keeps for itself another;
    `host_bytes` is the same for what stays on the host. storage: where arrays as large as maps lie.
    """

    device: torch.device
    threads: int
    memory_bytes: int
    host_bytes: int = 1 << 62
    others: tuple[torch.device, ...] = ()
    storage: Storage = field(default_factory=Storage)

    @property
    def devices(self) -> tuple[torch.device, ...]:
        return (self.device, *self.others)

    def places(self) -> list[Compute]:
        """Each device by itself."""
        share = max(1, self.threads // len(self.devices))
        return [replace(self, device=device, threads=share, others=()) for device in self.devices] if self.others else [self]

    @property
    def workers(self) -> int:
        """Threads that work on separate batches: all cores of the processor, one for a GPU."""
        return self.threads if self.device.type == "cpu" else 1

    def batches(self, rows: np.ndarray, bytes_per_row: float) -> list[np.ndarray]:
        """`rows` cut into consecutive batches that fit; on a GPU as large as the memory allows.

        Several devices get a few batches each, so that a faster one can do more of them.
        """
        if self.device.type == "cpu":
            room = min(BATCH_BYTES, self.memory_bytes // (4 * self.workers))
        else:
            room = min(4 << 30, self.memory_bytes // 4)
        size = int(max(1, min(len(rows), room // max(bytes_per_row, 1))))
        if self.others:
            size = min(size, max(1, math.ceil(len(rows) / (BATCHES_PER_DEVICE * len(self.devices)))))
        return [rows[i:i + size] for i in range(0, len(rows), size)]

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part],
            done: Callable[[Part], None] | None = None) -> list[Result]:
        """`function` of every part, in order; parts run at the same time on the processor's cores."""
        results: list[Result] = []
        if self.workers == 1 or len(parts) <= 1:
            for part in parts:
                results.append(function(part))
                if done:
                    done(part)
            return results
        threads = max(1, self.threads // len(parts))  # more than one only where there are fewer parts than cores
        with ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            for part, result in zip(parts, pool.map(function, parts)):
                results.append(result)
                if done:
                    done(part)
        return results

    def spread(self, prepare: Callable[[Compute], Callable[[Part], Result]], parts: Sequence[Part],
               done: Callable[[Part], None] | None = None) -> list[Result]:
        """Results of all parts, in order; `prepare` makes the function for one device, with what it reads copied there.

        Several devices take their parts from one queue, and `done` comes in the order in which they finish.
        """
        if not self.others:
            return self.map(prepare(self), parts, done)
        results: dict[int, Result] = {}
        one_at_a_time = Lock()

        def work(place: Compute, queue: Iterator[int]) -> None:
            function = prepare(place)
            for number in queue:
                results[number] = function(parts[number])
                if done:
                    with one_at_a_time:
                        done(parts[number])

        self._on_each_device(work, range(len(parts)))
        return [results[number] for number in range(len(parts))]

    def gathered(self, gather: Callable[[Compute, Iterator[np.ndarray]], Result], rows: np.ndarray, bytes_per_row: float,
                 bytes_each: float) -> list[Result]:
        """What each worker makes of its batches of `rows`, in the order of the workers; each result takes `bytes_each`.

        Threads of the processor get equal shares, so that sums come out the same to the last bit in every run; several
        devices take batches from one queue.
        """
        if self.others:
            return self._on_each_device(gather, self.batches(rows, bytes_per_row))
        shares = self.shares(rows, bytes_each)
        return self.map(lambda share: gather(self, iter(self.batches(share, bytes_per_row))), shares)

    def one_by_one(self) -> Compute:
        """The same devices for work that uses all cores of a processor by itself: one batch at a time."""
        return self if self.device.type != "cpu" else replace(self, threads=1)

    def _on_each_device(self, work: Callable[[Compute, Iterator[Part]], Result], parts: Sequence[Part]) -> list[Result]:
        """`work` once on each device, all at the same time and all from one queue; the first error ends the others' too.

        Each thread works on the stream that is its device's own, so what it leaves there needs no waiting for: copies
        to another device and the main thread's later work on this one queue up behind it.
        """
        queue = _Queue(parts)

        def run(place: Compute) -> Result:
            with current(place.device):
                try:
                    return work(place, queue)
                except BaseException:
                    queue.close()
                    raise

        places = self.places()
        threads = places[0].threads
        with ThreadPoolExecutor(len(places), initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            return [one.result() for one in [pool.submit(run, place) for place in places]]

    def shares(self, rows: np.ndarray, bytes_each: float = 0) -> list[np.ndarray]:
        """`rows` in consecutive shares, none empty: one a worker, or fewer where each takes `bytes_each` and that is much."""
        most = self.workers if not bytes_each else max(1, min(self.workers, int(self.memory_bytes / 4 // bytes_each)))
        return [s for s in np.array_split(rows, most) if len(s)]

    @contextmanager
    def rounded_products(self) -> Iterator[None]:
        """Where factors of matrix products may be rounded to ten bits (TF32) on GPUs; sums stay in single precision.

        Good for scores that only choose what is scored exactly afterwards.
        """
        if all(device.type == "cpu" for device in self.devices):
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def beside(self, held: torch.Tensor) -> Compute:
        """The same, with what is left of the device's memory beside an array that stays there."""
        if held.device.type == "cpu":
            return self
        return replace(self, memory_bytes=self.memory_bytes - held.nbytes)

    def place(self, size_bytes: float) -> torch.device:
        """The device, or the processor for work of that size that cannot be cut and is too large for a GPU's memory."""
        return self.device if size_bytes < self.memory_bytes else torch.device("cpu")


class _Queue(Generic[Part]):
    """Parts that several threads take from, each part once."""

    def __init__(self, parts: Sequence[Part]):
        self._parts = iter(parts)
        self._lock = Lock()

    def __iter__(self) -> Iterator[Part]:
        return self

    def __next__(self) -> Part:
        with self._lock:
            return next(self._parts)

    def close(self) -> None:
        """Leave nothing to take."""
        with self._lock:
            self._parts = iter(())


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes `device` the one that this thread's libraries work on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def open_compute(device: str = "auto", threads: int = 0, memory_gb: float = 0.0) -> Compute:
    """The place where work runs. Raises `InputError` when a GPU is asked for and there is none."""
    first, *others = _devices(device)
    cores = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads or os.cpu_count() or 1
    torch.set_num_threads(cores)
    torch.set_float32_matmul_precision("highest")  # some containers switch TF32 on: ten bits are too few for phases
    most = memory_gb * 1e9 if memory_gb else math.inf
    free = min(_free_bytes(one) for one in (first, *others))
    return Compute(first, cores, int(min(most, 0.8 * free)), host_memory(memory_gb), tuple(others))


def host_memory(memory_gb: float = 0.0) -> int:
    """Bytes that may be planned for on this host: what is asked for, or most of what is free."""
    return int(min(memory_gb * 1e9 if memory_gb else math.inf, 0.8 * free_host_bytes()))


def _devices(name: str) -> list[torch.device]:
    """The devices that a user's text names: 'auto', 'cpu', 'cuda' or 'cuda:0,1'."""
    if name == "auto":
        return [torch.device("cuda" if torch.cuda.is_available() else "cpu")]
    if name == "cpu":
        return [torch.device("cpu")]
    kind, colon, listed = name.partition(":")
    numbers = listed.split(",") if colon else []
    if kind != "cuda" or not all(number.strip().isdecimal() for number in numbers):
        raise InputError("unknown device", found=f"'{name}'", expected=DEVICE_NAMES)
    if len({int(number) for number in numbers}) < len(numbers):
        raise InputError("a device is named twice", found=f"'{name}'", expected=DEVICE_NAMES)
    if max([0, *map(int, numbers)]) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' is not available", found=f"{torch.cuda.device_count()} usable GPUs",
                         remedy="Use --device cpu, or run 'swiftres doctor' to see why the GPU is not usable.")
    return [torch.device("cuda", int(number)) for number in numbers] or [torch.device("cuda")]


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_host_bytes()


def free_host_bytes() -> int:
    """Memory that new work may take on this host, within the limits of the job or container where there is one."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    return int(max(min([free, *(_free_in_group(folder) for folder in _control_groups())]), 1 << 28))


def _control_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """Folders of this process's control group (version 2) and of those around it: batch systems limit jobs there."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    inner = next((root / line[3:].strip("/") for line in lines if line.startswith("0::")), root)
    return [folder for folder in (inner, *inner.parents) if folder == root or root in folder.parents]


def _free_in_group(folder: Path) -> float:
    """Memory left under the limit of a control group, what only caches files counted as free; infinite without limit."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        kinds = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return math.inf
    return math.inf if limit == "max" else int(limit) - used + int(kinds.get("inactive_file", 0))
