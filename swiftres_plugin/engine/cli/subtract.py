"""`swiftres subtract`: particles without what a map holds outside a mask."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin.errors import InputError

NAME = "subtract"
HELP = "take the projection of what lies outside a mask from every particle, and write the images that are left"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--particles", metavar="STAR", required=True, help="particles with CTF and poses")
    parser.add_argument("--map", metavar="MAP", action="append", required=True, dest="maps",
                        help="map of these particles, in their box; given twice, the maps of half sets 1 and 2, so that the "
                        "halves stay independent")
    parser.add_argument("--mask", metavar="MAP", default="",
                        help="what is kept, from 0 to 1 with a soft edge; without it all of the map is taken away")
    parser.add_argument("--invert-contrast", action="store_true", help="the particles are black on white")
    parser.add_argument("--output", metavar="STAR", required=True,
                        help="new STAR file; the stack of the same name (.mrcs) is written beside it")


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.report import TerminalReporter
    from swiftres_plugin.engine.subtract import SubtractInputs, subtract_files
    if len(args.maps) > 2:
        raise InputError("too many maps", found=str(len(args.maps)), expected="one, or one for each half set")
    star = Path(args.output)
    if star.suffix != ".star":
        raise InputError("the output is a STAR file", where=star, expected="a name ending in .star")
    inputs = SubtractInputs(args.particles, tuple(args.maps), args.mask)
    left = subtract_files(inputs, args.invert_contrast, star, TerminalReporter())
    print(f"{len(left)} images without what lies outside the mask: {star} and {star.with_suffix('.mrcs')}")
    return 0
