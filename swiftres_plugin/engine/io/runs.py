"""The database of runs: settings, provenance, timings and results of every run of a project or site, in one SQLite file.

Several runs may write at once: each write is one short transaction that waits for the others (docs/decisions/0003).
"""
from __future__ import annotations

import getpass
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftres_plugin import layout
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.errors import InputError

RUNNING, FINISHED, FAILED, STOPPED, LOST = "running", "finished", "failed", "stopped", "lost"
WAIT_S = 20.0  # for other writers
VERSION = 1  # of the table
TABLE = """
create table if not exists runs (
    number integer primary key autoincrement, folder text not null, state text not null, began real not null,
    changed real not null, resumed integer not null default 0, host text not null, process integer not null,
    user text not null, error text not null default '', asked text not null, report text not null default '{}',
    particles integer, resolution_a real, seconds real)"""
COLUMNS = ("number", "folder", "state", "began", "changed", "resumed", "host", "process", "user", "error", "asked", "report")


@dataclass(frozen=True, eq=False, slots=True)
class RecordedRun:
    """One run. asked: inputs and settings; report: what run.json holds, empty before the first iteration's end.

    began, changed: seconds since 1970 of the (first) start and of the last change of `state`; resumed: further starts.
    """

    number: int
    folder: str
    state: str
    began: float
    changed: float
    resumed: int
    host: str
    process: int
    user: str
    error: str
    asked: dict[str, Any]
    report: dict[str, Any]


@contextmanager
def recorded(database: Path | None, folder: Path, asked: dict[str, Any], reporter: Reporter) -> Iterator[None]:
    """Keep a record of the run in `folder` that happens inside; nowhere if `database` is None.

    A database that cannot be written costs a warning, not the run.
    """
    number = _tried(reporter, begin, database, folder, asked) if database else None
    state, error = FINISHED, ""
    try:
        yield
    except KeyboardInterrupt:
        state = STOPPED
        raise
    except BaseException as fault:
        state, error = FAILED, f"{type(fault).__name__}: {fault}"
        raise
    finally:
        if database and number is not None:
            _tried(reporter, end, database, number, state, error, _report_of(folder))


def begin(database: Path, folder: Path, asked: dict[str, Any]) -> int:
    """The number of the run that now starts in `folder`: a new one, or that of the run that goes on there."""
    database.parent.mkdir(parents=True, exist_ok=True)
    now, place = time.time(), str(folder.resolve())
    values = {"state": RUNNING, "changed": now, "host": socket.gethostname(), "process": os.getpid(), "user": _user(),
              "asked": json.dumps(asked)}
    with _writing(database) as connection:
        known = connection.execute("select max(number) from runs where folder = ?", (place,)).fetchone()[0]
        if known is not None and layout.finished_iterations(folder):
            _update(connection, known, {**values, "error": ""})
            connection.execute("update runs set resumed = resumed + 1 where number = ?", (known,))
            return int(known)
        values |= {"folder": place, "began": now}
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        added = connection.execute(f"insert into runs ({names}) values ({marks})", tuple(values.values()))
        return int(added.lastrowid or 0)


def end(database: Path, number: int, state: str, error: str, report: dict[str, Any]) -> None:
    """How a run ended and what it reached."""
    results = {name: report.get(name) for name in ("particles", "resolution_a", "seconds")}
    with _writing(database) as connection:
        _update(connection, number, {"state": state, "changed": time.time(), "error": error,
                                     "report": json.dumps(report), **results})


def read_runs(database: Path) -> list[RecordedRun]:
    """All runs in the order of their numbers. Of one that is not over, the report is what its folder holds now.

    Raises `InputError` where there is no such database.
    """
    if not database.is_file():
        raise InputError("there is no database of runs", where=database,
                         remedy=f"Name it with --database; runs are recorded in {layout.RUNS_DATABASE} beside their folder.")
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=WAIT_S)) as connection:
            _check_version(connection)
            rows = connection.execute(f"select {', '.join(COLUMNS)} from runs order by number").fetchall()
    except sqlite3.Error as error:
        raise InputError("this is no database of runs", where=database, found=str(error)) from error
    return [_current(RecordedRun(**dict(zip(COLUMNS, (*plain, json.loads(asked), json.loads(report))))))
            for *plain, asked, report in rows]


def _current(run: RecordedRun) -> RecordedRun:
    """The run as it stands: one whose process has gone without a word is lost."""
    if run.state != RUNNING:
        return run
    state = LOST if run.host == socket.gethostname() and not _is_alive(run.process) else RUNNING
    report = _report_of(Path(run.folder)) or run.report
    return RecordedRun(run.number, run.folder, state, run.began, run.changed, run.resumed, run.host, run.process, run.user,
                       run.error, run.asked, report)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _writing(database: Path) -> Iterator[sqlite3.Connection]:
    """One transaction; the table is made where there is none."""
    with closing(sqlite3.connect(database, timeout=WAIT_S, isolation_level=None)) as connection:
        connection.execute("begin immediate")  # waits here for other writers, and never in the middle of its own work
        try:
            _check_version(connection)
            connection.execute(TABLE)
            connection.execute(f"pragma user_version = {VERSION}")
            yield connection
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")


def _check_version(connection: sqlite3.Connection) -> None:
    version = connection.execute("pragma user_version").fetchone()[0]
    if version > VERSION:
        raise sqlite3.DatabaseError(f"a later version of swiftres wrote it: table {version}, this one knows {VERSION}")


def _update(connection: sqlite3.Connection, number: int, values: dict[str, Any]) -> None:
    assignments = ", ".join(f"{name} = ?" for name in values)
    connection.execute(f"update runs set {assignments} where number = ?", (*values.values(), number))


def _tried(reporter: Reporter, write: Any, database: Path, *arguments: Any) -> Any:
    """What `write` gives, or None and a warning where the database cannot be written."""
    try:
        return write(database, *arguments)
    except (sqlite3.Error, OSError) as error:
        reporter.warning(f"This run is not kept in the database of runs ({database}: {error}).")
        return None


def _report_of(folder: Path) -> dict[str, Any]:
    """What a run's run.json holds; nothing before the end of its first iteration."""
    try:
        return dict(json.loads((folder / layout.RUN).read_text()))
    except (OSError, ValueError):
        return {}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without an entry for its user
        return str(os.getuid())
