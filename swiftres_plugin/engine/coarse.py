"""What searches from nothing share: particles in a box just large enough, samples of them, the sphere they stand in."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.engine import Engine

LEAST_BOX_PX = 32


def coarse_spectra(spectra: Spectra, resolution_a: float) -> Spectra:
    """The particles as images of a smaller box, of the same width in angstroms, that holds `resolution_a`."""
    band = spectra.band.up_to(spectra.band.shell_of(resolution_a))
    box_px = min(spectra.band.box_px, max(LEAST_BOX_PX, 2 * (band.last_shell + 4)))
    small = Band(box_px, spectra.band.box_a / box_px, band.wave_px, band.shell)
    return Spectra(spectra.values[:, :len(small)], small, spectra.particles)


def samples(count: int, batch: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of one step after another, ascending: all particles in a random order, then all in another, without end."""
    size = min(batch, count)
    waiting = np.empty(0, dtype=np.int64)
    while True:
        if len(waiting) < size:
            waiting = generator.permutation(count)
        yield np.sort(waiting[:size])
        waiting = waiting[size:]


def radius_px(engine: Engine) -> float:
    """Radius of the sphere that holds the particle, with some room."""
    box_px, diameter_a = engine.spectra.band.box_px, engine.settings.preprocess.diameter
    largest = 0.46 * box_px
    return min(largest, 0.55 * diameter_a / engine.spectra.band.pixel_size_a + 1) if diameter_a else largest
