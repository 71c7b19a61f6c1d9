"""Particles without a particle: what comes out claims no more than what went in.

Noise that is aligned to a map repeats the map, and both halves were aligned to the same one ("Einstein from noise"). Up
to the starting map's limit they agree therefore; finer than that, agreement would be invented.
"""
from __future__ import annotations

import numpy as np
import pytest
from synthetic import PLACES_A, Phantom, described, engine_over, random_poses

from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.postprocess import sphere_mask
from swiftres_plugin.engine.stages.preprocess import load_spectra

START_A = 40.0


def resolutions(tmp_path, box_px: int, pixel_size_a: float, count: int, seed: int, mask: str, symmetry: str = "C1",
                iterations: int = 4) -> list[float]:
    """The resolution that each iteration over pure noise reports."""
    width_a = box_px * pixel_size_a
    phantom = Phantom(places_a=PLACES_A * width_a / 170, width_a=width_a / 14).symmetric(symmetry_operators(symmetry))
    blob = phantom.map(box_px, pixel_size_a)
    images = np.random.default_rng([seed, 9]).standard_normal((count, box_px, box_px), dtype=np.float32)
    source = ArraySource(described(random_poses(count, seed), box_px, pixel_size_a, seed), images)
    settings = {"initial_resolution": START_A, "iterations": iterations, "symmetry": symmetry, "seed": seed,
                "auto_mask": mask == "auto"}
    tight = (blob.voxels > 0.3 * blob.voxels.max()).astype(np.float32)
    window = {"sphere": sphere_mask(box_px, 0.27 * box_px), "tight": tight}
    engine = engine_over(None, 2, **settings)
    spectra = load_spectra(source, engine.settings.preprocess, engine.compute, SilentReporter(), tmp_path / "cache")
    engine = engine_over(spectra, 2, user_mask=window.get(mask), **settings)
    states = refine(engine, start(engine, [blob], window.get(mask)))
    return [state.history[-1].resolution_a for state in states]


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["auto", "none", "sphere", "tight"])
@pytest.mark.parametrize("box_px, pixel_size_a, count, seed", [(32, 5.0, 300, 1), (48, 5.0, 300, 2), (64, 4.0, 300, 3)])
def test_noise_yields_no_resolution(tmp_path, box_px, pixel_size_a, count, seed, mask):
    """No better than the starting map's limit, but for the shell it falls in."""
    width_a = box_px * pixel_size_a
    finest_a = width_a / (int(width_a / START_A) + 1)
    assert min(resolutions(tmp_path, box_px, pixel_size_a, count, seed, mask)) >= finest_a


@pytest.mark.slow
@pytest.mark.parametrize("symmetry", ["C4", "D2"])
def test_symmetry_invents_no_resolution(tmp_path, symmetry):
    assert min(resolutions(tmp_path, 48, 5.0, 300, 2, "auto", symmetry)) >= 240 / 7


@pytest.mark.slow
def test_many_noise_particles_invent_no_resolution(tmp_path):
    assert min(resolutions(tmp_path, 32, 5.0, 1500, 5, "auto", iterations=5)) >= 160 / 5
