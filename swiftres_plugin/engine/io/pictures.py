"""Pictures of a finished map as PNG files. The one module of the engine that draws (docs/decisions/0005)."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swiftres_plugin.engine.data.classes import ClassAverages
from swiftres_plugin.engine.data.maps import Fsc, Map
from swiftres_plugin.engine.data.quality import Coverage, DirectionalFsc, Guinier

STYLE = {
    "font.size": 9, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.labelcolor": "#333333", "axes.edgecolor": "#888888",
    "legend.frameon": False, "legend.fontsize": 8.5, "figure.facecolor": "white", "savefig.dpi": 130}
COLOURS = {"unmasked": "#56B4E9", "masked": "#E69F00", "randomised": "#999999", "corrected": "#D55E00"}
BLUE, GREY = "#0072B2", "#999999"
LEVELS = (0.143, 0.5)


def _drawn(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """A figure that `draw` fills, as a file."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(path)


def draw_fsc(path: Path, fsc: Fsc) -> None:
    """The four curves, with the resolution of each at 0.143."""
    def draw(figure: Figure) -> None:
        frame = _curve_frame(figure, float(fsc.frequency[-1]), "Fourier shell correlation of the half maps")
        for name, colour in COLOURS.items():
            resolution_a = fsc.resolution_a(0.143, name)
            at = f" ({resolution_a:.2f} Å)" if name != "randomised" and np.isfinite(resolution_a) else ""
            frame.plot(fsc.frequency, getattr(fsc, name), color=colour, lw=2 if name == "corrected" else 1.3, label=name + at)
        frame.legend()
    _drawn(path, (6, 4.2), draw)


def draw_guinier(path: Path, plot: Guinier, b_factor_a2: float) -> None:
    """Logarithms of amplitudes before and after sharpening, and the fitted line."""
    def draw(figure: Figure) -> None:
        frame = figure.add_subplot()
        there = np.isfinite(plot.log_amplitude) & (plot.square_frequency > 0)
        square, height = plot.square_frequency[there], plot.log_amplitude[there]
        frame.plot(square, height, ".-", color=BLUE, lw=1, label="weighted by the figure of merit")
        frame.plot(square, height - b_factor_a2 / 4 * square, color=COLOURS["corrected"], lw=1.5,
                   label=f"sharpened, B = {b_factor_a2:.0f} Å²")
        if plot.fitted.any() and np.isfinite(plot.slope):
            line = plot.square_frequency[plot.fitted]
            frame.plot(line, plot.intercept + plot.slope * line, color="black", lw=1.5, ls="--",
                       label=f"fit over {plot.fitted.sum()} shells, B = {plot.b_factor_a2:.0f} Å²")
        frame.set(title="Guinier plot", xlabel="1 / resolution² (Å⁻²)", ylabel="ln (mean amplitude)")
        frame.legend()
    _drawn(path, (6, 4.2), draw)


def draw_local_resolution(path: Path, density: Map, local_a: Map, mask: np.ndarray) -> None:
    """Local resolution in colour within the mask, over three central slices of the map; and how often each occurs."""
    inside = mask > 0.5
    values = local_a.voxels[inside] if inside.any() else np.ones(1)
    finest, coarsest = (float(np.percentile(values, share)) for share in (2, 98))
    limits = {"vmin": finest, "vmax": max(coarsest, finest * 1.02), "cmap": "turbo"}

    def draw(figure: Figure) -> None:
        row: Any = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.1))
        *frames, counts = row
        for axis, frame in zip((0, 1, 2), frames):
            grey, colour, seen = (v.take(density.box_px // 2, axis) for v in (density.voxels, local_a.voxels, inside))
            frame.imshow(grey, cmap="gray", origin="lower")
            shown = frame.imshow(np.ma.masked_where(~seen, colour), origin="lower", alpha=0.55, **limits)
            frame.set(title=f"slice along {'zyx'[axis]}", xticks=[], yticks=[])
        figure.colorbar(shown, ax=frames, shrink=0.7, label="local resolution (Å)")
        counts.hist(values, 40, color=BLUE)
        counts.set(title="voxels in the mask", xlabel="local resolution (Å)", yticks=[])
    _drawn(path, (12, 3.4), draw)


def draw_overfitting(path: Path, data: Fsc, noise: Fsc, true: np.ndarray, limit_a: float) -> None:
    """FSC of the run, of noise in place of detail beyond the limit, and what is left."""
    def draw(figure: Figure) -> None:
        frame = _curve_frame(figure, float(data.frequency[-1]), "High-resolution noise substitution")
        frame.axvline(1 / limit_a, color=GREY, lw=1)
        frame.text(1 / limit_a, 1.0, f" phases random beyond {limit_a:.1f} Å", color="#666666", fontsize=8, va="top")
        frame.plot(data.frequency, data.masked, color=BLUE, lw=2, label="true images, masked")
        frame.plot(noise.frequency, noise.masked, color=COLOURS["corrected"], lw=2, label="noise beyond the limit, masked")
        frame.plot(data.frequency, true, color="black", lw=1.2, ls="--", label="what is left: true FSC")
        frame.legend(loc="lower left")
    _drawn(path, (6, 4.2), draw)


def draw_directional(path: Path, by: DirectionalFsc) -> None:
    """Mean and spread of the curves over directions, and the resolution of each direction on the sphere."""
    def draw(figure: Figure) -> None:
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
        frame = _curve_frame(left, float(by.frequency[-1]), "FSC in cones of 20°")
        mean, deviation = by.curve.mean(0), by.curve.std(0)
        frame.fill_between(by.frequency, by.curve.min(0), by.curve.max(0), color=BLUE, alpha=0.15, label="all directions")
        frame.fill_between(by.frequency, mean - deviation, mean + deviation, color=BLUE, alpha=0.3, label="mean ± deviation")
        frame.plot(by.frequency, mean, color=BLUE, lw=2)
        frame.legend()
        both = np.concatenate([by.direction, -by.direction])
        worst = np.where(np.isfinite(by.resolution_a), by.resolution_a, 1 / by.frequency[1])
        _sphere(right, both, np.tile(worst, 2), "Resolution by direction", "Å", 26)
    _drawn(path, (11, 4), draw)


def draw_views(path: Path, found: Coverage) -> None:
    """How many particles are seen along each direction, relative to even views."""
    def draw(figure: Figure) -> None:
        area = len(found.share) if len(found.share) > 200 else 200
        _sphere(figure, found.views, found.share * area, f"Views: efficiency {found.efficiency:.2f}",
                "particles relative to even views", 9)
    _drawn(path, (7, 4), draw)


def draw_classes(path: Path, averages: ClassAverages) -> None:
    """The averages in rows, each on its own grey scale, with number, particles and resolution."""
    columns = min(10, len(averages))
    rows = -(-len(averages) // columns)

    def draw(figure: Figure) -> None:
        frames = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for frame in frames:
            frame.set_axis_off()
        for number, (frame, image) in enumerate(zip(frames, averages.images)):
            resolution_a = averages.resolution_a[number]
            fine = f", {resolution_a:.1f} Å" if np.isfinite(resolution_a) else ""
            frame.imshow(image, cmap="gray", origin="lower", interpolation="bilinear",
                         vmin=np.percentile(image, 0.5), vmax=np.percentile(image, 99.8))
            title = f"{number + 1}: {averages.size[number]}{fine}"
            frame.set_title(title, fontsize=7, loc="center", fontweight="normal", pad=2)
    _drawn(path, (1.25 * columns, 1.42 * rows), draw)


def _sphere(figure: Any, directions: np.ndarray, values: np.ndarray, title: str, label: str, size: float) -> None:
    """Values at directions (K, 3) on an equal-area picture of the sphere."""
    frame = figure.add_subplot(projection="mollweide")
    x, y, z = directions.T
    dots = frame.scatter(np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1)), c=values, s=size, cmap="viridis", lw=0)
    frame.set_title(title, loc="left", pad=14)
    frame.tick_params(labelsize=7)
    frame.grid(alpha=0.3)
    figure.colorbar(dots, ax=frame, shrink=0.7, label=label)


def _curve_frame(figure: Any, highest: float, title: str) -> Axes:
    """Axes for correlations over frequency, whose ticks say the resolution."""
    frame = figure.add_subplot()
    for level in LEVELS:
        frame.axhline(level, color=GREY, lw=0.8, ls=(0, (4, 3)))
    ticks = np.linspace(0, highest, 7)[1:]
    frame.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    frame.set(title=title, xlim=(0, highest), ylim=(-0.1, 1.05), xlabel="resolution (Å)", ylabel="FSC")
    return frame
