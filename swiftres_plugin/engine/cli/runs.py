"""`swiftres runs`: what was run in a project, with which settings, and what came out."""
from __future__ import annotations

import argparse
import csv
import datetime
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swiftres_plugin import layout
from swiftres_plugin.engine.io.runs import RecordedRun, read_runs
from swiftres_plugin.engine.report import duration
from swiftres_plugin.errors import InputError

NAME = "runs"
HELP = "list, show, compare or export the runs of a project"
NOWHERE = "none"  # as the name of a database


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line a run", allow_abbrev=False)
    listing.set_defaults(action=print_list)
    show = actions.add_parser("show", help="everything about one run", allow_abbrev=False)
    show.add_argument("runs", metavar="RUN", nargs=1, help="its number or its folder")
    show.set_defaults(action=print_run)
    compare = actions.add_parser("compare", help="what differs between runs", allow_abbrev=False)
    compare.add_argument("runs", metavar="RUN", nargs="+", help="numbers or folders")
    compare.set_defaults(action=print_comparison)
    export = actions.add_parser("export", help="all runs as a table or as JSON", allow_abbrev=False)
    export.add_argument("--format", choices=("csv", "json"), default="csv", help="default: csv")
    export.add_argument("--output", metavar="FILE", help="new file to write to (default: the terminal)")
    export.set_defaults(action=write_export)
    for action in (listing, show, compare, export):
        action.add_argument("--database", metavar="FILE", default="",
                            help=f"the file, or the folder that holds {layout.RUNS_DATABASE} (default: the environment "
                                 f"variable {layout.RUNS_VARIABLE}, else this folder)")


def run(args: argparse.Namespace) -> int:
    args.action(args, read_runs(database_file(args.database or os.environ.get(layout.RUNS_VARIABLE, ""), Path())))
    return 0


def database_file(named: str, folder: Path) -> Path:
    """The database that a user names, as a file or as its folder; the one in `folder` if there is no name."""
    path = Path(named) if named else folder
    return path / layout.RUNS_DATABASE if path.is_dir() or not named else path


def database_of_run(named: str, output: Path) -> Path | None:
    """Where a run in `output` is recorded: the option, else the environment, else beside the run; None for 'none'."""
    named = named or os.environ.get(layout.RUNS_VARIABLE, "")
    return None if named == NOWHERE else database_file(named, output.resolve().parent)


def print_list(args: argparse.Namespace, runs: list[RecordedRun]) -> None:
    rows = [("run", "state", "began", "took", "particles", "resolution", "symmetry", "folder")]
    rows += [(str(one.number), one.state, _date(one.began), _took(one), _text(one.report.get("particles")), _resolution(one),
              _text(flat(one).get("schedule.symmetry")), one.folder) for one in runs]
    print(_aligned(rows))


def print_run(args: argparse.Namespace, runs: list[RecordedRun]) -> None:
    one = chosen(args.runs[0], runs)
    lines = [("run", str(one.number)), *results(one).items(), *((n, _text(v)) for n, v in flat(one).items())]
    lines += [("seconds, iteration " + str(i["number"]), ", ".join(f"{stage} {s:.1f}" for stage, s in i["seconds"].items()))
              for i in one.report.get("iterations", [])]
    lines += [("warning", text) for text in one.report.get("warnings", [])]
    print(_aligned(lines))


def print_comparison(args: argparse.Namespace, runs: list[RecordedRun]) -> None:
    """Results of each run, and the inputs and settings in which they differ."""
    picked = [chosen(name, runs) for name in args.runs]
    rows = [("run", *(str(one.number) for one in picked))]
    told = [results(one) for one in picked]
    rows += [(name, *(one[name] for one in told)) for name in told[0]]
    settings = [flat(one) for one in picked]
    names = sorted({name for one in settings for name in one})
    values = {name: [_text(one.get(name)) for one in settings] for name in names}
    rows += [(name, *values[name]) for name in names if len(set(values[name])) > 1]
    print(_aligned(rows))


def write_export(args: argparse.Namespace, runs: list[RecordedRun]) -> None:
    """Raises `InputError` where the file exists."""
    text = as_json(runs) if args.format == "json" else as_csv(runs)
    if not args.output:
        sys.stdout.write(text)
        return
    try:
        with open(args.output, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError("the file exists", where=args.output, remedy="Name another one.") from error


def as_json(runs: list[RecordedRun]) -> str:
    """Everything that is kept."""
    return json.dumps([{name: getattr(one, name) for name in RecordedRun.__slots__} for one in runs], indent=1) + "\n"


def as_csv(runs: list[RecordedRun]) -> str:
    """A row a run: results, inputs and settings."""
    rows = [{"run": str(one.number), **results(one), **flat(one)} for one in runs]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def chosen(name: str, runs: list[RecordedRun]) -> RecordedRun:
    """The run of a number, or the last one of a folder."""
    place = str(Path(name).resolve())
    found = [one for one in runs if str(one.number) == name] or [one for one in runs if one.folder == place]
    if not found:
        raise InputError("there is no such run", found=name, expected="a number or a folder that 'swiftres runs list' shows")
    return found[-1]


def results(one: RecordedRun) -> dict[str, str]:
    """What came out, and where and by what it was made, as text."""
    report = one.report
    device, iterations = report.get("device", {}), report.get("iterations", [])
    peak = report.get("peak_memory_bytes")
    return {
        "folder": one.folder, "state": one.state, "error": one.error, "began": _date(one.began), "took": _took(one),
        "resumed": str(one.resumed), "particles": _text(report.get("particles")), "resolution": _resolution(one),
        "resolution of classes": ", ".join(f"{a:.2f} A" for a in report.get("class_resolution_a", []) if a is not None),
        "iterations": str(len(iterations)), "peak memory": "" if peak is None else f"{peak / 1e9:.2f} GB",
        "device": " ".join(_text(device.get(name)) for name in ("kind", "name")).strip(),
        "versions": ", ".join(f"{name} {version}" for name, version in report.get("versions", {}).items()),
        "user": f"{one.user} on {one.host}"}


def flat(one: RecordedRun) -> dict[str, Any]:
    """Inputs and settings by one name each: {'particles file': ..., 'schedule.symmetry': ...}."""
    inputs = {f"{name} file": value for name, value in one.asked.get("inputs", {}).items()}
    branches = one.asked.get("settings", {})
    return {**inputs, **{f"{branch}.{name}": value for branch, values in branches.items() for name, value in values.items()}}


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _took(one: RecordedRun) -> str:
    seconds = one.report.get("seconds")
    return "" if seconds is None else duration(seconds)


def _resolution(one: RecordedRun) -> str:
    resolution = one.report.get("resolution_a")
    return "" if resolution is None else f"{resolution:.2f} A"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest entry; empty rows are left out."""
    kept = [row for row in rows if any(row[1:])]
    widths = [max(len(row[column]) for row in kept) for column in range(len(kept[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in kept)
