"""The contrast transfer function of the microscope (formulas and signs: docs/conventions.md)."""
from __future__ import annotations

import math

import torch
from torch import Tensor

ANGSTROM_PER_MM = 1e7
CACHED_VALUES = 2**18  # a megabyte of float32


def wavelength_a(voltage_kv: Tensor | float) -> Tensor:
    """Relativistic wavelength (A) of electrons accelerated by `voltage_kv`; float64, of the argument's shape.

    lambda = h / sqrt(2 m e V (1 + e V / (2 m c^2))), with the constants gathered.
    """
    volts = torch.as_tensor(voltage_kv, dtype=torch.float64) * 1000.0
    return 12.2643247 / torch.sqrt(volts * (1.0 + 0.978466e-6 * volts))


def contrast_transfer(
        frequency_x: Tensor, frequency_y: Tensor, *, defocus_u_a: Tensor, defocus_v_a: Tensor,
        defocus_angle_rad: Tensor, phase_shift_rad: Tensor, voltage_kv: Tensor | float,
        spherical_aberration_mm: Tensor | float, amplitude_contrast: Tensor | float,
        phase_flipped: Tensor | bool = False, aberration_rad: Tensor | None = None) -> Tensor:
    """(B, L) contrast transfer of B particles at L frequencies (1/A), in the frequencies' type and on their device.

    frequency_x, frequency_y: (L,). Particle values: (B,) each; those of the optics may also be plain numbers.
    Rows that are `phase_flipped` get the absolute value. aberration_rad: (L,) taken from the phase of every particle
    (even aberrations beyond the spherical one). The value at zero frequency is
    sin(phase shift + asin(amplitude contrast)): positive, white particles on black.
    """
    basis = _frequency_basis(frequency_x, frequency_y)
    weights = _phase_weights(
        defocus_u_a, defocus_v_a, defocus_angle_rad, phase_shift_rad, voltage_kv, spherical_aberration_mm,
        amplitude_contrast).to(frequency_x)
    if aberration_rad is not None:
        basis = torch.cat([basis, -aberration_rad[None].to(basis)])
        weights = torch.cat([weights[:, :-1], torch.ones_like(weights[:, :1]), weights[:, -1:]], dim=1)
    transfer = frequency_x.new_empty(len(weights), basis.shape[1])
    for rows in _blocks(transfer):
        _sine_of_phase(weights[rows], basis, transfer[rows])
    flipped = torch.as_tensor(phase_flipped, device=transfer.device).expand(len(transfer))
    return torch.where(flipped[:, None], transfer.abs(), transfer) if bool(flipped.any()) else transfer


def damping(frequency_x: Tensor, frequency_y: Tensor, b_factor_a2: Tensor, scale: Tensor) -> Tensor:
    """(B, L) scale * exp(-B / 4 k^2) of B particles at L frequencies (1/A)."""
    squared = frequency_x * frequency_x + frequency_y * frequency_y
    return scale[:, None] * torch.exp(-b_factor_a2[:, None] / 4 * squared)


def _sine_of_phase(weights: Tensor, basis: Tensor, out: Tensor) -> None:
    """Write sin(weights[:, :-1] @ basis + weights[:, -1]) to `out`.

    Term by term and not as a matrix product, which may run in TF32 on a GPU: ten bits are not enough for a phase of
    several hundred radians.
    """
    torch.mul(weights[:, 0, None], basis[0], out=out)
    for term in range(1, len(basis)):
        out.addcmul_(weights[:, term, None], basis[term])
    out.add_(weights[:, -1, None]).sin_()


def _blocks(transfer: Tensor) -> list[slice]:
    """Rows to work on at once: on a processor few enough to stay in its cache (four times faster), else all."""
    total, length = transfer.shape
    rows = max(1, CACHED_VALUES // max(1, length)) if transfer.device.type == "cpu" else max(1, total)
    return [slice(start, start + rows) for start in range(0, total, rows)]


def _frequency_basis(frequency_x: Tensor, frequency_y: Tensor) -> Tensor:
    """(4, L) pi k^2, pi k^2 cos(2 phi), pi k^2 sin(2 phi), pi/2 k^4: what all particles' phases share."""
    x, y = frequency_x.double(), frequency_y.double()
    squared = x * x + y * y
    rows = (math.pi * squared, math.pi * (x * x - y * y), 2 * math.pi * x * y, math.pi / 2 * squared**2)
    return torch.stack(rows).to(frequency_x.dtype)


def _phase_weights(
        defocus_u_a: Tensor, defocus_v_a: Tensor, defocus_angle_rad: Tensor, phase_shift_rad: Tensor,
        voltage_kv: Tensor | float, spherical_aberration_mm: Tensor | float,
        amplitude_contrast: Tensor | float) -> Tensor:
    """(B, 5) float64 what multiplies each row of the basis, and last the constant phase.

    cos(2 (phi - angle)) = cos(2 phi) cos(2 angle) + sin(2 phi) sin(2 angle) parts particle from frequency.
    """
    u, v = defocus_u_a.double(), defocus_v_a.double()
    angle, shift = defocus_angle_rad.double(), phase_shift_rad.double()
    wavelength = wavelength_a(voltage_kv).to(u.device)
    aberration = torch.as_tensor(spherical_aberration_mm, dtype=torch.float64, device=u.device) * ANGSTROM_PER_MM
    amplitude = torch.as_tensor(amplitude_contrast, dtype=torch.float64, device=u.device)
    columns = (
        wavelength * (u + v) / 2,
        wavelength * (u - v) / 2 * torch.cos(2 * angle),
        wavelength * (u - v) / 2 * torch.sin(2 * angle),
        -aberration * wavelength**3,
        shift + torch.asin(amplitude))
    return torch.stack([column.expand(len(u)) for column in columns], dim=1)
