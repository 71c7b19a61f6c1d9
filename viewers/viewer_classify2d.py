"""Viewer of the 2D classification: the averages, and the choice among them."""
from __future__ import annotations

import os
from functools import partial

from pwem.protocols import ProtUserSubSet
from pwem.viewers import EmPlotter
from pyworkflow.protocol import params
from pyworkflow.viewer import View

from swiftres_plugin import layout
from swiftres_plugin.protocols import ProtSwiftresClassify2D
from swiftres_plugin.viewers.base import PictureViewer, numbers_in
from swiftres_plugin.viewers.class_sheet import ClassPicker, read_sheet

SELECTION = "chosen_classes.txt"


class SwiftresClassesViewer(PictureViewer):
    """All averages with their sizes, and subsets of the particles of chosen classes."""

    _label = "swiftres - 2D classification: results"
    _targets = [ProtSwiftresClassify2D]

    def _defineParams(self, form):
        form.addSection("Results")
        form.addParam("chosen", params.StringParam, default="", label="Classes chosen",
                      help="Numbers and ranges such as 1,4-7, for the window to begin with or for the subset.")
        self._addPicture(form, "showClasses", self._drawClasses, "Averages, to choose among",
                         "Click on the classes to keep, then on the button: their particles become a new set.")
        self._addView(form, "createSubset", self._makeSubset, "Subset of the classes chosen above",
                      "A new run in the project whose output is the particles of these classes.")
        self._addSaving(form)

    def _drawClasses(self) -> EmPlotter:
        sheet = read_sheet(self._result(layout.CLASSES), self.protocol._report())
        title = f"{self.protocol.getObjLabel() or 'classes'}: {len(sheet.images)} classes"
        return ClassPicker(sheet, title, partial(create_subset, self.protocol), numbers_in(self.chosen.get())).plotter

    def _makeSubset(self) -> View:
        there = {one.getObjId() for one in getattr(self.protocol, "outputClasses", ())}
        numbers = numbers_in(self.chosen.get())
        if not numbers or not set(numbers) <= there:
            raise ValueError(f"Choose among the classes that hold particles: {', '.join(map(str, sorted(there)))}.")
        create_subset(self.protocol, numbers)
        return self.infoMessage("The subset is being created: see the list of runs.", title="Subset")


def create_subset(protocol: ProtSwiftresClassify2D, numbers: list[int], wait: bool = False) -> ProtUserSubSet:
    """Launch Scipion's own subset protocol for the particles of the classes of these numbers."""
    project = protocol.getProject()
    selection = os.path.abspath(protocol._getExtraPath(SELECTION))
    with open(selection, "w") as file:
        file.write(" ".join(map(str, numbers)))
    subset = project.newProtocol(ProtUserSubSet, inputObject=protocol.outputClasses, sqliteFile=f"{selection},",
                                 outputClassName="SetOfParticles")
    subset.setObjLabel(f"classes {','.join(map(str, numbers))}")
    project.launchProtocol(subset, wait=wait)
    return subset
