"""The parts of the demonstration: child processes, each with its time and memory."""
from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from swiftres_plugin.errors import SwiftresError

INTERRUPTED = 130  # exit code of a `swiftres` command that was stopped by the keyboard


@dataclass(frozen=True)
class Part:
    """What one part took: seconds on the clock and on the processors, and memory of its largest process."""

    name: str
    wall_s: float
    processor_s: float
    peak_bytes: int


class PartFailed(SwiftresError):
    """A child process ended with an error, which it has told itself."""


def say(text: str) -> None:
    """A line for the person who runs the demonstration, at once."""
    print(text, flush=True)


def swiftres(name: str, arguments: Sequence[object]) -> Part:
    """Show and run one `swiftres` command."""
    words = [str(word) for word in arguments]
    say(f"$ swiftres {shlex.join(words)}")
    return run_part(name, [sys.executable, "-m", "swiftres_plugin.engine", *words])


def run_part(name: str, command: Sequence[str]) -> Part:
    """Run `command` to its end; its output goes where ours goes. Raises `PartFailed` when it fails."""
    began = time.monotonic()
    process = subprocess.Popen(command)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:  # the child got it too; let it end before we do
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode:
        raise PartFailed(f"{name} failed with exit code {process.returncode}; the reason stands above.")
    return Part(name, time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def joined(name: str, parts: Sequence[Part]) -> Part:
    """Several parts as one."""
    return Part(name, sum(part.wall_s for part in parts), sum(part.processor_s for part in parts),
                max(part.peak_bytes for part in parts))
