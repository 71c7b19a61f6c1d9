"""`swiftres doctor` says what works and what does not, and its exit code says whether swiftres is usable."""
from __future__ import annotations

import subprocess
import sys

import pytest

from swiftres_plugin.engine.cli import doctor
from swiftres_plugin.engine.cli.main import main


def report(capsys):
    return parsed(capsys.readouterr().out)


def parsed(text):
    """{name: status} of the printed lines, and the last line."""
    lines = text.splitlines()
    return {line[9:].split()[0]: line.split()[0] for line in lines[:-1]}, lines[-1]


def test_this_machine_is_usable():
    said = subprocess.run(  # in a process of its own, as a user would
        [sys.executable, "-m", "swiftres_plugin.engine", "doctor", "--device", "cpu"], capture_output=True, text=True)
    assert said.returncode == 0
    found, verdict = parsed(said.stdout)
    assert {"swiftres", "python", "numpy", "scipy", "torch", "mrcfile", "healpix", "faiss", "processor"} <= set(found)
    assert found["self-test"] == "OK" and found["torch"] == "OK"
    assert verdict == "swiftres is ready"


def test_missing_optional_package_is_a_warning(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "OPTIONAL", (("nowhere", "nowhere_at_all", "nothing is lost"),))
    assert main(["doctor", "--no-self-test"]) == 0
    assert report(capsys)[0]["nowhere"] == "WARNING"


def test_missing_faiss_is_a_warning(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert main(["doctor", "--no-self-test"]) == 0
    assert report(capsys)[0]["faiss"] == "WARNING"


def test_missing_required_package_is_a_failure(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "REQUIRED", (("nowhere", "nowhere_at_all"),))
    assert main(["doctor"]) == 1
    found, verdict = report(capsys)
    assert found["nowhere"] == "FAILED" and "self-test" not in found
    assert "not usable" in verdict


@pytest.mark.parametrize("fault", ["raise", "wrong"])
def test_failed_self_test_is_a_failure(capsys, monkeypatch, fault):
    from swiftres_plugin.engine import selftest

    def broken(compute):
        if fault == "raise":
            raise RuntimeError("no kernel image")
        return selftest.SelfTest(angle_deg=60.0, shift_a=1.0, resolution_a=30.0, seconds=1.0)

    monkeypatch.setattr(selftest, "run_self_test", broken)
    assert main(["doctor", "--device", "cpu"]) == 1
    assert report(capsys)[0]["self-test"] == "FAILED"


def test_device_that_is_not_there(capsys):
    assert main(["doctor", "--device", "cuda:99"]) == 2
    assert "cuda:99" in capsys.readouterr().err
