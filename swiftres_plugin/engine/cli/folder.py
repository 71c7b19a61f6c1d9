"""The folder that a command fills, and what tells of its work on the terminal and in that folder."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swiftres_plugin import layout

if TYPE_CHECKING:
    from swiftres_plugin.engine.report import TeeReporter


def new_folder(name: str) -> tuple[Path, TeeReporter]:
    """The folder `name`, made, and its reporter. Raises `InputError` when it holds a run already."""
    from swiftres_plugin.engine.checks import check_output_folder
    output = Path(name)
    check_output_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    return output, reporter_of(output)


def reporter_of(output: Path) -> TeeReporter:
    """Reports to the terminal, and to the folder as lines of JSON."""
    from swiftres_plugin.engine.report import JsonLinesReporter, TeeReporter, TerminalReporter
    return TeeReporter(TerminalReporter(), JsonLinesReporter(output / layout.PROGRESS))
