"""The viewer of `swiftres - post-process`."""
from __future__ import annotations

import json

from pwem.viewers import EmPlotter

from swiftres_plugin import convert, layout
from swiftres_plugin.protocols import ProtSwiftresPostprocess
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import PictureViewer
from swiftres_plugin.viewers.parts import DIFFERENCE, HALVES, FscPart, MapPart, ParticlePart
from swiftres_plugin.viewers.run_files import existing, read_map

SHARPENED = "sharpened map"


class SwiftresPostprocessViewer(MapPart, FscPart, ParticlePart, PictureViewer):
    """The sharpened map, and how well it is resolved: overall, at each place and by direction."""

    _label = "swiftres - post-process: results"
    _targets = [ProtSwiftresPostprocess]
    _mapNames = (SHARPENED, *HALVES, "mask", "local resolution (A)", DIFFERENCE)

    def _defineParams(self, form):
        form.addSection("Results")
        self._addMaps(form)
        self._addPicture(form, "showLocalResolution", self._drawLocalResolution, "Surface coloured by local resolution")
        self._addFsc(form)
        self._addPicture(form, "showGuinier", self._drawGuinier, "Guinier plot",
                         "The amplitudes of the average, weighted by the FSC, and the line whose slope is the B-factor.")
        self._addPicture(form, "showDirectional", self._drawDirectional, "Resolution by direction",
                         "The spread of the FSC in cones over all directions, and on the sphere where each falls to 0.5.")
        if self.protocol.inputParticles.get() is not None:
            self._addDirections(form)
        self._addSaving(form)

    def _drawLocalResolution(self) -> EmPlotter:
        local = read_map(self._result(layout.LOCAL_RESOLUTION)).voxels
        return pictures.plot_surface(read_map(self._mapFile(SHARPENED)).voxels, "local resolution", local)

    def _drawGuinier(self) -> EmPlotter:
        with open(self._result(layout.POSTPROCESS)) as file:
            told = json.load(file)
        return pictures.plot_guinier(convert.read_curves(self._result(layout.GUINIER)), told["guinier"], told["b_factor_a2"])

    def _drawDirectional(self) -> EmPlotter:
        curves, directions = (convert.read_curves(self._result(name)) for name in (layout.DIRECTIONAL_FSC, layout.DIRECTIONS))
        return pictures.plot_directional(curves, directions, "Resolution by direction")

    def _mapFile(self, name: str) -> str:
        first, second = self.protocol._halfFiles()
        given = self.protocol._maskFile() if self.protocol.mask.get() is not None else self.protocol._getRunPath(layout.MASK)
        return existing({SHARPENED: self.protocol._getRunPath(layout.MAP_SHARPENED), HALVES[0]: first, HALVES[1]: second,
                         "mask": given, "local resolution (A)": self.protocol._getRunPath(layout.LOCAL_RESOLUTION)}[name])

    def _particlesFile(self) -> str:
        return self.protocol._particlesFile()

    def _fscFile(self) -> str:
        return self._result(layout.FSC)
