"""A file is whole or not there, and a failure leaves the one before."""
from __future__ import annotations

import pytest

from swiftres_plugin.engine.io.files import written_atomically
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
