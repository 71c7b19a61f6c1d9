"""Room 2: where work runs. One device, or the processor with all its cores; batches sized to the memory that is free."""
from __future__ import annotations

import math
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
    """The device that does the work, how many threads feed it and how much memory may be planned for.

    Of `memory_bytes`, on the device, batches that are worked on at the same time take a quarter, and sums that every
    worker keeps for itself another; `host_bytes` is the same for what stays on the host.
    """

    device: torch.device
    threads: int
    memory_bytes: int
    host_bytes: int = 1 << 62

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

    def shares(self, rows: np.ndarray, bytes_each: float = 0) -> list[np.ndarray]:
        """`rows` in consecutive shares, none empty: one a worker, or fewer where each takes `bytes_each` and that is much."""
        most = self.workers if not bytes_each else max(1, min(self.workers, int(self.memory_bytes / 4 // bytes_each)))
        return [s for s in np.array_split(rows, most) if len(s)]

    def place(self, size_bytes: float) -> torch.device:
        """The device, or the processor for work of that size that cannot be cut and is too large for a GPU's memory."""
        return self.device if size_bytes < self.memory_bytes else torch.device("cpu")


def open_compute(device: str = "auto", threads: int = 0, memory_gb: float = 0.0) -> Compute:
    """The place where work runs. Raises `InputError` when a GPU is asked for and there is none."""
    chosen = _device(device)
    cores = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads or os.cpu_count() or 1
    torch.set_num_threads(cores)
    torch.set_float32_matmul_precision("highest")  # some containers switch TF32 on: ten bits are too few for phases
    most = memory_gb * 1e9 if memory_gb else math.inf
    return Compute(chosen, cores, int(min(most, 0.8 * _free_bytes(chosen))), int(min(most, 0.8 * free_host_bytes())))


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
