"""STAR: a round trip loses nothing, RELION reads what is written, and what is missing is named."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.data.particles import Ctf, Optics, Particles, Poses
from swiftres_plugin.engine.io.mrc import StackWriter, check_stacks
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.errors import InputError

RELION_31 = """# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnAmplitudeContrast #3
_rlnSphericalAberration #4
_rlnVoltage #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnMtfFileName #8
           1 opticsGroup1     0.100000     2.700000   300.000000     1.500000          8    "mtf 300.star"
           3 opticsGroup3     0.070000     2.000000   200.000000     1.500000          8    mtf_200.star


# version 30001

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnPhaseShift #6
_rlnOpticsGroup #7
_rlnAngleRot #8
_rlnAngleTilt #9
_rlnAnglePsi #10
_rlnOriginXAngst #11
_rlnOriginYAngst #12
_rlnRandomSubset #13
_rlnClassNumber #14
000002@stack.mrcs   "mic 1.mrc"  10100.5  10000.5   30.0  0.0  3   10.0   20.0   30.0   1.5  -2.5  1  2
000001@stack.mrcs   mic_2.mrc    12000.0  11000.0  -60.0 90.0  1 -170.0  120.0 -110.0   0.0   3.0  2  1
"""

RELION_30 = """
data_

loop_
_rlnImageName #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnMagnification #5
_rlnDetectorPixelSize #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
_rlnAngleRot #10
_rlnAngleTilt #11
_rlnAnglePsi #12
_rlnOriginX #13
_rlnOriginY #14
2@stack.mrcs 300 2.7 0.1 50000 10 10000 9000 15 10 20 30  1.5 -2.0
1@stack.mrcs 200 2.7 0.1 50000 10 10000 9000 15 10 20 30  0.0  0.0
"""


def stack(path: Path, count: int = 4, box: int = 8, pixel_size_a: float = 1.5) -> Path:
    with StackWriter(path, count, box, pixel_size_a) as writer:
        writer.write(np.random.default_rng(1).normal(size=(count, box, box)))
    return path


def without(text: str, label: str) -> str:
    """The STAR text with one column renamed away."""
    assert label in text
    return text.replace(f"_{label} ", f"_other{label} ")


@pytest.fixture
def star(tmp_path):
    """Writes STAR text beside a stack and returns its path."""
    stack(tmp_path / "stack.mrcs")

    def write(text: str) -> Path:
        (tmp_path / "in.star").write_text(text)
        return tmp_path / "in.star"

    return write


def many_particles(folder: Path, count: int = 50) -> Particles:
    """Particles with every field set, over two stacks and two optics groups."""
    random = np.random.default_rng(3)
    optics = (Optics(300.0, 2.7, 0.1, 1.2345678, 8, False, "a"), Optics(200.0, 1.4, 0.07, 1.2345678, 8, True, "b"))
    ctf = Ctf(random.uniform(5e3, 3e4, count), random.uniform(5e3, 3e4, count),
              random.uniform(-3, 3, count), random.uniform(0, 3, count))
    poses = Poses(Rotation.random(count, random_state=4).as_matrix(), random.normal(size=(count, 2)) * 5)
    return Particles(
        particle_id=np.arange(count), stack_paths=(str(folder / "a.mrcs"), "/elsewhere/b.mrcs"),
        stack_index=random.integers(0, 2, count), slice_index=random.integers(0, 10 ** 6, count), optics=optics,
        optics_group=random.integers(0, 2, count), ctf=ctf, half=random.integers(0, 2, count), poses=poses,
        scores={"log_likelihood": random.normal(size=count) * 1e5, "max_probability": random.uniform(size=count),
                "class_id": random.integers(0, 3, count)},
        extra={"rlnMicrographName": np.array([f"mic {i}.mrc" for i in range(count)]),
               "rlnGroupName": np.array(["", "'x'", '"', "_y", "#"] * (count // 5)),
               "other": np.array(["1.50"] * count)},
        extra_optics={"rlnMtfFileName": ("k2 300.star", "k2.star")})


# ------------------------------------------------------------------------------------------ round trip

def test_round_trip_loses_nothing(tmp_path):
    before = many_particles(tmp_path)
    write_particles(tmp_path / "p.star", before)
    after = read_particles(tmp_path / "p.star")

    assert list(map(asdict, after.optics)) == list(map(asdict, before.optics))
    assert after.extra_optics["rlnMtfFileName"] == before.extra_optics["rlnMtfFileName"]
    files = [[p.stack_paths[i] for i in p.stack_index] for p in (before, after)]
    assert files[0] == files[1]
    for name in ("slice_index", "optics_group", "half"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    # Six decimals are written: half a unit of the last, in angstroms, and in degrees turned into radians.
    for name in ("defocus_u_a", "defocus_v_a", "defocus_angle_rad", "phase_shift_rad"):
        np.testing.assert_allclose(getattr(after.ctf, name), getattr(before.ctf, name), rtol=0, atol=1e-6)
    np.testing.assert_allclose(after.poses.image_to_volume, before.poses.image_to_volume, rtol=0, atol=1e-6)
    np.testing.assert_allclose(after.poses.shift_a, before.poses.shift_a, rtol=0, atol=1e-6)
    for name, values in before.scores.items():
        np.testing.assert_allclose(after.scores[name], values, rtol=1e-6)
    for label, values in before.extra.items():
        np.testing.assert_array_equal(after.extra[label], values)


def test_second_round_trip_is_the_same_file(tmp_path):
    write_particles(tmp_path / "a.star", many_particles(tmp_path))
    write_particles(tmp_path / "b.star", read_particles(tmp_path / "a.star"))
    first, second = ((tmp_path / name).read_text() for name in ("a.star", "b.star"))
    # Angles near the edge of their range may round either way; everything else is the same text.
    assert len(first) == len(second)
    assert sum(a != b for a, b in zip(first.split(), second.split())) <= 3


def test_scores_without_a_relion_name_and_no_poses(tmp_path):
    before = replace(many_particles(tmp_path), poses=None, half=None, scores={"angle_spread": np.linspace(0, 1, 50)})
    write_particles(tmp_path / "p.star", before)
    after = read_particles(tmp_path / "p.star")
    assert after.poses is None and after.half is None
    np.testing.assert_allclose(after.extra["swiftresAngleSpread"].astype(float), np.linspace(0, 1, 50), atol=1e-8)


def test_stack_paths_are_relative_below_the_folder_only(tmp_path):
    write_particles(tmp_path / "p.star", many_particles(tmp_path))
    text = (tmp_path / "p.star").read_text()
    assert "@a.mrcs " in text and "@/elsewhere/b.mrcs " in text


def test_nothing_is_left_when_writing_fails(tmp_path):
    broken = replace(many_particles(tmp_path), extra={"x": np.array([1.5])})
    with pytest.raises(TypeError):
        write_particles(tmp_path / "p.star", broken)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="folder to write to does not exist"):
        write_particles(tmp_path / "no" / "p.star", many_particles(tmp_path))


# --------------------------------------------------------------------------------------------- reading

def test_relion_31_is_read_as_conventions_say(star):
    particles = read_particles(star(RELION_31))
    check_stacks(particles)
    assert [o.voltage_kv for o in particles.optics] == [300.0, 200.0]
    np.testing.assert_array_equal(particles.optics_group, [1, 0])
    np.testing.assert_array_equal(particles.slice_index, [1, 0])
    np.testing.assert_array_equal(particles.half, [0, 1])
    np.testing.assert_array_equal(particles.scores["class_id"], [1, 0])
    np.testing.assert_allclose(particles.ctf.defocus_angle_rad, np.deg2rad([30, -60]))
    np.testing.assert_allclose(particles.ctf.phase_shift_rad, [0, np.pi / 2])
    np.testing.assert_allclose(particles.poses.shift_a, [[1.5, -2.5], [0, 3]])
    # image_to_volume is Rz(rot) Ry(tilt) Rz(psi): intrinsic ZYZ in SciPy's words.
    expected = Rotation.from_euler("ZYZ", [[10, 20, 30], [-170, 120, -110]], degrees=True).as_matrix()
    np.testing.assert_allclose(particles.poses.image_to_volume, expected, atol=1e-12)
    assert list(particles.extra["rlnMicrographName"]) == ["mic 1.mrc", "mic_2.mrc"]
    assert particles.extra_optics["rlnMtfFileName"] == ("mtf 300.star", "mtf_200.star")


def test_relion_30_single_table(star):
    particles = read_particles(star(RELION_30))
    assert {o.voltage_kv for o in particles.optics} == {200.0, 300.0}
    assert [particles.optics[g].voltage_kv for g in particles.optics_group] == [300.0, 200.0]
    # 10 um on the detector at 50,000 x is 2 A; origins are in pixels.
    assert particles.pixel_size_a == pytest.approx(2.0) and particles.box_px == 8
    np.testing.assert_allclose(particles.poses.shift_a, [[3, -4], [0, 0]])


def test_unused_optics_groups_are_dropped(star):
    """A selection may leave groups of other boxes behind; they do not matter."""
    particles = read_particles(star(RELION_31.replace("  3   10.0", "  1   10.0").replace("200.000000     1.500000",
                                                                                        "200.000000     9.000000")))
    assert [o.voltage_kv for o in particles.optics] == [300.0] and set(particles.optics_group) == {0}


def test_box_and_pixel_size_from_the_stack(star):
    particles = read_particles(star(without(without(RELION_31, "rlnImageSize"), "rlnImagePixelSize")))
    assert particles.box_px == 8 and particles.pixel_size_a == pytest.approx(1.5)


def test_pixel_size_from_nowhere(star, tmp_path):
    stack(tmp_path / "stack.mrcs", pixel_size_a=0.0)
    with pytest.raises(InputError, match="no pixel size"):
        read_particles(star(without(RELION_31, "rlnImagePixelSize")))


@pytest.mark.parametrize("name", ["000002@stack.mrcs:mrcs", "2@stack.mrcs", "2@./stack.mrcs"])
def test_spellings_of_an_image(star, tmp_path, name):
    particles = read_particles(star(RELION_31.replace("000002@stack.mrcs", name)))
    assert particles.slice_index[0] == 1
    assert particles.stack_paths[particles.stack_index[0]] == str(tmp_path / "stack.mrcs")


def test_single_image_files(star, tmp_path):
    particles = read_particles(star(RELION_31.replace("000002@stack.mrcs", "stack.mrcs")))
    np.testing.assert_array_equal(particles.slice_index, [0, 0])


def test_stack_is_found_beside_the_star_then_here_then_above(tmp_path, monkeypatch):
    job, here = tmp_path / "project" / "Extract" / "job1", tmp_path / "here"
    job.mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    (job / "in.star").write_text(RELION_31)
    for folder in (tmp_path / "project", here, job):
        stack(folder / "stack.mrcs")
        assert read_particles(job / "in.star").stack_paths == (str(folder / "stack.mrcs"),)


def test_one_half_only_is_no_half(star):
    assert read_particles(star(RELION_31.replace("3.0  2  1", "3.0  1  1"))).half is None


def test_comments_blank_lines_and_single_values(star):
    text = RELION_31.replace("data_optics", "data_general\n\n_rlnTomoVersion 5 # a word\n\ndata_optics")
    particles = read_particles(star(text.replace("000001@", "\n# between rows\n000001@")))
    assert len(particles) == 2


# ------------------------------------------------------------------------------------------- bad input

def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="p.star: cannot be opened"):
        read_particles(tmp_path / "p.star")


def test_no_optics_table(star):
    text = RELION_31[RELION_31.index("data_particles"):]
    with pytest.raises(InputError, match="no optics; found neither a table data_optics nor rlnVoltage"):
        read_particles(star(text))


@pytest.mark.parametrize("label", ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"])
def test_optics_column_missing(star, label):
    with pytest.raises(InputError, match=f"optics table lacks columns; found no {label}"):
        read_particles(star(without(RELION_31, label)))


@pytest.mark.parametrize("label", ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"])
def test_ctf_column_missing(star, label):
    with pytest.raises(InputError, match=f"have no CTF; found no column {label}"):
        read_particles(star(without(RELION_31, label)))


def test_mixed_boxes_and_pixel_sizes(star):
    """Origins in pixels are those of the group's own."""
    mixed = RELION_31.replace("200.000000     1.500000          8", "200.000000     1.600000         10")
    found = read_particles(star(mixed.replace("OriginXAngst", "OriginX").replace("OriginYAngst", "OriginY")))
    assert [(o.box_px, o.pixel_size_a) for o in found.optics] == [(8, 1.5), (10, 1.6)]
    np.testing.assert_allclose(found.poses.shift_a, [[1.5 * 1.6, -2.5 * 1.6], [0, 3 * 1.5]])


@pytest.mark.parametrize("old, new, says", [
    ("  3   10.0", "  2   10.0", "particle 1: the optics group is not in the optics table; found 2"),
    ("10100.5", "nan", "rlnDefocusU, row 1: is no number; found 'nan'"),
    ("10100.5", "abc", "rlnDefocusU, row 1: is no number; found 'abc'"),
    ("10100.5  10000.5", "10100.5", "line 37: a row does not fit the columns of its table; found 13 values"),
    ("000002@", "x2@", "particle 1: cannot read the image name"),
    ("000002@", "000000@", "particle 1: image numbers start at 1"),
    ("3.0  2  1", "3.0  0  1", "rlnRandomSubset must be 1 or 2 for every particle; found 0, 1"),
    ("_rlnImageName", "_rlnReferenceImage", "no table of particles"),
    ("_rlnMtfFileName", "_rlnCtfDataAreCtfPremultiplied", "is no number"),
])
def test_what_is_wrong_is_named(star, old, new, says):
    assert old in RELION_31
    with pytest.raises(InputError, match=re.escape(says)):
        read_particles(star(RELION_31.replace(old, new)))


def test_premultiplied_images_are_refused(star):
    text = RELION_31.replace("_rlnMtfFileName", "_rlnCtfDataAreCtfPremultiplied")
    with pytest.raises(InputError, match="already multiplied by their CTF"):
        read_particles(star(text.replace('"mtf 300.star"', "1").replace("mtf_200.star", "1")))


@pytest.mark.parametrize("text", ["", "hello\n", "data_\n"])
def test_no_star_file(star, text):
    with pytest.raises(InputError, match="is no STAR file"):
        read_particles(star(text))


def test_no_particles(star):
    with pytest.raises(InputError, match="table of particles is empty"):
        read_particles(star(RELION_31[:RELION_31.index("000002@")]))


# ---------------------------------------------------------------------------------------------- RELION

@pytest.mark.relion
@pytest.mark.skipif(not shutil.which("relion_star_handler"), reason="relion_star_handler is not installed")
def test_relion_keeps_what_we_wrote(tmp_path):
    """RELION reads our file and writes its own: the same particles, also from a second program's columns and quotes."""
    before = many_particles(tmp_path)
    before = replace(before, extra={"rlnMicrographName": np.array([f"mic_{i}.mrc" for i in range(50)])},
                     scores={**before.scores, "angle_spread": np.linspace(0, 1, 50)}, extra_optics={})
    write_particles(tmp_path / "ours.star", before)
    subprocess.run(["relion_star_handler", "--i", "ours.star", "--o", "theirs.star"], cwd=tmp_path, check=True,
                   capture_output=True)
    after = read_particles(tmp_path / "theirs.star")
    assert [o.voltage_kv for o in after.optics] == [300.0, 200.0]
    np.testing.assert_array_equal(after.half, before.half)
    np.testing.assert_array_equal(after.scores["class_id"], before.scores["class_id"])
    # RELION writes six decimals or six digits: of degrees, 1e-6; of angstroms below 1,000, 1e-3.
    np.testing.assert_allclose(after.poses.image_to_volume, before.poses.image_to_volume, atol=1e-5)
    np.testing.assert_allclose(after.poses.shift_a, before.poses.shift_a, atol=1e-4)
    np.testing.assert_allclose(after.ctf.defocus_u_a, before.ctf.defocus_u_a, atol=0.1)
    assert os.path.basename(after.stack_paths[0]) in ("a.mrcs", "b.mrcs")
