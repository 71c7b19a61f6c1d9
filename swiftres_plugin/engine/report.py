"""Room 2: telling a person, or another program, how far the work is.

A `Reporter` is passed down by the caller; the stages only call `stage`, `advance` and `message`.
"""
from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

Clock = Callable[[], float]


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


@dataclass
class Progress:
    """How far one stage is. `started` and the `now` of the questions are seconds of the same clock."""

    name: str
    total: int
    unit: str
    started: float
    done: int = 0

    def rate(self, now: float) -> float:
        """Units a second since the start."""
        return self.done / max(now - self.started, 1e-9)

    def seconds_left(self, now: float) -> float | None:
        """Seconds to the end at the mean rate; None before the first unit is done."""
        return None if self.done == 0 else max(self.total - self.done, 0) / self.rate(now)

    def sentence(self, now: float) -> str:
        """One line for a person: stage, share, rate, time left (or taken, at the end)."""
        share = f"{self.done}/{self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"
        left = self.seconds_left(now)
        if self.done >= self.total:
            ending = f"in {duration(now - self.started)}"
        else:
            rate = self.rate(now)
            ending = "" if left is None else f"{rate:.{0 if rate >= 100 else 1}f}/s, {duration(left)} left"
        return f"{self.name}: {share}  {ending}".rstrip()


class SilentReporter:
    """Says nothing."""

    def stage(self, name: str, total: int, unit: str = "particles") -> None:
        pass

    def advance(self, done: int) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def warning(self, text: str) -> None:
        pass


class TerminalReporter:
    """Progress for a person: one line rewritten on a terminal, else a line now and then and at the end of a stage."""

    TERMINAL_PAUSE_S = 0.2
    FILE_PAUSE_S = 10.0

    def __init__(self, stream: TextIO | None = None, clock: Clock = time.monotonic):
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._in_place = self._stream.isatty()
        self._pause_s = self.TERMINAL_PAUSE_S if self._in_place else self.FILE_PAUSE_S
        self._progress: Progress | None = None
        self._shown_at = 0.0

    def stage(self, name: str, total: int, unit: str = "particles") -> None:
        self._end()
        self._shown_at = self._clock()
        self._progress = Progress(name, total, unit, started=self._shown_at)
        if self._in_place:
            self._rewrite(self._progress.sentence(self._shown_at))

    def advance(self, done: int) -> None:
        if self._progress is None:
            return
        self._progress.done += done
        now = self._clock()
        if self._progress.done >= self._progress.total:
            self._end()
        elif now - self._shown_at >= self._pause_s:
            self._shown_at = now
            sentence = self._progress.sentence(now)
            if self._in_place:
                self._rewrite(sentence)
            else:
                self._line(sentence)

    def message(self, text: str) -> None:
        self._line(text)

    def warning(self, text: str) -> None:
        self._line(f"WARNING: {text}")

    def _end(self) -> None:
        """Leave the last line of the running stage, if any, standing."""
        if self._progress is not None:
            self._line(self._progress.sentence(self._clock()))
            self._progress = None

    def _line(self, text: str) -> None:
        if self._in_place:
            self._stream.write("\r\x1b[K")
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _rewrite(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{text[:width]}")
        self._stream.flush()


class JsonLinesReporter:
    """Progress for another program: one JSON object a line, appended to a file and complete as soon as it is written.

    Every line has `time` (seconds since 1970) and either `stage, done, total, unit, seconds_left`, or `message`, or
    `warning`. A stage writes its first and last line and at most two a second between them.
    """

    PAUSE_S = 0.5

    def __init__(self, path: Path | str, clock: Clock = time.time):
        self._path = Path(path)
        self._clock = clock
        self._progress: Progress | None = None
        self._written_at = 0.0

    def stage(self, name: str, total: int, unit: str = "particles") -> None:
        self._progress = Progress(name, total, unit, started=self._clock())
        self._write_progress(self._progress)

    def advance(self, done: int) -> None:
        if self._progress is None:
            return
        self._progress.done += done
        finished = self._progress.done >= self._progress.total
        if finished or self._clock() - self._written_at >= self.PAUSE_S:
            self._write_progress(self._progress)

    def message(self, text: str) -> None:
        self._write({"message": text})

    def warning(self, text: str) -> None:
        self._write({"warning": text})

    def _write_progress(self, at: Progress) -> None:
        self._written_at = self._clock()
        left = at.seconds_left(self._written_at)
        self._write({"stage": at.name, "done": at.done, "total": at.total, "unit": at.unit,
                     "seconds_left": None if left is None else round(left, 1)})

    def _write(self, entry: dict[str, Any]) -> None:
        # Opened for each line: nothing to close when a run is killed, and a reader never sees half a line.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(self._clock(), 3), **entry}) + "\n")


class TeeReporter:
    """Passes everything on to several reporters and keeps the warnings (`warnings`, in order, each text once)."""

    def __init__(self, *reporters: Reporter):
        self._reporters = reporters
        self.warnings: list[str] = []

    def stage(self, name: str, total: int, unit: str = "particles") -> None:
        for reporter in self._reporters:
            reporter.stage(name, total, unit)

    def advance(self, done: int) -> None:
        for reporter in self._reporters:
            reporter.advance(done)

    def message(self, text: str) -> None:
        for reporter in self._reporters:
            reporter.message(text)

    def warning(self, text: str) -> None:
        if text in self.warnings:
            return
        self.warnings.append(text)
        for reporter in self._reporters:
            reporter.warning(text)


def duration(seconds: float) -> str:
    """'8.2 s', '3 min 05 s' or '2 h 07 min'."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
