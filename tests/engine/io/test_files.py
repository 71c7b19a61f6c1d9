"""A file is whole or not there, and a failure leaves the one before; a folder has one process that writes."""
from __future__ import annotations

import subprocess
import sys

import pytest

from swiftres_plugin.engine.io.files import held, written_atomically
from swiftres_plugin.errors import InputError


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError), written_atomically(path) as part:
        part.write_text("half of the n")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_success_replaces_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with written_atomically(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="folder to write to does not exist"), written_atomically(tmp_path / "no" / "a"):
        pass


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with held(tmp_path):
        with pytest.raises(InputError, match="another process is writing"), held(tmp_path):
            pass
        with pytest.raises(InputError), held(tmp_path):  # the refusal did not free it
            pass
    with held(tmp_path):
        pass


def test_a_folder_is_free_when_its_process_was_killed(tmp_path):
    """As Scipion's Stop does it: nothing of the process is left to clean up."""
    code = ("import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
            "print('held', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError), held(tmp_path):
            pass
        other.kill()
        other.wait()
        with held(tmp_path):
            pass
