"""Every fast path beside its plain version, in turns, as ratios: python benchmarks/bench_stages.py [--box 128] [--repeats 5]

Times are seconds of the processor for a batch; the ratio of each pair is what to compare between machines and versions.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from swiftres_plugin.engine.maths.fourier import image_band
from swiftres_plugin.engine.maths.geometry import random_rotations
from swiftres_plugin.engine.maths.slices import (
    empty_sums,
    extract_slices,
    fourier_volume,
    insert_slices,
    padded_limit,
    slice_coordinates,
    slices_and_gradients,
)
from swiftres_plugin.engine.stages.index import TorchIndex, build_index

SLICES = 64
QUERIES, REFERENCES, LENGTH = 2000, 36864, 144


def gathered_slices(volume: torch.Tensor, rotation: torch.Tensor, wave_px: torch.Tensor) -> torch.Tensor:
    """`extract_slices` as eight plain gathers."""
    points, sign = slice_coordinates(rotation, wave_px)
    limit, (height, width) = volume.shape[-1] - 1, volume.shape[2:]
    points = points.reshape(-1, 3) + points.new_tensor([0.0, limit, limit])
    corner = points.floor()
    fraction = points - corner
    corner = corner.long()
    total = torch.zeros((2, len(points)))
    for dz, dy, dx in np.ndindex(2, 2, 2):
        weight = torch.ones(len(points))
        for axis, step in enumerate((dx, dy, dz)):
            weight = weight * (fraction[:, axis] if step else 1 - fraction[:, axis])
        place = ((corner[:, 2] + dz) * height + corner[:, 1] + dy) * width + corner[:, 0] + dx
        total += volume.reshape(2, -1)[:, place] * weight
    return torch.complex(total[0], total[1] * sign.reshape(-1)).view(sign.shape)


def insert_by_bincount(limit: int, values: torch.Tensor, rotation: torch.Tensor, wave_px: torch.Tensor) -> np.ndarray:
    """Insertion of the real parts by numpy's bincount in double precision."""
    points, _ = slice_coordinates(rotation, wave_px)
    points = points.reshape(-1, 3).double().numpy() + np.array([0.0, limit, limit])
    corner = np.floor(points).astype(np.int64)
    fraction, height, width = points - corner, 2 * limit + 1, limit + 1
    total = np.zeros(height * height * width)
    for steps in np.ndindex(2, 2, 2):
        share = np.prod(np.where(np.array(steps) == 1, fraction, 1 - fraction), axis=1)
        place = ((corner[:, 2] + steps[2]) * height + corner[:, 1] + steps[1]) * width + corner[:, 0] + steps[0]
        total += np.bincount(place, values.real.reshape(-1).numpy() * share, len(total))
    return total


def compare(name: str, fast: Callable[[], object], plain: Callable[[], object], repeats: int) -> None:
    """Print medians of both and of their ratio, measured in turns after one warm-up."""
    def seconds(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    fast(), plain()
    pairs = np.array([(seconds(fast), seconds(plain)) for _ in range(repeats)])
    ratio = np.median(pairs[:, 1] / pairs[:, 0])
    print(f"{name:36s} {np.median(pairs[:, 0]):9.4f} s {np.median(pairs[:, 1]):9.4f} s   plain / fast {ratio:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(1)
    band = image_band(args.box, 3.0)
    volume = fourier_volume(torch.randn((args.box,) * 3), band.last_shell)
    rotation = torch.from_numpy(random_rotations(SLICES, np.random.default_rng(1))).float()
    values = torch.randn((SLICES, len(band)), dtype=torch.complex64)
    weights = torch.rand((SLICES, len(band)))
    sums, limit = empty_sums(band.last_shell), padded_limit(band.last_shell)
    print(f"{SLICES} slices of {args.box} px ({len(band)} samples each); "
          f"{QUERIES} queries x {REFERENCES} references x {LENGTH}")
    compare("slices: grid_sample / gathers", lambda: extract_slices(volume, rotation, band.wave_px),
            lambda: gathered_slices(volume, rotation, band.wave_px), args.repeats)
    compare("slices with gradient / 6 slices", lambda: slices_and_gradients(volume, rotation, band.wave_px),
            lambda: [extract_slices(volume, rotation, band.wave_px) for _ in range(6)], args.repeats)
    compare("insertion: index_add / bincount x3", lambda: insert_slices(sums, values, weights, rotation, band.wave_px),
            lambda: [insert_by_bincount(limit, values, rotation, band.wave_px) for _ in range(3)], args.repeats)
    references, queries = torch.randn((REFERENCES, LENGTH)), torch.randn((QUERIES, LENGTH))
    index = build_index(references)
    compare("search: index / torch product", lambda: index.search(queries, 16),
            lambda: TorchIndex(references).search(queries, 16), args.repeats)


if __name__ == "__main__":
    main()
