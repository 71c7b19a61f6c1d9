"""`swiftres relax`: which of its symmetry mates each particle is."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import RelaxSettings

NAME = "relax"
HELP = "tell which of its symmetry mates each particle is, where a part of the structure breaks the symmetry"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    source = files.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", metavar="RUN", dest="finished_run",
                        help="folder of a refinement: its particles and its mask are taken")
    source.add_argument("--particles", metavar="STAR", help="particles with CTF and poses")
    files.add_argument("--reference", metavar="MAP", default="",
                       help="map in C1 that the first choice is made against; by default the particles find their own")
    files.add_argument("--mask", metavar="MAP", default="", help="mask from 0 to 1 of what is compared, in the particles' "
                       "box: the particle, or the region that breaks the symmetry with all its mates")
    files.add_argument("--output", metavar="FOLDER", required=True, help="new folder for particles.star and run.json")
    add_settings(parser, tree=RelaxSettings)


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from swiftres_plugin.engine.relax_files import RelaxInputs, inputs_of_run, relax_files
    from swiftres_plugin.engine.report import TerminalReporter
    from swiftres_plugin.engine.run import check_output_folder
    settings, output = settings_from(args, RelaxSettings), Path(args.output)
    inputs = inputs_of_run(Path(args.finished_run)) if args.finished_run else RelaxInputs(args.particles)
    inputs = replace(inputs, reference=args.reference, mask=args.mask or inputs.mask)
    check_output_folder(output)
    if (output / layout.PARTICLES).exists():
        raise InputError("the output folder already holds particles", where=output / layout.PARTICLES,
                         remedy="Name another folder.")
    output.mkdir(parents=True, exist_ok=True)
    relax_files(inputs, settings, output, TerminalReporter())
    print(f"particles: {output / layout.PARTICLES}  (swiftres reconstruct makes their maps)")
    return 0
