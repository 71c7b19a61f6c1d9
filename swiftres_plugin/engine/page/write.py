"""The page: numbers, style and script in one file that needs nothing else."""
from __future__ import annotations

import json
from html import escape
from pathlib import Path

from swiftres_plugin.engine.io.files import written_atomically
from swiftres_plugin.engine.page.figures import gather

SCRIPTS = ("charts.js", "surface.js", "page.js")


def write_report(run: Path, output: Path) -> Path:
    """Write the report of the run in folder `run` to `output` and return that. An earlier report is replaced.

    Raises `InputError` where no iteration is finished.
    """
    figures = gather(run)
    data = json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")  # ends no script early
    script = "\n".join(_part(name) for name in SCRIPTS)
    page = _part("page.html")
    for mark, text in {"TITLE": escape(figures["title"]), "STYLE": _part("page.css"), "DATA": data, "SCRIPT": script}.items():
        page = page.replace(f"<!--{mark}-->", text)
    with written_atomically(output) as part:
        part.write_text(page, encoding="utf-8")
    return output


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
