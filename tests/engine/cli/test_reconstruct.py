"""`swiftres reconstruct`: the truth comes back, RELION agrees, and wrong input is named."""
from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from synthetic import Phantom, particle_set, write_data_set, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.io.mrc import read_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.tables import read_fsc
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.stages import preprocess
from swiftres_plugin.engine.stages.postprocess import correlation, sphere_mask

COUNT = 400
HALF = np.arange(COUNT) // 3 % 2


def reconstruct(folder, output, *more: str) -> int:
    return main(["reconstruct", "--particles", str(folder / "particles.star"), "--output", str(output), "--device", "cpu",
                 "--threads", "2", *more])


def voxels(path) -> torch.Tensor:
    return torch.from_numpy(np.array(read_map(path).voxels, dtype=np.float32))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, particle_set(COUNT, noise=0.1), half=HALF)
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "maps"
    assert reconstruct(data, output) == 0
    return output


def test_particles_that_do_not_fit_in_memory_give_the_same_map(data, finished, tmp_path, monkeypatch):
    """They lie in the scratch folder, and nothing of them stays there."""
    monkeypatch.setattr(preprocess, "free_host_bytes", lambda: 1000)
    assert reconstruct(data, tmp_path / "maps", "--scratch", str(tmp_path / "scratch")) == 0
    assert torch.equal(voxels(tmp_path / "maps" / layout.map_name()), voxels(finished / layout.map_name()))
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_true_map_comes_back(finished):
    truth = torch.from_numpy(Phantom().map().voxels)
    for name, least in ((layout.map_name(), 0.97), (layout.half_name(1), 0.95), (layout.half_name(2), 0.95)):
        # the phantom's own power falls by a hundred up to shell 8
        assert correlation(voxels(finished / name), truth)[1:9].min() > least, name


def test_files_and_resolution(finished):
    assert {p.name for p in finished.iterdir()} == {
        layout.map_name(), layout.half_name(1), layout.half_name(2), layout.fsc_name(), layout.mask_name()}
    fsc = read_fsc(finished / layout.fsc_name())
    halves = [voxels(finished / layout.half_name(h)) for h in (1, 2)]
    np.testing.assert_allclose(fsc.unmasked, correlation(*halves), atol=1e-4)
    assert fsc.resolution_a() < 11
    assert read_map(finished / layout.map_name()).pixel_size_a == pytest.approx(4.0)


def test_half_sets_are_those_of_the_input(data, finished, tmp_path):
    """The first half map alone, from particles that are all in the first half."""
    particles = read_particles(data / "particles.star")
    np.testing.assert_array_equal(particles.half, HALF)
    first = tmp_path / "first"
    first.mkdir()
    shutil.copy(data / "particles.mrcs", first)
    lines = (data / "particles.star").read_text().splitlines()
    # each particle of the first half twice, once in either half: both half maps are then the first half map
    rows = [line.split() for line in lines if "@" in line and line.split()[6] == "1"]
    doubled = [" ".join([*row[:6], str(h), *row[7:]]) for row in rows for h in (1, 2)]
    (first / "particles.star").write_text("\n".join([*(line for line in lines if "@" not in line), *doubled]) + "\n")
    assert reconstruct(first, tmp_path / "out") == 0
    expected = voxels(finished / layout.half_name(1))
    for h in (1, 2):
        torch.testing.assert_close(voxels(tmp_path / "out" / layout.half_name(h)), expected, rtol=0,
                                   atol=1e-3 * float(expected.abs().max()))


def test_half_sets_are_drawn_by_the_seed(tmp_path):
    write_data_set(tmp_path, particle_set(60, noise=0.3))
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert reconstruct(tmp_path, tmp_path / name, "--seed", seed) == 0
    a, b, c = (voxels(tmp_path / name / layout.half_name(1)) for name in "abc")
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(a.abs().max()))
    assert float((a - c).abs().max()) > 0.05 * float(a.abs().max())


def test_symmetry_makes_the_most_of_few_particles(tmp_path):
    operators = symmetry_operators("D2")
    phantom = Phantom().symmetric(operators)
    write_data_set(tmp_path, particle_set(80, noise=0.3, phantom=phantom))
    truth = torch.from_numpy(phantom.map().voxels)
    likeness = {}
    for group in ("C1", "D2"):
        assert reconstruct(tmp_path, tmp_path / group, "--symmetry", group) == 0
        likeness[group] = correlation(voxels(tmp_path / group / layout.map_name()), truth)[1:8].min()
    assert likeness["D2"] > 0.95 and likeness["D2"] > likeness["C1"] + 0.02


def test_a_mask_of_ones_changes_no_curve(data, finished, tmp_path):
    mask = write_volume(tmp_path / "mask.mrc", np.ones((32,) * 3))
    assert reconstruct(data, tmp_path / "out", "--mask", str(mask)) == 0
    fsc = read_fsc(tmp_path / "out" / layout.fsc_name())
    np.testing.assert_allclose(fsc.masked, fsc.unmasked, atol=1e-5)
    torch.testing.assert_close(voxels(tmp_path / "out" / layout.half_name(1)), voxels(finished / layout.half_name(1)))


@pytest.mark.relion
@pytest.mark.skipif(not shutil.which("relion_reconstruct"), reason="relion_reconstruct is not installed")
def test_relion_reconstructs_the_same_halves(data, finished):
    """From the same file, inside the circle that swiftres cuts from the images; RELION's map is of another scale."""
    window, truth = torch.from_numpy(sphere_mask(32, 8)), torch.from_numpy(Phantom().map().voxels)
    for h in (1, 2):
        subprocess.run(["relion_reconstruct", "--i", "particles.star", "--o", f"theirs{h}.mrc", "--ctf", "--subset", str(h)],
                       cwd=data, check=True, capture_output=True)
        theirs, ours = voxels(data / f"theirs{h}.mrc"), voxels(finished / layout.half_name(h))
        assert correlation(ours * window, theirs * window)[1:10].min() > 0.98
        assert correlation(ours, truth)[1:12].mean() > correlation(theirs, truth)[1:12].mean() - 0.01


# -------------------------------------------------------------------------------------------- wrong input

def said(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("swiftres: ")]
    assert len(lines) == 1 and "internal" not in lines[0]
    return lines[0]


def test_particles_without_poses(tmp_path, capsys):
    write_data_set(tmp_path, particle_set(6), with_poses=False)
    assert reconstruct(tmp_path, tmp_path / "out") == 2
    assert "needs poses" in said(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options, says", [
    (["--symmetry", "Q"], "symmetry"), (["--device", "tpu"], "device"), (["--mask", "none.mrc"], "none.mrc")])
def test_wrong_options(data, tmp_path, capsys, options, says):
    assert reconstruct(data, tmp_path / "out", *options) == 2
    assert says in said(capsys)
    assert not (tmp_path / "out").exists()


def test_a_missing_stack(tmp_path, capsys):
    write_data_set(tmp_path, particle_set(6))
    (tmp_path / "particles.mrcs").unlink()
    assert reconstruct(tmp_path, tmp_path / "out") == 2
    assert "particles.mrcs" in said(capsys)


def test_results_are_not_overwritten(data, finished, capsys):
    before = (finished / layout.map_name()).read_bytes()
    assert reconstruct(data, finished) == 2
    assert "already holds a map" in said(capsys)
    assert (finished / layout.map_name()).read_bytes() == before


def test_too_few_particles(tmp_path, capsys):
    write_data_set(tmp_path, particle_set(3, noise=0.3))
    assert reconstruct(tmp_path, tmp_path / "out") == 2
    assert "too few" in said(capsys)


def test_poses_are_read_in_the_frame_of_the_map(data, finished, tmp_path):
    """All particles turned by one rotation of the volume: the map turns with them."""
    turn = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    source = particle_set(COUNT, noise=0.1)
    source.particles.poses.image_to_volume[:] = turn @ source.particles.poses.image_to_volume
    write_data_set(tmp_path, source, half=HALF)
    assert reconstruct(tmp_path, tmp_path / "out") == 0
    turned = Phantom(places_a=Phantom().places_a @ turn.T).map().voxels
    found = voxels(tmp_path / "out" / layout.map_name())
    assert correlation(found, torch.from_numpy(turned))[1:9].min() > 0.97
