"""The viewer of `swiftres - align particles`."""
from __future__ import annotations

from pwem.viewers import EmPlotter

from swiftres_plugin.protocols import ProtSwiftresAlign
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import PictureViewer
from swiftres_plugin.viewers.parts import ClassPart, ParticlePart


class SwiftresAlignViewer(ClassPart, ParticlePart, PictureViewer):
    """Where the particles are seen from, how well they fit, and how they look beside the reference."""

    _label = "swiftres - align particles: results"
    _targets = [ProtSwiftresAlign]
    _classCalled = "reference"

    def _defineParams(self, form):
        form.addSection("Results")
        self._addClassNumber(form, "Number of the reference volume whose particles are shown.")
        self._addDirections(form)
        self._addPicture(form, "showScores", self._drawScores, "Scores", "Histograms, of all particles.")
        self._addClassSizes(form)
        self._addGallery(form)
        self._addSaving(form)

    def _drawScores(self) -> EmPlotter:
        return pictures.plot_histograms(self._readScores(), "Scores")

    def _galleryMap(self) -> str:
        return self.protocol._referenceFile(self._shownClass())
