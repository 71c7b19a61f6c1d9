"""`swiftres refine`: particles and a starting map to gold-standard half maps."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.engine.cli.folder import reporter_of
from swiftres_plugin.engine.cli.runs import database_of_run
from swiftres_plugin.errors import InputError, SwiftresError
from swiftres_plugin.settings import leaves

if TYPE_CHECKING:
    from swiftres_plugin.engine.report import Reporter

NAME = "refine"
HELP = "Refine a 3D map from particles and a starting map."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--particles", metavar="STAR", help="particles with CTF (RELION STAR, optics groups)")
    files.add_argument("--reference", metavar="MAP", action="append", default=[],
                       help="starting map (MRC); any box or pixel size. Give it several times to divide the "
                       "particles into as many classes; the maps should stand in one orientation")
    files.add_argument("--mask", metavar="MAP", default="", help="solvent mask from 0 to 1, in the particles' box")
    files.add_argument("--output", metavar="RUN", help="new folder for the results")
    files.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped; of the settings only "
                       "--iterations, --device, --threads, --memory, --scratch, --cluster and --follow... may be given anew")
    files.add_argument("--database", metavar="FILE", default="",
                       help=f"SQLite file that keeps a record of every run, for 'swiftres runs' (default: the environment "
                       f"variable {layout.RUNS_VARIABLE}, else {layout.RUNS_DATABASE} beside RUN; 'none' keeps none)")
    add_settings(parser, given_only=True)


def run(args: argparse.Namespace) -> int:
    output = Path(args.resume or _needed(args, "output"))
    if not args.resume:
        _needed(args, "particles")
        _needed(args, "reference")
    from swiftres_plugin.engine.run import Inputs, check_output_folder, new_run, resume_run
    settings = settings_from(args)
    if not args.resume:
        check_output_folder(output)
    elif not output.is_dir():
        raise InputError("there is no run to go on with", where=output, expected="the folder of an earlier run")
    output.mkdir(parents=True, exist_ok=True)
    reporter = reporter_of(output)
    database = database_of_run(args.database, output)
    if args.resume:
        resume_run(output, _changes(args), reporter, database)
    else:
        mask = str(Path(args.mask).resolve()) if args.mask else ""
        inputs = Inputs(str(Path(args.particles).resolve()), tuple(str(Path(m).resolve()) for m in args.reference), mask)
        new_run(inputs, settings, output, reporter, database)
    _write_page(output, reporter)
    return 0


def _write_page(output: Path, reporter: Reporter) -> None:
    """The report as a page; a refinement that is done does not fail for want of it."""
    from swiftres_plugin.engine.page.write import write_report
    try:
        reporter.message(f"Report: {write_report(output, output / layout.REPORT)}")
    except (SwiftresError, OSError, ValueError) as error:
        reporter.warning(f"The report could not be written ({error}). Try 'swiftres report {output}'.")


def _needed(args: argparse.Namespace, name: str) -> str:
    value = getattr(args, name)
    if not value:
        raise InputError(f"--{name} is missing", remedy="See 'swiftres refine --help'.")
    return value


def _changes(args: argparse.Namespace) -> dict[str, dict[str, object]]:
    """What was given anew for a resumed run. Raises `InputError` for what may not change."""
    allowed = {"iterations", "device", "threads", "memory", "scratch", "cluster", "follow", "follow_idle", "follow_until"}
    changes: dict[str, dict[str, object]] = {}
    for branch, leaf in leaves():
        if hasattr(args, leaf.name):
            if leaf.name not in allowed:
                raise InputError(f"--{leaf.name.replace('_', '-')} cannot change in a resumed run",
                                 remedy="Start a new run for it.")
            changes.setdefault(branch, {})[leaf.name] = getattr(args, leaf.name)
    return changes
