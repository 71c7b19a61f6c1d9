"""The true map in the frame of a refined one: without symmetry, a refinement may turn and move its map a little."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from swiftres_plugin.engine.cli.compare import match_images, poses_of
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths.fourier import resample_cube
from swiftres_plugin.engine.maths.symmetry import in_frame_of, symmetry_operators

FINER = 2  # cubic splines are exact to some per mille on samples twice as fine as the map's


def frame_of(found_star: Path, true_star: Path) -> tuple[np.ndarray, np.ndarray]:
    """The rotation (3, 3) and the move (3,) in A that carry the true map onto the refined one, from the particles' poses."""
    found, true = read_particles(found_star), read_particles(true_star)
    rows, true_rows = match_images(found, true, str(found_star), str(true_star))
    poses, truth = poses_of(found.take(rows), str(found_star)), poses_of(true.take(true_rows), str(true_star))
    _, rotation, move_a = in_frame_of(poses, truth, symmetry_operators("C1"))
    return rotation, move_a


def carried(density: Map, rotation: np.ndarray, move_a: np.ndarray) -> Map:
    """The map turned about its centre and then moved: density'(x) = density(rotation^T (x - move))."""
    fine = resample_cube(torch.from_numpy(density.voxels), FINER * density.box_px).numpy()
    centre = np.full(3, density.box_px // 2)
    backwards = rotation.T[::-1, ::-1]  # arrays are (z, y, x)
    move_px = move_a[::-1] / density.pixel_size_a
    offset = len(fine) // 2 - FINER * backwards @ (centre + move_px)
    voxels = ndimage.affine_transform(fine, FINER * backwards, offset, output_shape=density.voxels.shape, order=3)
    return replace(density, voxels=voxels.astype(np.float32))
