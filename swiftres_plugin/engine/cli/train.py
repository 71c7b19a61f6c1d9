"""`swiftres train`: maps to an index of references that `swiftres query` asks."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.settings import AlignSettings

NAME = "train"
HELP = "build the index of a vector search from maps, for 'swiftres query'"
SETTINGS = ("resolution", "symmetry", "diameter", "invert_contrast", "max_shift", "search_resolution", "recipe", "nprobe",
            "components", "metric", "wiener", "device", "threads", "memory", "scratch", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--reference", metavar="MAP", action="append", required=True,
                       help="map to index (MRC); several times for several classes that stand in one orientation")
    files.add_argument("--particles", metavar="STAR", required=True,
                       help="particles like those that will be asked for, some hundred at least: their noise, CTF and grey "
                       "scale decide how references are weighed")
    files.add_argument("--output", metavar="INDEX", required=True, help="new folder for the index")
    add_settings(parser, SETTINGS, tree=AlignSettings)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.report import TerminalReporter
    from swiftres_plugin.engine.run import Inputs
    from swiftres_plugin.engine.vector_index import train
    inputs = Inputs(str(Path(args.particles).resolve()), tuple(str(Path(m).resolve()) for m in args.reference))
    told = train(inputs, settings_from(args, AlignSettings), Path(args.output), TerminalReporter())
    print(f"index: {args.output}: {told['orientations']:,} orientations of each map to {told['resolution_a']:.1f} A, "
          f"{told['length']} numbers each ({told['index']})")
    return 0
