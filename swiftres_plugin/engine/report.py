"""Room 2: telling a person, or another program, how far the work is.

A `Reporter` is passed down by the caller; the stages only call `stage`, `advance` and `message`.
"""
from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """What the engine may say. Implementations: `SilentReporter`, `TerminalReporter`, `JsonLinesReporter`."""

    def stage(self, name: str, total: int, unit: str = "particles") -> None:
        """A stage of `total` units begins."""

    def advance(self, done: int) -> None:
        """`done` more units of the current stage are finished."""

    def message(self, text: str) -> None:
        """A sentence for the person who runs the program."""

    def warning(self, text: str) -> None:
        """A sentence the person must not miss; also kept in run.json."""
