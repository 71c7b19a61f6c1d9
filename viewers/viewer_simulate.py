"""The viewer of `swiftres - simulate particles`."""
from __future__ import annotations

from pwem.viewers import EmPlotter

from swiftres_plugin import convert
from swiftres_plugin.protocols import ProtSwiftresSimulate
from swiftres_plugin.protocols.protocol_simulate import MAPS, PARTICLES
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import PictureViewer
from swiftres_plugin.viewers.parts import MapPart, ParticlePart

NAMES = {"true map": "outputVolume", "starting map": "outputInitialVolume", "mask": "outputMask"}
DEFOCUS = ("rlnDefocusU", "rlnDefocusV")


class SwiftresSimulateViewer(MapPart, ParticlePart, PictureViewer):
    """The map, the views, the defoci, and particles beside what they would be without noise."""

    _label = "swiftres - simulate particles: results"
    _targets = [ProtSwiftresSimulate]
    _mapNames = tuple(NAMES)

    def _defineParams(self, form):
        form.addSection("Results")
        self._addMaps(form)
        self._addDirections(form)
        self._addPicture(form, "showDefocus", self._drawDefocus, "Defocus of the particles", "A histogram.")
        self._addGallery(form)
        self._addSaving(form)

    def _drawDefocus(self) -> EmPlotter:
        columns = convert.read_columns(self._particlesFile(), DEFOCUS)
        return pictures.plot_histograms({"defocus (A)": sum(columns.values()) / len(columns)}, "Defocus")

    def _mapFile(self, name: str) -> str:
        _, file = MAPS[NAMES[name]]
        return self._result(file)

    def _particlesFile(self) -> str:
        return self._result(PARTICLES)
