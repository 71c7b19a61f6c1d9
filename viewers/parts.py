"""Groups of pictures that several viewers offer. A viewer that takes one in says where its files are."""
from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import numpy as np
import pyworkflow.utils as pwutils
from pwem.viewers import Chimera, ChimeraView, EmPlotter
from pyworkflow.protocol import params
from pyworkflow.viewer import View

from swiftres_plugin import convert, layout
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.viewers import gallery, pictures
from swiftres_plugin.viewers.base import SAVING
from swiftres_plugin.viewers.run_files import DensityMap, existing, read_map

REFINED = "refined map"
HALVES = ("half map 1", "half map 2")
DIFFERENCE = "half of the difference of the halves"
SCORES = {"rlnLogLikeliContribution": "log-likelihood of the pose",
          "rlnMaxValueProbDistribution": "posterior share of the best pose"}
MakePictures = dict[str, Callable[[], EmPlotter]]


class MapPart:
    """Slices and surface of a map, and ChimeraX where it is installed.

    The viewer defines `_mapNames`, `_mapFile(name)` and `_titled(text)`.
    """

    def _addMaps(self, group) -> None:
        group.addParam("shownMap", params.EnumParam, choices=list(self._mapNames), default=0, label="Map")
        group.addParam("showSlices", params.LabelParam, label="Slices and projections",
                       help="Sliders move the slices and set what is black and white." + SAVING)
        group.addParam("showSurface", params.LabelParam, label="Surface",
                       help="Drag the map to turn it; the slider sets the density at which the surface lies." + SAVING)
        if has_chimera():
            group.addParam("showChimera", params.LabelParam, label="Map in ChimeraX")

    def _mapPrograms(self) -> dict[str, Callable[[], View]]:
        return {"showChimera": self._openChimera} if has_chimera() else {}

    def _openChimera(self) -> View:
        name = self.getEnumText("shownMap")
        if name == DIFFERENCE:
            raise ValueError("The difference is made for the pictures here and is no file. Choose another map.")
        return ChimeraView(os.path.abspath(self._mapFile(name)))

    def _mapPictures(self) -> MakePictures:
        return {"showSlices": self._drawSlices, "showSurface": self._drawSurface}

    def _drawSlices(self) -> EmPlotter:
        shown = self._shownMap()
        return pictures.plot_slices(shown.voxels, shown.pixel_size_a, self._titled(self.getEnumText("shownMap")))

    def _drawSurface(self) -> EmPlotter:
        return pictures.plot_surface(self._shownMap().voxels, self._titled(self.getEnumText("shownMap")))

    def _shownMap(self) -> DensityMap:
        name = self.getEnumText("shownMap")
        if name != DIFFERENCE:
            return read_map(self._mapFile(name))
        first, second = (read_map(self._mapFile(half)) for half in HALVES)
        return DensityMap((first.voxels - second.voxels) / 2, first.pixel_size_a)


class LocalResolutionPart:
    """The map coloured by its local resolution. The viewer defines `_mapFile(name)`, `_titled(text)` and the class number."""

    def _addLocalResolution(self, group) -> None:
        group.addParam("localResolutionFile", params.PathParam, default="", label="Local resolution map",
                       help="A map of the local resolution (A) in the box of the map, for example of the post-processing. "
                            "Empty: the engine measures it from the half maps, once, which takes seconds to minutes.")
        group.addParam("showLocalResolution", params.LabelParam, label="Surface coloured by local resolution")

    def _localResolutionPictures(self) -> MakePictures:
        return {"showLocalResolution": self._drawLocalResolution}

    def _drawLocalResolution(self) -> EmPlotter:
        halves = [self._mapFile(name) for name in HALVES]
        folder = self.protocol._getExtraPath("viewer", os.path.basename(halves[0]).removesuffix(".mrc") + "_local")
        path = self.localResolutionFile.get() or measured_local_resolution(halves, folder)
        density, local = read_map(self._mapFile(REFINED)).voxels, read_map(existing(path)).voxels
        if local.shape != density.shape:
            raise ValueError(f"{path} has a box of {len(local)} px, the map of {len(density)} px.")
        return pictures.plot_surface(density, self._titled("local resolution"), local)


class ParticlePart:
    """Views, scores and a gallery of particles. The viewer defines `_particlesFile()` and `_titled(text)`."""

    def _addDirections(self, group) -> None:
        group.addParam("showDirections", params.LabelParam, label="Angular distribution",
                       help="Heat map of the views on the sphere, symmetry mates included. The efficiency after Naydenova and "
                            "Russo (2017) is 1 for even views; below 0.5 the map is blurred along the axis that lacks views.")

    def _drawDirections(self) -> EmPlotter:
        angles = convert.read_columns(self._particlesFile(), convert.ANGLES[:2])
        rot, tilt = (np.deg2rad(angles[label]) for label in convert.ANGLES[:2])
        beams = np.column_stack([np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)])
        return pictures.plot_directions(beams, self.protocol.symmetry.get(), self._titled(f"Views of {len(beams)} particles"))

    def _readScores(self) -> dict[str, np.ndarray]:
        """Scores (N,) by what they are."""
        found = convert.read_columns(self._particlesFile(), SCORES)
        return {SCORES[label]: values for label, values in found.items()}

    def _addGallery(self, group) -> None:
        group.addParam("galleryCount", params.IntParam, default=24, label="Particles in the gallery",
                       validators=[params.Range(1, 200, "from 1 to 200")])
        group.addParam("galleryLowPass", params.FloatParam, default=20.0, label="Low pass of its particles (A)",
                       help="Smooths the particles, not the reprojections; 0 leaves them as they are.")
        group.addParam("showGallery", params.LabelParam, label="Particles above their reprojections",
                       help="Evenly chosen from the best score to the worst. The engine makes the reprojections, which "
                            "takes some seconds.")

    def _drawPairs(self, map_path: str, number: int) -> EmPlotter:
        """Particles of class `number` above the reprojections of a map."""
        pairs = gallery.read_pairs(self._particlesFile(), map_path, self.protocol._getExtraPath("viewer"),
                                   self.galleryCount.get(), number)
        title = self._titled(f"Class {number}, {len(pairs.images)} of {pairs.count} particles")
        return pictures.plot_gallery(pairs, read_map(map_path).pixel_size_a, self.galleryLowPass.get(), title)


def class_maps(number: int = 1) -> dict[str, str]:
    """Names of the maps of a class in the folder of its run, by what they are."""
    halves = {name: layout.half_name(half, number) for half, name in enumerate(HALVES, 1)}
    return {REFINED: layout.map_name(number), **halves, "mask": layout.mask_name(number)}


def measured_local_resolution(halves: list[str], folder: str) -> str:
    """The map of local resolution of two half maps, measured into `folder` unless one of these halves is there."""
    path = os.path.join(folder, layout.LOCAL_RESOLUTION)
    if not os.path.exists(path) or os.path.getmtime(path) < max(map(os.path.getmtime, halves)):
        pwutils.cleanPath(folder)
        program, line = Plugin.getEngineCommand(
            ["postprocess", "--half1", halves[0], "--half2", halves[1], "--output", folder])
        pwutils.runJob(None, program, line, env=Plugin.getEnviron())
    return path


def has_chimera() -> bool:
    program = Chimera.getProgram()
    return bool(program) and shutil.which(program) is not None
