"""`swiftres expand`: every particle at each of its symmetry mates."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import ExpandSettings

NAME = "expand"
HELP = "write a particle set in which every particle stands at each of its symmetry mates"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--particles", metavar="STAR", required=True, help="particles with poses, refined in the symmetry")
    files.add_argument("--output", metavar="STAR", required=True, help="new STAR file; the images stay where they are")
    add_settings(parser, tree=ExpandSettings)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.expand import expanded
    from swiftres_plugin.engine.io.star import read_particles, write_particles
    from swiftres_plugin.engine.io.symmetry import open_symmetry
    settings, output = settings_from(args, ExpandSettings), Path(args.output)
    if output.exists():
        raise InputError("the output exists already", where=output, remedy="Name another file.")
    operators = open_symmetry(settings.expansion.symmetry)
    particles = read_particles(args.particles)
    if particles.poses is None:
        raise InputError("symmetry mates need poses", where=args.particles, found="no angle columns",
                         expected="rlnAngleRot, rlnAngleTilt and rlnAnglePsi")
    if "swiftresMate" in particles.extra:
        raise InputError("the particles are expanded already", where=args.particles, found="a column swiftresMate")
    write_particles(output, expanded(particles, operators, settings.expansion.seed))
    print(f"{len(particles)} particles at {len(operators)} mates each: {len(particles) * len(operators)} rows in {output}")
    return 0
