"""Images of noise that alignments are measured on, and a refinement that leaves out images without the particle."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set

from swiftres_plugin.engine.chance import noise_images
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.noise import noise_power, power_sums, shell_means
from swiftres_plugin.engine.stages.preprocess import load_spectra, make_batch


def test_noise_images_are_like_recorded_noise():
    """Power as asked on every shell, and what the window makes neighbours share, within 5 %: 400 images of 812 pixels."""
    source = particle_set(400)
    white = replace(source, images=np.random.default_rng(2).standard_normal(source.images.shape, dtype=np.float32))
    engine = engine_over(None)
    recorded = load_spectra(white, engine.settings.preprocess, engine.compute, SilentReporter(), "unused")
    noise = noise_power([power_sums(make_batch(recorded, np.arange(400), recorded.band, torch.device("cpu")), 1)])
    drawn = noise_images(recorded, np.arange(400), noise, engine.settings.preprocess, seed=4)
    for measure in (_power, _shared):
        np.testing.assert_allclose(measure(drawn), measure(recorded), rtol=0.05, atol=0.05 * _power(recorded).mean())


def _power(spectra):
    values = torch.view_as_complex(spectra.values.float())
    return shell_means(values.abs() ** 2, spectra.band)[:, 2:].mean(0).numpy()


def _shared(spectra):
    """Mean product of each coefficient with its neighbour along x."""
    values = torch.view_as_complex(spectra.values.float())
    at = {tuple(wave): i for i, wave in enumerate(spectra.band.wave_px.round().int().tolist())}
    pairs = [(i, at[x + 1, y]) for (x, y), i in at.items() if (x + 1, y) in at]
    one, other = (values[:, [pair[k] for pair in pairs]] for k in (0, 1))
    return abs(float((one * other.conj()).real.mean()))


def test_a_refinement_leaves_out_images_of_noise():
    """A third of the images hold nothing: they hardly count in the maps, the others do, and the map is as good as theirs."""
    source = particle_set(150, noise=0.6)
    images, is_junk = source.images.copy(), np.arange(150) % 3 == 1
    images[is_junk] = 0.6 * np.random.default_rng(5).standard_normal((50, *images.shape[1:]))
    engine = engine_over(None, initial_resolution=30, search_resolution=16, iterations=3, max_shift=14)
    spectra = load_spectra(ArraySource(source.particles, images), engine.settings.preprocess, engine.compute,
                           SilentReporter(), "unused")
    engine = replace(engine, spectra=spectra)
    *_, state = refine(engine, start(engine, [Phantom().map()], None))
    assert state.trust[is_junk].mean() < 0.15 and state.trust[~is_junk].mean() > 0.85
    assert state.history[-1].untrusted == pytest.approx(1 - state.trust.mean())
