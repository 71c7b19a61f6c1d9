"""How busy cores and GPUs were."""
from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from swiftres_plugin.engine import busy
from swiftres_plugin.engine.busy import watched
from swiftres_plugin.engine.compute import Compute

CORES = Compute(torch.device("cpu"), 2, 1 << 30)
GPUS = Compute(torch.device("cuda", 0), 2, 1 << 30, others=(torch.device("cuda", 1),))


def work(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_cores_that_wait_are_not_busy():
    with watched(CORES) as found:
        time.sleep(0.3)
    assert found.share < 0.2


def test_one_of_two_cores_is_half_of_the_work():
    """At most: other processes may have had the core too."""
    with watched(CORES) as found:
        work(0.3)
    assert 0.05 < found.share < 0.6


def test_gpus_are_asked(monkeypatch):
    monkeypatch.setattr(busy, "LOOK_S", 0.01)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 90 - 20 * device.index)
    with watched(GPUS) as found:
        time.sleep(0.1)
    assert found.share == pytest.approx(0.8)


def test_a_gpu_that_does_not_answer_is_not_known(monkeypatch):
    def silent(device):
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(busy, "LOOK_S", 0.01)
    monkeypatch.setattr(torch.cuda, "utilization", silent)
    with watched(GPUS) as found:
        time.sleep(0.05)
    assert np.isnan(found.share)


def test_an_error_comes_through(monkeypatch):
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 50)
    with pytest.raises(ValueError, match="broken"), watched(GPUS):
        raise ValueError("broken")
