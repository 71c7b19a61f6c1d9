"""`swiftres initial-model`: starting maps from particles alone."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
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
    from swiftres_plugin.engine.checks import check_output_folder
    from swiftres_plugin.engine.initial_model_files import new_initial_model
    from swiftres_plugin.engine.report import JsonLinesReporter, TeeReporter, TerminalReporter
    settings = settings_from(args, InitialModelSettings)
    output = Path(args.output)
    check_output_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    reporter = TeeReporter(TerminalReporter(), JsonLinesReporter(output / layout.PROGRESS))
    new_initial_model(str(Path(args.particles).resolve()), settings, output, reporter)
    return 0
