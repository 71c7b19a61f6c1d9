"""`swiftres reconstruct`: aligned particles to half maps, their FSC and a map."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.settings import RECONSTRUCT

NAME = "reconstruct"
HELP = "reconstruct half maps and a map from particles with poses"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--particles", metavar="STAR", required=True,
                       help="particles with CTF and poses (RELION STAR); half sets from rlnRandomSubset, else drawn")
    files.add_argument("--mask", metavar="MAP", default="",
                       help="solvent mask for the FSC, from 0 to 1, in the particles' box")
    files.add_argument("--output", metavar="FOLDER", required=True, help="folder for class1_map.mrc, class1_half1.mrc, "
                       "class1_half2.mrc, class1_mask.mrc and class1_fsc.csv")
    add_settings(parser, RECONSTRUCT)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.cli.fsc import resolution_table
    from swiftres_plugin.engine.reconstruct import reconstruct_files
    from swiftres_plugin.engine.report import TerminalReporter
    output = Path(args.output)
    result = reconstruct_files(args.particles, args.mask, settings_from(args), output, TerminalReporter())
    print("\n".join(resolution_table(result.fsc, masked=True)))
    print(f"maps and curves: {output}")
    return 0
