"""The viewer of `swiftres - initial model`."""
from __future__ import annotations

from pwem.viewers import EmPlotter

from swiftres_plugin import layout
from swiftres_plugin.protocols import ProtSwiftresInitialModel
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import PictureViewer
from swiftres_plugin.viewers.parts import ClassPart, MapPart, ParticlePart


class SwiftresInitialModelViewer(ClassPart, MapPart, ParticlePart, PictureViewer):
    """The volumes that were found, how the search went, and the particles beside them."""

    _label = "swiftres - initial model: results"
    _targets = [ProtSwiftresInitialModel]
    _classCalled = "volume"
    _mapNames = ("initial map",)

    def _defineParams(self, form):
        form.addSection("Results")
        self._addClassNumber(form, "Number of the volume to show, and of its particles.")
        self._addMaps(form)
        self._addPicture(form, "showEvidence", self._drawEvidence, "Course of the search",
                         "How well the volumes explain the particles: it should rise and come to rest.")
        self._addClassSizes(form)
        self._addDirections(form)
        self._addGallery(form)
        self._addSaving(form)

    def _drawEvidence(self) -> EmPlotter:
        return pictures.plot_evidence(self._files.record()["evidence"], "Course of the search")

    def _mapFile(self, name: str) -> str:
        return self._result(layout.map_name(self._shownClass()))
