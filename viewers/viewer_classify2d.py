"""Viewer of the 2D classification: the averages, and the choice among them."""
from __future__ import annotations

import os
from functools import partial

from pwem.protocols import ProtUserSubSet
from pwem.viewers import EmProtocolViewer
from pyworkflow.protocol import params
from pyworkflow.utils import getListFromRangeString
from pyworkflow.viewer import DESKTOP_TKINTER

from swiftres_plugin import layout
from swiftres_plugin.protocols import ProtSwiftresClassify2D
from swiftres_plugin.viewers.class_sheet import ClassPicker, read_sheet

SELECTION = "chosen_classes.txt"


class SwiftresClassesViewer(EmProtocolViewer):
    """All averages with their sizes, and subsets of the particles of chosen classes."""

    _label = "viewer swiftres 2D classes"
    _targets = [ProtSwiftresClassify2D]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection("Results")
        form.addParam("chosen", params.StringParam, default="", label="Classes chosen",
                      help="Numbers and ranges such as 1,4-7, for the window to begin with or for the subset.")
        form.addParam("showClasses", params.LabelParam, label="Averages, to choose among",
                      help="Click on the classes to keep, then on the button: their particles become a new set.")
        form.addParam("createSubset", params.LabelParam, label="Subset of the classes chosen above",
                      help="A new run in the project whose output is the particles of these classes.")

    def _getVisualizeDict(self):
        return {"showClasses": self._viewClasses, "createSubset": self._viewSubset}

    def _viewClasses(self, _parameter=None):
        if not self.protocol.hasAttribute("outputClasses"):
            return [self.errorMessage("The classes are not ready yet.", title="Nothing to show")]
        sheet = read_sheet(self.protocol._getRunPath(layout.CLASSES), self.protocol._report())
        title = f"{self.protocol.getObjLabel() or 'classes'}: {len(sheet.images)} classes"
        picker = ClassPicker(sheet, title, partial(create_subset, self.protocol), self._numbers())
        self._picker = picker  # matplotlib's buttons live as long as they are held
        return [picker.plotter]

    def _viewSubset(self, _parameter=None):
        classes = getattr(self.protocol, "outputClasses", ())
        there, numbers = {one.getObjId() for one in classes}, self._numbers()
        if not numbers or not set(numbers) <= there:
            return [self.errorMessage(f"Choose among the classes that hold particles: {', '.join(map(str, sorted(there)))}.",
                                      title="No such classes")]
        create_subset(self.protocol, numbers)
        return [self.infoMessage("The subset is being created: see the list of runs.", title="Subset")]

    def _numbers(self) -> list[int]:
        return getListFromRangeString(self.chosen.get()) if self.chosen.get() else []


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
