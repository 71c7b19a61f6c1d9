"""`swiftres COMMAND`: finds the commands, runs one, and turns what went wrong into one line and an exit code.

Exit codes: 0 done; 1 a fault of the program; 2 a fault of the input or of the machine (a full disk); 130 stopped by
the keyboard; 141 the reader of the output went away.
"""
from __future__ import annotations

import argparse
import errno
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, Protocol

from swiftres_plugin import __version__
from swiftres_plugin.errors import SwiftresError

COMMANDS = ("classify2d", "select", "initial-model", "refine", "align", "classify", "relax", "expand", "subtract",
            "train", "query", "reconstruct", "postprocess", "overfitting", "project", "simulate", "fsc", "compare",
            "report", "runs", "doctor")

DONE, FAULT, USER_ERROR, INTERRUPTED, READER_GONE = 0, 1, 2, 130, 141


class Command(Protocol):
    """What a command's module offers."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and point to the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"swiftres: error: {message} (see '{self.prog} --help')\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (of this process by default) and return its exit code."""
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse ends --help, --version and its own errors this way
        return int(stop.code or DONE)
    _let_waiting_threads_sleep()
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to complain at exit
        return READER_GONE
    except (KeyboardInterrupt, Exception) as error:
        if args.debug:
            traceback.print_exc()
        text, code = explained(error)
        print(f"swiftres: {' '.join(text.split())}", file=sys.stderr)
        return code


def _let_waiting_threads_sleep() -> None:
    """OpenMP threads that wait for work sleep instead of spinning, unless the user's environment says otherwise.

    The engine and FAISS each have a pool of threads; spinning pools take the cores from one another, and a refinement
    on cores shared with other programs becomes several times slower. Read when torch is loaded: commands load it later.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `swiftres` with every command that is installed."""
    parser = OneLineParser(
        prog="swiftres", description="3D refinement of single particles by vector search.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"swiftres {__version__}")
    _add_debug(parser, default=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in find_commands():
        sub = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP, allow_abbrev=False)
        command.add_arguments(sub)
        _add_debug(sub, default=argparse.SUPPRESS)  # so that it does not undo `swiftres --debug COMMAND`
        sub.set_defaults(run=command.run)
    return parser


def find_commands() -> list[Command]:
    """The modules of `COMMANDS` that exist, in that order."""
    names = [f"{__package__}.{name.replace('-', '_')}" for name in COMMANDS]
    return [importlib.import_module(name) for name in names if importlib.util.find_spec(name)]


def explained(error: BaseException) -> tuple[str, int]:
    """What to tell the user about an error, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped", INTERRUPTED
    if isinstance(error, SwiftresError):
        return f"error: {error}", USER_ERROR
    if isinstance(error, OSError) and _disk_is_full(error):
        where = f" while writing {error.filename}" if error.filename else ""
        return (f"error: no space left on device{where}. Free some space (or choose another folder) and run again; "
                "a refinement goes on with --resume."), USER_ERROR
    if isinstance(error, OSError) and error.filename:
        return f"error: {error.filename}: {error.strerror}", USER_ERROR
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"error: not enough memory ({error}). Try a smaller --memory or another --device.", USER_ERROR
    return f"internal error: {type(error).__name__}: {error} (--debug shows where)", FAULT


def _disk_is_full(error: OSError) -> bool:
    """numpy reports a short write without an errno: '1000 requested and 512 written'."""
    text = str(error)
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or ("requested and" in text and "written" in text)


def _add_debug(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument("--debug", action="store_true", default=default, help="show where an error came from")
