"""From particles on disk to an engine that holds their transforms."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from swiftres_plugin.engine.compute import open_compute
from swiftres_plugin.engine.data.particles import ParticleSource
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.settings import RefineSettings


def open_engine(source: ParticleSource, operators: np.ndarray, settings: RefineSettings, reporter: Reporter, output: Path,
                mask: np.ndarray | None = None) -> Engine:
    """An engine over all particles of `source`, in the group of `operators`; the folder `output` is made.

    What memory does not hold goes to the scratch folder of the settings, or to `output`.
    Raises `InputError` before the folder is made where the device that is asked for is not there.
    """
    compute = open_compute(settings.compute.device, settings.compute.threads, settings.compute.memory)
    output.mkdir(parents=True, exist_ok=True)
    scratch = Path(settings.compute.scratch or output)
    spectra = load_spectra(source, settings.preprocess, compute, reporter, scratch)
    return Engine(spectra, compute, operators, settings, reporter, mask)
