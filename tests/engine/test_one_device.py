"""No operation mixes tensors of two devices: what a GPU would refuse is found without one.

The refinement runs on a second device that holds the processor's numbers (other_device.py), so its results are also those
of the processor, to the last bit where batches are alike.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from other_device import CPU, OTHER, DeviceMix, other_device
from synthetic import Phantom, engine_over, particle_set

from swiftres_plugin.engine.align import Engine
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.state import RefinementState
from swiftres_plugin.engine.io.checkpoint import load_state, save_state
from swiftres_plugin.engine.reconstruct import reconstruct
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.stages.preprocess import load_spectra

EASY = {"initial_resolution": 24.0, "max_shift": 14.0, "diameter": 100.0, "iterations": 1}


def engine_on(device: torch.device, folder: Path, **settings: object) -> Engine:
    """60 particles of two optics groups, read by the engine itself."""
    source = particle_set(60, noise=0.3, groups=2)
    plain = replace(engine_over(None, 1, **settings), compute=Compute(device, 1, 1 << 30))
    spectra = load_spectra(source, plain.settings.preprocess, plain.compute, plain.reporter, folder / "cache")
    return replace(plain, spectra=spectra)


def refined(engine: Engine) -> RefinementState:
    return list(refine(engine, start(engine, [Phantom().map()], None)))[-1]


@pytest.mark.parametrize("settings", [
    {}, {"recipe": "Flat"}, {"alignment": "local"}, {"symmetry": "C2", "pose_samples": 1, "auto_mask": False}])
def test_a_refinement_stays_on_its_device(tmp_path, settings):
    expected = refined(engine_on(CPU, tmp_path, **{**EASY, "recipe": "torch", **settings}))
    with other_device() as operations:
        found = refined(engine_on(OTHER, tmp_path, **{**EASY, **settings}))
    assert operations >= {"aten.grid_sampler_3d.default", "aten.index_add_.default", "aten._linalg_solve_ex.default"}
    (found_class,), (expected_class,) = found.classes, expected.classes
    assert found_class.references[0].device == OTHER
    np.testing.assert_allclose(found.assignment.shift_a, expected.assignment.shift_a, atol=1e-3)
    scale = np.abs(expected_class.combined).max()
    np.testing.assert_allclose(found_class.combined, expected_class.combined, atol=1e-4 * scale)


def test_a_resumed_refinement_stays_on_its_device(tmp_path):
    """Its references were read from files."""
    with other_device():
        engine = engine_on(OTHER, tmp_path, **EASY)
        folder = save_state(tmp_path, refined(engine), engine.spectra.particles)
        engine = engine_on(OTHER, tmp_path, **{**EASY, "iterations": 2})
        assert next(refine(engine, load_state(folder))).number == 2


def test_a_reconstruction_stays_on_its_device(tmp_path):
    expected = reconstruct(engine_on(CPU, tmp_path, **EASY))
    with other_device():
        found = reconstruct(engine_on(OTHER, tmp_path, **EASY))
    np.testing.assert_allclose(found.combined.voxels, expected.combined.voxels, atol=1e-4 * expected.combined.voxels.max())


@pytest.mark.parametrize("mixed", [
    lambda here, there: here + there,
    lambda here, there: torch.cat([there, here]),
    lambda here, there: here[there > 0],
    lambda here, there: there.index_add_(0, torch.arange(3), there),
    lambda here, there: here * there.sum(),
    lambda here, there: torch.where(there > 0, here, 0.0)])
def test_what_a_gpu_refuses_is_found(mixed):
    with other_device(), pytest.raises(DeviceMix, match="mixes devices"):
        mixed(torch.arange(3.0), torch.arange(3.0, device=OTHER))


@pytest.mark.parametrize("fine", [
    lambda here, there: there + here.sum(),
    lambda here, there: there[here.long()],
    lambda here, there: here + there.cpu(),
    lambda here, there: here.to(there.device) + there,
    lambda here, there: there * there.new_tensor([1.0, 2.0, 3.0])])
def test_what_a_gpu_allows_passes(fine):
    with other_device():
        assert len(fine(torch.arange(3.0), torch.arange(3.0, device=OTHER)).cpu().numpy()) == 3


def test_numpy_cannot_read_the_other_device():
    with other_device(), pytest.raises((TypeError, RuntimeError)):
        torch.arange(3.0, device=OTHER).numpy()
