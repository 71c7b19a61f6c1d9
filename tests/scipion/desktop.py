"""A display of its own with a window manager, a mouse and a keyboard, for tests that use Scipion as a person does."""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageGrab

PROGRAMS = ("Xvfb", "openbox", "xdotool")
SIZE = (1500, 1000)
PAUSE_S = 0.4  # a person's, between a click and the next look
PATIENCE_S = 60.0
MAPPED_GUI = Path(__file__).with_name("mapped_gui.py")


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Desktop:
    """The screen of Scipion's project window: found by the words on it, clicked by the mouse of xdotool."""

    def __init__(self, display: str, gui: subprocess.Popen, map_file: Path, log: Path):
        self.display, self.gui, self.map_file, self.log = display, gui, map_file, log

    # ---- looking
    def places(self, words: str = "", window: str = "", kind: str = "") -> list[dict[str, Any]]:
        """What is on the screen with these words in its text, in its window's title, in its kind."""
        if not self.map_file.exists():
            return []
        shown = json.loads(self.map_file.read_text())
        return [one for one in shown if words in one["text"] and window in one["window"] and kind in one["kind"]]

    def wait_for(self, what: str, look: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
        """What `look` finds, as soon as it finds something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.gui.poll() is None, f"The project window ended.\n{self.log.read_text()[-3000:]}"
            found = look()
            if found:
                return found
            time.sleep(PAUSE_S)
        shown = {title: [one["text"] for one in self.places(window=title) if one["text"]] for title in self.windows()}
        raise AssertionError(f"waited {seconds:g} s for {what}; on the screen: {shown}\n{self.log.read_text()[-3000:]}")

    def find(self, words: str = "", window: str = "", kind: str = "", which: int = 0) -> dict[str, Any]:
        """The place number `which` of those asked for, waited for."""
        return self.wait_for(f"'{words}' in '{window}'", lambda: self.places(words, window, kind)[which:])[0]

    def beside(self, label: str, kind: str, words: str = "", window: str = "") -> dict[str, Any]:
        """What stands in the row of a label."""
        row = self.find(label, window, "Label")

        def distance(place: dict[str, Any]) -> float:
            return abs(middle(place)[1] - middle(row)[1])

        found = self.wait_for(f"{kind} {words} beside {label}", lambda: self.places(words, window, kind))
        return min(found, key=distance)

    def windows(self) -> dict[str, int]:
        """Titles and numbers of the windows that the window manager shows."""
        found = self.xdotool("search", "--onlyvisible", "--name", ".", check=False).split()
        return {self.xdotool("getwindowname", number, check=False).strip(): int(number) for number in found}

    def picture(self, title: str = "") -> Image.Image:
        """The screen, or the window whose title begins so, raised first."""
        box = None
        if title:
            number = self.wait_for(title, lambda: [n for name, n in self.windows().items() if name.startswith(title)])[0]
            self.xdotool("windowactivate", "--sync", str(number))
            time.sleep(PAUSE_S)
            left, top, width, height = self.geometry(number)
            box = (left, top, left + width, top + height)
        return ImageGrab.grab(bbox=box, xdisplay=self.display)

    def geometry(self, number: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of a window, without its frame, which xdotool counts twice."""
        across, down = self.frame()
        words = self.xdotool("getwindowgeometry", "--shell", str(number)).split()
        found = {key: int(value) for key, _, value in (word.partition("=") for word in words)}
        return found["X"] - across, found["Y"] - down, found["WIDTH"], found["HEIGHT"]

    def frame(self) -> tuple[int, int]:
        """Widths of the frame of a window at its left and top: what xdotool says of one whose place is known."""
        windows = self.windows()
        known = self.find(window="Protocol ", kind="Toplevel")
        words = self.xdotool("getwindowgeometry", "--shell", str(windows[known["window"].strip()])).split()
        found = {key: int(value) for key, _, value in (word.partition("=") for word in words)}
        return found["X"] - known["box"][0], found["Y"] - known["box"][1]

    # ---- doing
    def click(self, words: str = "", window: str = "", kind: str = "", which: int = 0, times: int = 1) -> None:
        self.click_at(*middle(self.find(words, window, kind, which)), times)

    def click_beside(self, label: str, kind: str, words: str = "", window: str = "") -> None:
        self.click_at(*middle(self.beside(label, kind, words, window)))

    def click_at(self, x: int, y: int, times: int = 1) -> None:
        self.xdotool("mousemove", str(x), str(y), "sleep", "0.1", "click", "--repeat", str(times), "--delay", "120", "1")
        time.sleep(PAUSE_S)

    def drag(self, start: tuple[int, int], by: tuple[int, int], steps: int = 4) -> None:
        self.xdotool("mousemove", str(start[0]), str(start[1]), "mousedown", "1")
        for step in range(1, steps + 1):
            self.xdotool("mousemove", *(str(a + b * step // steps) for a, b in zip(start, by)), "sleep", "0.1")
        self.xdotool("mouseup", "1")

    def close(self, title: str) -> None:
        """Close the window whose title begins so, and see it go."""
        (number,) = [number for name, number in self.windows().items() if name.startswith(title)]
        self.xdotool("windowactivate", "--sync", str(number), "key", "alt+F4")
        self.wait_for(f"the end of {title}", lambda: number not in self.windows().values())

    def type(self, words: str) -> None:
        """Type over what is in the field that was clicked."""
        self.xdotool("key", "ctrl+slash", "type", "--delay", "40", words)

    def xdotool(self, *arguments: str, check: bool = True) -> str:
        ran = subprocess.run(["xdotool", *arguments], env={**os.environ, "DISPLAY": self.display}, text=True,
                             capture_output=True)
        assert ran.returncode == 0 or not check, f"xdotool {' '.join(arguments)}: {ran.stderr}"
        return ran.stdout


def middle(place: dict[str, Any]) -> tuple[int, int]:
    x, y, width, height = place["box"]
    return x + width // 2, y + height // 2


def ink(picture: Image.Image) -> tuple[int, float]:
    """Number of different colours of a picture, and the share of its pixels that are not of the commonest one."""
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3) @ (1 << 16, 1 << 8, 1)
    _, counts = np.unique(colours, return_counts=True)
    return len(counts), 1 - counts.max() / counts.sum()


@contextlib.contextmanager
def open_desktop(project: str, folder: Path) -> Iterator[Desktop]:
    """The project in its window on a new display; everything that was started is ended."""
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(new_display())
        environ = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | {"DISPLAY": display}
        stack.enter_context(ended(subprocess.Popen(["openbox"], env=environ, stderr=subprocess.DEVNULL)))
        map_file, log = folder / "screen.json", folder / "gui.log"
        map_file.unlink(missing_ok=True)
        gui = stack.enter_context(ended(subprocess.Popen(
            [sys.executable, "-O", str(MAPPED_GUI), project, str(map_file)], env=environ, stdout=log.open("w"),
            stderr=subprocess.STDOUT, start_new_session=True)))
        yield Desktop(display, gui, map_file, log)


@contextlib.contextmanager
def new_display() -> Iterator[str]:
    """The name of a display that Xvfb found free."""
    reading, writing = os.pipe()
    size = f"{SIZE[0]}x{SIZE[1]}x24"
    server = subprocess.Popen(["Xvfb", "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp"],
                              pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with ended(server), os.fdopen(reading) as answer:
        yield f":{answer.readline().strip()}"


@contextlib.contextmanager
def ended(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """The process, ended when the block is."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
