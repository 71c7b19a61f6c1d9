"""The viewer of `swiftres - align particles`."""
from __future__ import annotations

from pwem.viewers import EmPlotter
from pyworkflow.protocol import params

from swiftres_plugin import layout
from swiftres_plugin.protocols import ProtSwiftresAlign
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import SAVING, PictureViewer
from swiftres_plugin.viewers.parts import ParticlePart


class SwiftresAlignViewer(ParticlePart, PictureViewer):
    """Where the particles are seen from, how well they fit, and how they look beside the reference."""

    _label = "swiftres - align particles: results"
    _targets = [ProtSwiftresAlign]

    def _defineParams(self, form):
        form.addSection("Results")
        self._addDirections(form)
        form.addParam("showScores", params.LabelParam, label="Scores", help="Histograms." + SAVING)
        form.addParam("showClassSizes", params.LabelParam, label="Particles of each reference")
        form.addParam("classNumber", params.IntParam, default=1, label="Reference",
                      help="Number of the reference volume whose particles are in the gallery.")
        self._addGallery(form)
        self._addSaving(form)

    def _pictures(self):
        return {"showDirections": self._drawDirections, "showScores": self._drawScores,
                "showClassSizes": self._drawClassSizes, "showGallery": self._drawGallery}

    def _drawScores(self) -> EmPlotter:
        return pictures.plot_histograms(self._readScores(), "Scores")

    def _drawClassSizes(self) -> EmPlotter:
        return pictures.plot_sizes(self._files.record()["class_sizes"], "Particles of each reference")

    def _drawGallery(self) -> EmPlotter:
        number = self.classNumber.get()
        return self._drawPairs(self.protocol._referenceFile(number), number)

    def _particlesFile(self) -> str:
        return self._result(layout.PARTICLES)

    def _titled(self, text: str) -> str:
        return text
