"""Every point group through the engine: mates are the same view, and a reconstruction in the group is one of all mates."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import PLACES_A, Phantom, described, engine_over, images_of, plain_spectra, random_poses

from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.expand import expanded
from swiftres_plugin.engine.insertion import reconstruct_half
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.refine import input_poses

GROUPS = [*(f"C{n}" for n in range(1, 9)), *(f"D{n}" for n in range(2, 9)), "T", "O", "I1", "I2", "I3", "I4"]
LAST_SHELL = 10


@pytest.mark.parametrize("name", GROUPS)
def test_every_mate_is_the_same_view(name):
    """Slices of a symmetric phantom's map at S R are its analytic projection at R, transformed; a mirrored map's are not."""
    group = symmetry_operators(name)
    phantom = Phantom(places_a=PLACES_A[:2] * 0.9, weights=np.array([1.0, 0.7])).symmetric(group)
    poses = random_poses(4, shift_a=0.0)
    band = image_band(32, 4.0).up_to(LAST_SHELL)
    expected = images_to_spectra(torch.from_numpy(phantom.projections(poses).astype(np.float32)), band)
    mates = torch.from_numpy(group[:, None] @ poses.image_to_volume[None]).float()
    density = torch.from_numpy(phantom.map().voxels)
    mirrored = density.flip(2).roll(1, 2)  # x to -x about pixel n // 2
    errors = []
    for voxels in (density, mirrored):
        volume = fourier_volume(voxels, LAST_SHELL)
        errors.append(max(float((extract_slices(volume, mate, band.wave_px) - expected).abs().pow(2).sum())
                          for mate in mates))
    power = float(expected.abs().pow(2).sum())
    assert errors[0] < 0.01 * power  # what the interpolation leaves
    if name in ("C1", "C2", "C3", "D2", "D3"):  # of higher groups two Gaussians a unit are nearly their mirror image
        assert errors[1] > 0.05 * power


@pytest.mark.parametrize("name", GROUPS)
def test_a_reconstruction_in_the_group_is_that_of_all_mates(name):
    group = symmetry_operators(name)
    particles = described(random_poses(3))
    source = ArraySource(particles, images_of(Phantom(), particles, 0.3))
    every = expanded(replace(particles, half=np.zeros(3, np.int64)), group, seed=1)
    noise = np.ones((1, 17), np.float32)
    settings = {"pose_samples": 1}
    inside = replace(engine_over(plain_spectra(source), **settings), operators=group)
    images = source.images[every.slice_index]
    outside = engine_over(plain_spectra(ArraySource(every, images)), **settings)
    one, other = (reconstruct_half(e, noise, np.arange(len(p)), input_poses(p), "", LAST_SHELL)
                  for e, p in ((inside, particles), (outside, every)))
    scale = float(one.numerator.abs().max())
    assert float((one.numerator - other.numerator).abs().max()) < 2e-3 * scale  # half-precision images, single sums
    assert float((one.weight - other.weight).abs().max()) < 2e-3 * float(one.weight.max())
