"""`swiftres align`: particles to poses against given maps, without a reconstruction."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.engine.cli.folder import new_folder
from swiftres_plugin.settings import AlignSettings

NAME = "align"
HELP = "find the poses of particles against given maps, without changing the maps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--particles", metavar="STAR", required=True,
                       help="particles with CTF (RELION STAR, optics groups)")
    files.add_argument("--reference", metavar="MAP", action="append", required=True,
                       help="map to align to (MRC); any box, pixel size or grey scale. Give it several times to divide the "
                       "particles over several maps that stand in one orientation")
    files.add_argument("--mask", metavar="MAP", default="",
                       help="solvent mask from 0 to 1, in the particles' box; by default a sphere")
    files.add_argument("--output", metavar="FOLDER", required=True, help="new folder for particles.star and run.json")
    add_settings(parser, tree=AlignSettings)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.align_files import align_files
    from swiftres_plugin.engine.run import Inputs
    settings = settings_from(args, AlignSettings)
    mask = str(Path(args.mask).resolve()) if args.mask else ""
    inputs = Inputs(str(Path(args.particles).resolve()), tuple(str(Path(m).resolve()) for m in args.reference), mask)
    output, reporter = new_folder(args.output)
    align_files(inputs, settings, output, reporter)
    print(f"poses: {output / layout.PARTICLES}")
    return 0
