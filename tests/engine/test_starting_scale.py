"""The grey scale of a starting map, and what is said of one that cannot lead a refinement."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.refine import start, started_class
from swiftres_plugin.engine.report import SilentReporter

COUNT = 400
BALL = Phantom(places_a=np.zeros((1, 3)), weights=np.array([4.0]), width_a=20.0)


def started(noise: float, factor: float = 1.0, phantom: Phantom | None = None) -> tuple[float, list[str]]:
    """What a map given `factor` times too strong is multiplied with for particles with noise of this deviation, and the
    warnings."""
    phantom, reporter, warnings = phantom or Phantom(), SilentReporter(), list[str]()
    reporter.warning = warnings.append
    spectra = plain_spectra(particle_set(COUNT, noise, phantom))
    engine = replace(engine_over(spectra, initial_resolution=25.0, max_shift=12.0, diameter=100.0), reporter=reporter)
    given = phantom.map()
    given = replace(given, voxels=factor * given.voxels)
    window = np.ones_like(given.voxels)
    unscaled = started_class(engine, given, window).references[0]
    return float(start(engine, [given], window).classes[0].references[0].sum() / unscaled.sum()), warnings


@pytest.mark.parametrize("noise", [1.0, 4.0], ids=["clear", "hardly seen"])
def test_the_scale_is_that_of_the_particles(noise):
    """Best poses alone gave 1.8 where particles are hardly seen, because they explain noise too."""
    scale, _ = started(noise, factor=30.0)
    assert 0.8 < 30 * scale < 1.5


def test_a_map_that_leads_is_not_complained_of():
    assert started(1.0)[1] == []


def test_the_negative_is_told():
    _, warnings = started(1.0, factor=-1.0)
    assert len(warnings) == 1 and "negative" in warnings[0] and "--invert-contrast" in warnings[0]


def test_a_map_that_looks_alike_from_everywhere_is_told():
    _, warnings = started(1.0, phantom=BALL)
    assert len(warnings) == 1 and "--initial-resolution" in warnings[0]
