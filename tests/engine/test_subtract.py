"""What is left of particles when a part of their map, or all of it, is taken away."""
from __future__ import annotations

from dataclasses import replace

import mrcfile
import numpy as np
from synthetic import BOX_PX, PIXEL_A, PLACES_A, WEIGHTS, Phantom, images_of, particle_set, write_data_set, write_volume

from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.io.star import read_particles

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
    z, y, x = (np.indices((BOX_PX,) * 3) - BOX_PX // 2) * PIXEL_A
    distance = np.sqrt((x - PLACES_A[0, 0]) ** 2 + (y - PLACES_A[0, 1]) ** 2 + (z - PLACES_A[0, 2]) ** 2)
    mask = write_volume(tmp_path / "mask.mrc", np.clip((24 - distance) / 8, 0, 1))
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
