"""The database of runs keeps what happened, whoever else writes, and never costs a run."""
from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from swiftres_plugin import layout
from swiftres_plugin.engine.io import runs
from swiftres_plugin.engine.io.runs import begin, end, read_runs, recorded
from swiftres_plugin.engine.report import TeeReporter
from swiftres_plugin.errors import InputError

ASKED = {"inputs": {"particles": "p.star"}, "settings": {"schedule": {"symmetry": "C1"}}}
REPORT = {"particles": 100, "resolution_a": 8.5, "seconds": 12.0, "versions": {"swiftres": "0.1"}}


@pytest.fixture
def database(tmp_path):
    return tmp_path / "runs.sqlite"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run1"
    path.mkdir()
    return path


def test_a_run_that_ends_well_is_kept_with_its_report(database, folder):
    reporter = TeeReporter()
    with recorded(database, folder, ASKED, reporter):
        (running,) = read_runs(database)
        (folder / layout.RUN).write_text(json.dumps(REPORT))
    (one,) = read_runs(database)
    assert (running.state, running.report, running.process) == ("running", {}, os.getpid())
    assert (one.state, one.error, one.asked, one.report) == ("finished", "", ASKED, REPORT)
    assert one.folder == str(folder) and one.number == 1 and one.changed >= one.began and not reporter.warnings
    with closing(sqlite3.connect(database)) as connection:  # results that a query can sort by
        assert connection.execute("select particles, resolution_a, seconds from runs").fetchall() == [(100, 8.5, 12.0)]


@pytest.mark.parametrize("fault, state, error", [
    (InputError("too few particles"), "failed", "InputError: too few particles"), (KeyboardInterrupt(), "stopped", "")])
def test_how_a_run_failed_is_kept(database, folder, fault, state, error):
    with pytest.raises(type(fault)), recorded(database, folder, ASKED, TeeReporter()):
        raise fault
    (one,) = read_runs(database)
    assert (one.state, one.error) == (state, error)


def test_a_run_that_goes_on_stays_one_run(database, folder):
    """A new run in a folder of the same name is another one."""
    number = begin(database, folder, ASKED)
    end(database, number, "failed", "disk full", {})
    (folder / layout.iteration_name(1)).mkdir()
    (folder / layout.iteration_name(1) / layout.STATE).write_text("{}")
    assert begin(database, folder, ASKED) == number
    (one,) = read_runs(database)
    assert (one.state, one.error, one.resumed) == ("running", "", 1)
    (folder / layout.iteration_name(1) / layout.STATE).unlink()
    assert begin(database, folder, ASKED) == number + 1


def test_a_run_whose_process_is_gone_is_lost(database, folder, monkeypatch):
    """Its report is what its folder holds."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    monkeypatch.setattr(os, "getpid", lambda: process.pid)
    begin(database, folder, ASKED)
    (folder / layout.RUN).write_text(json.dumps(REPORT))
    (one,) = read_runs(database)
    assert (one.state, one.report) == ("lost", REPORT)


WRITER = """
import sys
from pathlib import Path
from swiftres_plugin.engine.io.runs import recorded
from swiftres_plugin.engine.report import TeeReporter
database, name = Path(sys.argv[1]), sys.argv[2]
for number in range(25):
    reporter = TeeReporter()
    with recorded(database, database.parent / f"{name}{number}", {"name": name}, reporter):
        pass
    assert not reporter.warnings, reporter.warnings
"""


def test_several_processes_write_at_once(database):
    """None waits in vain, and every run is there once, with its end."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(database), name]) for name in "abcd"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    found = read_runs(database)
    assert [one.number for one in found] == list(range(1, 101))
    assert {one.state for one in found} == {"finished"}
    assert {one.folder for one in found} == {str(database.parent / f"{n}{i}") for n in "abcd" for i in range(25)}


def test_a_writer_waits_for_another(database, folder, monkeypatch):
    """And gives up with a warning where the lock is never given back."""
    begin(database, folder, ASKED)
    monkeypatch.setattr(runs, "WAIT_S", 0.2)
    reporter = TeeReporter()
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("begin immediate")
        with recorded(database, folder, ASKED, reporter):
            pass
    assert len(reporter.warnings) == 1 and "database is locked" in reporter.warnings[0]


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_text("this is a text, " * 100), lambda path: path.mkdir(),
    lambda path: sqlite3.connect(path).execute("pragma user_version = 99")],
    ids=["a text", "a folder", "a later version"])
def test_a_database_that_cannot_be_written_costs_a_warning(database, folder, spoil):
    spoil(database)
    reporter, done = TeeReporter(), []
    with recorded(database, folder, ASKED, reporter):
        done.append(True)
    assert done and len(reporter.warnings) == 1 and str(database) in reporter.warnings[0]


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, folder):
    (tmp_path / "file").write_text("")
    reporter = TeeReporter()
    with recorded(tmp_path / "file" / "runs.sqlite", folder, ASKED, reporter):
        pass
    assert len(reporter.warnings) == 1


def test_no_database_no_record(tmp_path, folder):
    with recorded(None, folder, ASKED, TeeReporter()):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run1"]


def test_what_is_no_database_is_named(database):
    with pytest.raises(InputError, match="no database of runs"):
        read_runs(database)
    database.write_text("this is a text, " * 100)
    with pytest.raises(InputError, match="not a database"):
        read_runs(database)
