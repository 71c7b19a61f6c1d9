"""The viewer of `swiftres - classify without alignment`."""
from __future__ import annotations

from pwem.viewers import EmPlotter

from swiftres_plugin import convert
from swiftres_plugin.protocols import ProtSwiftresClassify
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import PictureViewer
from swiftres_plugin.viewers.parts import DIFFERENCE, ClassPart, FscPart, MapPart, ParticlePart, class_maps


class SwiftresClassifyViewer(ClassPart, MapPart, FscPart, ParticlePart, PictureViewer):
    """The map of each class, its size and resolution, and how sure the particles are."""

    _label = "swiftres - classify without alignment: results"
    _targets = [ProtSwiftresClassify]
    _mapNames = (*class_maps(), DIFFERENCE)

    def _defineParams(self, form):
        form.addSection("Results")
        self._addClassNumber(form, "Number of the class whose map, FSC and particles are shown.")
        self._addMaps(form)
        self._addFsc(form)
        self._addClassSizes(form)
        self._addPicture(form, "showCertainty", self._drawCertainty, "Probability of the classes chosen",
                         "A peak at 1: the particles know where they belong. All near one over the number of classes: there "
                         "is nothing to tell them apart.")
        self._addPicture(form, "showRounds", self._drawRounds, "Course of the classification",
                         "Share of the particles that moved in each round, and their entropy: 0 where each is sure of its "
                         "class, 1 where none is.")
        self._addGallery(form)
        self._addSaving(form)

    def _drawCertainty(self) -> EmPlotter:
        found = convert.read_columns(self._particlesFile(), (convert.CLASS_PROBABILITY,))
        return pictures.plot_histograms({"posterior probability of the class": found[convert.CLASS_PROBABILITY]},
                                        "Classes chosen")

    def _drawRounds(self) -> EmPlotter:
        rounds = self._files.record()["rounds"]
        moved, entropy = ([one[key] for one in rounds] for key in ("changes", "entropy"))
        return pictures.plot_rounds({"share that moved": moved, "entropy": entropy}, "Course of the classification")

    def _mapFile(self, name: str) -> str:
        return self._result(class_maps(self._shownClass())[name])
