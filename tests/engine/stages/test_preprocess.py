"""Particles become spectra: normalised on the background, masked, and the same from memory and from disk."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from synthetic import Phantom, described, images_of, particle_set, random_poses

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.maths.fourier import spectra_to_images
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages import preprocess
from swiftres_plugin.engine.stages.preprocess import circular_window, load_spectra, make_batch, prepared
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import PreprocessSettings


def compute(workers: int = 1) -> Compute:
    return Compute(torch.device("cpu"), workers, 1 << 20)


def loaded(source, tmp_path, workers: int = 1, **settings):
    return load_spectra(source, PreprocessSettings(**settings), compute(workers), SilentReporter(), tmp_path / "cache" / "x")


def test_background_gets_mean_zero_and_deviation_one():
    """Whatever offset and scale an image came with."""
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 40, 40), dtype=np.float32))
    scale, offset = torch.tensor([0.01, 1, 300]), torch.tensor([5.0, -2, 1e4])
    window = circular_window(40, 19)
    found = prepared(noise * scale[:, None, None] + offset[:, None, None], window, False)
    expected = noise - noise[:, window < 0.5].mean(1)[:, None, None]
    expected = expected / noise[:, window < 0.5].std(1)[:, None, None] * window
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_contrast_inversion_changes_the_sign():
    images = torch.from_numpy(particle_set(2, noise=1.0).images)
    window = circular_window(32, 15)
    torch.testing.assert_close(prepared(images, window, True), -prepared(images, window, False))


def test_an_empty_image_is_named():
    with pytest.raises(InputError, match="constant"):
        prepared(torch.zeros(2, 32, 32), circular_window(32, 15), False)


def test_an_image_beyond_half_precision_is_named(tmp_path):
    """As particles are whose surroundings were set to nearly nothing."""
    source = particle_set(3, noise=1.0)
    inside = circular_window(32, 12).numpy() > 0
    with pytest.raises(InputError, match="images 1 to"):
        loaded(ArraySource(source.particles, np.where(inside, source.images, 1e-6 * source.images)), tmp_path)


def test_no_room_for_the_cache_is_told_before_anything_is_read(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(preprocess, "free_host_bytes", lambda: 1000)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="neither in memory nor in the scratch folder.*No space left"):
        loaded(particle_set(3, noise=1.0), tmp_path)


@pytest.mark.parametrize("box", [32, 33])
def test_window_is_a_soft_circle(box):
    window = circular_window(box, 12.0)
    y, x = np.indices((box, box)) - box // 2
    radius = np.hypot(x, y)
    assert torch.all(window[radius <= 7] == 1) and torch.all(window[radius >= 12] < 1e-6)
    assert 0.45 < float(window[box // 2, box // 2 + 9]) < 0.7


def test_spectra_are_half_precise(tmp_path):
    source = particle_set(5, noise=1.0)
    spectra = loaded(source, tmp_path)
    assert spectra.values.dtype == torch.float16
    window = circular_window(32, 15)
    expected = prepared(torch.from_numpy(source.images), window, False)
    found = torch.view_as_complex(spectra.values.float())
    exact = np.stack([reference.image_transform(image, spectra.band.wave_px.numpy()) for image in expected.numpy()])
    # half precision has eleven bits
    assert np.abs(found.numpy() - exact).max() < 2 ** -11 * np.abs(exact).max() * 1.5


def test_a_cache_on_disk_holds_the_same(tmp_path, monkeypatch):
    """When memory is short the values lie in a file that only this process knows, and are equal."""
    source = particle_set(7, noise=1.0)
    in_memory = loaded(source, tmp_path)
    monkeypatch.setattr(preprocess, "free_host_bytes", lambda: 1000)
    on_disk = loaded(source, tmp_path)
    (mapped,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    first, last = (int(address, 16) for address in mapped.split()[0].split("-"))
    assert last - first >= in_memory.values.numel() * 2 and mapped.endswith("(deleted)")
    assert list((tmp_path / "cache" / "x").iterdir()) == []
    assert torch.equal(on_disk.values, in_memory.values)
    del on_disk
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_two_runs_share_a_scratch_folder(tmp_path, monkeypatch):
    """Of the same name, as in Scipion, where every run is called 'run'."""
    sources = particle_set(7, noise=1.0), particle_set(7, noise=2.0)
    expected = [loaded(source, tmp_path).values for source in sources]
    monkeypatch.setattr(preprocess, "free_host_bytes", lambda: 1000)
    first, second = (loaded(source, tmp_path).values for source in sources)
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])


def test_workers_and_batches_change_nothing(tmp_path):
    source = particle_set(23, noise=1.0)
    assert torch.equal(loaded(source, tmp_path, workers=3).values, loaded(source, tmp_path).values)


def test_a_diameter_removes_what_lies_outside(tmp_path):
    """A spot far from the centre is gone; without a diameter it stays."""
    particles = described(random_poses(4), box_px=48, astigmatism_a=0)
    images = images_of(Phantom(), particles, noise=1.0)
    images[:, 24, 43] += 200
    source = ArraySource(particles, images)

    def spot(**settings) -> float:
        spectra = loaded(source, tmp_path, **settings)
        back = spectra_to_images(torch.view_as_complex(spectra.values.float()), spectra.band)
        return float(back[:, 24, 41:46].abs().mean())

    assert spot(diameter=70.0) < 0.05 * spot()


def test_a_batch_holds_its_rows_on_its_band(tmp_path):
    source = particle_set(9, noise=1.0, groups=2)
    spectra = loaded(source, tmp_path)
    band = spectra.band.up_to(9)
    everything = torch.view_as_complex(spectra.values.float())
    for rows in (np.arange(2, 6), np.array([7, 0, 3])):
        batch = make_batch(spectra, rows, band, torch.device("cpu"))
        assert torch.equal(batch.images, everything[rows][:, :len(band)])
        np.testing.assert_array_equal(batch.optics_group.numpy(), rows % 2)
        kx, ky = band.wave_px.numpy().T
        expected = np.stack([reference.transfer_of(source.particles, r)[ky, kx] for r in rows])
        np.testing.assert_allclose(batch.ctf.numpy(), expected, atol=2e-4)


def test_rows_of_a_batch_may_repeat(tmp_path):
    spectra = loaded(particle_set(5, noise=1.0), tmp_path)
    batch = make_batch(spectra, np.arange(5), spectra.band, torch.device("cpu"))
    twice = batch.take(torch.tensor([3, 3, 1]))
    np.testing.assert_array_equal(twice.rows, [3, 3, 1])
    assert torch.equal(twice.images[0], batch.images[3]) and torch.equal(twice.ctf[2], batch.ctf[1])
    assert torch.equal(batch.up_to(4).images, batch.images[:, :len(spectra.band.up_to(4))])
