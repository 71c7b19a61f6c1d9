"""The last words of the demonstration: figures, times, and where everything is and how to open it."""
from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from swiftres_plugin import layout
from swiftres_plugin.demo.folder import DemoFolder
from swiftres_plugin.demo.judge import MASK, TRUE_MAP, Verdict
from swiftres_plugin.demo.parts import Part
from swiftres_plugin.engine.report import duration

ROWS = (
    ("resolution, half maps, FSC 0.143", "resolution_a", "{:.2f} A"),
    ("resolution, true map, masked FSC 0.5", "truth_resolution_a", "{:.2f} A"),
    ("median angular error", "median_angle_deg", "{:.2f} degrees"),
    ("median shift error", "median_shift_a", "{:.2f} A"),
    ("iterations", "iterations", "{:.0f}"))
PICTURE_OPENERS = ("xdg-open", "open")
CHIMERAX = ("chimerax", "ChimeraX")


def facts_of(verdicts: Mapping[str, Verdict]) -> dict[str, dict[str, float]]:
    """The figures of each run, for programs."""
    return {name: verdict.figures for name, verdict in verdicts.items()}


def summary(folder: DemoFolder, verdicts: Mapping[str, Verdict], parts: Sequence[Part], left_out: str) -> str:
    """The text that ends the demonstration; `left_out` says why there is no Scipion project (empty: there is one)."""
    return "\n\n".join([result_table(verdicts), part_table(parts), places(folder, left_out)])


def result_table(verdicts: Mapping[str, Verdict]) -> str:
    """One column a run."""
    lines = [f"{'Results':<38}" + "".join(f"{name:>16}" for name in verdicts)]
    for title, name, form in ROWS:
        lines.append(f"  {title:<36}" + "".join(f"{form.format(v.figures[name]):>16}" for v in verdicts.values()))
    return "\n".join(lines)


def part_table(parts: Sequence[Part]) -> str:
    """Time on the clock and on the processors, and memory."""
    lines = [f"{'Time':<38}{'clock':>16}{'processors':>16}{'peak memory':>16}"]
    total = Part("all", sum(p.wall_s for p in parts), sum(p.processor_s for p in parts), max(p.peak_bytes for p in parts))
    for part in (*parts, total):
        lines.append(f"  {part.name:<36}{duration(part.wall_s):>16}{duration(part.processor_s):>16}"
                     f"{part.peak_bytes / 1e9:>13.2f} GB")
    return "\n".join(lines)


def places(folder: DemoFolder, left_out: str) -> str:
    """Where everything is, with commands that open it on this machine."""
    root = folder.root.resolve()
    absolute = DemoFolder(root)
    opener = next((name for name in PICTURE_OPENERS if shutil.which(name)), None)
    chimerax = next((name for name in CHIMERAX if shutil.which(name)), None)
    refined, truth = absolute.refined / layout.map_name(), absolute.data / TRUE_MAP
    lines = ["Pictures", _how(absolute.pictures / "overview.png", opener),
             f"    ({', '.join(sorted(path.stem for path in folder.pictures.glob('*.png')))})",
             "Maps (MRC; open them in ChimeraX or any viewer of maps)",
             _how(refined, chimerax),
             *(f"  {absolute.refined / layout.half_name(number)}" for number in (1, 2)),
             f"  {truth} (the truth), {MASK} beside it",
             "Particles with their poses (RELION STAR)", f"  {absolute.refined / layout.PARTICLES}",
             "Scipion project"]
    if left_out:
        lines.append(f"  left out: {left_out}")
    else:
        lines.append(f"  {shlex.quote(str(absolute.opener))}")
        lines.append("    (needs a display; click the box 'swiftres', then 'Analyze results')")
    return "\n".join(lines)


def _how(path: Path, program: str | None) -> str:
    return f"  {program} {shlex.quote(str(path))}" if program else f"  {path}"
