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
from other_device import CPU, OTHER, THIRD, DeviceMix, other_device, other_devices
from synthetic import Phantom, engine_over, particle_set

from swiftres_plugin.engine import compute
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.state import RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.checkpoint import load_state, save_state
from swiftres_plugin.engine.reconstruct import reconstruct
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.stages.preprocess import load_spectra

EASY = {"initial_resolution": 24.0, "max_shift": 14.0, "diameter": 100.0, "iterations": 1}


def engine_on(device: torch.device, folder: Path, *others: torch.device, count: int = 60, resident: bool = False,
              **settings: object) -> Engine:
    """Particles of two optics groups, read by the engine itself."""
    source = particle_set(count, noise=0.3, groups=2)
    plain = replace(engine_over(None, 1, **settings), compute=Compute(device, 1, 1 << 30, others=others))
    spectra = load_spectra(source, plain.settings.preprocess, plain.compute, plain.reporter, folder / "cache",
                           resident=resident)
    return replace(plain, spectra=spectra, compute=plain.compute.beside(spectra.values))


def refined(engine: Engine) -> RefinementState:
    return list(refine(engine, start(engine, [Phantom().map()], None)))[-1]


@pytest.mark.parametrize("resident, settings", [
    (True, {}), (False, {"recipe": "Flat"}), (False, {"alignment": "local"}),
    (True, {"symmetry": "C2", "pose_samples": 1, "auto_mask": False})])
def test_a_refinement_stays_on_its_device(tmp_path, resident, settings):
    expected = refined(engine_on(CPU, tmp_path, **{**EASY, **settings}))
    with other_device() as operations:
        engine = engine_on(OTHER, tmp_path, resident=resident, **{**EASY, **settings})
        assert (engine.spectra.values.device == OTHER) == resident
        found = refined(engine)
    assert operations >= {"aten.grid_sampler_3d.default", "aten.index_add_.default", "aten._linalg_solve_ex.default"}
    (found_class,), (expected_class,) = found.classes, expected.classes
    assert found_class.references[0].device == OTHER
    np.testing.assert_allclose(found.assignment.shift_a, expected.assignment.shift_a, atol=1e-3)
    scale = np.abs(expected_class.combined).max()
    np.testing.assert_allclose(found_class.combined, expected_class.combined, atol=1e-4 * scale)


def test_a_refinement_on_two_devices_ends_as_on_one(tmp_path, monkeypatch):
    """Batches are others and sums are added in another order, so to rounding; and both devices do every kind of work."""
    monkeypatch.setattr(compute, "BATCHES_PER_DEVICE", 2)  # every operation is slow here, however few its particles
    settings = {**EASY, "count": 32, "candidates": 8, "basins": 2, "steps": 4}
    expected = refined(engine_on(CPU, tmp_path, **settings))
    with other_devices() as operations:
        found = refined(engine_on(OTHER, tmp_path, THIRD, **settings))
    for device in (OTHER, THIRD):
        assert operations[device] >= {"aten._fft_r2c.default", "aten.topk.default", "aten.grid_sampler_3d.default",
                                      "aten._linalg_solve_ex.default", "aten.index_add_.default"}
    (found_class,), (expected_class,) = found.classes, expected.classes
    assert found_class.references[0].device == OTHER
    np.testing.assert_allclose(found.assignment.image_to_volume, expected.assignment.image_to_volume, atol=2e-3)
    np.testing.assert_allclose(found.assignment.shift_a, expected.assignment.shift_a, atol=0.02)
    np.testing.assert_allclose(found.noise, expected.noise, rtol=1e-3)
    scale = np.abs(expected_class.combined).max()
    np.testing.assert_allclose(found_class.combined, expected_class.combined, atol=2e-3 * scale)


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
    lambda here, there: torch.where(there > 0, here, 0.0),
    lambda here, there: there + here.to(THIRD)])
def test_what_a_gpu_refuses_is_found(mixed):
    with other_device(), pytest.raises(DeviceMix, match="mixes devices"):
        mixed(torch.arange(3.0), torch.arange(3.0, device=OTHER))


@pytest.mark.parametrize("fine", [
    lambda here, there: there + here.sum(),
    lambda here, there: there[here.long()],
    lambda here, there: here + there.cpu(),
    lambda here, there: here.to(there.device) + there,
    lambda here, there: there.to(THIRD) + here.to(THIRD),
    lambda here, there: there.add_(here.to(THIRD).to(there.device)),
    lambda here, there: there * there.new_tensor([1.0, 2.0, 3.0])])
def test_what_a_gpu_allows_passes(fine):
    with other_device():
        assert len(fine(torch.arange(3.0), torch.arange(3.0, device=OTHER)).cpu().numpy()) == 3


def test_numpy_cannot_read_the_other_device():
    with other_device(), pytest.raises((TypeError, RuntimeError)):
        torch.arange(3.0, device=OTHER).numpy()
