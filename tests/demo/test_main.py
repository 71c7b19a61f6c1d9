"""The door: help, errors in one line, the pixel size for a model of one's own."""
import subprocess
import sys

import numpy as np
import pytest

from swiftres_plugin.demo import main as demo
from swiftres_plugin.errors import InputError


def test_help_needs_nothing_heavy():
    code = ("import sys; from swiftres_plugin.demo.main import main\n"
            "try: main(['--help'])\nexcept SystemExit: pass\n"
            "print(sorted({'torch', 'numpy', 'matplotlib', 'pwem', 'tkinter'} & set(sys.modules)))")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--no-scipion" in said and said.splitlines()[-1] == "[]"


def test_a_folder_in_use_is_one_line_and_code_2(tmp_path, capsys):
    (tmp_path / "notes").touch()
    assert demo.main(["--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("demo: error: ") and said.count("\n") == 1 and "rm -r" in said


def test_a_model_that_is_not_there(tmp_path, capsys):
    assert demo.main(["--output", str(tmp_path / "new"), "--model", str(tmp_path / "none.pdb")]) == 2
    assert "none.pdb" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("radius_a, pixel_size_a", [(50.0, 2.0), (10.0, 1.5), (156.0, 6.0)])
def test_pixel_size_follows_the_model(tmp_path, radius_a, pixel_size_a):
    gemmi = pytest.importorskip("gemmi", reason="gemmi is not installed")
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    for number, x in enumerate((-radius_a, radius_a)):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(str(number + 1))
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(x + 20, 3, 4)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(tmp_path / "model.pdb"))
    assert demo.pixel_size_for(tmp_path / "model.pdb") == pytest.approx(pixel_size_a)
    assert 2 * radius_a <= demo.BOX_PX * pixel_size_a


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == "gemmi" else np)
    with pytest.raises(InputError, match="lacks gemmi"):
        demo.check_packages()
