"""The meeting of the halves: correlation, correction for the mask, masks, and what the halves share."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from synthetic import Phantom

from swiftres_plugin.engine.data.maps import Fsc, HalfMaps, Map
from swiftres_plugin.engine.maths import padded
from swiftres_plugin.engine.maths.fourier import filter_shells
from swiftres_plugin.engine.stages.postprocess import (
    compute_fsc,
    correlation,
    detail_fsc,
    join_low_resolution,
    masked_reference,
    particle_diameter_px,
    randomise_phases,
    signal_to_noise,
    soften,
    solvent_mask,
    sphere_mask,
)

BOXES = [24, 25]


def noise(box: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((box,) * 3, dtype=np.float32))


def halves_of(first: torch.Tensor, second: torch.Tensor, pixel_size_a: float = 2.0) -> HalfMaps:
    return HalfMaps(Map(first.numpy(), pixel_size_a), Map(second.numpy(), pixel_size_a))


def curve(values: list[float]) -> Fsc:
    values = np.array(values)
    return Fsc(np.arange(len(values)) / 100, values, values, np.zeros(len(values)), values)


@pytest.mark.parametrize("box", BOXES)
def test_a_map_correlates_with_itself(box):
    first = noise(box, 1)
    np.testing.assert_allclose(correlation(first, 3 * first), 1, atol=1e-6)
    np.testing.assert_allclose(correlation(first, -first)[1:], -1, atol=1e-6)


@pytest.mark.parametrize("box", BOXES)
def test_correlation_is_that_of_the_full_transform(box):
    first, second = noise(box, 1), noise(box, 2) + 0.3 * noise(box, 1)
    a, b = (np.fft.fftn(v.double().numpy()) for v in (first, second))
    axis = np.fft.fftfreq(box, 1 / box)
    shell = np.round(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2)).astype(int)
    expected = [np.sum((a * b.conj()).real[shell == s]) / np.sqrt(
        np.sum(np.abs(a[shell == s]) ** 2) * np.sum(np.abs(b[shell == s]) ** 2)) for s in range(1, box // 2 + 1)]
    np.testing.assert_allclose(correlation(first, second)[1:], expected, atol=1e-4)


def test_independent_noise_does_not_correlate():
    """Within three deviations: 1 / sqrt of the independent coefficients, half of those on the shell."""
    values = correlation(noise(48, 1), noise(48, 2))
    size = 4 * np.pi * np.arange(1, 25) ** 2 / 2
    assert np.all(np.abs(values[1:]) < 3.3 / np.sqrt(size))
    assert abs(np.mean(values[5:])) < 0.02


def test_known_signal_gives_its_correlation():
    """S + N against S + M of equal power: one half."""
    signal = noise(40, 3)
    values = correlation(signal + noise(40, 4), signal + noise(40, 5))
    np.testing.assert_allclose(values[6:20], 0.5, atol=0.08)


@pytest.mark.parametrize("slab_bytes", [1, 1 << 12, 1 << 25])
def test_a_body_is_softened_alike_in_slabs_of_any_size(monkeypatch, slab_bytes):
    """By the distance to the body, which is asked for no farther than the edge reaches; an empty body has none."""
    monkeypatch.setattr(padded, "SLAB_BYTES", slab_bytes)
    body = np.zeros((30, 30, 30), dtype=bool)
    body[3:8, 10:14, 12:20] = body[20, 15, 29] = True
    distance = ndimage.distance_transform_edt(~body)
    expected = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - 2.0) / 3.0, 0, 1))
    np.testing.assert_allclose(soften(body, 2.0, 3.0), expected, atol=1e-7)
    assert not soften(np.zeros_like(body), 2.0, 3.0).any()


def test_without_a_mask_all_curves_are_the_unmasked_one():
    fsc = compute_fsc(halves_of(noise(24, 1), noise(24, 2)))
    np.testing.assert_array_equal(fsc.corrected, fsc.unmasked)
    assert fsc.frequency[1] == pytest.approx(1 / 48) and fsc.frequency[-1] == pytest.approx(1 / 4)


def test_correction_removes_what_the_mask_correlates():
    """Two maps that share low frequencies only: a tight mask correlates the noise beyond, and the correction sees it."""
    gain = (torch.arange(21) <= 6).float()
    shared = filter_shells(30 * noise(40, 1), gain)
    window = sphere_mask(40, 6, 2)
    fsc = compute_fsc(halves_of(shared + noise(40, 2), shared + noise(40, 3)), window)
    beyond = slice(10, 20)
    assert np.mean(fsc.masked[beyond]) > np.mean(fsc.unmasked[beyond]) + 0.1
    assert abs(np.mean(fsc.corrected[beyond])) < 0.1
    np.testing.assert_allclose(fsc.corrected[:6], fsc.masked[:6])


def test_correction_leaves_what_is_shared():
    signal = torch.from_numpy(Phantom(width_a=3.0).map(40, 2.0).voxels)
    scaled = signal * 30
    fsc = compute_fsc(halves_of(scaled + noise(40, 2), scaled + noise(40, 3)), sphere_mask(40, 16))
    assert fsc.corrected[8] > fsc.unmasked[8] - 0.02


def test_randomised_phases_keep_amplitudes():
    """Exactly, but on the planes where a transform of real numbers is its own mate."""
    voxels = noise(24, 1)
    found = randomise_phases(voxels, 5, np.random.default_rng(99))
    before, after = torch.fft.rfftn(voxels), torch.fft.rfftn(found)
    torch.testing.assert_close(after.abs(), before.abs(), atol=1e-2, rtol=0)
    values = correlation(voxels, found)
    np.testing.assert_allclose(values[:5], 1, atol=1e-5)
    assert np.abs(values[6:]).max() < 0.25


@pytest.mark.parametrize("values, expected", [
    ([1, 0.9, 0.5, 0.1, 0.0, 0.1, 0.9, 0.0], 100 / (2 + (0.5 - 0.143) / 0.4)),  # the first crossing, not the last
    ([1, 0.9, 0.5, 0.1, 0.0, 0.8, 0.5, 0.1], 100 / (6 + (0.5 - 0.143) / 0.4)),  # two shells below are a dip
    ([1, 0.9, 0.9, 0.9, 0.9, 0.9], 20.0),  # never below: the last shell, no finer
    ([1, 0.1, 0.0, 0.1, 0.9, 0.9], np.inf)])
def test_resolution_is_the_first_crossing_that_stays_below(values, expected):
    assert curve(values).resolution_a() == pytest.approx(expected)


def test_two_hollow_spheres_share_their_profile_and_no_detail():
    """Each with marks of its own: the halves agree to Nyquist by the wall alone."""
    axis = torch.arange(32) - 16.0
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    wall = torch.exp(-(radius - 8) ** 2 / 2)
    halves = halves_of(*(10 * wall + 0.5 * wall * noise(32, seed) for seed in (1, 2)))
    whole = compute_fsc(halves)
    detail = detail_fsc(halves, whole, 3)
    np.testing.assert_array_equal(detail.corrected[:4], whole.corrected[:4])
    assert whole.corrected[4:9].min() > 0.8 and np.abs(detail.corrected[4:9]).max() < 0.3  # 0.1 by chance on shell 4


def test_shared_detail_counts_as_detail():
    lobes = torch.from_numpy(Phantom().map().voxels)
    halves = halves_of(*(lobes + 0.02 * noise(len(lobes), seed) for seed in (1, 2)))
    whole = compute_fsc(halves)
    np.testing.assert_allclose(detail_fsc(halves, whole, 1).corrected[:8], whole.corrected[:8], atol=0.02)


def test_resolution_never_passes_nyquist():
    same = noise(24, 1)
    assert compute_fsc(halves_of(same, same, 3.0), sphere_mask(24, 8)).resolution_a() == pytest.approx(6.0)


def test_signal_to_noise_ends_at_the_first_empty_shell():
    found = signal_to_noise(curve([1, 0.9, 0.5, 0.01, 0.8, 0.7]))
    np.testing.assert_allclose(found[1:], [9, 1, 0, 0, 0])


@pytest.mark.parametrize("box", BOXES)
def test_sphere_is_soft_and_round(box):
    mask = sphere_mask(box, 7)
    z, y, x = np.indices((box,) * 3) - box // 2
    radius = np.sqrt(x ** 2 + y ** 2 + z ** 2)
    assert np.all(mask[radius <= 7] == 1) and np.all(mask[radius >= 11] < 1e-6)


def test_solvent_mask_covers_the_phantom_and_little_else():
    phantom = Phantom().map(48)
    noisy = phantom.voxels + 0.05 * noise(48, 1).numpy()
    mask = solvent_mask(noisy, 4.0, 12.0, 0.48 * 48)
    assert mask.min() >= 0 and mask.max() == 1
    assert mask[phantom.voxels > 0.2].min() > 0.9
    assert mask.mean() < 0.4 * sphere_mask(48, 0.48 * 48).mean()


def test_solvent_mask_of_noise_is_a_sphere():
    mask = solvent_mask(noise(48, 1).numpy(), 4.0, 20.0, 20.0)
    np.testing.assert_array_equal(mask, sphere_mask(48, 20.0))


def test_masked_reference_has_its_solvent_at_zero():
    """The grey level of the solvent does not matter."""
    voxels = torch.from_numpy(Phantom().map().voxels)
    window = sphere_mask(32, 12)
    found = masked_reference(voxels + 7, window)
    assert float(found[0].abs().max()) == 0
    torch.testing.assert_close(found, masked_reference(voxels, window), atol=1e-4, rtol=0)


def test_joined_halves_share_low_shells_only():
    first, second = noise(24, 1), noise(24, 2)
    a, b = join_low_resolution(first, second, 4)
    values = correlation(a, b)
    np.testing.assert_allclose(values[1:5], 1, atol=1e-4)
    np.testing.assert_allclose(values[5:], correlation(first, second)[5:], atol=1e-4)
    torch.testing.assert_close(a + b, first + second, atol=1e-4, rtol=0)


def test_diameter_of_the_phantom():
    """Its farthest spots stand at 33 A and are 6 A wide."""
    found = particle_diameter_px(Phantom().map(48).voxels) * 4.0
    assert 66 < found < 90
