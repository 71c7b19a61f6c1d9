"""The viewer of `swiftres - subtract`."""
from __future__ import annotations

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

    def _mapFile(self, name: str) -> str:
        return self._result(layout.beside(layout.PARTICLES, LEFT[name]))
