"""The viewer of a refinement, finished or not: everything it wrote, in pictures that need no other program."""
from __future__ import annotations

import webbrowser
from pathlib import Path

from pwem.viewers import EmPlotter
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.protocol import params
from pyworkflow.viewer import View

from swiftres_plugin import convert, layout
from swiftres_plugin.protocols import ProtSwiftres
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import PictureViewer, numbers_in
from swiftres_plugin.viewers.parts import (
    DIFFERENCE,
    HALVES,
    REFINED,
    ClassPart,
    FscPart,
    LocalResolutionPart,
    MapPart,
    ParticlePart,
    class_maps,
)

CURVE_KINDS = {"corrected": ("corrected",), "masked": ("masked",), "unmasked": ("unmasked",),
               "all three": ("corrected", "masked", "unmasked")}


class SwiftresViewer(ClassPart, MapPart, LocalResolutionPart, FscPart, ParticlePart, PictureViewer):
    """Everything a run wrote, finished or not, in pictures."""

    _label = "swiftres - 3D refinement: results"
    _targets = [ProtSwiftres]
    _mapNames = (*class_maps(), DIFFERENCE)

    def _defineParams(self, form):
        form.addSection("Maps and resolution")
        form.addParam("iteration", params.IntParam, default=0, label="Iteration",
                      help="Number of the iteration to show; 0 shows the last one, or the result of a finished run.")
        self._addClassNumber(form, "Number of the class whose map, FSC and particles are shown: that of its starting volume.")
        maps = form.addGroup("Maps")
        self._addMaps(maps)
        self._addLocalResolution(maps)
        self._addView(maps, "showVolumes", self._makeVolumes, "Map and half maps in the Scipion viewer",
                      "Opens Scipion's table viewer. It needs the X11 libraries of Qt; where they are missing it says so in "
                      "the terminal only.")
        self._addResolution(form.addGroup("Resolution and course"))
        form.addSection("Particles and report")
        self._addDirections(form)
        self._addPicture(form, "showScores", self._drawScores, "Scores and posterior widths",
                         "Histograms, of all particles. The widths are kept of the last two iterations only.")
        self._addGallery(form)
        self._addView(form, "showReport", self._makeReport, "Report of the run, in a browser",
                      "One page with everything, written at the end of the run; it can be copied and sent as it is.")
        self._addSaving(form)

    def _addResolution(self, group):
        self._addFsc(group)
        group.addParam("iterationList", params.StringParam, default="all", label="Iterations to compare",
                       help="'all', or numbers and ranges such as 1,4-7.")
        group.addParam("curveKind", params.EnumParam, choices=list(CURVE_KINDS), default=0, label="Curve to compare",
                       display=params.EnumParam.DISPLAY_HLIST)
        self._addPicture(group, "showFscOfIterations", self._drawFscOfIterations,
                         "Fourier shell correlation of these iterations")
        self._addPicture(group, "showCourse", self._drawCourse, "Course of the refinement",
                         "Resolution, change of the poses, certainty and time of each iteration.")
        self._addClassSizes(group)

    # -------------------------- pictures --------------------------
    def _drawFscOfIterations(self) -> EmPlotter:
        kind, found = self.getEnumText("curveKind"), {number: self._curves(number) for number in self._chosenIterations()}
        return pictures.plot_fsc_of_iterations(found, CURVE_KINDS[kind], f"Fourier shell correlation, {kind}")

    def _curves(self, iteration: int) -> dict[str, list[float]]:
        return convert.read_curves(self._files.path(layout.fsc_name(self._shownClass()), iteration))

    def _chosenIterations(self) -> list[int]:
        """Numbers of `iterationList`; raises `ValueError` where it cannot be read or names no iteration."""
        text, done = (self.iterationList.get() or "").strip(), self._files.iterations()
        if not done:
            raise FileNotFoundError(2, "no iteration", layout.fsc_name())
        if text.lower() in ("", "all"):
            return done
        asked = numbers_in(text)
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
        return pictures.plot_histograms(values, self._ofIteration("Scores and posterior widths"))

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
        return self._file(class_maps(self._shownClass())[name])

    def _particlesFile(self) -> str:
        return self._file(layout.PARTICLES)

    def _fscFile(self) -> str:
        return self._file(layout.fsc_name(self._shownClass()))

    def _titled(self, text: str) -> str:
        return self._ofIteration(super()._titled(text))

    def _ofIteration(self, text: str) -> str:
        return f"{text} (iteration {self.iteration.get()})" if self.iteration.get() else f"{text} (last)"


class PageView(View):
    """A page in the user's browser."""

    def __init__(self, path: str):
        super().__init__()
        self.address = Path(path).resolve().as_uri()  # a path may hold spaces

    def show(self) -> None:
        webbrowser.open_new_tab(self.address)
