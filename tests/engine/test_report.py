"""Reporters: what a person and another program get to see, and how often."""
from __future__ import annotations

import io
import json

import pytest

from swiftres_plugin.engine.report import (
    JsonLinesReporter,
    Progress,
    SilentReporter,
    TeeReporter,
    TerminalReporter,
    duration,
)


class HandClock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return HandClock()


def work(reporter, clock, steps=100, seconds_a_step=1.0):
    reporter.stage("search", steps * 10)
    for _ in range(steps):
        clock.now += seconds_a_step
        reporter.advance(10)


def test_rate_and_time_left():
    progress = Progress("search", 200, "particles", started=10.0, done=50)
    assert progress.rate(20.0) == pytest.approx(5.0)
    assert progress.seconds_left(20.0) == pytest.approx(30.0)
    assert Progress("search", 200, "particles", started=10.0).seconds_left(20.0) is None


def test_file_gets_few_lines_and_the_last(clock):
    stream = io.StringIO()
    work(TerminalReporter(stream, clock), clock)  # 100 seconds
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "search: 100/1000 particles  10.0/s, 1 min 30 s left"
    assert lines[-1] == "search: 1000/1000 particles  in 1 min 40 s"
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_terminal_rewrites_one_line(clock):
    stream = Screen()
    reporter = TerminalReporter(stream, clock)
    work(reporter, clock)
    reporter.message("done")
    text = stream.getvalue()
    assert text.count("\n") == 2  # the stage's last line and the message
    assert text.count("\r") > 50


def test_next_stage_and_messages_leave_whole_lines(clock):
    stream = Screen()
    reporter = TerminalReporter(stream, clock)
    reporter.stage("first", 10)
    clock.now += 2
    reporter.advance(5)
    reporter.warning("few particles")
    reporter.stage("second", 10)
    shown = [line.split("\x1b[K")[-1] for line in stream.getvalue().split("\n")]
    assert shown[:2] == ["WARNING: few particles", "first: 5/10 particles  2.5/s, 2.0 s left"]


def test_json_lines_are_complete_and_appended(tmp_path, clock):
    path = tmp_path / "progress.jsonl"
    for _ in range(2):  # a resumed run goes on in the same file
        reporter = JsonLinesReporter(path, clock)
        reporter.message("starting")
        work(reporter, clock, steps=4)
        reporter.warning("slow disk")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(entries) == 2 * (1 + 5 + 1)
    assert entries[0] == {"time": 100.0, "message": "starting"}
    assert entries[2] == {
        "time": 101.0, "stage": "search", "done": 10, "total": 40, "unit": "particles", "seconds_left": 3.0}
    assert entries[6] == {"time": 104.0, "warning": "slow disk"}


def test_json_lines_stay_few(tmp_path, clock):
    path = tmp_path / "progress.jsonl"
    work(JsonLinesReporter(path, clock), clock, steps=1000, seconds_a_step=0.01)  # ten seconds
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(entries) <= 22
    assert entries[-1]["done"] == 10000 and entries[-1]["seconds_left"] == 0


def test_tee_passes_everything_on_and_keeps_warnings(tmp_path, clock):
    stream = io.StringIO()
    tee = TeeReporter(SilentReporter(), TerminalReporter(stream, clock), JsonLinesReporter(tmp_path / "p.jsonl", clock))
    work(tee, clock, steps=1)
    for text in ("slow disk", "few particles", "slow disk"):
        tee.warning(text)
    assert tee.warnings == ["slow disk", "few particles"]
    assert stream.getvalue().count("slow disk") == 1
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("seconds, text", [
    (0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text
