"""The viewer of `swiftres - initial model`."""
from __future__ import annotations

from pwem.viewers import EmPlotter
from pyworkflow.protocol import params

from swiftres_plugin import layout
from swiftres_plugin.protocols import ProtSwiftresInitialModel
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import SAVING, PictureViewer
from swiftres_plugin.viewers.parts import MapPart, ParticlePart

FOUND = "volume"


class SwiftresInitialModelViewer(MapPart, ParticlePart, PictureViewer):
    """The volumes that were found, how the search went, and the particles beside them."""

    _label = "swiftres - initial model: results"
    _targets = [ProtSwiftresInitialModel]
    _mapNames = (FOUND,)

    def _defineParams(self, form):
        form.addSection("Results")
        form.addParam("classNumber", params.IntParam, default=1, label="Volume", help="Number of the volume to show.")
        self._addMaps(form)
        form.addParam("showEvidence", params.LabelParam, label="Course of the search",
                      help="How well the volumes explain the particles: it should rise and come to rest." + SAVING)
        form.addParam("showClassSizes", params.LabelParam, label="Particles of each volume")
        self._addDirections(form)
        self._addGallery(form)
        self._addSaving(form)

    def _pictures(self):
        return {**self._mapPictures(), "showEvidence": self._drawEvidence, "showClassSizes": self._drawClassSizes,
                "showDirections": self._drawDirections, "showGallery": self._drawGallery}

    def _others(self):
        return self._mapPrograms()

    def _drawEvidence(self) -> EmPlotter:
        return pictures.plot_evidence(self._files.record()["evidence"], "Course of the search")

    def _drawClassSizes(self) -> EmPlotter:
        return pictures.plot_sizes(self._files.record()["class_sizes"], "Particles of each volume")

    def _drawGallery(self) -> EmPlotter:
        return self._drawPairs(self._mapFile(FOUND), self.classNumber.get())

    def _mapFile(self, name: str) -> str:
        return self._result(layout.map_name(self.classNumber.get()))

    def _particlesFile(self) -> str:
        return self._result(layout.PARTICLES)

    def _titled(self, text: str) -> str:
        return f"{text} {self.classNumber.get()}" if text == FOUND else text
