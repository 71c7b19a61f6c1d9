"""What is left of particles when a part of their map, or all of it, is taken away."""
from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
from synthetic import (
    BOX_PX,
    PIXEL_A,
    PLACES_A,
    WEIGHTS,
    Phantom,
    described,
    images_of,
    particle_set,
    random_poses,
    write_data_set,
    write_volume,
)

from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.recentre import about, centre_of_mass, cut_map
from swiftres_plugin.engine.simulate import Projector
from swiftres_plugin.engine.subtract import normalised

COUNT, NOISE = 60, 0.5
WHOLE = Phantom()
FIRST = replace(WHOLE, places_a=PLACES_A[:1], weights=WEIGHTS[:1])


def subtracted(folder, *options: str) -> tuple:
    source = particle_set(COUNT, NOISE, WHOLE, shift_a=3.0)
    star = write_data_set(folder, source)
    density = write_volume(folder / "map.mrc", 3.0 * WHOLE.map().voxels)  # the grey scale of the map is free
    run = ["subtract", "--particles", str(star), "--map", str(density), "--output", str(folder / "left.star")]
    assert main([*run, *options]) == 0
    return source, read_particles(folder / "left.star"), mrcfile.read(folder / "left.mrcs")


def test_noise_of_the_right_power_is_left_where_all_is_taken(tmp_path):
    source, found, images = subtracted(tmp_path)
    noise = source.images - images_of(WHOLE, source.particles)
    assert source.images.var() > 1.3 * noise.var()
    expected = (noise / NOISE)
    # images are normalised by some 250 background pixels each: 5 % of deviation, hence the correlation and not equality
    assert np.corrcoef(images.ravel(), expected.ravel())[0, 1] > 0.99
    assert abs(images[:, 8:-8, 8:-8].var() - 1) < 0.05
    before = read_particles(tmp_path / "particles.star")
    np.testing.assert_allclose(found.poses.image_to_volume, before.poses.image_to_volume, atol=1e-5)
    np.testing.assert_array_equal(found.slice_index, np.arange(COUNT))
    assert main(["subtract", "--particles", str(tmp_path / "particles.star"), "--map", str(tmp_path / "map.mrc"), "--output",
                 str(tmp_path / "left.star")]) == 2  # nothing is overwritten


def test_what_the_mask_holds_is_kept(tmp_path):
    mask = lobe_mask(tmp_path)
    source, _, images = subtracted(tmp_path, "--mask", str(mask))
    noise = source.images - images_of(WHOLE, source.particles)
    expected = images_of(FIRST, source.particles)
    rest = images - noise / NOISE
    assert np.corrcoef(rest.ravel(), expected.ravel())[0, 1] > 0.8
    # what all of the others would add is gone
    others = images_of(WHOLE, source.particles) - expected
    assert abs(np.corrcoef(rest.ravel(), others.ravel())[0, 1]) < 0.35


def test_maps_that_do_not_fit_are_refused(tmp_path):
    star = write_data_set(tmp_path, particle_set(8, NOISE))
    density = write_volume(tmp_path / "map.mrc", WHOLE.map(24, PIXEL_A).voxels)
    run = ["subtract", "--particles", str(star), "--output", str(tmp_path / "left.star"), "--map", str(density)]
    assert main(run) == 2
    fitting = write_volume(tmp_path / "fitting.mrc", WHOLE.map().voxels)
    assert main([*run[:-1], str(fitting), "--map", str(fitting)]) == 2  # half maps, but no half sets
    assert not (tmp_path / "left.mrcs").exists()


def lobe_mask(folder, radius_a=24.0):
    """A soft ball about the first blob."""
    z, y, x = (np.indices((BOX_PX,) * 3) - BOX_PX // 2) * PIXEL_A
    distance = np.sqrt(sum((axis - place) ** 2 for axis, place in zip((x, y, z), PLACES_A[0])))
    return write_volume(folder / "mask.mrc", np.clip((radius_a - distance) / 8, 0, 1))


@pytest.mark.parametrize("magnification", [(1.0, 0.0, 0.0, 1.0), (1.04, 0.03, -0.02, 0.97)])
def test_a_window_of_a_projection_is_the_projection_of_the_window(magnification):
    """Images of one blob away from the middle, cut about it, against projections of its map cut about it.

    No CTF: what it spreads leaves the window. What is left is rounding of the projector, and a blob's tail.
    """
    particles = described(random_poses(20, shift_a=6.0))
    particles = replace(particles, optics=tuple(replace(one, magnification=magnification) for one in particles.optics))
    density, centre_px = FIRST.map(), np.rint(PLACES_A[0] / PIXEL_A).astype(int)
    window, poses = about(particles, centre_px * PIXEL_A, 20)
    cut = window.cut(Projector(density).project(particles, with_ctf=False), np.arange(20))
    small = replace(particles, poses=poses, optics=tuple(replace(one, box_px=20) for one in particles.optics))
    expected = Projector(cut_map(density, centre_px, 20)).project(small, with_ctf=False)
    assert np.abs(poses.shift_a).max() <= PIXEL_A / 2 + 1e-9
    np.testing.assert_allclose(cut, expected, atol=0.01 * expected.max())


@pytest.mark.parametrize("box_px, cut_px", [(12, 8), (13, 8), (12, 7), (13, 7)])
def test_the_point_asked_for_comes_to_the_middle(box_px, cut_px):
    """Odd and even boxes; also where the window reaches over the border of the map."""
    voxels = np.zeros((box_px,) * 3, np.float32)
    voxels[9, 2, 5] = 1.0
    centre_px = centre_of_mass(voxels)
    np.testing.assert_array_equal(centre_px, np.array([5, 2, 9]) - box_px // 2)
    cut = cut_map(Map(voxels, 1.0), centre_px, cut_px).voxels
    assert cut.shape == (cut_px,) * 3 and cut[(cut_px // 2,) * 3] == 1.0 and cut.sum() == 1.0


def test_what_is_kept_ends_in_the_middle_of_the_small_box(tmp_path):
    """Subtracted, recentred and cut; the reconstruction of what is left shows the blob in its middle."""
    mask = lobe_mask(tmp_path)
    subtracted(tmp_path, "--mask", str(mask), "--recentre", "--new-box", "16")
    figures = json.loads((tmp_path / "left.json").read_text())
    assert figures["centre_px"] == np.rint(PLACES_A[0] / PIXEL_A).tolist() and figures["box_px"] == 16
    assert not any("holds only" in text for text in figures["warnings"])
    assert 0.1 < figures["variance_taken"] < 0.9
    kept, small_mask = (mrcfile.read(tmp_path / f"left_{name}.mrc") for name in ("map", "mask"))
    assert kept.shape == small_mask.shape == (16,) * 3
    assert main(["reconstruct", "--particles", str(tmp_path / "left.star"), "--mask", str(tmp_path / "left_mask.mrc"),
                 "--threads", "1", "--output", str(tmp_path / "rec")]) == 0
    found = mrcfile.read(tmp_path / "rec" / "class1_map.mrc") * small_mask
    # 60 noisy images: the blob is like itself, and where it is but for the part of a voxel that cannot be moved
    place = [(axis * found).sum() / found.sum() - 8 for axis in np.indices(found.shape)][::-1]
    np.testing.assert_allclose(place, PLACES_A[0] / PIXEL_A - figures["centre_px"], atol=0.35)
    assert np.corrcoef(found.ravel(), kept.ravel())[0, 1] > 0.95


def test_boxes_and_centres_that_cannot_be_are_refused(tmp_path, capsys):
    star = write_data_set(tmp_path, particle_set(8, NOISE))
    density = write_volume(tmp_path / "map.mrc", WHOLE.map().voxels)
    run = ["subtract", "--particles", str(star), "--output", str(tmp_path / "left.star"), "--map", str(density)]
    for options, told in ((["--recentre"], "without --mask"), (["--new-box", str(2 * BOX_PX)], "at most"),
                          (["--new-box", "4"], "too small")):
        assert main([*run, *options]) == 2 and told in capsys.readouterr().err
    assert not list(tmp_path.glob("left*"))
    assert main([*run, "--mask", str(lobe_mask(tmp_path)), "--new-box", "16"]) == 0  # not recentred: the blob is outside
    assert "holds only" in json.loads((tmp_path / "left.json").read_text())["warnings"][0]


def test_noise_of_the_maps_is_not_put_into_the_images(tmp_path):
    """Half maps of 60 noisy particles each: what is taken, with and without the noise outside the particle, against the truth.

    The phantom takes up much of its box; in larger boxes there is more to be gained (docs/method.md).
    """
    source = particle_set(120, 2.0, WHOLE, shift_a=3.0)
    half = np.arange(120) % 2
    star = write_data_set(tmp_path, source, half=half)
    assert main(["reconstruct", "--particles", str(star), "--threads", "1", "--output", str(tmp_path / "rec")]) == 0
    maps = [part for h in (1, 2) for part in ("--map", str(tmp_path / "rec" / f"class1_half{h}.mrc"))]
    images, truth = normalised(source.images, invert=False), images_of(WHOLE, source.particles)
    truth = truth * (images.std(axis=(1, 2)) / source.images.std(axis=(1, 2)))[:, None, None]
    errors = []
    for name, options in (("clean", []), ("noisy", ["--no-solvent-mask"])):
        left = tmp_path / f"{name}.star"
        assert main(["subtract", "--particles", str(star), *maps, *options, "--output", str(left)]) == 0
        errors.append((images - mrcfile.read(left.with_suffix(".mrcs")) - truth).var() / truth.var())
    assert errors[0] < 0.3 and errors[0] < 0.75 * errors[1]


def relion(folder, program, *options):
    """Run a program of RELION; the test is skipped where it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: nothing to compare with")
    done = subprocess.run([program, *options], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_relion_subtracts_the_same(tmp_path):
    """relion_project --subtract_exp of the map outside the mask: what it takes from every image is what we take."""
    mask = mrcfile.read(lobe_mask(tmp_path))
    source, _, images = subtracted(tmp_path, "--mask", str(tmp_path / "mask.mrc"), "--no-solvent-mask")
    write_volume(tmp_path / "outside.mrc", WHOLE.map().voxels * (1 - mask))
    relion(tmp_path, "relion_project", "--i", "outside.mrc", "--ang", "particles.star", "--ctf", "--subtract_exp",
           "--o", "relion")
    ours = normalised(source.images, invert=False) - images
    theirs = source.images - mrcfile.read(tmp_path / "relion.mrcs")
    ours, theirs = (values - values.mean(axis=(1, 2), keepdims=True) for values in (ours, theirs))
    likeness = (ours * theirs).sum(axis=(1, 2)) / np.sqrt((ours ** 2).sum(axis=(1, 2)) * (theirs ** 2).sum(axis=(1, 2)))
    assert likeness.min() > 0.98  # RELION interpolates slices otherwise, and wraps where we pad


def test_relion_reconstructs_what_is_left_in_the_middle(tmp_path):
    """The signs of the recentred poses, asked of a second program."""
    lobe_mask(tmp_path)
    subtracted(tmp_path, "--mask", str(tmp_path / "mask.mrc"), "--recentre", "--new-box", "16")
    relion(tmp_path, "relion_reconstruct", "--i", "left.star", "--ctf", "--o", "relion.mrc")
    found = np.clip(mrcfile.read(tmp_path / "relion.mrc"), 0, None) * mrcfile.read(tmp_path / "left_mask.mrc")
    place = [(axis * found).sum() / found.sum() - 8 for axis in np.indices(found.shape)][::-1]
    np.testing.assert_allclose(place, PLACES_A[0] / PIXEL_A - np.rint(PLACES_A[0] / PIXEL_A), atol=0.35)
