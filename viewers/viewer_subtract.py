"""The viewer of `swiftres - subtract`."""
from __future__ import annotations

from pwem.viewers import EmPlotter

from swiftres_plugin import layout
from swiftres_plugin.protocols import ProtSwiftresSubtract
from swiftres_plugin.viewers.base import PictureViewer
from swiftres_plugin.viewers.parts import MapPart, ParticlePart

LEFT = {"what is left": layout.LEFT_MAP, "its mask": layout.LEFT_MASK}


class SwiftresSubtractViewer(MapPart, ParticlePart, PictureViewer):
    """The part that is left, and the images beside its projections."""

    _label = "swiftres - subtract: results"
    _targets = [ProtSwiftresSubtract]
    _mapNames = tuple(LEFT)

    def _defineParams(self, form):
        form.addSection("Results")
        self._addMaps(form)
        self._addGallery(form)
        self._addSaving(form)

    def _pictures(self):
        return {**self._mapPictures(), "showGallery": self._drawGallery}

    def _others(self):
        return self._mapPrograms()

    def _drawGallery(self) -> EmPlotter:
        return self._drawPairs(self._mapFile(self._mapNames[0]), 1)

    def _mapFile(self, name: str) -> str:
        return self._result(layout.beside(layout.PARTICLES, LEFT[name]))

    def _particlesFile(self) -> str:
        return self._result(layout.PARTICLES)

    def _titled(self, text: str) -> str:
        return text
