"""`swiftres overfitting`: how much of a run's correlation noise would show as well."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin.engine.cli.arguments import add_settings
from swiftres_plugin.settings import leaves

NAME = "overfitting"
HELP = "refine a finished run once more with the images' phases random beyond a limit, and tell what is overfitted"
SETTINGS = ("device", "threads", "memory", "scratch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="folder of a finished 'swiftres refine'; its particles and starting "
                        "map must still be where they were")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="folder for overfitting.json, "
                        "class1_overfitting.csv and class1_overfitting.png")
    parser.add_argument("--limit", metavar="A", type=float, default=0.0, help="phases are random beyond this resolution "
                        "(default: four fifths of the frequency that the run reached)")
    parser.add_argument("--whole", action="store_true", help="repeat the whole refinement from its starting map, which takes "
                        "as long as the run did, rather than a few local iterations from its poses")
    parser.add_argument("--iterations", metavar="N", type=int, default=0, help="most iterations (default: 8 local ones; with "
                        "--whole as many as the run was allowed)")
    add_settings(parser, SETTINGS, given_only=True)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.guard_run import guard_run
    from swiftres_plugin.engine.overfitting import Substitution, sentence
    from swiftres_plugin.engine.report import TerminalReporter
    from swiftres_plugin.errors import InputError
    if args.iterations < 0 or args.limit < 0:
        raise InputError("--limit and --iterations cannot be negative")
    changes: dict[str, dict[str, object]] = {}
    for branch, leaf in leaves():
        if leaf.name in SETTINGS and hasattr(args, leaf.name):
            changes.setdefault(branch, {})[leaf.name] = getattr(args, leaf.name)
    how = Substitution(args.limit, args.whole, args.iterations)
    found = guard_run(Path(args.run_folder), changes, how, Path(args.output), TerminalReporter())
    for number, one in enumerate(found, 1):
        print(f"class {number}: {sentence(one)}" if len(found) > 1 else sentence(one))
    print(f"results: {args.output}")
    return 0
