"""Child processes: their time, memory and failure are seen."""
import sys

import pytest

from swiftres_plugin.demo.parts import Part, PartFailed, joined, run_part, swiftres


def test_time_and_memory_are_of_the_child():
    code = ("import time; block = bytearray(200_000_000); start = time.process_time()\n"
            "while time.process_time() - start < 0.3: pass\n"
            "time.sleep(0.3)")
    part = run_part("work", [sys.executable, "-c", code])
    assert part.name == "work"
    assert part.processor_s >= 0.3 and part.wall_s >= part.processor_s - 0.2 and part.wall_s >= 0.6
    assert 200e6 < part.peak_bytes < 600e6


def test_failure_is_named():
    with pytest.raises(PartFailed, match="work failed with exit code 3"):
        run_part("work", [sys.executable, "-c", "raise SystemExit(3)"])


def test_a_stopped_command_stops_the_demonstration():
    with pytest.raises(KeyboardInterrupt):
        run_part("work", [sys.executable, "-c", "raise SystemExit(130)"])


def test_commands_are_shown_as_one_types_them(capfd):
    swiftres("version", ["--version"])
    first, second = capfd.readouterr().out.splitlines()
    assert first == "$ swiftres --version" and second.startswith("swiftres ")


def test_joined_adds_times_and_keeps_the_largest_memory():
    assert joined("both", [Part("a", 1, 2, 30), Part("b", 10, 20, 3)]) == Part("both", 11, 22, 30)
