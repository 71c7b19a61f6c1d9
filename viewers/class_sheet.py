"""All class averages in one window; a click chooses a class, and a button makes the chosen ones a subset."""
from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import mrcfile
import numpy as np
from matplotlib.widgets import Button
from pwem.viewers import EmPlotter

CHOSEN, LEFT_OUT = "#D55E00", "#CCCCCC"


@dataclass(frozen=True)
class Sheet:
    """images: (K, n, n), largest class first; sizes: (K,) particles; resolutions_a: (K,), None where there is none."""

    images: np.ndarray
    sizes: list[int]
    resolutions_a: list[float | None]

    def particles(self, chosen: Collection[int]) -> int:
        """Particles of the classes of these numbers, from 1."""
        return sum(self.sizes[number - 1] for number in chosen)


def read_sheet(stack: str, report: dict) -> Sheet:
    with mrcfile.open(stack, permissive=True) as mrc:
        images = np.array(mrc.data, dtype=np.float32).reshape(-1, *mrc.data.shape[-2:])
    return Sheet(images, report["class_sizes"], report["resolution_a"])


class ClassPicker:
    """The window. `create` is called with the sorted numbers of the chosen classes when its button is pressed."""

    def __init__(self, sheet: Sheet, title: str, create: Callable[[list[int]], None], chosen: Collection[int] = ()):
        self.chosen = set(chosen)
        self._sheet, self._create = sheet, create
        columns = min(10, len(sheet.images))
        rows = -(-len(sheet.images) // columns)
        self.plotter = EmPlotter(windowTitle=title, figsize=(max(6.0, 1.25 * columns), 1.42 * rows + 0.7))
        self.plotter.tightLayoutOn = False
        figure = self.plotter.figure
        below = 0.5 / figure.get_figheight()
        frames = np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel()
        top = 1 - 0.3 / figure.get_figheight()
        figure.subplots_adjust(left=0.01, right=0.99, top=top, bottom=below, wspace=0.08, hspace=0.28)
        self._number_of = {}
        for number, frame in enumerate(frames, 1):
            if number > len(sheet.images):
                frame.set_axis_off()
            else:
                self._number_of[frame] = number
                draw_class(frame, sheet, number)
        self._button = Button(figure.add_axes((0.8, 0.01, 0.19, 0.7 * below)), "Create subset")
        self._button.on_clicked(self._press)
        self._text = figure.text(0.01, 0.3 * below, "", fontsize=9)
        figure.canvas.mpl_connect("button_press_event", self._click)
        figure.controls = [self]  # matplotlib's buttons live as long as something holds them
        self._show()

    def _click(self, event) -> None:
        if event.inaxes in self._number_of:
            self.chosen ^= {self._number_of[event.inaxes]}
            self._show()

    def _press(self, _event) -> None:
        if self.chosen:
            self._create(sorted(self.chosen))
            self._text.set_text("The subset is being created: see the list of runs.")
            self.plotter.figure.canvas.draw_idle()

    def _show(self) -> None:
        """Frames of the chosen classes, and what they hold."""
        for frame, number in self._number_of.items():
            for edge in frame.spines.values():
                edge.set_color(CHOSEN if number in self.chosen else LEFT_OUT)
                edge.set_linewidth(3 if number in self.chosen else 0.5)
        of = sum(self._sheet.sizes)
        self._text.set_text(f"Click on classes to keep. {len(self.chosen)} chosen, "
                            f"{self._sheet.particles(self.chosen)} of {of} particles.")
        self.plotter.figure.canvas.draw_idle()


def draw_class(frame, sheet: Sheet, number: int) -> None:
    """The average of a class, on its own grey scale, with number, size and resolution."""
    image, reached = sheet.images[number - 1], sheet.resolutions_a[number - 1]
    low, high = np.percentile(image, (0.5, 99.8))
    frame.imshow(image, cmap="gray", origin="lower", vmin=low, vmax=max(high, low + 1e-12), interpolation="bilinear")
    fine = f", {reached:.1f} A" if reached else ""
    frame.set_title(f"{number}: {sheet.sizes[number - 1]}{fine}", fontsize=7, pad=2)
    frame.set_xticks([])
    frame.set_yticks([])
