"""What every viewer has: a form with a button for each picture, messages for what is missing, and all pictures saved."""
from __future__ import annotations

import os
from collections.abc import Callable
from subprocess import CalledProcessError

from matplotlib import pyplot
from pwem.viewers import EmPlotter, EmProtocolViewer
from pyworkflow.protocol import params
from pyworkflow.utils import getListFromRangeString
from pyworkflow.viewer import DESKTOP_TKINTER, View

from swiftres_plugin.viewers.run_files import RunFiles, existing

SAVING = "\n\nThe disk in the window's tool bar saves the picture as PNG, PDF or SVG."
FORMATS = ("png", "pdf")
NOTHING = "Nothing to show"
FAILURES = (FileNotFoundError, ValueError, CalledProcessError)


class PictureViewer(EmProtocolViewer):
    """A viewer defines its form; `_addPicture` and `_addView` put a button there and keep what it makes, by its name."""

    _environments = [DESKTOP_TKINTER]

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._pictures: dict[str, Callable[[], EmPlotter]] = {}
        self._views: dict[str, Callable[[], View]] = {}

    @classmethod
    def getClassLabel(cls, prependPackageName=True):
        """The protocol's own name, where Scipion would put that of the Python package before it."""
        return cls._label

    def _addPicture(self, group, name: str, draw: Callable[[], EmPlotter], label: str, help: str = "") -> None:
        group.addParam(name, params.LabelParam, label=label, help=(help + SAVING).strip())
        self._pictures[name] = draw

    def _addView(self, group, name: str, make: Callable[[], View], label: str, help: str = "") -> None:
        """A button for what is no picture of ours and is not saved with them."""
        group.addParam(name, params.LabelParam, label=label, help=help)
        self._views[name] = make

    def _addSaving(self, form) -> None:
        self._addView(form, "savePictures", self._savePictures, "Save every picture of this form",
                      "As PNG and PDF, in the folder 'pictures' of the protocol, with the choices made above.")

    def _getVisualizeDict(self):
        return {name: self._orMessage(make) for name, make in {**self._pictures, **self._views}.items()}

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
        for name, make in self._pictures.items():
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

    def _titled(self, text: str) -> str:
        """The title of a picture; viewers that show one of several things say which."""
        return text

    def _hasClasses(self) -> bool:
        """Whether there are several classes, of which one is shown."""
        return False

    def _shownClass(self) -> int:
        """Number of the class that is shown."""
        return 1


def numbers_in(text: str | None) -> list[int]:
    """Sorted numbers of a text such as 1,4-7; none of an empty one. Raises `ValueError` where it cannot be read."""
    try:
        return sorted(set(getListFromRangeString(text))) if text and text.strip() else []
    except ValueError:
        raise ValueError(f"'{text}' is no list of numbers: give numbers and ranges such as 1,4-7.") from None


def reason(error: Exception) -> str:
    """What went wrong, for the user."""
    if isinstance(error, FileNotFoundError):
        return f"{os.path.basename(str(error.filename))} is not there: the run has not written it, or not in this iteration."
    if isinstance(error, CalledProcessError):
        return "The engine could not make it; the terminal in which Scipion was started says why."
    return str(error)
