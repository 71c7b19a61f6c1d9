"""From posed particles to a map: insertion of their slices, and the regularised quotient of the sums."""
from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.cubes import SHARE
from swiftres_plugin.engine.maths.fourier import phase_ramp, shell_sums
from swiftres_plugin.engine.maths.geometry import rotation_vector_to_matrix
from swiftres_plugin.engine.maths.padded import Empty, slabs
from swiftres_plugin.engine.maths.slices import PADDING, complete_central_plane, insert_slices, sums_to_map, symmetrised

WIDEST_RAD = 0.35  # 20 degrees
RIDGE = 1e-9  # added to correlations, whose least eigenvalue rounding may take below zero
LEAST_WEIGHT = 1e-3  # of the shell's average: what a coefficient that no particle saw is divided by


def insert(sums: torch.Tensor, batch: ParticleBatch, noise: torch.Tensor, rotation: torch.Tensor, shift_a: torch.Tensor,
           operators: torch.Tensor, share: torch.Tensor | None = None, place: torch.Tensor | None = None) -> None:
    """Add a batch at its poses, and at every symmetry mate of them, to `sums` (3, ...) in place.

    noise: (B, L); operators: (|G|, 3, 3); share: (B,) weight of each particle, one if left out; place: where `sums` hold some
    planes of the grid (see `maths.slices.insert_slices`).
    """
    wave = batch.band.wave_px.to(shift_a.dtype) / batch.band.box_a
    weight = batch.ctf / noise if share is None else batch.ctf / noise * share[:, None]
    values = batch.images * phase_ramp(wave, -shift_a) * weight
    weights = weight * batch.ctf
    for operator in operators:
        insert_slices(sums, values, weights, operator @ rotation, batch.band.wave_px, place)


def drawn_poses(rotation: torch.Tensor, shift_a: torch.Tensor, covariance: torch.Tensor,
                normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses drawn around (B, 3, 3), (B, 2) by their covariance (B, 5, 5) and standard normal numbers (B, 5).

    Covariance and numbers lie on the host, whatever the device of the poses: as many small matrices as a batch has rows are
    more than GPU libraries take. No pose goes farther than WIDEST_RAD: beyond, the curvature at the best pose says nothing.
    """
    step = (root_of(covariance.double()) @ normal[..., None])[..., 0].to(rotation.device)
    turn = step[:, :3]
    length = turn.norm(dim=1, keepdim=True)
    turn = turn * (WIDEST_RAD / length.clamp(min=1e-12)).clamp(max=1)
    return rotation @ rotation_vector_to_matrix(turn.to(rotation)), shift_a + step[:, 3:].to(shift_a)


def root_of(covariance: torch.Tensor) -> torch.Tensor:
    """(B, 5, 5) triangular roots by Cholesky, which roundings hardly change; eigenvectors may turn by any angle with them."""
    deviation = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    scale = deviation.clamp(min=1e-30)
    correlation = covariance / (scale[:, :, None] * scale[:, None, :])
    ridge = RIDGE * torch.eye(covariance.shape[1], dtype=covariance.dtype)
    return deviation[:, :, None] * torch.linalg.cholesky(correlation + ridge)


def finished(sums: torch.Tensor, count: float, turns: np.ndarray | None = None) -> Accumulator:
    """Sums, which are completed in place, as an accumulator that adds to others.

    turns: a group (M, 3, 3) that maps axes onto axes and at whose mates the slices were not inserted yet.
    """
    full = complete_central_plane(sums)
    if turns is not None:
        full = symmetrised(full, turns)
    return Accumulator(torch.complex(full[0], full[1]), full[2].clone(), count)  # a view would keep all of `full`


def grid_shells(limit: int, slab: slice, device: torch.device) -> torch.Tensor:
    """Image shell (rounded) of every point of the planes y in `slab` of the grid (2K+1, 2K+1, K+1), K = `limit`."""
    axis = torch.arange(-limit, limit + 1, device=device, dtype=torch.float32)
    square = axis[:, None, None] ** 2 + axis[None, slab, None] ** 2 + axis[limit:][None, None, :] ** 2
    return (square.sqrt() / PADDING).round().to(torch.int64)


def mean_weight(parts: Sequence[Accumulator], shells: int) -> torch.Tensor:
    """Average weight on each shell 0..shells-1 (float32) of sums that are added up."""
    device, limit = parts[0].weight.device, parts[0].weight.shape[-1] - 1
    sums = torch.zeros(shells, dtype=torch.float64, device=device)
    size = torch.zeros_like(sums)
    planes = parts[0].weight.transpose(0, 1)
    for slab in slabs(len(planes), SHARE * planes[0].nbytes):
        grid, weight = grid_shells(limit, slab, device), reduce(add, [one.weight[:, slab] for one in parts])
        sums += shell_sums(weight, grid, shells)
        size += shell_sums(torch.ones_like(weight), grid, shells)
    return (sums / size.clamp(min=1)).float()


def solve(parts: Accumulator | Sequence[Accumulator], box_px: int, signal_to_noise: np.ndarray | None = None,
          device: torch.device | None = None, empty: Empty | None = None) -> torch.Tensor:
    """The map (n, n, n) of the sums: numerator / (weight + mean weight of the shell / signal-to-noise).

    parts: sums, or several that are added up; signal_to_noise: per shell, of this half map (tau^2 in units of its noise);
    without it only coefficients that hardly any particle saw are damped. device: where the transform runs and the map lies;
    that of the sums if left out. empty: makes the arrays instead.
    """
    parts = (parts,) if isinstance(parts, Accumulator) else parts
    shells, limit = box_px // 2 + 1, parts[0].weight.shape[-1] - 1
    mean = mean_weight(parts, shells)
    ratio = torch.full((shells,), 1 / LEAST_WEIGHT) if signal_to_noise is None else torch.from_numpy(signal_to_noise).float()
    prior = mean / ratio.to(mean.device).clamp(min=1e-6, max=1 / LEAST_WEIGHT)
    prior = torch.cat([prior, prior.new_zeros(1)])

    def quotient(slab: slice) -> torch.Tensor:
        floor = prior[grid_shells(limit, slab, prior.device).clamp(max=shells)]
        weight = reduce(add, [one.weight[:, slab] for one in parts])
        numerator = reduce(add, [one.numerator[:, slab] for one in parts])
        divisor = torch.where(floor > 0, weight + floor, torch.inf)
        return (numerator / divisor).to(device or floor.device)

    return sums_to_map(quotient, limit, box_px, empty=empty)
