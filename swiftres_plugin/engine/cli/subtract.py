"""`swiftres subtract`: particles without what a map holds outside a mask."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import SubtractSettings

NAME = "subtract"
HELP = "take the projection of what lies outside a mask from every particle, and write the images that are left"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--particles", metavar="STAR", required=True, help="particles with CTF and poses")
    files.add_argument("--map", metavar="MAP", action="append", required=True, dest="maps",
                       help="map of these particles, in their box; given twice, the maps of half sets 1 and 2, so that the "
                       "halves stay independent")
    files.add_argument("--mask", metavar="MAP", default="",
                       help="what is kept, from 0 to 1 with a soft edge; without it all of the map is taken away")
    files.add_argument("--output", metavar="STAR", required=True,
                       help="new STAR file; beside it stand the stack of the same name (.mrcs), figures (.json), and with a "
                       "mask the part that is kept and the mask in the box of the images (_map.mrc, _mask.mrc)")
    add_settings(parser, tree=SubtractSettings)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.report import TerminalReporter
    from swiftres_plugin.engine.subtract import SubtractInputs, subtract_files
    if len(args.maps) > 2:
        raise InputError("too many maps", found=str(len(args.maps)), expected="one, or one for each half set")
    star = Path(args.output)
    if star.suffix != ".star":
        raise InputError("the output is a STAR file", where=star, expected="a name ending in .star")
    inputs = SubtractInputs(args.particles, tuple(args.maps), args.mask)
    left = subtract_files(inputs, settings_from(args, SubtractSettings).subtraction, star, TerminalReporter())
    print(f"{len(left)} images without what lies outside the mask: {star} and {layout.beside(star, layout.LEFT_STACK)}")
    return 0
