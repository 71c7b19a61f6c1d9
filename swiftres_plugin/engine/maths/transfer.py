"""The contrast transfer of particles of several optics groups."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.maths.aberrations import even_phase
from swiftres_plugin.engine.maths.ctf import contrast_transfer, damping


def particle_transfer(particles: Particles, frequency_x: Tensor, frequency_y: Tensor) -> Tensor:
    """(B, L) contrast transfer of all `particles` at frequencies of the particle (L,) in 1/A, on their device."""
    if not any(any(optics.even_zernike) for optics in particles.optics):
        return _transfer(particles, frequency_x, frequency_y, None)
    transfer = frequency_x.new_empty((len(particles), len(frequency_x)))
    for group in np.unique(particles.optics_group):
        rows = np.flatnonzero(particles.optics_group == group)
        aberration = even_phase(particles.optics[group], frequency_x, frequency_y)
        transfer[torch.from_numpy(rows)] = _transfer(particles.take(rows), frequency_x, frequency_y, aberration)
    return transfer


def _transfer(particles: Particles, frequency_x: Tensor, frequency_y: Tensor, aberration_rad: Tensor | None) -> Tensor:
    optics, group, ctf, device = particles.optics, particles.optics_group, particles.ctf, frequency_x.device

    def of_group(name: str) -> Tensor:
        return torch.as_tensor(np.array([getattr(o, name) for o in optics])[group], device=device)

    def of_particle(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=device)

    transfer = contrast_transfer(
        frequency_x, frequency_y, defocus_u_a=of_particle(ctf.defocus_u_a), defocus_v_a=of_particle(ctf.defocus_v_a),
        defocus_angle_rad=of_particle(ctf.defocus_angle_rad), phase_shift_rad=of_particle(ctf.phase_shift_rad),
        voltage_kv=of_group("voltage_kv"), spherical_aberration_mm=of_group("spherical_aberration_mm"),
        amplitude_contrast=of_group("amplitude_contrast"), phase_flipped=of_group("phase_flipped"),
        aberration_rad=aberration_rad)
    if ctf.b_factor_a2 is None and ctf.scale is None:
        return transfer
    b_factor = np.zeros(len(ctf)) if ctf.b_factor_a2 is None else ctf.b_factor_a2
    scale = np.ones(len(ctf)) if ctf.scale is None else ctf.scale
    return transfer * damping(frequency_x, frequency_y, *(of_particle(values).to(transfer) for values in (b_factor, scale)))
