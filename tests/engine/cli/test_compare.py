"""`swiftres compare` finds the differences that were put in, whatever the mates, frames, orders and folders."""
from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.particles import Ctf, Optics, Particles, Poses
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.engine.maths.geometry import euler_to_matrix, random_rotations
from swiftres_plugin.engine.maths.symmetry import symmetry_operators

COUNT = 300


def particles(folder, poses):
    ctf = Ctf(np.full(COUNT, 15000.0), np.full(COUNT, 14000.0), np.zeros(COUNT), np.zeros(COUNT))
    return Particles(
        particle_id=np.arange(COUNT), stack_paths=(str(folder / "a.mrcs"), str(folder / "b.mrcs")),
        stack_index=np.arange(COUNT) % 2, slice_index=np.arange(COUNT) // 2,
        optics=(Optics(300.0, 2.7, 0.1, 2.0, 64),), optics_group=np.zeros(COUNT, dtype=np.int64), ctf=ctf, poses=poses)


def save(path, noun):
    write_particles(path, noun)
    return str(path)


@pytest.fixture
def true():
    return Poses(random_rotations(COUNT, np.random.default_rng(1)), np.random.default_rng(2).normal(size=(COUNT, 2)))


def turned_by_two_degrees(true, group):
    """Poses two degrees off about the image's own axes, one of their mates each, 0.5 A off in x."""
    axis = np.random.default_rng(3).normal(size=(COUNT, 3))
    turn = Rotation.from_rotvec(np.radians(2) * axis / np.linalg.norm(axis, axis=1, keepdims=True)).as_matrix()
    mates = group[np.random.default_rng(4).integers(len(group), size=COUNT)]
    return Poses(mates @ true.image_to_volume @ turn, true.shift_a + [0.5, 0.0])


def medians(text):
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    return float(lines["angle (degrees)"][2]), float(lines["shift (A)"][2])


@pytest.mark.parametrize("symmetry, frame", [
    ("C1", np.eye(3)), ("C1", euler_to_matrix(1.0, 0.5, 2.0)), ("D2", np.eye(3)), ("O", np.eye(3)),
    ("C3", euler_to_matrix(0.4, 0.0, 0.0))])
def test_differences_are_those_put_in(tmp_path, capsys, true, symmetry, frame):
    moved = turned_by_two_degrees(true, symmetry_operators(symmetry))
    found = save(tmp_path / "found.star", particles(tmp_path, Poses(frame @ moved.image_to_volume, moved.shift_a)))
    truth = save(tmp_path / "true.star", particles(tmp_path, true))
    assert main(["compare", found, truth, "--symmetry", symmetry]) == 0
    angle, shift = medians(capsys.readouterr().out)
    # the frame is found to 2 degrees / sqrt(300), the angles are written with six decimals
    assert angle == pytest.approx(2.0, abs=0.15)
    assert shift == pytest.approx(0.5, abs=0.1)


def test_without_alignment_the_frame_counts(tmp_path, capsys, true):
    turned = Poses(euler_to_matrix(np.radians(30), 0, 0) @ true.image_to_volume, true.shift_a)
    argv = ["compare", save(tmp_path / "found.star", particles(tmp_path, turned)),
            save(tmp_path / "true.star", particles(tmp_path, true)), "--no-align"]
    assert main(argv) == 0
    assert medians(capsys.readouterr().out)[0] == pytest.approx(30, abs=1e-3)


def test_particles_are_matched_by_image(tmp_path, capsys, true):
    """Another order, another folder, and fewer particles: only the same images are compared."""
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    rows = np.random.default_rng(5).permutation(COUNT)[:200]
    found = save(tmp_path / "x" / "found.star", particles(tmp_path / "x", true).take(rows))
    truth = save(tmp_path / "y" / "true.star", particles(tmp_path / "y", true))
    table = tmp_path / "differences.csv"
    assert main(["compare", found, truth, "--output", str(table)]) == 0
    said = capsys.readouterr().out
    assert "particles: 200 compared, 0 only in" in said and "100 only in" in said
    assert max(medians(said)) < 1e-3
    with table.open() as file:
        entries = list(csv.DictReader(file))
    assert [int(e["image"].split("@")[0]) - 1 for e in entries] == list(rows // 2)
    assert max(float(e["angle_deg"]) for e in entries) < 1e-3


def test_errors(tmp_path, capsys, true):
    good = particles(tmp_path, true)
    found = save(tmp_path / "found.star", good)
    others = replace(good, stack_paths=(str(tmp_path / "c.mrcs"), str(tmp_path / "d.mrcs")))
    cases = {
        "no poses": save(tmp_path / "bare.star", replace(good, poses=None)),
        "no image in common": save(tmp_path / "others.star", others),
        "same image": save(tmp_path / "twice.star", good.take(np.r_[0, 1, 0]))}
    for text, path in cases.items():
        assert main(["compare", found, path]) == 2
        said = capsys.readouterr().err
        assert text in said and said.count("\n") == 1
    assert main(["compare", found, found, "--symmetry", "K7"]) == 2
    assert "unknown symmetry" in capsys.readouterr().err


def numbered(noun, ids):
    return replace(noun, extra={"rlnImageId": np.array([str(i) for i in ids])})


def test_particles_are_matched_by_number(tmp_path, capsys, true):
    """The second set has other stacks (as after binning) and another order; only the numbers say who is who."""
    rows = np.random.default_rng(6).permutation(COUNT)[:250]
    binned = replace(particles(tmp_path, true), stack_paths=(str(tmp_path / "e.mrcs"), str(tmp_path / "f.mrcs")))
    found = save(tmp_path / "found.star", numbered(particles(tmp_path, true), np.arange(COUNT) + 7))
    truth = save(tmp_path / "true.star", numbered(binned, np.arange(COUNT) + 7).take(rows))
    table = tmp_path / "differences.csv"
    assert main(["compare", found, truth, "--match-by", "id", "--output", str(table)]) == 0
    said = capsys.readouterr().out
    assert "250 compared" in said and max(medians(said)) < 1e-3
    with table.open() as file:
        assert {int(row["id"]) for row in csv.DictReader(file)} == set(rows + 7)
    assert main(["compare", save(tmp_path / "bare.star", particles(tmp_path, true)), truth, "--match-by", "id"]) == 2
    assert "rlnImageId" in capsys.readouterr().err


def test_the_particles_that_agree_are_written(tmp_path, capsys, true):
    """Two thirds turned by two degrees, one third by eight: a limit of five parts them."""
    far = np.arange(COUNT) % 3 == 0
    axis = np.tile([0.0, 0.0, 1.0], (COUNT, 1)) * np.radians(np.where(far, 8.0, 2.0))[:, None]
    moved = Poses(true.image_to_volume @ Rotation.from_rotvec(axis).as_matrix(), true.shift_a)
    found = save(tmp_path / "found.star", particles(tmp_path, moved))
    truth = save(tmp_path / "true.star", particles(tmp_path, true))
    agreed = tmp_path / "agreed.star"
    assert main(["compare", found, truth, "--no-align", "--max-angle", "5", "--agreed", str(agreed)]) == 0
    assert f"agreed: {(~far).sum()} of {COUNT}" in capsys.readouterr().out
    assert (read_particles(agreed).slice_index == (np.arange(COUNT) // 2)[~far]).all()
    assert main(["compare", found, truth, "--no-align", "--max-angle", "1", "--agreed", str(agreed)]) == 2
    assert "no particle agrees" in capsys.readouterr().err
