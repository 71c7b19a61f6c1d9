"""`swiftres report`: a run as one HTML page."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin import layout

NAME = "report"
HELP = "write the report of a run, finished or not, as one HTML file that any browser opens without a network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of a run of 'swiftres refine'")
    parser.add_argument("--output", metavar="FILE", default="",
                        help=f"file to write (default: {layout.REPORT} in the run's folder, where an earlier one is replaced)")


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.page.write import write_report
    from swiftres_plugin.errors import InputError

    folder = Path(args.folder)
    if not folder.is_dir():
        raise InputError("there is no run to report", where=folder, expected="the folder of a run of 'swiftres refine'")
    output = Path(args.output) if args.output else folder / layout.REPORT
    if args.output and output.exists():
        raise InputError("the file exists", where=output, remedy="Give another --output, or delete it first.")
    print(f"Report: {write_report(folder, output)}")
    return 0
