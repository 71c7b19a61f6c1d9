"""Transforms of a padded cube axis by axis, against whole ones."""
from __future__ import annotations

import pytest
import torch

from swiftres_plugin.engine.maths import padded
from swiftres_plugin.engine.maths.fourier import crop_or_pad
from swiftres_plugin.engine.maths.padded import cropped_cube, padded_spectrum

CASES = [(12, 24, 11), (12, 24, 5), (13, 26, 12), (13, 26, 9), (9, 20, 4)]


@pytest.fixture(params=[1 << 25, 1], ids=["in one piece", "plane by plane"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(padded, "SLAB_BYTES", request.param)


def cube_of(size: int) -> torch.Tensor:
    return torch.randn((size,) * 3, dtype=torch.float64, generator=torch.Generator().manual_seed(size))


def whole_spectrum(cube: torch.Tensor, size: int) -> torch.Tensor:
    """Centred in z and y, from zero on in x."""
    spectrum = torch.fft.rfftn(torch.fft.ifftshift(crop_or_pad(cube, size)))
    return torch.fft.fftshift(spectrum, dim=(0, 1))


@pytest.mark.parametrize("box, size, limit", CASES)
def test_the_spectrum_is_the_middle_of_that_of_the_padded_cube(pieces, box, size, limit):
    cube, middle = cube_of(box), size // 2
    expected = whole_spectrum(cube, size)[middle - limit:middle + limit + 1, middle - limit:middle + limit + 1, :limit + 1]
    torch.testing.assert_close(padded_spectrum(cube, size, limit), expected)


def test_beyond_its_own_end_the_spectrum_is_zero(pieces):
    found, inner = padded_spectrum(cube_of(8), 16, 10), padded_spectrum(cube_of(8), 16, 7)
    torch.testing.assert_close(found[3:-3, 3:-3, :8], inner)
    assert torch.count_nonzero(found) == torch.count_nonzero(inner)


@pytest.mark.parametrize("box, size, limit", CASES)
def test_the_cube_is_the_middle_of_what_the_spectrum_stands_for(pieces, box, size, limit):
    spectrum, middle = padded_spectrum(cube_of(box), size, limit), size // 2
    whole = torch.zeros((size, size, middle + 1), dtype=spectrum.dtype)
    whole[middle - limit:middle + limit + 1, middle - limit:middle + limit + 1, :limit + 1] = spectrum
    expected = torch.fft.fftshift(torch.fft.irfftn(torch.fft.ifftshift(whole, dim=(0, 1)), s=(size,) * 3))
    found = cropped_cube(lambda slab: spectrum[:, slab], limit, size, box)
    torch.testing.assert_close(found, crop_or_pad(expected, box))


def test_what_lies_beyond_the_end_of_the_cube_is_left_out(pieces):
    spectrum = padded_spectrum(cube_of(8), 16, 7)
    longer = torch.nn.functional.pad(spectrum, (0, 2, 2, 2, 2, 2), value=5.0)
    torch.testing.assert_close(cropped_cube(lambda slab: longer[:, slab], 9, 16, 8),
                               cropped_cube(lambda slab: spectrum[:, slab], 7, 16, 8))
