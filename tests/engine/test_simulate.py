"""Simulated images are what they claim: poses, transfer, noise and truth, checked against independent programs."""
from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import mrcfile
import numpy as np
import pytest

from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Ctf, Optics, Particles, Poses
from swiftres_plugin.engine.io.mrc import MrcSource, check_stacks, read_map, write_map
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.engine.maths.geometry import random_rotations
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.simulate import (
    Projector,
    SimulationSettings,
    check_symmetry,
    noise_image,
    project_particles,
    simulate,
)
from swiftres_plugin.errors import InputError

BOX, PIXEL_A, WIDTH_PX = 40, 3.0, 2.0
SPOTS_PX = np.array([[6.0, 1, 0], [-3, 5, 2], [0, -4, 6], [2, 2, -7], [-5, -3, -2]])
WEIGHTS = np.array([1.0, 0.8, 0.6, 0.9, 0.7])


def phantom(box: int = BOX) -> Map:
    """Five Gaussians without symmetry or mirror image; voxels (z, y, x)."""
    z, y, x = np.indices((box,) * 3) - box // 2
    voxels = sum(w * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * WIDTH_PX ** 2))
                 for w, (a, b, c) in zip(WEIGHTS, SPOTS_PX))
    return Map(voxels.astype(np.float32), PIXEL_A)


def posed(count: int, box: int = BOX, defocus_a: float = 12000.0) -> Particles:
    random = np.random.default_rng(2)
    zero = np.zeros(count, np.int64)
    return Particles(
        np.arange(count), ("none.mrcs",), zero, np.arange(count), (Optics(300.0, 2.7, 0.1, PIXEL_A, box),), zero,
        Ctf(np.full(count, defocus_a + 300), np.full(count, defocus_a), random.uniform(0, 3, count), np.zeros(count)),
        poses=Poses(random_rotations(count, random), random.normal(size=(count, 2)) * 2 * PIXEL_A))


@pytest.mark.parametrize("box", [40, 41])
def test_projection_is_the_integral_along_the_beam(box):
    """Against the closed form: a Gaussian projects to a Gaussian at the rotated place."""
    particles = posed(6, box)
    found = Projector(phantom(box)).project(particles, with_ctf=False)
    y, x = np.indices((box, box)) - box // 2
    for image, rotation, shift_a in zip(found, particles.poses.image_to_volume, particles.poses.shift_a):
        places = SPOTS_PX @ rotation - [*(shift_a / PIXEL_A), 0]
        expected = sum(w * np.sqrt(2 * np.pi) * WIDTH_PX * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * WIDTH_PX ** 2))
                       for w, (a, b, _) in zip(WEIGHTS, places))
        # Trilinear interpolation in a threefold padded transform.
        np.testing.assert_allclose(image, expected, atol=0.01 * expected.max())


def test_transfer_agrees_with_its_formula():
    """The CTF of one particle applied in a box four times as large, where nothing wraps around."""
    particles = posed(1, defocus_a=6000.0)
    projector = Projector(phantom())
    plain, found = (projector.project(particles, with_ctf=flag)[0].astype(float) for flag in (False, True))
    size = 4 * BOX
    wide = np.zeros((size, size))
    start = size // 2 - BOX // 2
    wide[start:start + BOX, start:start + BOX] = plain
    ky, kx = np.meshgrid(np.fft.fftfreq(size, PIXEL_A), np.fft.fftfreq(size, PIXEL_A), indexing="ij")
    ctf, square = particles.ctf, kx ** 2 + ky ** 2
    wavelength = 0.0196875  # 300 kV
    defocus = (ctf.defocus_u_a + ctf.defocus_v_a) / 2 + (ctf.defocus_u_a - ctf.defocus_v_a) / 2 * np.cos(
        2 * (np.arctan2(ky, kx) - ctf.defocus_angle_rad))
    chi = np.pi * wavelength * defocus * square - np.pi / 2 * 2.7e7 * wavelength ** 3 * square ** 2
    filtered = np.fft.ifft2(np.fft.fft2(wide) * np.sin(chi + np.arcsin(0.1))).real[start:start + BOX, start:start + BOX]
    # The projection was cut to the box before, its tails beyond are what differs.
    np.testing.assert_allclose(found, filtered, atol=0.02 * np.abs(filtered).max())


def test_noise_has_unit_variance_and_the_colour_asked_for():
    for coloured in (False, True):
        settings = SimulationSettings(coloured_noise=coloured)
        fields = np.stack([noise_image(settings, i, 64) for i in range(200)])
        assert fields.var() == pytest.approx(1.0, abs=0.05 if coloured else 0.01)
        power = np.square(np.abs(np.fft.fft2(fields))).mean(axis=0)
        low, high = power[0, 2:6].mean(), power[0, 24:32].mean()
        assert (low > 3 * high) if coloured else (low == pytest.approx(high, rel=0.2))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    settings = SimulationSettings(count=60, junk_fraction=0.1, seed=5, initial_resolution_a=40.0)
    simulate(phantom(), settings, folder, SilentReporter())
    return folder


def test_files_are_complete_and_readable(made):
    particles, truth = read_particles(made / "particles.star"), read_particles(made / "particles_true.star")
    check_stacks(particles)
    assert len(particles) == 60 and particles.half is None
    np.testing.assert_array_equal(particles.poses.shift_a, 0)
    np.testing.assert_allclose(particles.poses.image_to_volume, np.tile(np.eye(3), (60, 1, 1)), atol=1e-12)
    assert truth.half.sum() == 30 and truth.scores["class_id"].sum() == 6
    facts = json.loads((made / "truth.json").read_text())
    assert facts["junk"] == np.flatnonzero(truth.scores["class_id"]).tolist() and facts["settings"]["seed"] == 5
    for name in ("particles.mrcs", "true_map.mrc", "initial_map.mrc", "mask.mrc"):
        assert mrcfile.validate(made / name)
    mask = read_map(made / "mask.mrc").voxels
    assert mask.min() == 0 and mask.max() == 1 and mask[BOX // 2 + 2, BOX // 2 + 5, BOX // 2 - 3] == 1


def test_images_are_signal_plus_unit_noise_of_the_right_ratio(made):
    truth, density = read_particles(made / "particles_true.star"), read_map(made / "true_map.mrc")
    images = MrcSource(truth).read(np.arange(60))
    real = truth.scores["class_id"] == 0
    projector = Projector(density)
    signal = projector.project(truth, with_ctf=True)
    assert (images[real] - signal[real]).std() == pytest.approx(1.0, abs=0.01)
    assert images[~real].std() == pytest.approx(1.0, abs=0.03)
    plain = projector.project(truth, with_ctf=False)
    variances = [s[p > 0.05 * p.max()].var() for s, p in zip(signal[real], plain[real])]
    assert 10 * np.log10(np.mean(variances)) == pytest.approx(-10.0, abs=0.05)


def test_every_particle_is_the_same_whatever_the_batch(made, tmp_path, monkeypatch):
    monkeypatch.setattr("swiftres_plugin.engine.simulate.BATCH", 7)
    settings = SimulationSettings(count=60, junk_fraction=0.1, seed=5, initial_resolution_a=40.0)
    simulate(phantom(), settings, tmp_path, SilentReporter())
    first, second = (MrcSource(read_particles(d / "particles.star")).read(np.arange(60)) for d in (made, tmp_path))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_shifts_and_defoci_are_drawn_as_asked(tmp_path):
    settings = SimulationSettings(count=3000, shift_sigma_px=2.0, defocus_range_a=(8000.0, 12000.0), astigmatism_a=200.0)
    from swiftres_plugin.engine.simulate import draw_particles
    truth, _ = draw_particles(phantom(), settings, tmp_path / "p.mrcs")
    shift_px = truth.poses.shift_a / PIXEL_A
    assert shift_px.std() == pytest.approx(2.0, rel=0.05)
    assert np.linalg.norm(shift_px, axis=1).max() <= 6 + 1e-9
    mean = (truth.ctf.defocus_u_a + truth.ctf.defocus_v_a) / 2
    assert mean.min() >= 8000 and mean.max() <= 12000 and mean.mean() == pytest.approx(10000, rel=0.01)
    # The mean of the absolute value of a Gaussian is sigma * sqrt(2 / pi).
    assert (truth.ctf.defocus_u_a - truth.ctf.defocus_v_a).mean() == pytest.approx(200 * np.sqrt(2 / np.pi), rel=0.05)
    # Uniform orientations: the mean of each matrix element vanishes, that of its square is 1/3.
    assert np.abs(truth.poses.image_to_volume.mean(axis=0)).max() < 0.04
    np.testing.assert_allclose(np.square(truth.poses.image_to_volume).mean(axis=0), 1 / 3, atol=0.03)


def test_symmetry_is_looked_at():
    density = phantom()
    check_symmetry(density, "C1")
    with pytest.raises(InputError, match="does not have the symmetry C2"):
        check_symmetry(density, "C2")
    turned = np.roll(density.voxels[:, ::-1, ::-1], (1, 1), (1, 2))  # even box: pixel n//2 stays
    check_symmetry(replace(density, voxels=density.voxels + turned), "C2")


def test_bad_input_of_project(tmp_path):
    particles = posed(2)
    with pytest.raises(InputError, match="have no poses"):
        project_particles(phantom(), replace(particles, poses=None), tmp_path / "p.mrcs", False, SilentReporter())
    with pytest.raises(InputError, match="differ in box or pixel size; found map 42 px of 3.0 A; expected 40 px"):
        project_particles(phantom(42), particles, tmp_path / "p.mrcs", False, SilentReporter())
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------- command line

def test_commands(tmp_path, capsys):
    write_map(tmp_path / "m.mrc", phantom())
    data = tmp_path / "data"
    assert main(["simulate", "--map", str(tmp_path / "m.mrc"), "--count", "10", "--float16", "--noise", "coloured",
                 "--output", str(data)]) == 0
    with mrcfile.open(data / "particles.mrcs") as stack:
        assert stack.data.shape == (10, BOX, BOX) and stack.data.dtype == np.float16
    assert main(["project", "--map", str(data / "true_map.mrc"), "--particles", str(data / "particles_true.star"),
                 "--output", str(tmp_path / "clean.mrcs"), "--ctf"]) == 0
    clean = read_particles(tmp_path / "clean.star")
    check_stacks(clean)
    noisy = MrcSource(read_particles(data / "particles.star")).read(np.arange(10))
    assert (noisy - MrcSource(clean).read(np.arange(10))).std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("options, says", [
    (["--count", "0"], "count"), (["--junk", "1.5"], "junk"),
    (["--defocus-min", "9000", "--defocus-max", "100"], "defocus range"),
    (["--symmetry", "Q"], "unknown symmetry"), (["--map", "gone.mrc"], "not allowed with|cannot be opened"),
])
def test_wrong_options_are_one_line(tmp_path, capsys, options, says):
    write_map(tmp_path / "m.mrc", phantom())
    code = main(["simulate", "--map", str(tmp_path / "m.mrc"), *options, "--output", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert code == 2 and len(error.splitlines()) == 1
    assert any(part in error for part in says.split("|"))
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------- RELION

@pytest.mark.relion
@pytest.mark.skipif(not shutil.which("relion_project"), reason="relion_project is not installed")
def test_relion_projects_the_same_images(tmp_path):
    """RELION 3.1 at our poses, shifts and CTFs: the same pictures to within its interpolation (padding 2)."""
    particles = posed(5)
    write_map(tmp_path / "m.mrc", phantom())
    ours = project_particles(phantom(), particles, tmp_path / "ours.mrcs", True, SilentReporter())
    write_particles(tmp_path / "ours.star", ours)
    subprocess.run(["relion_project", "--i", "m.mrc", "--o", "theirs", "--ang", "ours.star", "--ctf", "--angpix",
                    str(PIXEL_A)], cwd=tmp_path, check=True, capture_output=True)
    with mrcfile.open(tmp_path / "theirs.mrcs") as stack:
        theirs = stack.data.astype(float)
    for mine, other in zip(MrcSource(ours).read(np.arange(5)), theirs):
        assert np.corrcoef(mine.ravel(), other.ravel())[0, 1] > 0.99


@pytest.mark.relion
@pytest.mark.skipif(not shutil.which("relion_reconstruct"), reason="relion_reconstruct is not installed")
def test_relion_reconstructs_the_map_from_our_files(tmp_path):
    """Stack, STAR, poses, shifts and CTFs as RELION understands them: noise-free images give the map back."""
    particles = posed(400)
    defocus_a = np.random.default_rng(6).uniform(5e3, 2e4, 400)
    particles = replace(particles, ctf=replace(particles.ctf, defocus_u_a=defocus_a, defocus_v_a=defocus_a))
    ours = project_particles(phantom(), particles, tmp_path / "p.mrcs", True, SilentReporter())
    write_particles(tmp_path / "p.star", ours)
    subprocess.run(["relion_reconstruct", "--i", "p.star", "--o", "map.mrc", "--ctf"], cwd=tmp_path, check=True,
                   capture_output=True)
    found = read_map(tmp_path / "map.mrc")
    assert found.pixel_size_a == pytest.approx(PIXEL_A)
    # A mirrored, rotated or mis-centred map would not come near.
    assert np.corrcoef(found.voxels.ravel(), phantom().voxels.ravel())[0, 1] > 0.98
