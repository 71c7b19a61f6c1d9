"""Groups of pictures that several viewers offer. A viewer that takes one in says where its files are."""
from __future__ import annotations

import os
import shutil

import numpy as np
import pyworkflow.utils as pwutils
from pwem.viewers import Chimera, ChimeraView, EmPlotter
from pyworkflow.protocol import params
from pyworkflow.viewer import View

from swiftres_plugin import convert, layout
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.viewers import gallery, pictures
from swiftres_plugin.viewers.run_files import DensityMap, existing, read_map

REFINED = "refined map"
HALVES = ("half map 1", "half map 2")
DIFFERENCE = "half of the difference of the halves"
SCORES = {"rlnLogLikeliContribution": "log-likelihood of the pose",
          "rlnMaxValueProbDistribution": "posterior share of the best pose"}


class ClassPart:
    """The class whose map and particles are shown, in viewers of runs that may have several."""

    _classCalled = "class"

    def _addClassNumber(self, group, help: str) -> None:
        group.addParam("classNumber", params.IntParam, default=1, label=self._classCalled.capitalize(), help=help)

    def _addClassSizes(self, group) -> None:
        self._addPicture(group, "showClassSizes", self._drawClassSizes, f"Particles of each {self._classCalled}")

    def _drawClassSizes(self) -> EmPlotter:
        sizes = self._files.record()["class_sizes"]
        return pictures.plot_sizes(sizes, f"Particles of each {self._classCalled}", self._classCalled)

    def _shownClass(self) -> int:
        return self.classNumber.get()

    def _hasClasses(self) -> bool:
        return len(self.protocol._report().get("class_sizes", ())) > 1

    def _titled(self, text: str) -> str:
        return f"{text}, {self._classCalled} {self._shownClass()}" if self._hasClasses() else text


class MapPart:
    """Slices and surface of a map, and ChimeraX where it is installed. The viewer defines `_mapNames` and `_mapFile(name)`."""

    def _addMaps(self, group) -> None:
        group.addParam("shownMap", params.EnumParam, choices=list(self._mapNames), default=0, label="Map")
        self._addPicture(group, "showSlices", self._drawSlices, "Slices and projections",
                         "Sliders move the slices and set what is black and white.")
        self._addPicture(group, "showSurface", self._drawSurface, "Surface",
                         "Drag the map to turn it; the slider sets the density at which the surface lies.")
        if has_chimera():
            self._addView(group, "showChimera", self._openChimera, "Map in ChimeraX")

    def _openChimera(self) -> View:
        name = self.getEnumText("shownMap")
        if name == DIFFERENCE:
            raise ValueError("The difference is made for the pictures here and is no file. Choose another map.")
        return ChimeraView(os.path.abspath(self._mapFile(name)))

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


class FscPart:
    """The curves of a map's FSC file."""

    def _addFsc(self, group) -> None:
        self._addPicture(group, "showFsc", self._drawFsc, "Fourier shell correlation, all curves")

    def _drawFsc(self) -> EmPlotter:
        return pictures.plot_fsc(convert.read_curves(self._fscFile()), self._titled("Fourier shell correlation"))

    def _fscFile(self) -> str:
        return self._result(layout.fsc_name(self._shownClass()))


class LocalResolutionPart:
    """The map coloured by its local resolution. The viewer defines `_mapFile(name)`."""

    def _addLocalResolution(self, group) -> None:
        group.addParam("localResolutionFile", params.PathParam, default="", label="Local resolution map",
                       help="A map of the local resolution (A) in the box of the map, for example of the post-processing. "
                            "Empty: the engine measures it from the half maps, once, which takes seconds to minutes.")
        self._addPicture(group, "showLocalResolution", self._drawLocalResolution, "Surface coloured by local resolution")

    def _drawLocalResolution(self) -> EmPlotter:
        halves = [self._mapFile(name) for name in HALVES]
        folder = self.protocol._getExtraPath("viewer", os.path.basename(halves[0]).removesuffix(".mrc") + "_local")
        path = self.localResolutionFile.get() or measured_local_resolution(halves, folder)
        density, local = read_map(self._mapFile(REFINED)).voxels, read_map(existing(path)).voxels
        if local.shape != density.shape:
            raise ValueError(f"{path} has a box of {len(local)} px, the map of {len(density)} px.")
        return pictures.plot_surface(density, self._titled("local resolution"), local)


class ParticlePart:
    """Views, scores and a gallery of particles: those of the run, unless the viewer has another `_particlesFile()`."""

    def _particlesFile(self) -> str:
        return self._result(layout.PARTICLES)

    def _addDirections(self, group) -> None:
        self._addPicture(group, "showDirections", self._drawDirections, "Angular distribution",
                         "Heat map of the views on the sphere, symmetry mates included. The efficiency after Naydenova and "
                         "Russo (2017) is 1 for even views; below 0.5 the map is blurred along the axis that lacks views.")

    def _drawDirections(self) -> EmPlotter:
        found = convert.read_columns(self._particlesFile(), (*convert.ANGLES[:2], convert.CLASS))
        shown = found[convert.CLASS] == self._shownClass() if self._hasClasses() else slice(None)
        rot, tilt = (np.deg2rad(found[label][shown]) for label in convert.ANGLES[:2])
        if not len(rot):
            raise ValueError(f"Class {self._shownClass()} holds no particle.")
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
        self._addPicture(group, "showGallery", self._drawGallery, "Particles above their reprojections",
                         "Evenly chosen from the best score to the worst. The engine makes the reprojections, which "
                         "takes some seconds.")

    def _drawGallery(self) -> EmPlotter:
        map_path = self._galleryMap()
        pairs = gallery.read_pairs(self._particlesFile(), map_path, self.protocol._getExtraPath("viewer"),
                                   self.galleryCount.get(), self._shownClass())
        title = self._titled(f"{len(pairs.images)} of {pairs.count} particles")
        return pictures.plot_gallery(pairs, read_map(map_path).pixel_size_a, self.galleryLowPass.get(), title)

    def _galleryMap(self) -> str:
        """The map that is reprojected: the first one of the viewer."""
        return self._mapFile(self._mapNames[0])


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
