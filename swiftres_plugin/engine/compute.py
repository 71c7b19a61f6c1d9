"""Room 2: where work runs. One device, or the processor with all its cores; batches sized to the memory that is free."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from swiftres_plugin.errors import InputError

Part = TypeVar("Part")
Result = TypeVar("Result")

BATCH_BYTES = 64 << 20  # work of one processor thread at a time: larger batches fall out of the caches and run no faster


@dataclass(frozen=True, eq=False, slots=True)
class Compute:
    """The device that does the work, how many threads feed it and how much memory may be planned for."""

    device: torch.device
    threads: int
    memory_bytes: int

    @property
    def workers(self) -> int:
        """Threads that work on separate batches: all cores of the processor, one for a GPU."""
        return self.threads if self.device.type == "cpu" else 1

    def batches(self, rows: np.ndarray, bytes_per_row: float) -> list[np.ndarray]:
        """`rows` cut into consecutive batches that fit; on a GPU as large as the memory allows."""
        if self.device.type == "cpu":
            room = min(BATCH_BYTES, self.memory_bytes // (4 * self.workers))
        else:
            room = min(4 << 30, self.memory_bytes // 4)
        size = int(max(1, min(len(rows), room // max(bytes_per_row, 1))))
        return [rows[i:i + size] for i in range(0, len(rows), size)]

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part],
            done: Callable[[Part], None] | None = None) -> list[Result]:
        """`function` of every part, in order; parts run at the same time on the processor's cores."""
        results: list[Result] = []
        if self.workers == 1 or len(parts) == 1:
            for part in parts:
                results.append(function(part))
                if done:
                    done(part)
            return results
        with ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for part, result in zip(parts, pool.map(function, parts)):
                results.append(result)
                if done:
                    done(part)
        return results

    def shares(self, rows: np.ndarray) -> list[np.ndarray]:
        """`rows` in as many consecutive shares as there are workers (none empty)."""
        return [s for s in np.array_split(rows, self.workers) if len(s)]


def open_compute(device: str = "auto", threads: int = 0, memory_gb: float = 0.0) -> Compute:
    """The place where work runs. Raises `InputError` when a GPU is asked for and there is none."""
    chosen = _device(device)
    cores = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads or os.cpu_count() or 1
    torch.set_num_threads(cores)
    free = _free_bytes(chosen)
    return Compute(chosen, cores, int(min(memory_gb * 1e9, free) if memory_gb else 0.8 * free))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError("unknown device", found=f"'{name}'", expected="auto, cpu, cuda or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError("unsupported device", found=f"'{name}'", expected="auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' is not available", found=f"{torch.cuda.device_count()} usable GPUs",
                         remedy="Use --device cpu, or run 'swiftres doctor' to see why the GPU is not usable.")
    return device


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_host_bytes()


def free_host_bytes() -> int:
    """Memory that new work may take on this host, within the limit of a container where there is one."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 1 << 28)
