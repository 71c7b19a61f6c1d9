"""The viewer of `swiftres - reconstruct`."""
from __future__ import annotations

from pwem.viewers import EmPlotter
from pyworkflow.protocol import params

from swiftres_plugin import convert, layout
from swiftres_plugin.protocols import ProtSwiftresReconstruct
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import SAVING, PictureViewer
from swiftres_plugin.viewers.parts import DIFFERENCE, LocalResolutionPart, MapPart, ParticlePart, class_maps


class SwiftresReconstructViewer(MapPart, LocalResolutionPart, ParticlePart, PictureViewer):
    """The map, how well it is resolved, and the views that it was made of."""

    _label = "swiftres - reconstruct: results"
    _targets = [ProtSwiftresReconstruct]
    _mapNames = (*class_maps(), DIFFERENCE)

    def _defineParams(self, form):
        form.addSection("Results")
        self._addMaps(form)
        self._addLocalResolution(form)
        form.addParam("showFsc", params.LabelParam, label="Fourier shell correlation", help=SAVING.strip())
        self._addDirections(form)
        self._addSaving(form)

    def _pictures(self):
        return {**self._mapPictures(), **self._localResolutionPictures(), "showFsc": self._drawFsc,
                "showDirections": self._drawDirections}

    def _others(self):
        return self._mapPrograms()

    def _drawFsc(self) -> EmPlotter:
        return pictures.plot_fsc(convert.read_curves(self._result(layout.fsc_name())), "Fourier shell correlation")

    def _mapFile(self, name: str) -> str:
        return self._result(class_maps()[name])

    def _particlesFile(self) -> str:
        return self.protocol._particlesFile()

    def _titled(self, text: str) -> str:
        return text
