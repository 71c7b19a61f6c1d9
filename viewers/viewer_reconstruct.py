"""The viewer of `swiftres - reconstruct`."""
from __future__ import annotations

from swiftres_plugin.protocols import ProtSwiftresReconstruct
from swiftres_plugin.viewers.base import PictureViewer
from swiftres_plugin.viewers.parts import DIFFERENCE, FscPart, LocalResolutionPart, MapPart, ParticlePart, class_maps


class SwiftresReconstructViewer(MapPart, LocalResolutionPart, FscPart, ParticlePart, PictureViewer):
    """The map, how well it is resolved, and the views that it was made of."""

    _label = "swiftres - reconstruct: results"
    _targets = [ProtSwiftresReconstruct]
    _mapNames = (*class_maps(), DIFFERENCE)

    def _defineParams(self, form):
        form.addSection("Results")
        self._addMaps(form)
        self._addLocalResolution(form)
        self._addFsc(form)
        self._addDirections(form)
        self._addSaving(form)

    def _mapFile(self, name: str) -> str:
        return self._result(class_maps()[name])

    def _particlesFile(self) -> str:
        return self.protocol._particlesFile()
