"""A ball drawn as a surface is a lit disc in the right place."""
import numpy as np
import pytest

from swiftres_plugin.demo.surface import FINER, bounding_box, draw_surface, level_of_volume

BOX, RADIUS = 40, 8.0
RED = (0.8, 0.2, 0.2)


def ball(x=0.0, y=0.0, z=0.0):
    """(n, n, n) map that is positive within `RADIUS` voxels of (x, y, z) from voxel n // 2."""
    axis = np.arange(BOX) - BOX // 2
    at_z, at_y, at_x = np.meshgrid(axis - z, axis - y, axis - x, indexing="ij")
    return (RADIUS - np.sqrt(at_x ** 2 + at_y ** 2 + at_z ** 2)).astype(np.float32)


def covered(picture):
    return picture[..., 3] > 0.5


def test_the_disc_has_the_size_of_the_ball():
    picture = draw_surface(ball(), 0.0, RED)
    assert picture.shape == (FINER * BOX, FINER * BOX, 4) and 0 <= picture.min() and picture.max() <= 1
    # a pixel more or less on the rim of a disc of 24 pixels' radius is some five per cent
    assert covered(picture).sum() == pytest.approx(np.pi * (FINER * RADIUS) ** 2, rel=0.08)


def test_x_points_right_and_y_up():
    rows, columns = np.nonzero(covered(draw_surface(ball(x=6, y=-4), 0.0, RED)))
    centre = (FINER * BOX - 1) / 2
    assert np.mean(columns) - centre == pytest.approx(FINER * 6.5, abs=2)  # voxel n // 2 is half a voxel off the middle
    assert np.mean(rows) - centre == pytest.approx(FINER * -3.5, abs=2)


def test_light_comes_from_the_upper_left():
    picture = draw_surface(ball(), 0.0, RED)
    middle, off = FINER * BOX // 2, int(0.6 * FINER * RADIUS)
    upper_left, lower_right = picture[middle + off, middle - off, :3], picture[middle - off, middle + off, :3]
    assert upper_left.sum() > 1.3 * lower_right.sum()


def test_the_one_who_looks_stands_at_plus_z():
    """A ball in front hides the edge of one behind it: seen from +z the picture is that of the front ball there."""
    front, back = ball(x=3, z=9), ball(x=-3, z=-9)
    both, alone = (draw_surface(voxels, 0.0, RED) for voxels in (np.maximum(front, back), front))
    inside = draw_surface(ball(x=3, z=9) - 2, 0.0, RED)[..., 3] > 0.5
    # darkening of hollows looks at the surroundings, so the shades are near and not equal
    assert np.abs(both - alone)[inside].max() < 0.2
    mirrored = draw_surface(np.maximum(front, back)[::-1], 0.0, RED)
    assert np.abs(mirrored - alone)[inside].max() > 0.3


def test_level_encloses_the_count():
    voxels = np.random.default_rng(1).normal(size=(10, 10, 10))
    inside = np.zeros(voxels.shape, bool)
    inside[2:8] = True
    level = level_of_volume(voxels, inside, 37)
    assert ((voxels >= level) & inside).sum() == 37


def test_bounding_box_has_a_margin_within_the_box():
    inside = np.zeros((12, 12, 12), bool)
    inside[5, 1, 6:12] = True
    assert bounding_box(inside) == (slice(3, 8), slice(0, 4), slice(4, 14))
