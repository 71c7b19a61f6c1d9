"""`swiftres classify2d`: 2D class averages of particles."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.engine.cli.folder import new_folder
from swiftres_plugin.settings import Classify2dSettings

NAME = "classify2d"
HELP = "Part particles into classes of one view each, and average them: a first look at new data, and a way to leave junk out."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--particles", metavar="STAR", required=True,
                       help="particles with CTF (RELION STAR, optics groups); poses and classes in it are ignored")
    files.add_argument("--output", metavar="RUN", required=True, help="new folder for classes.mrcs, classes.star, "
                       "particles.star (class, in-plane angle, origin), classes.png and run.json")
    add_settings(parser, tree=Classify2dSettings)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.classify2d import new_classification
    settings = settings_from(args, Classify2dSettings)
    output, reporter = new_folder(args.output)
    new_classification(str(Path(args.particles).resolve()), settings, output, reporter)
    return 0
