"""The viewer of `swiftres - symmetry relaxation`."""
from __future__ import annotations

import numpy as np
from pwem.viewers import EmPlotter

from swiftres_plugin import convert, layout
from swiftres_plugin.protocols import ProtSwiftresRelax
from swiftres_plugin.viewers import pictures
from swiftres_plugin.viewers.base import PictureViewer


class SwiftresRelaxViewer(PictureViewer):
    """How sure the choice is, which mates were chosen, and how it came to rest."""

    _label = "swiftres - symmetry relaxation: results"
    _targets = [ProtSwiftresRelax]

    def _defineParams(self, form):
        form.addSection("Results")
        self._addPicture(form, "showProbability", self._drawProbability, "Probability of the chosen mates",
                         "A peak at 1: the particles know where they belong. All near one over the order of the group: they "
                         "do not.")
        self._addPicture(form, "showMates", self._drawMates, "Particles at each mate",
                         "Numbers of the operators that took the input poses to the output. Even after a refinement in the "
                         "symmetry, which chose among the mates by chance.")
        self._addPicture(form, "showRounds", self._drawRounds, "Course of the relaxation",
                         "Share of the particles that changed their mate in each round: it should fall to nothing.")
        self._addSaving(form)

    def _drawProbability(self) -> EmPlotter:
        return pictures.plot_histograms({"posterior probability of the mate": self._column(convert.MATE_PROBABILITY)},
                                        "Chosen mates")

    def _drawMates(self) -> EmPlotter:
        numbers = self._column(convert.RELAXED_MATE).astype(int)
        counts = np.bincount(numbers, minlength=self._files.record()["mates"] + 1)[1:]
        return pictures.plot_sizes(counts.tolist(), "Particles at each mate", "mate")

    def _drawRounds(self) -> EmPlotter:
        changes = self._files.record()["changes"]
        return pictures.plot_rounds({"share that changed mate": changes}, "Course of the relaxation")

    def _column(self, label: str) -> np.ndarray:
        return convert.read_columns(self._result(layout.PARTICLES), (label,))[label]
