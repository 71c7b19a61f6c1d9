"""`swiftres runs`: what a user reads of the runs of a project."""
from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.cli.runs import database_of_run
from swiftres_plugin.engine.io.runs import begin, end
from swiftres_plugin.settings import from_flat


def asked(**settings: object) -> dict:
    return {"inputs": {"particles": "p.star", "references": ["a.mrc"], "mask": ""}, "settings": from_flat(settings).to_dict()}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two runs that ended well and one that failed."""
    monkeypatch.delenv(layout.RUNS_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    database = tmp_path / layout.RUNS_DATABASE
    for name, symmetry, resolution in (("first", "C1", 8.25), ("second", "D2", 7.5)):
        report = {"particles": 2000, "resolution_a": resolution, "class_resolution_a": [resolution], "seconds": 75.0,
                  "iterations": [{"number": 1, "seconds": {"search": 3.21}}], "device": {"kind": "cpu", "name": "x"},
                  "versions": {"swiftres": "0.1"}, "peak_memory_bytes": 2.5e9, "warnings": ["beware"]}
        end(database, begin(database, tmp_path / name, asked(symmetry=symmetry)), "finished", "", report)
    end(database, begin(database, tmp_path / "third", asked()), "failed", "InputError: empty image", {})
    return tmp_path


def said(capsys, *argv: str) -> str:
    assert main(["runs", *argv]) == 0
    return capsys.readouterr().out


def test_the_list_has_a_line_for_each_run(project, capsys):
    head, *lines = said(capsys, "list").splitlines()
    assert head.split() == ["run", "state", "began", "took", "particles", "resolution", "symmetry", "folder"]
    assert [line.split()[:2] for line in lines] == [["1", "finished"], ["2", "finished"], ["3", "failed"]]
    assert "1 min 15 s" in lines[1] and "7.50 A" in lines[1] and " D2 " in lines[1] and str(project / "second") in lines[1]


@pytest.mark.parametrize("name", ["2", "second"])
def test_a_run_is_shown_by_number_or_folder(project, capsys, name):
    shown = dict(line.split(None, 1) for line in said(capsys, "show", name).splitlines())
    assert shown["run"] == "2" and shown["schedule.symmetry"] == "D2" and shown["warning"] == "beware"
    assert shown["resolution"].endswith("7.50 A") and "search 3.2" in shown["seconds,"]


def test_a_comparison_names_what_differs_and_nothing_else(project, capsys):
    lines = [line.split() for line in said(capsys, "compare", "1", "second").splitlines()]
    assert ["schedule.symmetry", "C1", "D2"] in lines and ["resolution", "8.25", "A", "7.50", "A"] in lines
    assert not any(line[0] == "schedule.iterations" for line in lines)


def test_an_export_holds_all(project, capsys):
    rows = list(csv.DictReader(io.StringIO(said(capsys, "export"))))
    assert [row["schedule.symmetry"] for row in rows] == ["C1", "D2", "C1"]
    assert rows[2]["error"] == "InputError: empty image" and rows[0]["references file"]
    found = json.loads(said(capsys, "export", "--format", "json"))
    assert [one["report"].get("resolution_a") for one in found] == [8.25, 7.5, None]


def test_an_export_does_not_overwrite(project, capsys):
    assert main(["runs", "export", "--output", "table.csv"]) == 0
    assert main(["runs", "export", "--output", "table.csv"]) == 2
    assert "table.csv: the file exists" in capsys.readouterr().err
    assert len((project / "table.csv").read_text().splitlines()) == 4


def test_unknown_runs_and_missing_databases_are_named(project, capsys, tmp_path):
    assert main(["runs", "show", "17"]) == 2
    assert "no such run" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["runs", "list", "--database", "empty"]) == 2
    assert f"empty/{layout.RUNS_DATABASE}: there is no database" in capsys.readouterr().err


def test_the_option_goes_before_the_environment_and_that_before_the_place(tmp_path, monkeypatch):
    monkeypatch.delenv(layout.RUNS_VARIABLE, raising=False)
    assert database_of_run("", tmp_path / "run") == tmp_path / layout.RUNS_DATABASE
    monkeypatch.setenv(layout.RUNS_VARIABLE, "/site/all.sqlite")
    assert str(database_of_run("", tmp_path / "run")) == "/site/all.sqlite"
    assert database_of_run(str(tmp_path), tmp_path / "run") == tmp_path / layout.RUNS_DATABASE
    assert database_of_run("none", tmp_path / "run") is None


def test_the_list_needs_nothing_heavy(project):
    code = ("import sys; from swiftres_plugin.engine.cli.main import main; main(['runs', 'list']); "
            "print(sorted({'torch', 'numpy'} & set(sys.modules)))")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
