"""Likelihood of poses, with its derivatives, in one pass over the coefficients: what a processor does fastest.

`stages/local.py` does the same with torch, on any device, and is the reference. There every intermediate result goes through
memory; here a coefficient is read, compared and summed up at once.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch

from swiftres_plugin.engine.data.spectra import ParticleBatch

PARAMETERS = 5


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The machine code; None where Numba cannot be used."""
    try:
        from swiftres_plugin.engine.maths import fused_kernels
    except ImportError:
        return None
    return fused_kernels


def can_fuse(batch: ParticleBatch, volume: torch.Tensor) -> bool:
    """Whether these can be compared here: on a processor, at whole frequencies, in a volume laid out point by point."""
    return batch.band.wave_px.dtype == torch.int64 and point_by_point(volume)


def fused_slices(volume: torch.Tensor, image_to_volume: torch.Tensor, wave_px: torch.Tensor) -> torch.Tensor:
    """Slices (B, L), as `maths.slices.extract_slices` has them."""
    slices = np.empty((len(image_to_volume), len(wave_px), 2), dtype=np.float32)
    wave = _plain(wave_px.to(torch.float32))
    _kernel("extract")(volume.permute(1, 2, 3, 0).numpy(), _plain(image_to_volume), wave, slices)
    return torch.view_as_complex(torch.from_numpy(slices))


def fused_insertion(sums: torch.Tensor, values: torch.Tensor, weights: torch.Tensor, image_to_volume: torch.Tensor,
                    wave_px: torch.Tensor, place: torch.Tensor | None = None) -> None:
    """Slices added to `sums` in place, as `maths.slices.insert_slices` adds them."""
    slices = _plain(image_to_volume), _plain(wave_px.to(torch.float32)), _plain(values), _plain(weights)
    _kernel("insert")(sums.permute(1, 2, 3, 0).numpy(), *slices, None if place is None else _plain(place))


def on_host(values: torch.Tensor) -> bool:
    """Whether machine code can read these: on a processor, in single precision."""
    return values.device.type == "cpu" and values.dtype == torch.float32 and kernels() is not None


def point_by_point(volume: torch.Tensor) -> bool:
    """Whether machine code can read this volume, as `maths.slices.fourier_volume` lays it out."""
    return volume.stride(0) == 1 and on_host(volume)


def fused_scores(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotation: torch.Tensor,
                 shift_a: torch.Tensor) -> torch.Tensor:
    """Log-likelihood (B,) of one pose for each particle, as `stages.local.score_poses` has it."""
    return _sums("scores", 1, batch, noise, volume, rotation, shift_a)[:, 0]


def fused_derivatives(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotation: torch.Tensor,
                      shift_a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-likelihood (B,), gradient (B, 5) and curvature (B, 5, 5), as `stages.local.evaluate` has them."""
    above = torch.triu_indices(PARAMETERS, PARAMETERS)
    found = _sums("scores_and_derivatives", 1 + PARAMETERS + above.shape[1], batch, noise, volume, rotation, shift_a)
    curvature = found.new_empty((len(found), PARAMETERS, PARAMETERS))
    curvature[:, above[0], above[1]] = curvature[:, above[1], above[0]] = found[:, 1 + PARAMETERS:]
    return found[:, 0], found[:, 1:1 + PARAMETERS], curvature


def _sums(kernel: str, length: int, batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotation: torch.Tensor,
          shift_a: torch.Tensor) -> torch.Tensor:
    sums = np.empty((len(rotation), length))
    run = _kernel(kernel)
    images, ctf, power = _plain(batch.images), _plain(batch.ctf), _plain(noise)
    run(volume.permute(1, 2, 3, 0).numpy(), _plain(rotation), _plain(shift_a), batch.band.wave_px.numpy(), images, ctf, power,
        batch.band.box_a, sums)
    return torch.from_numpy(sums).to(shift_a.dtype)


def _kernel(name: str) -> Callable[..., None]:
    found: Callable[..., None] = getattr(kernels(), name)
    return found


def _plain(values: torch.Tensor) -> np.ndarray:
    found: np.ndarray = values.detach().resolve_conj().contiguous().numpy()
    return found
