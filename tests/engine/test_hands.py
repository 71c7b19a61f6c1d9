"""Opposite hands: what an inversion is to maps, sums and poses, and when halves are told to have them."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import Phantom, random_poses

from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.hands import are_opposite, inverted, inverted_rotations, inverted_sums
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra
from swiftres_plugin.engine.maths.slices import empty_sums, insert_slices
from swiftres_plugin.engine.stages.reconstruct import finished, solve

PHANTOM = Phantom()
OTHER = replace(PHANTOM, places_a=-PHANTOM.places_a)


def cube(phantom: Phantom, box_px: int = 32) -> torch.Tensor:
    return torch.from_numpy(phantom.map(box_px).voxels)


@pytest.mark.parametrize("box_px", [32, 33])
def test_an_inverted_map_is_that_of_the_inverted_particle(box_px):
    assert torch.allclose(inverted(cube(PHANTOM, box_px)), cube(OTHER, box_px), atol=1e-6)


def test_projections_stay_at_the_turned_poses():
    poses = random_poses(8)
    turned = replace(poses, image_to_volume=inverted_rotations(poses.image_to_volume))
    assert np.linalg.det(turned.image_to_volume) == pytest.approx(1)
    assert OTHER.projections(turned) == pytest.approx(PHANTOM.projections(poses), abs=1e-9)


def reconstructed(rotations: np.ndarray, images: np.ndarray) -> Accumulator:
    band = image_band(32, 4.0)
    spectra = images_to_spectra(torch.from_numpy(images).float(), band)
    sums = empty_sums(band.last_shell)
    insert_slices(sums, spectra, torch.ones(spectra.shape), torch.from_numpy(rotations).float(), band.wave_px)
    return finished(sums, float(len(images)))


def test_inverted_sums_are_those_at_the_turned_poses():
    poses = random_poses(300, shift_a=0.0)
    images = PHANTOM.projections(poses)
    there = solve(inverted_sums(reconstructed(poses.image_to_volume, images)), 32)
    again = solve(reconstructed(inverted_rotations(poses.image_to_volume), images), 32)
    assert torch.allclose(there, again, atol=1e-3 * float(again.abs().max()))


def test_hands_are_told_through_noise():
    random = torch.Generator().manual_seed(3)
    noisy = [cube(one) + 0.05 * torch.randn((32,) * 3, generator=random) for one in (PHANTOM, PHANTOM, OTHER)]
    assert not are_opposite(noisy[0], noisy[1])
    assert are_opposite(noisy[0], noisy[2])


def test_halves_that_share_nothing_are_left_alone():
    """Noise agrees as little in either hand: none of twenty draws reaches three shells more."""
    random = torch.Generator().manual_seed(4)
    ball = cube(Phantom(places_a=np.zeros((1, 3)), weights=np.array([4.0]), width_a=20.0))
    for _ in range(20):
        first, second = (ball + 0.05 * torch.randn((32,) * 3, generator=random) for _ in range(2))
        assert not are_opposite(first, second)
