"""`swiftres query`: the best matches of particles in an index that `swiftres train` built."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.arguments import add_settings, settings_from

NAME = "query"
HELP = "find the best matches of particles in an index built by 'swiftres train'"
SETTINGS = ("diameter", "invert_contrast", "max_shift", "nprobe", "candidates", "rerank", "basins", "steps", "device",
            "threads", "memory", "scratch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--index", metavar="INDEX", required=True, help="folder written by 'swiftres train'")
    files.add_argument("--particles", metavar="STAR", required=True, help="particles with CTF (RELION STAR)")
    files.add_argument("--matches", metavar="N", type=int, default=4,
                       help="matches of each particle in matches.star, best first; fewer where several come to one pose "
                       "(default: 4)")
    files.add_argument("--output", metavar="FOLDER", required=True,
                       help="new folder for particles.star (best match of each particle) and matches.star")
    add_settings(parser, SETTINGS)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.report import TerminalReporter
    from swiftres_plugin.engine.vector_index import MATCHES, check_query, query
    output = Path(args.output)
    check_query(args.matches, output)
    query(Path(args.index), str(Path(args.particles).resolve()), args.matches, settings_from(args), output, TerminalReporter())
    print(f"best match of each particle: {output / layout.PARTICLES}  all matches: {output / MATCHES}")
    return 0
