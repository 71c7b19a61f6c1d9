"""The viewer of a refinement, finished or not: everything it wrote, in pictures that need no other program."""
from __future__ import annotations

import os
import webbrowser

from pwem.viewers import EmPlotter
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.protocol import params
from pyworkflow.utils import getListFromRangeString
from pyworkflow.viewer import View

from swiftres_plugin import convert, layout
from swiftres_plugin.protocols import ProtSwiftres
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import SAVING, PictureViewer
from swiftres_plugin.viewers.parts import (
    DIFFERENCE,
    HALVES,
    REFINED,
    LocalResolutionPart,
    MapPart,
    ParticlePart,
    class_maps,
)

CURVE_KINDS = {"corrected": ("corrected",), "masked": ("masked",), "unmasked": ("unmasked",),
               "all three": ("corrected", "masked", "unmasked")}


class SwiftresViewer(MapPart, LocalResolutionPart, ParticlePart, PictureViewer):
    """Everything a run wrote, finished or not, in pictures."""

    _label = "swiftres - 3D refinement: results"
    _targets = [ProtSwiftres]
    _mapNames = (*class_maps(), DIFFERENCE)

    def _defineParams(self, form):
        form.addSection("Maps and resolution")
        form.addParam("iteration", params.IntParam, default=0, label="Iteration",
                      help="Number of the iteration to show; 0 shows the last one, or the result of a finished run.")
        form.addParam("classNumber", params.IntParam, default=1, label="Class",
                      help="Number of the class whose map, FSC and particles are shown: that of its starting volume.")
        maps = form.addGroup("Maps")
        self._addMaps(maps)
        self._addLocalResolution(maps)
        self._addOtherPrograms(maps)
        self._addResolution(form.addGroup("Resolution and course"))
        form.addSection("Particles and report")
        self._addDirections(form)
        form.addParam("showScores", params.LabelParam, label="Scores and posterior widths",
                      help="Histograms. The widths are kept of the last two iterations only.")
        self._addGallery(form)
        form.addParam("showReport", params.LabelParam, label="Report of the run, in a browser",
                      help="One page with everything, written at the end of the run; it can be copied and sent as it is.")
        self._addSaving(form)

    def _addOtherPrograms(self, group):
        group.addParam("showVolumes", params.LabelParam, label="Map and half maps in the Scipion viewer",
                       help="Opens Scipion's table viewer. It needs the X11 libraries of Qt; where they are missing it says "
                            "so in the terminal only.")

    def _addResolution(self, group):
        group.addParam("showFsc", params.LabelParam, label="Fourier shell correlation, all curves", help=SAVING.strip())
        group.addParam("iterationList", params.StringParam, default="all", label="Iterations to compare",
                       help="'all', or numbers and ranges such as 1,4-7.")
        group.addParam("curveKind", params.EnumParam, choices=list(CURVE_KINDS), default=0, label="Curve to compare",
                       display=params.EnumParam.DISPLAY_HLIST)
        group.addParam("showFscOfIterations", params.LabelParam, label="Fourier shell correlation of these iterations")
        group.addParam("showCourse", params.LabelParam, label="Course of the refinement",
                       help="Resolution, change of the poses, certainty and time of each iteration.")
        group.addParam("showClassSizes", params.LabelParam, label="Class sizes in the course of the refinement")

    def _pictures(self):
        return {**self._mapPictures(), **self._localResolutionPictures(), "showFsc": self._drawFsc,
                "showFscOfIterations": self._drawFscOfIterations, "showCourse": self._drawCourse,
                "showClassSizes": self._drawClassSizes, "showDirections": self._drawDirections,
                "showScores": self._drawScores, "showGallery": self._drawGallery}

    def _others(self):
        return {**self._mapPrograms(), "showVolumes": self._makeVolumes, "showReport": self._makeReport}

    # -------------------------- pictures --------------------------
    def _drawFsc(self) -> EmPlotter:
        return pictures.plot_fsc(self._curves(self.iteration.get()), self._titled("Fourier shell correlation"))

    def _drawFscOfIterations(self) -> EmPlotter:
        kind, found = self.getEnumText("curveKind"), {number: self._curves(number) for number in self._chosenIterations()}
        return pictures.plot_fsc_of_iterations(found, CURVE_KINDS[kind], f"Fourier shell correlation, {kind}")

    def _curves(self, iteration: int) -> dict[str, list[float]]:
        return convert.read_curves(self._files.path(layout.fsc_name(self.classNumber.get()), iteration))

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

    def _drawCourse(self) -> EmPlotter:
        return pictures.plot_course(self._files.record(), "Course of the refinement")

    def _drawClassSizes(self) -> EmPlotter:
        return pictures.plot_class_sizes(self._files.record(), "Particles in each class")

    def _drawScores(self) -> EmPlotter:
        values = self._readScores()
        try:
            values.update(self._files.posterior_widths(self.iteration.get()))
        except FileNotFoundError:  # of an earlier iteration: the scores are there all the same
            pass
        return pictures.plot_histograms(values, self._titled("Scores and posterior widths"))

    def _drawGallery(self) -> EmPlotter:
        return self._drawPairs(self._mapFile(REFINED), self.classNumber.get())

    # -------------------------- other programs --------------------------
    def _makeVolumes(self) -> View:
        files = [self._mapFile(name) for name in (REFINED, *HALVES)]
        path = self.protocol._getExtraPath("viewer_volumes.sqlite")
        volumes = self.createVolumesSqlite(files, path, self.protocol.inputParticles.get().getSamplingRate())
        return MDView(volumes, self.protocol, self.getProject().port)

    def _makeReport(self) -> View:
        return PageView(self._result(layout.REPORT))

    # -------------------------- files --------------------------
    def _file(self, name: str) -> str:
        """Path of a result of the chosen iteration; raises `FileNotFoundError` when it is not there."""
        return self._files.path(name, self.iteration.get())

    def _mapFile(self, name: str) -> str:
        return self._file(class_maps(self.classNumber.get())[name])

    def _particlesFile(self) -> str:
        return self._file(layout.PARTICLES)

    def _titled(self, text: str) -> str:
        return f"{text} (iteration {self.iteration.get()})" if self.iteration.get() else f"{text} (last)"


class PageView(View):
    """A page in the user's browser."""

    def __init__(self, path: str):
        super().__init__()
        self.path = os.path.abspath(path)

    def show(self) -> None:
        webbrowser.open_new_tab(f"file://{self.path}")
