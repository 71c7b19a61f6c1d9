"""The demonstration model is a protein by its numbers, has a hand, no symmetry, and is the same every time."""
from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.data.atoms import Atoms
from swiftres_plugin.engine.demo_model import HELIX, STRAND, _ideal, build_demo_model

MASS = {"C": 12.011, "N": 14.007, "O": 15.999, "S": 32.06}
HYDROGEN = 1.07  # protein mass over that of its heavy atoms


@pytest.fixture(scope="module")
def model() -> Atoms:
    return build_demo_model()


def backbone(model: Atoms) -> dict[str, np.ndarray]:
    return {name: model.position_a[model.name == name] for name in ("N", "CA", "C", "O", "CB")}


def test_mass_and_composition(model):
    kilodalton = sum(MASS[element] for element in model.element) * HYDROGEN / 1000
    assert 270 < kilodalton < 330
    assert set(model.element) == {"C", "N", "O", "S"}
    assert 2500 < model.residue_number[-1] < 3100


def test_size_is_that_of_a_compact_particle(model):
    """A solid sphere of 300 kDa at 0.8 Da/A^3 has a radius of gyration of 35 A; several domains make it larger."""
    gyration = np.sqrt(np.square(model.position_a).sum(axis=1).mean())
    assert 38 < gyration < 55


def test_density_inside_domains(model):
    tree = cKDTree(model.position_a)
    counts = tree.query_ball_point(model.position_a[::20], 10.0, return_length=True)
    densities = counts * 13.6 * HYDROGEN / (4 / 3 * np.pi * 10 ** 3)
    # Most atoms are near a surface; the best packed tenth shows the inside.
    assert 0.65 < np.percentile(densities, 90) < 0.95


def test_few_clashes(model):
    """Atoms of residues that are no neighbours closer than 2.2 A: less than one atom in fifty."""
    pairs = cKDTree(model.position_a).query_pairs(2.2, output_type="ndarray")
    apart = np.abs(np.diff(model.residue_number[pairs], axis=1)) > 1
    assert apart.sum() < len(model) / 50


def test_helices_are_right_handed():
    """3.6 residues a turn, 1.5 A rise, CA radius 2.3 A: the alpha helix of Pauling."""
    alpha = _ideal(HELIX, 20)[:, 1]
    turns = np.rad2deg(np.diff(np.unwrap(np.arctan2(alpha[:, 1], alpha[:, 0]))))
    np.testing.assert_allclose(turns, 100, atol=2)
    np.testing.assert_allclose(np.diff(alpha[:, 2]), 1.5, atol=0.1)
    np.testing.assert_allclose(np.hypot(alpha[:, 0], alpha[:, 1]), 2.3, atol=0.1)
    np.testing.assert_allclose(np.diff(_ideal(STRAND, 20)[:, 1, 2]), 3.3, atol=0.15)


def test_amino_acids_are_left_handed(model):
    """N, C, CB seen from CA turn the way of L-amino acids, in every residue."""
    at = backbone(model)
    volume = np.einsum("ij,ij->i", np.cross(at["N"] - at["CA"], at["C"] - at["CA"]), at["CB"] - at["CA"])
    assert (volume > 0).all()


def test_bonds(model):
    """Ideal in helices and strands, that is in most residues; loops may be drawn out."""
    at = backbone(model)
    for first, second, length in (("N", "CA", 1.46), ("CA", "C", 1.52), ("C", "O", 1.23), ("CA", "CB", 1.53)):
        bonds = np.linalg.norm(at[first] - at[second], axis=1)
        assert np.median(bonds) == pytest.approx(length, abs=0.02) and bonds.max() < 2.5
    peptides = np.linalg.norm(at["C"][:-1] - at["N"][1:], axis=1)
    assert np.median(peptides) == pytest.approx(1.33, abs=0.02)


def test_no_symmetry(model):
    """At 20 A no half turn about an axis of inertia, nor a quarter turn, brings the model near to itself."""
    axes = np.linalg.eigh(np.cov(model.position_a.T))[1]
    along = model.position_a @ axes
    whole = _counts(along)
    for axis in np.eye(3):
        for angle in (90, 180, 270):
            turned = _counts(Rotation.from_rotvec(angle * axis, degrees=True).apply(along))
            assert np.corrcoef(whole, turned)[0, 1] < 0.9


def _counts(position_a):
    return np.histogramdd(position_a, bins=12, range=[(-120, 120)] * 3)[0].ravel()


def test_same_seed_same_model():
    first, second, other = (build_demo_model(seed, residues=300) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.position_a, second.position_a)
    assert list(first.residue) == list(second.residue)
    assert len(other) != len(first) or not np.allclose(other.position_a, first.position_a)
