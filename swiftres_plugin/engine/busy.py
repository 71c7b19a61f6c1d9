"""How busy the place of work is: time that waits for reading, or for one thread, shows here."""
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute

LOOK_S = 0.25  # between two looks at a GPU


@dataclass
class Busy:
    """share: of the time that all cores, or all GPUs, could have worked; not a number where that is not known."""

    share: float = float("nan")
    looks: list[float] = field(default_factory=list)


@contextmanager
def watched(compute: Compute) -> Iterator[Busy]:
    """Watches the devices of `compute` while work goes on, and tells afterwards."""
    busy, over = Busy(), Event()
    began, used = time.perf_counter(), time.process_time()
    devices = [device for device in compute.devices if device.type == "cuda"]
    looking = Thread(target=_look, args=(busy.looks, devices, over), daemon=True)
    if devices:
        looking.start()
    try:
        yield busy
    finally:
        over.set()
        if devices:
            looking.join()
            busy.share = float(np.mean(busy.looks)) if busy.looks else float("nan")
        else:
            busy.share = min(1.0, (time.process_time() - used) / max(1e-9, compute.threads * (time.perf_counter() - began)))


def _look(looks: list[float], devices: Sequence[torch.device], over: Event) -> None:
    """Ask the driver again and again, as long as it answers."""
    while not over.wait(LOOK_S):
        try:
            looks.append(float(np.mean([torch.cuda.utilization(device) for device in devices])) / 100)
        except (ImportError, RuntimeError):  # without the driver's Python interface
            return
