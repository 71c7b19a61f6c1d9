"""`swiftres initial-model`: starting maps from particles alone."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.engine.cli.folder import new_folder
from swiftres_plugin.settings import InitialModelSettings

NAME = "initial-model"
HELP = "Find one or several starting maps from particles alone. The hand of a map is left to chance."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--particles", metavar="STAR", required=True,
                       help="particles with CTF (RELION STAR, optics groups); poses in it are ignored")
    files.add_argument("--output", metavar="RUN", required=True, help="new folder for the maps (class1_map.mrc, ...), "
                       "particles.star with poses, run.json and slices.png")
    add_settings(parser, tree=InitialModelSettings)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.initial_model_files import new_initial_model
    settings = settings_from(args, InitialModelSettings)
    output, reporter = new_folder(args.output)
    new_initial_model(str(Path(args.particles).resolve()), settings, output, reporter)
    return 0
