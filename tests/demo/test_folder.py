"""The output folder: nothing of the user's is ever overwritten, leftovers of a stopped demonstration are."""
import pytest

from swiftres_plugin.demo.folder import DemoFolder
from swiftres_plugin.errors import InputError


def test_a_new_folder_is_made(tmp_path):
    folder = DemoFolder(tmp_path / "a" / "b")
    folder.prepare()
    assert folder.judged.is_dir() and folder.pictures.is_dir()


def test_a_stopped_demonstration_is_replaced(tmp_path):
    folder = DemoFolder(tmp_path / "demo")
    folder.prepare()
    (folder.root / "half_done").touch()
    folder.prepare()
    assert not (folder.root / "half_done").exists() and folder.pictures.is_dir()


def test_a_finished_demonstration_is_kept(tmp_path):
    folder = DemoFolder(tmp_path / "demo")
    folder.prepare()
    folder.save({"finished": True})
    with pytest.raises(InputError, match="in use.*--output"):
        folder.prepare()


@pytest.mark.parametrize("name, text", [("thesis.tex", "years of work"), ("demo.json", "{"), ("demo.json", "[1]")])
def test_files_of_others_are_kept(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="in use"):
        DemoFolder(tmp_path).prepare()
    assert (tmp_path / name).read_text() == text


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="in use"):
        DemoFolder(tmp_path / "x").prepare()
