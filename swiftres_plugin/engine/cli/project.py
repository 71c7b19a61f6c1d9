"""`swiftres project`: a map and poses -> images."""
from __future__ import annotations

import argparse
from pathlib import Path

NAME = "project"
HELP = "make noise-free images of a map at the poses of particles"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--map", required=True, metavar="FILE",
                        help="the map; resampled where its box or pixel size differs from the particles'")
    parser.add_argument("--particles", required=True, metavar="FILE", help="STAR file with poses; its images are not read")
    parser.add_argument("--output", required=True, metavar="FILE",
                        help="stack to write (.mrcs); a STAR file of the same name is written beside it")
    parser.add_argument("--ctf", action="store_true", help="apply each particle's contrast transfer function")


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.io.mrc import read_map
    from swiftres_plugin.engine.io.star import read_particles, write_particles
    from swiftres_plugin.engine.report import TerminalReporter
    from swiftres_plugin.engine.run import fitted
    from swiftres_plugin.engine.simulate import project_particles
    from swiftres_plugin.errors import InputError

    stack = Path(args.output)
    if stack.suffix not in (".mrcs", ".mrc"):
        raise InputError("the output is a stack", where=stack, expected="a name ending in .mrcs")
    reporter, particles = TerminalReporter(), read_particles(args.particles)
    projected = project_particles(fitted(read_map(args.map), particles, reporter), particles, stack, args.ctf, reporter)
    write_particles(stack.with_suffix(".star"), projected)
    print(f"{len(projected)} images in {stack}, poses in {stack.with_suffix('.star')}")
    return 0
