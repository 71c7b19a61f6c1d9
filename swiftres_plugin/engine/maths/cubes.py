"""Whole cubes and their transforms, in slabs: besides what goes in and comes out they take a few tens of megabytes.

Results are those of `rfftn` and `irfftn`, whose order of axes they take, but for rounding in some sizes.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from swiftres_plugin.engine.maths.padded import Empty, beside, slabs

SHARE = 4  # of a slab that is transformed: a piece of which shells and sums are made
Planes = Callable[[slice], torch.Tensor]  # gives some planes z of a cube


def planes_of(voxels: torch.Tensor) -> Planes:
    return lambda slab: voxels[slab]


def mapped(function: Callable[..., torch.Tensor], cubes: Sequence[torch.Tensor], empty: Empty | None = None) -> torch.Tensor:
    """A cube whose planes are `function` of the planes of others; point by point, so that slabs do not matter."""
    out = beside(cubes[0], empty)(tuple(cubes[0].shape), cubes[0].dtype)
    for slab in slabs(len(out), out[0].nbytes):
        out[slab] = function(*(cube[slab] for cube in cubes))
    return out


def cube_spectrum(planes: Planes, box_px: int, empty: Empty | None = None) -> torch.Tensor:
    """`rfftn` (n, n, n//2+1) complex64 of a cube (n, n, n), n = `box_px`, whose planes are asked for once, in order."""
    parts = list(slabs(box_px, 8 * box_px * (box_px // 2 + 1)))
    if len(parts) == 1:
        found = torch.fft.rfftn(planes(parts[0]))
        return found if empty is None else empty(tuple(found.shape), found.dtype).copy_(found)
    first = torch.fft.rfft2(planes(parts[0]))
    spectrum = beside(first, empty)((box_px, *first.shape[1:]), first.dtype)
    spectrum[parts[0]] = first
    for slab in parts[1:]:
        spectrum[slab] = torch.fft.rfft2(planes(slab))
    for slab in slabs(box_px, spectrum[:, 0].nbytes):
        spectrum[:, slab] = torch.fft.fft(spectrum[:, slab], dim=0)
    return spectrum


def cube_of(spectrum: torch.Tensor, empty: Empty | None = None) -> torch.Tensor:
    """`irfftn` (n, n, n) of a spectrum, which is used up."""
    n = len(spectrum)
    cube = beside(spectrum, empty)((n, n, n), spectrum.real.dtype)
    blocks = list(slabs(n // 2 + 1, spectrum[..., 0].nbytes))
    if len(blocks) == 1:
        return cube.copy_(torch.fft.irfftn(spectrum, s=(n, n, n)))
    for block in blocks:
        spectrum[..., block] = torch.fft.ifftn(spectrum[..., block], dim=(0, 1))
    for slab in slabs(n, spectrum[0].nbytes):
        cube[slab] = torch.fft.irfft(spectrum[slab], n=n)
    return cube


def spectrum_slabs(spectrum: torch.Tensor) -> list[slice]:
    """Planes of a spectrum that are worked on at once: what is made of them on the way is several times as large."""
    return list(slabs(len(spectrum), SHARE * spectrum[0].nbytes))
