"""`swiftres classify`: particles with poses divided into classes, without a new alignment."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.settings import ClassifySettings

NAME = "classify"
HELP = "divide particles with poses into classes that differ in structure, without aligning them anew"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--particles", metavar="STAR", required=True, help="particles with CTF and poses")
    files.add_argument("--reference", metavar="MAP", action="append", default=[],
                       help="map that a class begins with, in the frame of the poses; several, or none: then the classes "
                       "are found from the particles")
    files.add_argument("--mask", metavar="MAP", default="", help="mask from 0 to 1 of what is compared, in the particles' "
                       "box: the particle, or the region in which classes should differ")
    files.add_argument("--output", metavar="FOLDER", required=True,
                       help="new folder for particles.star, the maps of every class and run.json")
    add_settings(parser, tree=ClassifySettings)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.classify_files import ClassInputs, classify_files
    from swiftres_plugin.engine.report import TerminalReporter
    output = Path(args.output)
    inputs = ClassInputs(args.particles, tuple(args.reference), args.mask)
    last = classify_files(inputs, settings_from(args, ClassifySettings), output, TerminalReporter())
    for number, size in enumerate(last.shares.sum(axis=0), 1):
        print(f"class {number}: {size:.0f} particles, {output / layout.map_name(number)}")
    return 0
