"""Slices: right against plain sums, adjoint to insertion, with the gradient they claim."""
from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from synthetic import Phantom, random_poses

from swiftres_plugin.engine.maths.fourier import image_band
from swiftres_plugin.engine.maths.geometry import rotation_vector_to_matrix
from swiftres_plugin.engine.maths.slices import (
    PADDING,
    complete_central_plane,
    empty_sums,
    extract_slices,
    fourier_volume,
    gridding_window,
    insert_slices,
    padded_limit,
    slices_and_gradients,
    sums_to_map,
)

BOXES = [24, 25]


def phantom_voxels(box: int) -> torch.Tensor:
    """The phantom, within the inner half of the box."""
    return torch.from_numpy(Phantom().map(box, 100 / box * 1.3).voxels)


def rotations(count: int, seed: int = 2) -> torch.Tensor:
    return torch.from_numpy(random_poses(count, seed).image_to_volume).float()


@pytest.mark.parametrize("box", BOXES)
def test_slices_agree_with_plain_sums_over_voxels(box):
    voxels, band = phantom_voxels(box), image_band(box, 1.0)
    turns = rotations(5)
    found = extract_slices(fourier_volume(voxels, band.last_shell), turns, band.wave_px).numpy()
    expected = np.stack([reference.central_slice(voxels.numpy(), r, band.wave_px.numpy()) for r in turns.double().numpy()])
    # the error of trilinear interpolation in a twofold padded transform; a voxel of displacement gives 40 %
    assert np.linalg.norm(found - expected) < 0.025 * np.linalg.norm(expected)


def test_slices_agree_with_finufft():
    finufft = pytest.importorskip("finufft")
    voxels, band = phantom_voxels(24), image_band(24, 1.0)
    turns = rotations(4)
    found = extract_slices(fourier_volume(voxels, band.last_shell), turns, band.wave_px).numpy()
    points = np.einsum("lj,bij->bli", band.wave_px.double().numpy(), turns.double().numpy()[:, :, :2]).reshape(-1, 3)
    z, y, x = np.ascontiguousarray(points.T[::-1]) * 2 * np.pi / 24
    # finufft's modes run from -n/2 to n/2 - 1, which is the engine's centre n // 2
    expected = finufft.nufft3d2(z, y, x, voxels.numpy().astype(complex), isign=-1, eps=1e-9).reshape(found.shape) / 24
    assert np.linalg.norm(found - expected) < 0.025 * np.linalg.norm(expected)


def test_the_layout_of_the_volume_in_memory_does_not_matter():
    band, turns = image_band(24, 1.0), rotations(3)
    volume = fourier_volume(phantom_voxels(24), band.last_shell)
    assert volume.stride() != volume.contiguous().stride()
    for one, other in zip(*(slices_and_gradients(v, turns, band.wave_px) for v in (volume, volume.contiguous()))):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("box", BOXES)
def test_the_identity_gives_the_projection_along_z(box):
    """On grid points the interpolation is exact up to its window: the slice is the transform of the sum over z."""
    voxels, band = phantom_voxels(box), image_band(box, 1.0)
    found = extract_slices(fourier_volume(voxels, band.last_shell), torch.eye(3)[None], band.wave_px)[0].numpy()
    window = gridding_window(box).numpy()
    expected = reference.image_transform((voxels.numpy() / window).sum(0), band.wave_px.numpy())
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("box", BOXES)
def test_half_a_turn_in_the_plane_conjugates(box):
    """R Rz(180) k = R (-k), and the volume is real."""
    voxels, band = phantom_voxels(box), image_band(box, 1.0)
    volume, turns = fourier_volume(voxels, band.last_shell), rotations(6)
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    torch.testing.assert_close(extract_slices(volume, turns @ half_turn, band.wave_px),
                               extract_slices(volume, turns, band.wave_px).conj(), atol=1e-3, rtol=1e-4)


def test_a_shorter_band_needs_a_smaller_volume():
    """Cutting the volume at a shell changes no slice up to this shell."""
    voxels, band, turns = phantom_voxels(24), image_band(24, 1.0), rotations(3)
    short = band.up_to(6)
    small = fourier_volume(voxels, 6)
    assert small.shape[-1] == padded_limit(6) + 1 < fourier_volume(voxels, band.last_shell).shape[-1]
    torch.testing.assert_close(extract_slices(small, turns, short.wave_px),
                               extract_slices(fourier_volume(voxels, band.last_shell), turns, short.wave_px))


@pytest.mark.parametrize("box", BOXES)
def test_insertion_is_the_adjoint_of_extraction(box):
    """<extract(volume), values> = <volume, insert(values)> as real inner products, for any volume and values."""
    band, turns = image_band(box, 1.0), rotations(4)
    sums = empty_sums(band.last_shell).double()
    generator = torch.Generator().manual_seed(1)
    volume = torch.randn(sums[:2].shape, generator=generator, dtype=torch.float64)
    values = torch.randn((4, len(band)), generator=generator, dtype=torch.complex128)
    slices = extract_slices(volume, turns.double(), band.wave_px)
    insert_slices(sums, values, torch.zeros(values.shape, dtype=torch.float64), turns.double(), band.wave_px)
    left = float((slices * values.conj()).real.sum())
    right = float((volume * sums[:2]).sum())
    assert left == pytest.approx(right, rel=1e-10)


def test_insertion_agrees_with_the_plain_version():
    """Both halves of every slice into a full grid, point by point, against the half grid with its plane completed."""
    band, turns = image_band(12, 1.0), rotations(2)
    generator = np.random.default_rng(4)
    values = generator.standard_normal((2, len(band))) + 1j * generator.standard_normal((2, len(band)))
    weights = generator.uniform(0.5, 2, (2, len(band)))
    sums = empty_sums(band.last_shell).double()
    insert_slices(sums, torch.from_numpy(values), torch.from_numpy(weights), turns.double(), band.wave_px)
    found = complete_central_plane(sums).numpy()
    limit = sums.shape[-1] - 1
    expected = np.zeros((2 * limit + 1,) * 3, complex)
    heavy = np.zeros((2 * limit + 1,) * 3)
    for turn, value, weight in zip(turns.double().numpy(), values, weights):
        points = PADDING * band.wave_px.numpy() @ turn[:, :2].T
        for sign, data in ((1, value), (-1, value.conj())):
            reference.insert(expected, data, sign * points + limit)
            reference.insert(heavy, weight, sign * points + limit)
    np.testing.assert_allclose(found[0] + 1j * found[1], expected[:, :, limit:], atol=1e-9)
    np.testing.assert_allclose(found[2], heavy[:, :, limit:], atol=1e-9)


@pytest.mark.parametrize("box", BOXES)
def test_slices_and_gradients_give_the_same_slices(box):
    voxels, band, turns = phantom_voxels(box), image_band(box, 1.0), rotations(3)
    volume = fourier_volume(voxels, band.last_shell)
    torch.testing.assert_close(slices_and_gradients(volume, turns, band.wave_px)[0],
                               extract_slices(volume, turns, band.wave_px))


def test_gradient_is_the_derivative_of_the_slices():
    """Along the image axes: move the sample by a small step in the plane, or out of it by turning."""
    band = image_band(24, 1.0)
    volume, turns = fourier_volume(phantom_voxels(24).double(), band.last_shell), rotations(4).double()
    wave = band.wave_px.double() + 0.113  # off the grid, where the interpolation has a kink
    _, gradient = slices_and_gradients(volume, turns, wave)
    step = 1e-5
    for axis in (0, 1):
        move = torch.zeros(2, dtype=torch.float64)
        move[axis] = step
        numeric = (extract_slices(volume, turns, wave + move) - extract_slices(volume, turns, wave - move)) / (2 * step)
        assert agrees(gradient[..., axis], numeric)
    turn = torch.zeros(1, 3, dtype=torch.float64)
    turn[0, 0] = step  # about x: a sample at (kx, ky) rises by ky * step
    up, down = (extract_slices(volume, turns @ rotation_vector_to_matrix(s * turn), wave) for s in (1, -1))
    assert agrees(gradient[..., 2] * wave[:, 1], (up - down) / (2 * step))


def agrees(found: torch.Tensor, numeric: torch.Tensor) -> bool:
    """All but the few samples whose step crosses a face of the interpolation's cells."""
    wrong = (found - numeric).abs() > 1e-4 * numeric.abs().max()
    return float(wrong.double().mean()) < 0.002


def map_of(spectrum: torch.Tensor, box: int) -> torch.Tensor:
    return sums_to_map(lambda slab: spectrum[:, slab], spectrum.shape[-1] - 1, box)


@pytest.mark.parametrize("box", BOXES)
def test_a_map_returns_from_its_fourier_volume(box):
    """What stands in the inner sphere of Fourier space: all of a smooth phantom."""
    voxels = phantom_voxels(box)
    volume = fourier_volume(voxels, box // 2 - 1)
    # fourier_volume divides by the window before, sums_to_map after the transform: undo one of them
    found = map_of(torch.complex(volume[0], volume[1]), box) * gridding_window(box) ** 2
    torch.testing.assert_close(found, voxels, atol=2e-3, rtol=0)


def test_sums_of_another_size_give_the_same_map():
    """Zeros beyond what was inserted, or shells past the box, change nothing."""
    volume = fourier_volume(phantom_voxels(24), 8)
    small = torch.complex(volume[0], volume[1])
    limit, pad = small.shape[-1] - 1, 3
    large = torch.zeros((2 * (limit + pad) + 1,) * 2 + (limit + pad + 1,), dtype=small.dtype)
    large[pad:-pad, pad:-pad, :limit + 1] = small
    torch.testing.assert_close(map_of(large, 24), map_of(small, 24))
