"""The potential of atoms agrees with its own formula, whatever the pixel size."""
from __future__ import annotations

import gemmi
import numpy as np
import pytest

from swiftres_plugin.engine.data.atoms import Atoms
from swiftres_plugin.engine.io.atoms import read_atoms, write_atoms
from swiftres_plugin.engine.render import B_FACTOR_A2, render_atoms
from swiftres_plugin.errors import InputError


def some_atoms(positions: np.ndarray, elements: list[str]) -> Atoms:
    count = len(elements)
    return Atoms(np.asarray(positions, float), np.array(elements), np.linspace(1.0, 0.5, count), np.array(elements),
                 np.full(count, "ALA"), np.arange(1, count + 1), np.full(count, "A"))


@pytest.fixture
def atoms() -> Atoms:
    return some_atoms(np.random.default_rng(1).uniform(-12, 12, (6, 3)), ["C", "N", "O", "S", "P", "C"])


@pytest.mark.parametrize("box, pixel_size_a", [(48, 1.0), (33, 2.0), (32, 4.5)])
def test_fourier_transform_is_the_formula(atoms, box, pixel_size_a):
    """Sum of occupancy * f(s) * exp(-B s^2 / 4) * exp(-2 pi i k.x), at every frequency below Nyquist."""
    voxels = render_atoms(atoms, box, pixel_size_a).voxels.astype(np.float64)
    found = np.fft.fftn(np.fft.ifftshift(voxels)) * pixel_size_a ** 3
    frequency = np.stack(np.meshgrid(*[np.fft.fftfreq(box, pixel_size_a)] * 3, indexing="ij"), axis=-1)
    square = np.square(frequency).sum(axis=-1)
    expected = np.zeros(found.shape, complex)
    for position, element, occupancy in zip(atoms.position_a, atoms.element, atoms.occupancy):
        terms = gemmi.Element(element).c4322
        factor = sum(a * np.exp(-b * square / 4) for a, b in zip(terms.a, terms.b))
        phase = np.exp(-2j * np.pi * (frequency @ position[::-1]))
        expected += occupancy * factor * np.exp(-B_FACTOR_A2 * square / 4) * phase
    inside = np.abs(frequency).max(axis=-1) < 0.5 / pixel_size_a * (1 - 1 / box)
    # Aliasing of the fine grid and cut tails: a thousandth of the largest coefficient.
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=1e-3 * np.abs(expected).max())


def test_model_that_does_not_fit(atoms):
    with pytest.raises(InputError, match="does not fit the box; found a radius of .* expected at most 8 A"):
        render_atoms(atoms, 16, 1.0)


@pytest.mark.parametrize("name", ["m.pdb", "m.cif"])
def test_files_round_trip(tmp_path, atoms, name):
    write_atoms(tmp_path / name, atoms)
    again = read_atoms(tmp_path / name)
    # PDB keeps three decimals.
    np.testing.assert_allclose(again.position_a, atoms.position_a, atol=6e-4)
    assert list(again.element) == list(atoms.element)
    np.testing.assert_allclose(again.occupancy, atoms.occupancy, atol=6e-3)


def test_hydrogens_and_water_are_left_out(tmp_path):
    write_atoms(tmp_path / "m.pdb", some_atoms(np.eye(3), ["C", "H", "O"]))
    assert list(read_atoms(tmp_path / "m.pdb").element) == ["C", "O"]
    text = (tmp_path / "m.pdb").read_text().replace("ALA A   3", "HOH A   3")
    (tmp_path / "m.pdb").write_text(text)
    assert list(read_atoms(tmp_path / "m.pdb").element) == ["C"]


@pytest.mark.parametrize("name, text, says", [
    ("gone.pdb", None, "cannot be read"), ("m.cif", "not a model", "cannot be read"), ("m.pdb", "END\n", "no atoms")])
def test_no_model(tmp_path, name, text, says):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=says):
        read_atoms(tmp_path / name)
