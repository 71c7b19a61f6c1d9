"""Viewers of the refinement: pictures in windows that need no other program."""
from __future__ import annotations

import os
import shutil
import webbrowser
from collections.abc import Callable
from functools import partial

import numpy as np
from pwem.emlib.image import ImageHandler
from pwem.objects import Volume
from pwem.viewers import Chimera, ChimeraView, EmProtocolViewer
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.protocol import params
from pyworkflow.utils import getListFromRangeString
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer

from swiftres_plugin import convert, layout
from swiftres_plugin.protocols import ProtSwiftres
from swiftres_plugin.viewers import gallery, pictures
from swiftres_plugin.viewers.run_files import RunFiles, existing, read_voxels

MAPS = {"refined map": layout.map_name, "half map 1": partial(layout.half_name, 1),
        "half map 2": partial(layout.half_name, 2), "mask": layout.mask_name}  # names of files by the number of the class
DIFFERENCE = "half of the difference of the halves"
CURVE_KINDS = ("corrected", "masked", "unmasked")
LOCAL_RESOLUTION = "local_resolution.mrc"
SCORES = {"rlnLogLikeliContribution": "log-likelihood of the pose",
          "rlnMaxValueProbDistribution": "posterior share of the best pose"}
SAVING = "\n\nThe disk in the window's tool bar saves the picture as PNG, PDF or SVG."


class SwiftresViewer(EmProtocolViewer):
    """Everything a run wrote, finished or not, in pictures."""

    _label = "viewer swiftres"
    _targets = [ProtSwiftres]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection("Results")
        form.addParam("iteration", params.IntParam, default=0, label="Iteration",
                      help="Number of the iteration to show; 0 shows the last one, or the result of a finished run.")
        form.addParam("classNumber", params.IntParam, default=1, label="Class",
                      help="Number of the class whose map, FSC and particles are shown: that of its starting volume.")
        self._defineMaps(form.addGroup("Maps"))
        self._defineResolution(form.addGroup("Resolution and course"))
        self._defineParticles(form.addGroup("Particles"))
        form.addParam("showReport", params.LabelParam, label="Report of the run, in a browser",
                      help="One page with everything, written at the end of the run; it can be copied and sent as it is.")

    def _defineMaps(self, group):
        group.addParam("shownMap", params.EnumParam, choices=[*MAPS, DIFFERENCE], default=0, label="Map")
        group.addParam("showSlices", params.LabelParam, label="Slices and projections",
                       help="Sliders move the slices and set what is black and white." + SAVING)
        group.addParam("showSurface", params.LabelParam, label="Surface",
                       help="Drag the map to turn it; the slider sets the density at which the surface lies." + SAVING)
        group.addParam("localResolutionFile", params.PathParam, default="", label="Local resolution map",
                       help="A map of the local resolution (A) in the box of the refined map, for example of the "
                            f"post-processing. Empty: {LOCAL_RESOLUTION} in the folder of the run.")
        group.addParam("showLocalResolution", params.LabelParam, label="Surface coloured by local resolution")
        group.addParam("showVolumes", params.LabelParam, label="Map and half maps in the Scipion viewer",
                       help="Opens Scipion's table viewer. It needs the X11 libraries of Qt; where they are missing it says "
                            "so in the terminal only.")
        if has_chimera():
            group.addParam("showChimera", params.LabelParam, label="Map in ChimeraX")

    def _defineResolution(self, group):
        group.addParam("showFsc", params.LabelParam, label="Fourier shell correlation, all curves", help=SAVING.strip())
        group.addParam("iterationList", params.StringParam, default="all", label="Iterations to compare",
                       help="'all', or numbers and ranges such as 1,4-7.")
        group.addParam("curveKind", params.EnumParam, choices=list(CURVE_KINDS), default=0, label="Curve to compare",
                       display=params.EnumParam.DISPLAY_HLIST)
        group.addParam("showFscOfIterations", params.LabelParam, label="Fourier shell correlation of these iterations")
        group.addParam("showCourse", params.LabelParam, label="Course of the refinement",
                       help="Resolution, change of the poses, certainty and time of each iteration.")
        group.addParam("showClassSizes", params.LabelParam, label="Class sizes in the course of the refinement")

    def _defineParticles(self, group):
        group.addParam("showDirections", params.LabelParam, label="Angular distribution",
                       help="Heat map of the views on the sphere, symmetry mates included. The efficiency after Naydenova and "
                            "Russo (2017) is 1 for even views; below 0.5 the map is blurred along the axis that lacks views.")
        group.addParam("showScores", params.LabelParam, label="Scores and posterior widths",
                       help="Histograms. The widths are kept of the last two iterations only.")
        group.addParam("galleryCount", params.IntParam, default=24, label="Particles in the gallery",
                       validators=[params.Range(1, 200, "from 1 to 200")])
        group.addParam("galleryLowPass", params.FloatParam, default=20.0, label="Low pass of its particles (A)",
                       help="Smooths the particles, not the reprojections; 0 leaves them as they are.")
        group.addParam("showGallery", params.LabelParam, label="Particles above their reprojections",
                       help="Evenly chosen from the best score to the worst. The engine makes the reprojections, which "
                            "takes some seconds.")

    def _getVisualizeDict(self):
        views = {"showSlices": self._viewSlices, "showSurface": self._viewSurface, "showVolumes": self._viewVolumes,
                 "showLocalResolution": self._viewLocalResolution, "showChimera": self._viewChimera,
                 "showFsc": self._viewFsc, "showFscOfIterations": self._viewFscOfIterations, "showCourse": self._viewCourse,
                 "showClassSizes": self._viewClassSizes, "showDirections": self._viewDirections,
                 "showScores": self._viewScores, "showGallery": self._viewGallery, "showReport": self._viewReport}
        return {name: self._orMessage(view) for name, view in views.items()}

    def _orMessage(self, view: Callable) -> Callable:
        """`view`, telling the user when its file is not there (yet) or a field cannot be understood."""
        def show(_parameter=None):
            try:
                return view()
            except FileNotFoundError as error:
                name = os.path.basename(str(error.filename))
                return [self.errorMessage(f"{name} is not there: the run has not written it yet, or not in this "
                                          "iteration.", title="Nothing to show")]
            except ValueError as error:
                return [self.errorMessage(str(error), title="Nothing to show")]
        return show

    # -------------------------- maps --------------------------
    def _viewSlices(self):
        name = self.getEnumText("shownMap")
        return [pictures.plot_slices(self._voxels(name), self._pixelSize(), f"{name} ({self._when()})")]

    def _viewSurface(self):
        name = self.getEnumText("shownMap")
        return [pictures.plot_surface(self._voxels(name), f"{name} ({self._when()})")]

    def _viewLocalResolution(self):
        path = self.localResolutionFile.get() or os.path.join(self._files.folder, LOCAL_RESOLUTION)
        density, local = self._voxels("refined map"), read_voxels(existing(path))
        if local.shape != density.shape:
            raise ValueError(f"{path} has a box of {len(local)} px, the map of {len(density)} px.")
        return [pictures.plot_surface(density, f"local resolution ({self._when()})", local)]

    def _viewVolumes(self):
        files = [self._file(name(self.classNumber.get())) for name in list(MAPS.values())[:3]]
        path = self.protocol._getExtraPath("viewer_volumes.sqlite")
        volumes = self.createVolumesSqlite(files, path, self._pixelSize())
        return [MDView(volumes, self.protocol, self.getProject().port)]

    def _viewChimera(self):
        return [ChimeraView(os.path.abspath(self._file(layout.map_name(self.classNumber.get()))))]

    def _voxels(self, name: str) -> np.ndarray:
        number = self.classNumber.get()
        if name == DIFFERENCE:
            first, second = (read_voxels(self._file(layout.half_name(half, number))) for half in (1, 2))
            return (first - second) / 2
        return read_voxels(self._file(MAPS[name](number)))

    # -------------------------- resolution and course --------------------------
    def _viewFsc(self):
        curves = convert.read_curves(self._file(layout.fsc_name(self.classNumber.get())))
        return [pictures.plot_fsc(curves, f"Fourier shell correlation ({self._when()})")]

    def _viewFscOfIterations(self):
        name, kind = layout.fsc_name(self.classNumber.get()), CURVE_KINDS[self.curveKind.get()]
        found = {number: convert.read_curves(self._files.path(name, number)) for number in self._chosenIterations()}
        return [pictures.plot_fsc_of_iterations(found, kind, f"Fourier shell correlation, {kind}")]

    def _chosenIterations(self) -> list[int]:
        """Numbers of `iterationList`; raises `ValueError` where it cannot be read or names no iteration."""
        text, done = (self.iterationList.get() or "").strip(), self._files.iterations()
        if not done:
            raise FileNotFoundError(2, "no iteration", layout.fsc_name())
        if text.lower() in ("", "all"):
            return done
        try:
            asked = sorted(set(getListFromRangeString(text)))
        except ValueError:
            raise ValueError(f"'{text}' is no list of iterations: give 'all', or numbers and ranges such as 1,4-7.") from None
        missing = sorted(set(asked) - set(done))
        if missing or not asked:
            raise ValueError(f"There is no iteration {missing or text}; the run has {done[0]} to {done[-1]}.")
        return asked

    def _viewCourse(self):
        return [pictures.plot_course(self._files.record(), "Course of the refinement")]

    def _viewClassSizes(self):
        return [pictures.plot_class_sizes(self._files.record(), "Particles in each class")]

    # -------------------------- particles --------------------------
    def _viewDirections(self):
        refined = convert.read_refined(self._file(layout.PARTICLES), self._pixelSize())
        title = f"Views of {len(refined.matrices)} particles ({self._when()})"
        symmetry = self._files.record()["settings"]["schedule"]["symmetry"]
        return [pictures.plot_directions(refined.matrices, symmetry, title)]

    def _viewScores(self):
        refined = convert.read_refined(self._file(layout.PARTICLES), self._pixelSize())
        values = {name: refined.scores[label] for label, name in SCORES.items() if label in refined.scores}
        try:
            values.update(self._files.posterior_widths(self.iteration.get()))
        except FileNotFoundError:  # of an earlier iteration: the scores are there all the same
            pass
        return [pictures.plot_histograms(values, f"Scores and posterior widths ({self._when()})")]

    def _viewGallery(self):
        number = self.classNumber.get()
        pairs = gallery.read_pairs(self._file(layout.PARTICLES), self._file(layout.map_name(number)),
                                   self.protocol._getExtraPath("viewer"), self.galleryCount.get(), number)
        title = f"Class {number}, {len(pairs.images)} of {pairs.count} particles ({self._when()})"
        return [pictures.plot_gallery(pairs, self._pixelSize(), self.galleryLowPass.get(), title)]

    def _viewReport(self):
        return [PageView(existing(os.path.join(self._files.folder, layout.REPORT)))]

    # -------------------------- files --------------------------
    @property
    def _files(self) -> RunFiles:
        return RunFiles(self.protocol._getRunPath())

    def _file(self, name: str) -> str:
        """Path of a result of the chosen iteration; raises `FileNotFoundError` when it is not there."""
        return self._files.path(name, self.iteration.get())

    def _when(self) -> str:
        return f"iteration {self.iteration.get()}" if self.iteration.get() else "last"

    def _pixelSize(self) -> float:
        return self.protocol.inputParticles.get().getSamplingRate()


class PageView(View):
    """A page in the user's browser."""

    def __init__(self, path: str):
        super().__init__()
        self.path = os.path.abspath(path)

    def show(self) -> None:
        webbrowser.open_new_tab(f"file://{self.path}")


class SwiftresVolumeViewer(Viewer):
    """Slices of any single volume, for installations that have no other viewer for it."""

    _name = "Slices and surface"
    _targets = [Volume]
    _environments = [DESKTOP_TKINTER]

    def _visualize(self, obj, **kwargs):
        voxels = ImageHandler().read(obj.getLocation()).getData()
        voxels, pixel_size_a = voxels.reshape(voxels.shape[-3:]), obj.getSamplingRate() or 1.0
        return [pictures.plot_slices(voxels, pixel_size_a, obj.getFileName()),
                pictures.plot_surface(voxels, obj.getFileName())]


def has_chimera() -> bool:
    program = Chimera.getProgram()
    return bool(program) and shutil.which(program) is not None
