"""`swiftres fsc`: how alike two maps are, shell by shell."""
from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from swiftres_plugin.engine.data.maps import Fsc, HalfMaps

NAME = "fsc"
HELP = "Fourier shell correlation of two maps, and the resolution it gives"
THRESHOLDS = (0.143, 0.5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="MAP1", help="a half map, or any map")
    parser.add_argument("second", metavar="MAP2", help="the other half map, or a map to compare with")
    parser.add_argument("--mask", metavar="MASK", help="soft mask, 0 to 1, in the box of the maps; gives the masked "
                        "curve and the one corrected for the mask by phase randomisation")
    parser.add_argument("--output", metavar="CSV", help="write the curves to this file")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random phases (default: 0)")


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.io.mrc import read_half_maps
    from swiftres_plugin.engine.io.tables import write_fsc
    from swiftres_plugin.engine.stages.postprocess import compute_fsc
    halves = read_half_maps(args.first, args.second)
    mask = read_mask(args.mask, halves) if args.mask else None
    fsc = compute_fsc(halves, mask, args.seed)
    if args.output:
        write_fsc(args.output, fsc)
    print(f"box {halves.first.box_px} px, pixel {halves.first.pixel_size_a:g} A")
    print("\n".join(resolution_table(fsc, masked=mask is not None)))
    if args.output:
        print(f"curves: {args.output}")
    return 0


def read_mask(path: str, halves: HalfMaps) -> np.ndarray:
    """Mask voxels that fit the maps. Raises `InputError` when they do not."""
    from swiftres_plugin.engine.checks import check_mask
    from swiftres_plugin.engine.io.mrc import read_map
    mask = read_map(path)
    check_mask(mask, halves.first.box_px, halves.first.pixel_size_a, path)
    return mask.voxels


def resolution_table(fsc: Fsc, masked: bool) -> list[str]:
    """Lines with the resolution of each curve at each threshold."""
    curves = ("unmasked", "masked", "corrected") if masked else ("unmasked",)
    lines = [" " * 10 + "".join(f"{f'FSC {threshold:g}':>12}" for threshold in THRESHOLDS)]
    for curve in curves:
        limits = (fsc.resolution_a(threshold, curve) for threshold in THRESHOLDS)
        texts = (f"{limit:.2f} A" if math.isfinite(limit) else "none" for limit in limits)
        lines.append(f"{curve:<10}" + "".join(f"{text:>12}" for text in texts))
    return lines
