"""`swiftres select`: the particles of chosen classes."""
from __future__ import annotations

import argparse

NAME = "select"
HELP = "Write the particles of chosen classes, or all but those, as a STAR file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--particles", metavar="STAR", required=True,
                        help="particles with rlnClassNumber, as classify2d and refine write them")
    parser.add_argument("--classes", metavar="LIST", required=True, type=class_list,
                        help="numbers of classes, from 1: 1,4,7 or 1-5,9")
    parser.add_argument("--leave-out", action="store_true", help="write all other particles instead")
    parser.add_argument("--output", metavar="STAR", required=True, help="file to write; it must not exist yet")


def class_list(text: str) -> list[int]:
    """'1,4-6' -> [1, 4, 5, 6]."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"'{part}' is no class number, expected a list like 1,4,7 or 1-5,9")
        begin, end = int(first), int(last or first)
        if not 1 <= begin <= end:
            raise argparse.ArgumentTypeError(f"'{part}': classes count upwards from 1")
        found.update(range(begin, end + 1))
    return sorted(found)


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.select import select_classes
    kept, of = select_classes(args.particles, args.classes, args.leave_out, args.output)
    print(f"{kept} of {of} particles: {args.output}")
    return 0
