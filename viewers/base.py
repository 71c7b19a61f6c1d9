"""What every viewer has: a form with a button for each picture, messages for what is missing, and all pictures saved."""
from __future__ import annotations

import os
from collections.abc import Callable
from subprocess import CalledProcessError

from matplotlib import pyplot
from pwem.viewers import EmPlotter, EmProtocolViewer
from pyworkflow.protocol import params
from pyworkflow.viewer import DESKTOP_TKINTER, View

from swiftres_plugin.viewers.run_files import RunFiles, existing

SAVING = "\n\nThe disk in the window's tool bar saves the picture as PNG, PDF or SVG."
FORMATS = ("png", "pdf")
NOTHING = "Nothing to show"
FAILURES = (FileNotFoundError, ValueError, CalledProcessError)


class PictureViewer(EmProtocolViewer):
    """A viewer defines `_pictures()` and, for what is no picture, `_others()`: what to make, by the name of its button."""

    _environments = [DESKTOP_TKINTER]

    @classmethod
    def getClassLabel(cls, prependPackageName=True):
        """The protocol's own name, where Scipion would put that of the Python package before it."""
        return cls._label

    def _pictures(self) -> dict[str, Callable[[], EmPlotter]]:
        raise NotImplementedError

    def _others(self) -> dict[str, Callable[[], View]]:
        return {}

    def _addSaving(self, form) -> None:
        form.addParam("savePictures", params.LabelParam, label="Save every picture of this form",
                      help="As PNG and PDF, in the folder 'pictures' of the protocol, with the choices made above.")

    def _getVisualizeDict(self):
        shown = {name: self._orMessage(make) for name, make in {**self._pictures(), **self._others()}.items()}
        return {**shown, "savePictures": lambda _parameter=None: [self._savePictures()]}

    def _orMessage(self, make: Callable[[], View]) -> Callable:
        """What `make` makes, or a message when its file is not there (yet) or a field cannot be understood."""
        def show(_parameter=None) -> list[View]:
            try:
                return [make()]
            except FAILURES as error:
                return [self.errorMessage(reason(error), title=NOTHING)]
        return show

    def _savePictures(self) -> View:
        """Save what can be made, and tell where, and why the rest could not."""
        folder, saved, missing = self.protocol._getExtraPath("pictures"), [], []
        os.makedirs(folder, exist_ok=True)
        for name, make in self._pictures().items():
            picture = name.removeprefix("show").lower()
            try:
                figure = make().figure
            except FAILURES as error:
                missing.append(f"{picture}: {reason(error)}")
                continue
            for extension in FORMATS:
                figure.savefig(os.path.join(folder, f"{picture}.{extension}"))
            pyplot.close(figure)
            saved.append(picture)
        told = [f"In {os.path.abspath(folder)}, each as PNG and PDF:", ", ".join(saved) or "none", *missing]
        return self.infoMessage("\n".join(told), title="Pictures saved")

    @property
    def _files(self) -> RunFiles:
        return RunFiles(self.protocol._getRunPath())

    def _result(self, name: str) -> str:
        """Path of a file in the folder of the run; raises `FileNotFoundError` when it is not there."""
        return existing(self.protocol._getRunPath(name))


def reason(error: Exception) -> str:
    """What went wrong, for the user."""
    if isinstance(error, FileNotFoundError):
        return f"{os.path.basename(str(error.filename))} is not there: the run has not written it, or not in this iteration."
    if isinstance(error, CalledProcessError):
        return "The engine could not make it; the terminal in which Scipion was started says why."
    return str(error)
