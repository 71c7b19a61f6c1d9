"""Classes as observations: they hold exactly what their particles say together, and show how wide the particle is."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import particle_set, plain_spectra

from swiftres_plugin.engine.class_averages import added
from swiftres_plugin.engine.class_search import polar_batch
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.classes import ClassSearch
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.polar import cell_area, harmonics, polar_band
from swiftres_plugin.engine.maths.resample import spectra_at
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.placing import Trial, evaluate
from swiftres_plugin.engine.stages.turns import Placings
from swiftres_plugin.engine.views import CLASS_TRUST, Views, particle_diameter, particle_views
from swiftres_plugin.settings import ClassSettings, RefineSettings

BAND = polar_band(32, 4.0, 10)


def moved_particles(count: int):
    """A polar batch of different particles, their noise power, and arbitrary places in one class."""
    spectra = plain_spectra(particle_set(count, noise=0.5))
    engine = Engine(spectra, Compute(torch.device("cpu"), 1, 1 << 30), np.eye(3)[None], RefineSettings(), SilentReporter())
    batch = polar_batch(engine, np.arange(count), BAND)
    generator = torch.Generator().manual_seed(1)
    psi = 6.28 * torch.rand(count, 1, generator=generator)
    shift_a = 5 * torch.randn(count, 1, 2, generator=generator)
    places = Placings(torch.zeros(count, 1, dtype=torch.int64), psi, shift_a, torch.zeros(count, 1))
    return batch, torch.full_like(batch.ctf, 3.0), places


def test_a_view_is_as_likely_as_all_its_particles():
    """Five particles with five CTFs, one by one and as a class. Turning before or after the sum samples rings at other points:
    for a picture far smaller than the box that changes hardly anything."""
    batch, noise, places = moved_particles(5)
    sums = added(batch, noise, places, torch.zeros(5, dtype=torch.int64), 1)
    view = Views(*(values[:, 0] for values in sums), BAND, CLASS_TRUST).batch(BAND.last_shell)
    axis = (torch.arange(32) - 16) * 4.0
    average = spectra_at(torch.exp(-((axis[:, None] - 8) ** 2 + axis[None] ** 2) / (2 * 12.0 ** 2))[None], BAND.wave_px)[0]
    series = harmonics(average[None], BAND)
    trial = Trial(torch.arange(5), torch.zeros(5, dtype=torch.int64), places.psi_rad[:, 0], places.shift_a[:, 0])
    one_by_one = evaluate(batch, noise, series, trial, trial.psi_rad, trial.shift_a).score.sum()
    together = cell_area(BAND) * (2 * (view.images.conj() * average).real * view.ctf - view.ctf ** 2 * average.abs() ** 2)
    assert float(together.sum()) == pytest.approx(float(one_by_one), rel=1e-3)


def test_fewer_rings_are_those_of_the_whole_band():
    """Where a coarser ring needs fewer angles, its samples are those of the finer grid at the angles they share."""
    batch, noise, places = moved_particles(5)
    sums = added(batch, noise, places, torch.zeros(5, dtype=torch.int64), 1)
    views = Views(*(values[:, 0] for values in sums), BAND, CLASS_TRUST)
    whole, few = views.batch(10), views.batch(5)
    assert len(few.band) < len(whole.band.up_to(5))
    same = (few.band.wave_px[:, None] - whole.band.wave_px[None]).abs().amax(2) < 1e-4
    here, there = torch.nonzero(same, as_tuple=True)
    assert len(here) >= 10
    # what turns too fast for the coarser grid is left out of it, and at five rings is hardly anything of the particle
    error = (few.images * few.ctf)[0, here] - (whole.images * whole.ctf)[0, there]
    assert float(error.abs().mean()) < 0.1 * float((whole.images * whole.ctf).abs().mean())


def test_a_single_particle_is_a_view_of_its_own():
    """Its sums are those of a class that holds it alone, where its likeliest class was centred, and unturned."""
    spectra = plain_spectra(particle_set(4, noise=0.5))
    engine = Engine(spectra, Compute(torch.device("cpu"), 1, 1 << 30), np.eye(3)[None], RefineSettings(), SilentReporter())
    noise, shift_a = np.full((1, 17), 3.0, dtype=np.float32), torch.tensor([4.0, -2.0])
    shifts = torch.stack([torch.zeros(4, 2), shift_a.expand(4, 2)], 1)
    places = Placings(torch.tensor([[2, 0]] * 4), torch.full((4, 2), 1.3), shifts, torch.tensor([[-5.0, 0.0]] * 4))
    search = ClassSearch(torch.empty(0), torch.empty(0), torch.empty(0), noise, np.full(3, 1 / 3))
    views = particle_views(engine, search, places, ClassSettings(search_resolution=12.8), np.array([1, 3]))
    batch = polar_batch(engine, np.array([3]), views.band)
    moved = batch.ctf * batch.images / 3.0 * phase_ramp(batch.band.wave_px / batch.band.box_a, -shift_a[None])
    assert len(views) == 2 and views.trust[1] == 1.0
    torch.testing.assert_close(views.numerator[1], harmonics(moved, batch.band)[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(views.weight[1], harmonics(batch.ctf ** 2 / 3.0, batch.band)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("diameter_a", [40.0, 70.0])
def test_the_diameter_is_that_of_a_disc(diameter_a):
    """Discs of even density on a box of 128 A: within two pixels, as their edges are cut off at 12.8 A."""
    axis = (torch.arange(32) - 16) * 4.0
    disc = ((axis[:, None] ** 2 + axis[None] ** 2).sqrt() < diameter_a / 2).float()
    search = ClassSearch(torch.empty(0), torch.empty(0), spectra_at(disc.expand(3, 32, 32), BAND.wave_px), np.ones((1, 17)),
                         np.full(3, 1 / 3))
    assert particle_diameter(search, BAND) == pytest.approx(diameter_a, abs=8)
