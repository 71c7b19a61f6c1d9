"""The CTF agrees with its formula in double precision, with torch-ctf, and with what a phase flip means."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from swiftres_plugin.engine.maths.ctf import contrast_transfer, wavelength_a

PARTICLES = dict(
    defocus_u_a=[8000.0, 21000.0, 42000.0, -3000.0], defocus_v_a=[8000.0, 19500.0, 41000.0, -3500.0],
    defocus_angle_rad=[0.0, 0.7, -2.1, 1.2], phase_shift_rad=[0.0, 0.0, 1.4, 0.3])
OPTICS = dict(voltage_kv=300.0, spherical_aberration_mm=2.7, amplitude_contrast=0.1)


def grid(size=96, pixel_size_a=1.0):
    axis = np.fft.fftfreq(size, pixel_size_a)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x.ravel(), y.ravel()


def tensors(dtype=torch.float64):
    return {name: torch.tensor(values, dtype=dtype) for name, values in PARTICLES.items()}


def plain_reference(x, y, u, v, angle, shift, kv, cs_mm, amplitude):
    """One particle, written straight from docs/conventions.md."""
    volts = kv * 1e3
    wavelength = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    k2 = x**2 + y**2
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (np.arctan2(y, x) - angle))
    chi = np.pi * wavelength * defocus * k2 - np.pi / 2 * cs_mm * 1e7 * wavelength**3 * k2**2 + shift
    return np.sin(chi + np.arcsin(amplitude))


def reference(x, y, kv=300.0, cs_mm=2.7, amplitude=0.1):
    rows = zip(*PARTICLES.values())
    return np.stack([plain_reference(x, y, *row, kv, cs_mm, amplitude) for row in rows])


def test_wavelength_at_usual_voltages():
    # values of the de Broglie relation with CODATA constants
    found = wavelength_a(torch.tensor([100.0, 200.0, 300.0]))
    np.testing.assert_allclose(found, [0.037014, 0.025079, 0.019687], atol=2e-6)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_agrees_with_formula_to_nyquist(dtype, tolerance):
    # at 1 A pixels and 4.2 um, chi reaches 1,300 rad in the corners; float32 keeps 7 digits of it
    x, y = grid()
    found = contrast_transfer(
        torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype), **tensors(), **OPTICS, phase_flipped=False)
    assert found.dtype == dtype and found.shape == (4, len(x))
    np.testing.assert_allclose(found.double(), reference(x, y), atol=tolerance)


def test_optics_may_differ_between_particles():
    x, y = grid(32, 2.0)
    kv, cs = torch.tensor([300.0, 200.0, 300.0, 100.0]), torch.tensor([2.7, 2.0, 0.01, 2.7])
    found = contrast_transfer(
        torch.tensor(x), torch.tensor(y), **tensors(), voltage_kv=kv, spherical_aberration_mm=cs,
        amplitude_contrast=torch.tensor(0.07))
    for row, (voltage, aberration) in enumerate(zip(kv.tolist(), cs.tolist())):
        np.testing.assert_allclose(found[row], reference(x, y, voltage, aberration, 0.07)[row], atol=1e-6)


def test_phase_flipped_rows_are_absolute_values():
    x, y = map(torch.tensor, grid(32, 2.0))
    plain = contrast_transfer(x, y, **tensors(), **OPTICS, phase_flipped=False)
    flipped = contrast_transfer(x, y, **tensors(), **OPTICS, phase_flipped=torch.tensor([True, False, True, False]))
    assert (plain < 0).any(dim=1).all()
    torch.testing.assert_close(flipped[[0, 2]], plain[[0, 2]].abs(), rtol=0, atol=0)
    torch.testing.assert_close(flipped[[1, 3]], plain[[1, 3]], rtol=0, atol=0)


def test_many_particles_at_once_equal_one_at_a_time():
    x, y = map(torch.tensor, grid(200, 1.0))  # long enough to be worked on in several blocks
    many = {name: values.repeat(5) for name, values in tensors().items()}
    together = contrast_transfer(x, y, **many, **OPTICS)
    for row in range(20):
        alone = contrast_transfer(x, y, **{name: values[row:row + 1] for name, values in many.items()}, **OPTICS)
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=0)


def test_positive_at_origin():
    zero = torch.zeros(1)
    found = contrast_transfer(zero, zero, **{k: v[:2] for k, v in tensors().items()}, **OPTICS)
    torch.testing.assert_close(found, torch.full((2, 1), 0.1))


def test_agrees_with_torch_ctf():
    """An independent program with the same sign and the same sense of the angle."""
    torch_ctf = pytest.importorskip("torch_ctf")
    size, pixel = 64, 1.5
    x, y = grid(size, pixel)
    ours = contrast_transfer(torch.tensor(x), torch.tensor(y), **tensors(), **OPTICS).reshape(4, size, size)
    u, v, angle, shift = (np.array(values) for values in PARTICLES.values())
    theirs = torch_ctf.calculate_ctf_2d(
        defocus=torch.tensor((u + v) / 2 * 1e-4), astigmatism=torch.tensor((u - v) / 2 * 1e-4),
        astigmatism_angle=torch.tensor(np.degrees(angle)), voltage=300.0, spherical_aberration=2.7,
        amplitude_contrast=0.1, phase_shift=torch.tensor(np.degrees(shift)), pixel_size=pixel,
        image_shape=(size, size), rfft=False, fftshift=False)
    # its wavelength uses other digits of the constants
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=5e-3)
