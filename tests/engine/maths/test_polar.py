"""Rings of Fourier space: round trips, rotation by harmonics beside rotation of the frequencies, adjoints."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra
from swiftres_plugin.engine.maths.planes import (
    complete_axis,
    empty_planes,
    insert_planes,
    planes_to_images,
    turned_waves,
)
from swiftres_plugin.engine.maths.polar import (
    angle_count,
    cell_area,
    harmonics,
    polar_band,
    real_rings_of,
    rings_of,
    turned,
)
from swiftres_plugin.engine.maths.resample import images_from, spectra_at

BOX = 48


def blobs() -> torch.Tensor:
    """(1, n, n): four spots without symmetry, mean 0."""
    axis = torch.arange(BOX) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    spots = [(1.0, 5, 3), (0.8, -8, 4), (-0.5, 3, -9), (1.0, -3, -5)]
    image = sum(w * torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 18.0) for w, a, b in spots)
    return (image - image.mean())[None].float()


def turning(psi_rad: float) -> torch.Tensor:
    c, s = math.cos(psi_rad), math.sin(psi_rad)
    return torch.tensor([[c, -s], [s, c]])


def inside(radius_px: float) -> torch.Tensor:
    axis = torch.arange(BOX) - BOX // 2
    return torch.hypot(*torch.meshgrid(axis.float(), axis.float(), indexing="ij")) < radius_px


def relative_error(found: torch.Tensor, image: torch.Tensor) -> float:
    """Inside the particle, but for the mean, which spectra leave out."""
    part = inside(20.0)
    difference = (found - image)[part]
    return float((difference - difference.mean()).norm() / image[part].norm())


def test_rings_are_dense_along_and_their_areas_fill_the_half_plane():
    band = polar_band(BOX, 4.0, 20)
    assert angle_count(20) >= 2 * math.pi * 20 and angle_count(20) % 4 == 0
    assert float(cell_area(band).sum()) == pytest.approx(math.pi * 20 ** 2 / 2, rel=0.06)
    assert len(band.up_to(7)) == 7 * angle_count(20) // 2


def test_power_on_rings_is_that_of_the_image():
    band, image = polar_band(BOX, 4.0, 20), blobs()
    plain = images_to_spectra(image, image_band(BOX, 4.0).up_to(20))
    on_rings = spectra_at(image, band.wave_px)
    assert float((on_rings.abs() ** 2 * cell_area(band)).sum()) == pytest.approx(float((plain.abs() ** 2).sum()), rel=0.03)


def test_an_image_comes_back_from_its_rings():
    """Rings to the last shell; what is missing in the corners and between rings is some per cent."""
    band, image = polar_band(BOX, 4.0, BOX // 2 - 1), blobs()
    back = images_from(spectra_at(image, band.wave_px) * cell_area(band), band.wave_px, BOX)
    assert relative_error(back[0], image[0]) < 0.03


def test_images_from_is_the_adjoint_of_spectra_at():
    generator = torch.Generator().manual_seed(1)
    wave = (torch.rand(200, 2, generator=generator) - 0.5) * 30
    values = torch.randn(2, 200, dtype=torch.complex64, generator=generator)
    image = torch.randn(2, BOX, BOX, generator=generator)
    there = (spectra_at(image, wave).conj() * values).real.sum()
    assert float((image * images_from(values, wave, BOX)).sum()) == pytest.approx(2 * float(there), rel=1e-4)


def test_harmonics_turn_an_image_as_its_frequencies_turn():
    band, image = polar_band(BOX, 4.0, 18), blobs()
    series = harmonics(spectra_at(image, band.wave_px), band)
    np.testing.assert_allclose(rings_of(series), spectra_at(image, band.wave_px), atol=1e-5)
    found = rings_of(turned(series, torch.tensor([0.7])))
    direct = spectra_at(image, band.wave_px @ turning(0.7).T)
    np.testing.assert_allclose(found, direct, atol=0.005 * float(direct.abs().max()))


def test_real_rings_come_back_from_their_harmonics():
    band = polar_band(BOX, 4.0, 9)
    values = torch.rand(3, len(band))
    np.testing.assert_allclose(real_rings_of(harmonics(values, band)), values, atol=1e-5)


def test_images_inserted_at_many_rotations_make_the_image():
    image, band = blobs(), image_band(BOX, 4.0)
    psi = torch.linspace(0, 6.1, 120)
    seen = torch.cat([spectra_at(image, band.wave_px.float() @ turning(float(one)).T) for one in psi])
    sums = empty_planes(2, band.last_shell)
    insert_planes(sums, torch.ones(len(psi), dtype=torch.int64), seen, torch.ones(seen.shape), psi, band.wave_px)
    assert not sums[0].any()
    sums = complete_axis(sums)[1:]
    quotient = torch.complex(sums[:, 0], sums[:, 1]) / (sums[:, 2] + 1e-3)
    assert relative_error(planes_to_images(quotient, BOX)[0], image[0]) < 0.05


def test_turned_waves_keep_to_the_half_plane():
    points, sign = turned_waves(torch.tensor([2.5]), image_band(BOX, 4.0).wave_px)
    assert float(points[..., 0].min()) >= 0 and set(sign.unique().tolist()) == {-1.0, 1.0}
