"""Fourier transforms: the centre, the order and the scale that docs/conventions.md promises."""
from __future__ import annotations

import numpy as np
import pytest
import reference
import torch

from swiftres_plugin.engine.maths.fourier import (
    crop_or_pad,
    filter_shells,
    image_band,
    images_to_spectra,
    low_pass_gain,
    phase_ramp,
    resample_cube,
    shell_sums,
    shells_3d,
    spectra_to_images,
)

BOXES = [16, 17]


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize("box", BOXES)
def test_a_point_at_the_centre_has_no_phase(box):
    image = torch.zeros(1, box, box)
    image[0, box // 2, box // 2] = 1
    spectrum = images_to_spectra(image, image_band(box, 1.0))
    torch.testing.assert_close(spectrum, torch.full_like(spectrum, 1 / box))


@pytest.mark.parametrize("box", BOXES)
def test_spectra_are_the_sums_of_the_definition(box):
    image = noise(1, box, box)
    band = image_band(box, 2.0)
    expected = reference.image_transform(image[0].numpy(), band.wave_px.numpy())
    np.testing.assert_allclose(images_to_spectra(image, band)[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("box", BOXES)
def test_images_return_from_their_spectra(box):
    """All but the mean and what lies at or past Nyquist, which a band does not hold."""
    band = image_band(box, 1.0)
    first = spectra_to_images(images_to_spectra(noise(3, box, box), band), band)
    again = spectra_to_images(images_to_spectra(first, band), band)
    torch.testing.assert_close(again, first, atol=1e-5, rtol=0)
    assert float(first.mean(dim=(1, 2)).abs().max()) < 1e-5


@pytest.mark.parametrize("box", BOXES)
def test_band_holds_every_coefficient_once(box):
    """One of each pair k, -k of all that lies below Nyquist, without the mean."""
    band = image_band(box, 1.0)
    waves = {tuple(w) for w in band.wave_px.tolist()}
    assert len(waves) == len(band)
    highest = (box - 1) // 2
    full = [(x, y) for x in range(-highest, highest + 1) for y in range(-highest, highest + 1)
            if round(np.hypot(x, y)) <= highest and (x, y) != (0, 0)]
    assert len(full) == 2 * len(band)
    assert all(((x, y) in waves) != ((-x, -y) in waves) for x, y in full)
    assert all(x > 0 or (x == 0 and y > 0) for x, y in waves)


@pytest.mark.parametrize("box", BOXES)
def test_a_lower_limit_is_a_prefix(box):
    band = image_band(box, 1.5)
    spectrum = images_to_spectra(noise(2, box, box), band)
    assert torch.equal(band.shell, band.shell.sort().values)
    for shell in range(1, band.last_shell + 1):
        short = band.up_to(shell)
        assert torch.equal(short.wave_px, band.wave_px[:len(short)])
        assert short.last_shell == shell
        assert int((band.shell <= shell).sum()) == len(short)
        assert torch.equal(images_to_spectra(noise(2, box, box), short), spectrum[:, :len(short)])


def test_shell_of_a_resolution():
    band = image_band(64, 2.0)
    assert band.shell_of(16.0) == 8
    assert band.shell_of(15.9) == 8
    assert band.shell_of(1.0) == 31
    assert band.shell_of(1e6) == 1


@pytest.mark.parametrize("box", BOXES)
def test_white_noise_has_power_one_everywhere(box):
    band = image_band(box, 1.0)
    power = images_to_spectra(noise(4000, box, box), band).abs().square().mean(0)
    # the power of a coefficient is exponential, so its mean over 4000 deviates by 1.6 %; five of these
    assert float((power - 1).abs().max()) < 0.08


@pytest.mark.parametrize("box", BOXES)
def test_phase_ramp_moves_an_image_against_the_shift(box):
    """`shift_a` is the move that centres: multiplying a centred image by the ramp puts the particle at -shift."""
    y, x = np.indices((box, box)) - box // 2
    band = image_band(box, 1.0)

    def blob(at_x: float, at_y: float) -> torch.Tensor:
        return torch.from_numpy(np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / 4.5).astype(np.float32))[None]

    ramp = phase_ramp(band.wave_px.float() / box, torch.tensor([[1.5, -0.75]]))
    moved = images_to_spectra(blob(0, 0), band) * ramp
    torch.testing.assert_close(moved, images_to_spectra(blob(-1.5, 0.75), band), atol=2e-3, rtol=0)
    torch.testing.assert_close(ramp * phase_ramp(band.wave_px.float() / box, torch.tensor([[-1.5, 0.75]])),
                               torch.ones_like(ramp), atol=1e-5, rtol=0)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("target", [12, 13, 24, 25])
def test_resampling_keeps_place_and_scale(box, target):
    """A wide Gaussian off the centre: the same field on another grid."""
    def field(n: int) -> np.ndarray:
        z, y, x = (np.indices((n,) * 3) - n // 2) / n
        return np.exp(-((x - 0.06) ** 2 + (y + 0.03) ** 2 + z ** 2) / (2 * 0.11 ** 2)).astype(np.float32)
    np.testing.assert_allclose(resample_cube(torch.from_numpy(field(box)), target).numpy(), field(target), atol=0.01)


@pytest.mark.parametrize("size", [(16, 9), (16, 20), (17, 8), (17, 23)])
def test_cropping_keeps_the_centre(size):
    old, new = size
    cube = torch.zeros((old,) * 3)
    cube[old // 2, old // 2 + 1, old // 2 - 2] = 5
    found = crop_or_pad(cube, new)
    assert found.shape == (new,) * 3
    assert float(found[new // 2, new // 2 + 1, new // 2 - 2]) == 5


@pytest.mark.parametrize("box", BOXES)
def test_shells_follow_the_rounded_radius(box):
    shells = shells_3d(box)
    axis = np.fft.fftfreq(box, 1 / box)
    z, y, x = np.meshgrid(axis, axis, np.arange(box // 2 + 1), indexing="ij")
    np.testing.assert_array_equal(shells.numpy(), np.round(np.sqrt(x ** 2 + y ** 2 + z ** 2)))
    sums = shell_sums(torch.ones(shells.shape), shells, box // 2)
    np.testing.assert_array_equal(sums.numpy(), np.bincount(shells.numpy().ravel())[:box // 2])


@pytest.mark.parametrize("box", BOXES)
def test_filter_multiplies_its_shells_and_empties_the_rest(box):
    voxels = noise(box, box, box)
    gain = torch.tensor([1.0, 0.5, 0.0, 2.0])
    ratio = torch.fft.rfftn(filter_shells(voxels, gain)) / torch.fft.rfftn(voxels)
    expected = torch.cat([gain, torch.zeros(1)])[shells_3d(box).clamp(max=4)]
    torch.testing.assert_close(ratio.real, expected, atol=1e-3, rtol=0)


def test_low_pass_falls_at_its_resolution():
    gain = low_pass_gain(64, 2.0, 16.0)  # shell 8
    assert gain[8] == pytest.approx(0.5)
    assert torch.all(gain[:7] == 1) and torch.all(gain[10:] < 1e-6)
    assert torch.all(gain.diff() <= 0)
