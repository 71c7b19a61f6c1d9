"""What the Scipion part does before and beside Scipion."""
import json
import os
import subprocess
import sys

import pytest

from swiftres_plugin.demo import scipion_project


def test_the_scipion_part_does_not_see_the_engine():
    code = ("import sys, swiftres_plugin.demo.scipion_project\n"
            "print([name for name in sys.modules if name.startswith(('torch', 'pwem', 'swiftres_plugin.engine'))])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


@pytest.fixture
def fake_python(tmp_path, monkeypatch):
    """A program in the place of Python that prints what it was given."""
    program = tmp_path / "a python"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$SCIPION_HOME" "$SCIPION_USER_DATA" "$SCIPION_HOSTS" '
                       '"$SCIPION_DOMAIN" "$*"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return program


def opened(folder, **environment):
    script = folder / "open_project.sh"
    script.write_text(scipion_project.opener("scipion"))
    return subprocess.run(["sh", str(script)], cwd="/", env={"PATH": os.environ["PATH"], **environment},
                          capture_output=True, text=True)


def test_the_script_finds_the_project_from_anywhere(tmp_path, fake_python):
    """Also from a folder whose name needs quoting, and after a move."""
    folder = tmp_path / "my $demo's output"
    folder.mkdir()
    done = opened(folder, DISPLAY=":0")
    assert done.returncode == 0, done.stderr
    home = f"{folder}/scipion"
    assert done.stdout.splitlines() == [
        home, f"{home}/data", f"{home}/hosts.conf", "pwem", "-O -m pyworkflow.apps.pw_project swiftres_demo"]


def test_the_script_says_when_there_is_no_display(tmp_path, fake_python):
    done = opened(tmp_path)
    assert done.returncode == 1 and "display" in done.stderr and not done.stdout


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(scipion_project, "find_spec", lambda name: None if name == "pwem" else object())
    assert "no pwem" in scipion_project.scipion_problem()
    monkeypatch.setattr(scipion_project, "find_spec", lambda name: object())
    monkeypatch.setattr(scipion_project, "entry_points", lambda group: ())
    assert "not installed" in scipion_project.scipion_problem()


def test_messages_are_of_whole_lines(tmp_path):
    progress = tmp_path / "progress.jsonl"
    assert list(scipion_project.messages(progress)) == []
    lines = [{"time": 1, "stage": "search", "done": 1, "total": 2}, {"time": 2, "message": "Iteration 1"},
             {"time": 3, "warning": "Careful"}]
    progress.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time": 4, "mess')
    assert list(scipion_project.messages(progress)) == ["Iteration 1", "Careful"]


def test_messages_are_told_while_the_work_goes_on(tmp_path, capsys):
    progress = tmp_path / "progress.jsonl"
    with scipion_project.telling(progress):
        progress.write_text(json.dumps({"time": 1, "message": "Iteration 1"}) + "\n")
    assert capsys.readouterr().out == "  Iteration 1\n"
