"""The true map is carried into the frame of a refined one: turned about the centre voxel, then moved."""
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from swiftres_plugin.demo.frame import carried
from swiftres_plugin.engine.data.maps import Map

PIXEL_A, SIGMA_A = 3.0, 7.0
CENTRES_A = np.array([[0, 0, 0], [20, 0, 0], [8, -16, 0], [-6, 4, 18.0]])
HEIGHTS = np.array([1.0, 1.5, 0.7, 1.2])


def blobs(centres_a, box):
    """(n, n, n) sum of Gaussians at `centres_a` (x, y, z) from voxel n // 2."""
    axis_a = (np.arange(box) - box // 2) * PIXEL_A
    lines = np.exp(-0.5 * ((axis_a - centres_a[:, :, None]) / SIGMA_A) ** 2)
    return np.einsum("b,bz,by,bx->zyx", HEIGHTS, lines[:, 2], lines[:, 1], lines[:, 0]).astype(np.float32)


@pytest.mark.parametrize("box", [32, 33])
def test_carried_map_is_the_map_of_the_carried_blobs(box):
    rotation, move_a = Rotation.from_rotvec([0.3, -0.5, 0.8]).as_matrix(), np.array([2.0, -4.0, 1.0])
    moved = carried(Map(blobs(CENTRES_A, box), PIXEL_A), rotation, move_a).voxels
    expected = blobs(CENTRES_A @ rotation.T + move_a, box)
    # interpolation is good to some per mille of the highest value; a wrong sign or half a voxel is off by tenths
    np.testing.assert_allclose(moved, expected, atol=0.01 * expected.max())
