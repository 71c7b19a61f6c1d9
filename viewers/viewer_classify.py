"""The viewer of `swiftres - classify without alignment`."""
from __future__ import annotations

from pwem.viewers import EmPlotter
from pyworkflow.protocol import params

from swiftres_plugin import convert, layout
from swiftres_plugin.protocols import ProtSwiftresClassify
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import SAVING, PictureViewer
from swiftres_plugin.viewers.parts import DIFFERENCE, MapPart, ParticlePart, class_maps


class SwiftresClassifyViewer(MapPart, ParticlePart, PictureViewer):
    """The map of each class, its size and resolution, and how sure the particles are."""

    _label = "swiftres - classify without alignment: results"
    _targets = [ProtSwiftresClassify]
    _mapNames = (*class_maps(), DIFFERENCE)

    def _defineParams(self, form):
        form.addSection("Results")
        form.addParam("classNumber", params.IntParam, default=1, label="Class",
                      help="Number of the class whose map, FSC and particles are shown.")
        self._addMaps(form)
        form.addParam("showFsc", params.LabelParam, label="Fourier shell correlation of the class", help=SAVING.strip())
        form.addParam("showClassSizes", params.LabelParam, label="Particles of each class")
        form.addParam("showCertainty", params.LabelParam, label="Probability of the classes chosen",
                      help="A peak at 1: the particles know where they belong. All near one over the number of classes: there "
                           "is nothing to tell them apart.")
        form.addParam("showRounds", params.LabelParam, label="Course of the classification",
                      help="Share of the particles that moved in each round, and their entropy: 0 where each is sure of its "
                           "class, 1 where none is.")
        self._addGallery(form)
        self._addSaving(form)

    def _pictures(self):
        return {**self._mapPictures(), "showFsc": self._drawFsc, "showClassSizes": self._drawClassSizes,
                "showCertainty": self._drawCertainty, "showRounds": self._drawRounds, "showGallery": self._drawGallery}

    def _others(self):
        return self._mapPrograms()

    def _drawFsc(self) -> EmPlotter:
        curves = convert.read_curves(self._result(layout.fsc_name(self.classNumber.get())))
        return pictures.plot_fsc(curves, self._titled("Fourier shell correlation"))

    def _drawClassSizes(self) -> EmPlotter:
        return pictures.plot_sizes(self._files.record()["class_sizes"], "Particles of each class", "class")

    def _drawCertainty(self) -> EmPlotter:
        found = convert.read_columns(self._particlesFile(), (convert.CLASS_PROBABILITY,))
        return pictures.plot_histograms({"posterior probability of the class": found[convert.CLASS_PROBABILITY]},
                                        "Classes chosen")

    def _drawRounds(self) -> EmPlotter:
        rounds = self._files.record()["rounds"]
        moved, entropy = ([one[key] for one in rounds] for key in ("changes", "entropy"))
        return pictures.plot_rounds({"share that moved": moved, "entropy": entropy}, "Course of the classification")

    def _drawGallery(self) -> EmPlotter:
        number = self.classNumber.get()
        return self._drawPairs(self._result(layout.map_name(number)), number)

    def _mapFile(self, name: str) -> str:
        return self._result(class_maps(self.classNumber.get())[name])

    def _particlesFile(self) -> str:
        return self._result(layout.PARTICLES)

    def _titled(self, text: str) -> str:
        return f"{text}, class {self.classNumber.get()}"
