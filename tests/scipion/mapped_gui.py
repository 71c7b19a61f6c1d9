"""Scipion's project window as users open it, which also keeps a file that tells where on the screen everything is.

Run as `python -O mapped_gui.py PROJECT MAP.json`. The mouse and what it meets are real; the map only spares a test to know
fonts and themes.
"""
from __future__ import annotations

import json
import os
import sys
import tkinter
from tkinter import ttk
from typing import Any

EVERY_MS = 300
TAB_STEP, TAB_MIDDLE = 5, 12


def main() -> None:
    project, path = sys.argv[1:]
    mainloop = tkinter.Misc.mainloop

    def mapped(widget: tkinter.Misc, n: int = 0) -> None:
        widget.after(EVERY_MS, keep, widget._root(), path)
        mainloop(widget, n)

    tkinter.Misc.mainloop = mapped  # type: ignore[method-assign]
    from pyworkflow.apps.pw_project import openProject
    openProject(project)


def keep(root: tkinter.Tk, path: str) -> None:
    """Write the map, and again every `EVERY_MS`."""
    with open(f"{path}.part", "w") as file:
        json.dump([place for widget in family(root) for place in places(widget)], file)
    os.replace(f"{path}.part", path)
    root.after(EVERY_MS, keep, root, path)


def family(widget: tkinter.Misc) -> list[tkinter.Misc]:
    """All widgets on the screen, parents first."""
    found = [widget] if widget.winfo_viewable() else []
    return found + [one for child in widget.winfo_children() for one in family(child)]


def places(widget: tkinter.Misc) -> list[dict[str, Any]]:
    """The widget, and the rows of a tree or the texts of a canvas: window, kind, text and box (x, y, width, height)."""
    window = widget.winfo_toplevel()
    shared = {"window": window.title(), "kind": "Toplevel" if widget == window else widget.winfo_class()}
    x, y = widget.winfo_rootx(), widget.winfo_rooty()
    found = [{**shared, "text": text(widget), "box": (x, y, widget.winfo_width(), widget.winfo_height())}]
    for words, box in inside(widget):
        found.append({**shared, "text": str(words), "box": (x + box[0], y + box[1], box[2], box[3])})
    return found


def text(widget: tkinter.Misc) -> str:
    """The words on a widget or in its field."""
    if isinstance(widget, tkinter.Entry):
        return widget.get()
    return str(widget.cget("text")) if "text" in (widget.keys() or ()) else ""


def inside(widget: tkinter.Misc) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Words and boxes, relative to the widget, of what it draws itself."""
    if isinstance(widget, ttk.Treeview):
        return [(widget.item(row, "text") or " ".join(map(str, widget.item(row, "values"))), seen(widget.bbox(row), widget))
                for row in rows(widget) if widget.bbox(row)]
    if isinstance(widget, tkinter.Canvas):
        found = []
        for item in widget.find_all():
            if widget.type(item) == "text":
                left, top, right, bottom = widget.bbox(item)
                found.append((widget.itemcget(item, "text"), (int(left - widget.canvasx(0)), int(top - widget.canvasy(0)),
                                                              right - left, bottom - top)))
        return found
    if isinstance(widget, ttk.Notebook):
        return tabs(widget)
    return []


def seen(box: tuple[int, int, int, int], widget: tkinter.Misc) -> tuple[int, int, int, int]:
    """What of a box is inside the widget."""
    return box[0], box[1], min(box[2], widget.winfo_width() - box[0]), box[3]


def tabs(notebook: ttk.Notebook) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Titles and boxes of the tabs, found as the mouse would find them."""
    found: dict[int, list[int]] = {}
    for x in range(0, notebook.winfo_width(), TAB_STEP):
        try:
            found.setdefault(notebook.index(f"@{x},{TAB_MIDDLE}"), []).append(x)
        except tkinter.TclError:  # beside the tabs
            pass
    return [(notebook.tab(number, "text"), (min(at), TAB_MIDDLE - 5, max(at) - min(at), 10)) for number, at in found.items()]


def rows(tree: ttk.Treeview, parent: str = "") -> list[str]:
    return [one for child in tree.get_children(parent) for one in (child, *rows(tree, child))]


if __name__ == "__main__":
    main()
