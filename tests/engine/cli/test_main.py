"""The frame of the command line: instant help, one line and an exit code for everything that goes wrong."""
from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from types import SimpleNamespace

import pytest

from swiftres_plugin import __version__
from swiftres_plugin.engine.cli import main as frame
from swiftres_plugin.errors import InputError


def command(run):
    """A command named `try` that does what it is told."""
    return SimpleNamespace(
        NAME="try", HELP="Try it.", run=run,
        add_arguments=lambda parser: parser.add_argument("--number", type=int, default=3))


@pytest.fixture
def swiftres(monkeypatch):
    """Runs `swiftres try` with the given body."""

    def run(body, *argv):
        monkeypatch.setattr(frame, "find_commands", lambda: [command(body)])
        return frame.main(["try", *argv])

    return run


def raising(error):
    def body(args):
        raise error
    return body


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from swiftres_plugin.engine.cli.main import main; code = main(['--help']); "
        "heavy = {'torch', 'numpy', 'scipy', 'faiss', 'mrcfile', 'matplotlib', 'pwem'} & set(sys.modules); "
        "print('HEAVY', sorted(heavy), code)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "HEAVY [] 0"


def test_every_command_is_complete():
    found = frame.find_commands()
    assert {"fsc", "compare", "doctor"} <= {module.NAME for module in found}
    for module in found:
        assert module.NAME.replace("-", "_") == module.__name__.rpartition(".")[2]
        assert module.HELP
        module.add_arguments(argparse.ArgumentParser())
        assert callable(module.run)


def test_runs_as_a_module():
    said = subprocess.run(
        [sys.executable, "-m", "swiftres_plugin.engine", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"swiftres {__version__}"


def test_exit_code_is_the_commands(swiftres):
    assert swiftres(lambda args: args.number, "--number", "0") == 0
    assert swiftres(lambda args: args.number) == 3


@pytest.mark.parametrize("argv", [["try", "--number", "many"], ["try", "--num", "3"], ["nothing"], []])
def test_wrong_arguments_are_one_line(monkeypatch, capsys, argv):
    monkeypatch.setattr(frame, "find_commands", lambda: [command(lambda args: 0)])
    assert frame.main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("swiftres: error: ") and said.count("\n") == 1


@pytest.mark.parametrize("error, code, text", [
    (InputError("not a cube", where="a.mrc", found="3 x 4 x 5", remedy="Give a cube."), 2,
     "swiftres: error: a.mrc: not a cube; found 3 x 4 x 5. Give a cube."),
    (InputError("two\nlines"), 2, "swiftres: error: two lines"),
    (OSError(errno.ENOSPC, "No space left on device", "/out/it003"), 2,
     "swiftres: error: no space left on device while writing /out/it003."),
    (OSError("1000 requested and 512 written"), 2, "swiftres: error: no space left on device."),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.star"), 2,
     "swiftres: error: a.star: No such file or directory"),
    (MemoryError("8 GB"), 2, "swiftres: error: not enough memory (8 GB)."),
    (KeyboardInterrupt(), 130, "swiftres: stopped"),
    (ValueError("shapes differ"), 1, "swiftres: internal error: ValueError: shapes differ")])
def test_errors_are_one_line_and_a_code(swiftres, capsys, error, code, text):
    assert swiftres(raising(error)) == code
    said = capsys.readouterr().err
    assert said.startswith(text) and said.count("\n") == 1


def test_debug_shows_where(swiftres, capsys, monkeypatch):
    assert swiftres(raising(InputError("wrong")), "--debug") == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and "in body" in said
    assert frame.main(["--debug", "try"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_reader_that_goes_away_is_no_error():
    code = (
        "import sys; from types import SimpleNamespace; from swiftres_plugin.engine.cli import main as frame\n"
        "def run(args):\n    for i in range(100000): print('line', i)\n    return 0\n"
        "frame.find_commands = lambda: [SimpleNamespace(NAME='try', HELP='', run=run, add_arguments=lambda p: None)]\n"
        "sys.exit(frame.main(['try']))")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
