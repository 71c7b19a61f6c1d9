"""The pictures: one function a panel, drawn into axes that the caller made; single pictures and the overview."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.transforms import Transform, blended_transform_factory

from swiftres_plugin.demo.story import SMOOTH_A, Story

DOTS_PER_INCH = 130
STYLE = {
    "font.size": 9, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.labelcolor": "#333333", "axes.edgecolor": "#888888",
    "xtick.color": "#333333", "ytick.color": "#333333", "legend.frameon": False, "legend.fontsize": 8.5,
    "figure.facecolor": "white", "savefig.dpi": DOTS_PER_INCH}
BLUE, ORANGE, GREY, DARK = "#0072B2", "#D55E00", "#999999", "#333333"
RESOLUTIONS_A = (60, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2)
WIDEST_ANGLE_DEG = 10.0

Panel = Callable[[Story, SubFigure], None]


# ------------------------------------------------------------------------------------------------ panels

def panel_surfaces(story: Story, figure: SubFigure) -> None:
    """The map in the course of the refinement, and the true one."""
    (frames,) = _frames(figure, 1, len(story.surfaces), left=0.01, right=0.99, top=0.79, bottom=0.01, wspace=0.02)
    for frame, (title, picture) in zip(frames, story.surfaces):
        frame.imshow(picture, origin="lower", interpolation="bilinear")
        frame.set_title(title, loc="center", fontsize=9.5, fontweight="normal", color=DARK)
        frame.axis("off")
    _heading(figure, "The map in the course of the refinement (surfaces enclose equal volumes)")


def panel_slices(story: Story, figure: SubFigure) -> None:
    """The central slice of the maps, in one grey scale."""
    maps = {f"starting map ({story.start_resolution_a:.0f} Å)": story.start, "refined map": story.refined,
            "half-map difference / 2": story.noise, "true map": story.truth}
    (frames,) = _frames(figure, 1, len(maps), left=0.075, right=0.985, top=0.86, bottom=0.13, wspace=0.06)
    n = story.truth.shape[0]
    greys = _greys(story.truth[n // 2], 0.5, 99.7)
    edges = (np.array([0, n]) - n // 2 - 0.5) * story.pixel_size_a
    for frame, (title, voxels) in zip(frames, maps.items()):
        frame.imshow(voxels[n // 2], cmap="gray", origin="lower", extent=(*edges, *edges), norm=greys)
        frame.set_title(title, loc="center", fontsize=9.5, fontweight="normal", color=DARK)
        frame.set_xlabel("x (Å)")
        frame.spines[["top", "right"]].set_visible(True)
    frames[0].set_ylabel("y (Å)", labelpad=-2)
    for frame in frames[1:]:
        frame.set_yticklabels([])
    _heading(figure, "Central slices (z = 0), one grey scale")


def panel_fsc(story: Story, figure: SubFigure) -> None:
    """Between the half maps, and between the refined and the true map."""
    frame = _one_frame(figure)
    halves, truth = story.verdict.half_fsc, story.verdict.truth_fsc
    for threshold in (0.143, 0.5):
        frame.axhline(threshold, color=GREY, lw=0.8, ls=(0, (4, 3)))
        frame.text(0.012, threshold + 0.015, f"{threshold:g}", fontsize=8, color="#666666", transform=_along(frame))
    frame.plot(halves.frequency, halves.corrected, color=BLUE, lw=2,
               label=f"half maps, corrected for the mask\n0.143 at {halves.resolution_a():.2f} Å")
    frame.plot(truth.frequency, truth.masked, color=ORANGE, lw=2,
               label=f"refined against true map, masked\n0.5 at {truth.resolution_a(0.5, 'masked'):.2f} Å")
    for resolution_a, threshold, colour in ((halves.resolution_a(), 0.143, BLUE),
                                            (truth.resolution_a(0.5, "masked"), 0.5, ORANGE)):
        frame.plot(1 / resolution_a, threshold, "o", color=colour, ms=6, mec="white", mew=1, zorder=5)
    _resolution_axis(frame.xaxis, frame.set_xlim, float(halves.frequency[-1]))
    frame.set(xlabel="resolution (Å)", ylabel="Fourier shell correlation", ylim=(-0.08, 1.04))
    frame.legend(loc="lower left", bbox_to_anchor=(0.03, 0.22))
    _heading(figure, "Fourier shell correlation")


def panel_course(story: Story, figure: SubFigure) -> None:
    """Resolution of the half maps, and what the alignment used, by iteration."""
    frame = _one_frame(figure)
    rows = [row for row in story.verdict.record["iterations"] if row["resolution_a"] is not None]
    numbers = [row["number"] for row in rows]
    reached, used = [1 / row["resolution_a"] for row in rows], [row["max_frequency"] for row in rows]
    frame.plot([0, *numbers], [1 / story.start_resolution_a, *reached], "o-", color=BLUE, lw=2, ms=5,
               label="reached by the half maps (FSC 0.143)")
    frame.step(numbers, used, where="mid", color=GREY, lw=1.5, label="used for the alignment")
    frame.annotate(f"{rows[-1]['resolution_a']:.2f} Å", (numbers[-1], reached[-1]), (0, -9), textcoords="offset points",
                   ha="center", va="top", color=BLUE, fontweight="bold")
    frame.set_xticks([0, *numbers], ["start", *map(str, numbers)])
    _resolution_axis(frame.yaxis, frame.set_ylim, 1.16 * max(reached + used))
    frame.set(xlabel="iteration", ylabel="resolution (Å)")
    frame.legend(loc="lower right")
    _heading(figure, "Resolution by iteration")


def panel_angles(story: Story, figure: SubFigure) -> None:
    """How far the found orientations are from the true ones."""
    frame = _one_frame(figure)
    angles, median = story.verdict.angles_deg, float(np.median(story.verdict.angles_deg))
    edges = np.linspace(0, WIDEST_ANGLE_DEG, 41)
    frame.hist(angles, edges, color=BLUE, alpha=0.85, edgecolor="white", lw=0.4)
    frame.axvline(median, color=ORANGE, lw=2)
    frame.text(median + 0.15, 0.97, f"median {median:.2f}°", color=ORANGE, fontweight="bold", va="top",
               transform=_along(frame, "y"))
    beyond = int((angles > WIDEST_ANGLE_DEG).sum())
    shift_a = float(np.median(story.verdict.shifts_a))
    frame.text(0.98, 0.80, f"{len(angles):,} particles\n{beyond:,} ({beyond / len(angles):.1%}) beyond "
               f"{WIDEST_ANGLE_DEG:.0f}°\nmedian shift error {shift_a:.2f} Å", ha="right", va="top",
               transform=frame.transAxes, color=DARK)
    frame.set(xlabel="angle to the true orientation (degrees)", ylabel="particles", xlim=(0, WIDEST_ANGLE_DEG))
    _heading(figure, "Error of the orientations")


def panel_particles(story: Story, figure: SubFigure) -> None:
    """A few particles as they came, smoothed, and the refined map in the pose that was found."""
    rows = {"as simulated": story.images, f"low-passed\nto {SMOOTH_A:.0f} Å": story.smooth_images,
            "refined map\nreprojected": story.reprojections}
    frames = _frames(figure, len(rows), len(story.images), left=0.17, right=0.985, top=0.89, bottom=0.03, wspace=0.03,
                     hspace=0.03)
    for row, (title, images) in enumerate(rows.items()):
        greys = _greys(images, 0.5, 99.5)
        for frame, image in zip(frames[row], images):
            frame.imshow(image, cmap="gray", origin="lower", norm=greys)
            frame.set(xticks=[], yticks=[])
            frame.spines[:].set_visible(False)
        frames[row][0].set_ylabel(title, rotation=0, ha="right", va="center", labelpad=6)
    _heading(figure, "Particles and reprojections in their found poses")


# ---------------------------------------------------------------------------------------------- pictures

SINGLE: dict[str, tuple[Panel, tuple[float, float]]] = {
    "surfaces": (panel_surfaces, (15, 3.3)), "slices": (panel_slices, (11, 3.4)), "fsc": (panel_fsc, (6, 4.2)),
    "course": (panel_course, (6, 4.2)), "angles": (panel_angles, (6, 4.2)), "particles": (panel_particles, (7.4, 4.2))}


def draw_all(story: Story, folder: Path, title: str) -> list[Path]:
    """The overview and one picture for each panel, as PNG in `folder`; their paths, the overview first."""
    with matplotlib.rc_context(STYLE):
        paths = [_saved(overview(story, title), folder / "overview.png")]
        for name, (panel, size) in SINGLE.items():
            figure = Figure(figsize=size)
            panel(story, figure.add_subfigure(figure.add_gridspec(1, 1)[0]))
            paths.append(_saved(figure, folder / f"{name}.png"))
    return paths


def overview(story: Story, title: str) -> Figure:
    """All panels on one page."""
    figure = Figure(figsize=(15, 11))
    head, surfaces, middle, bottom = figure.subfigures(4, 1, height_ratios=(0.5, 3.2, 3.3, 3.6), hspace=0.02)
    head.text(0.012, 0.35, title, fontsize=15, fontweight="bold", color=DARK, va="center")
    panel_surfaces(story, surfaces)
    slices, fsc = middle.subfigures(1, 2, width_ratios=(9.6, 5.4))
    course, angles, particles = bottom.subfigures(1, 3, width_ratios=(4.4, 4.4, 6.2))
    for panel, place in ((panel_slices, slices), (panel_fsc, fsc), (panel_course, course), (panel_angles, angles),
                         (panel_particles, particles)):
        panel(story, place)
    return figure


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path


def _one_frame(figure: SubFigure) -> Axes:
    return _frames(figure, 1, 1, left=0.13, right=0.97, top=0.88, bottom=0.14)[0][0]


def _frames(figure: SubFigure, rows: int, columns: int, **place: float) -> list[list[Axes]]:
    """Axes by row and column; `place` are the margins and gaps as shares of the figure."""
    grid: Any = figure.subplots(rows, columns, squeeze=False, gridspec_kw=place)
    return [list(row) for row in grid]


def _greys(values: np.ndarray, darkest: float, brightest: float) -> Normalize:
    """Black and white of a picture, as percentiles of `values`."""
    return Normalize(float(np.percentile(values, darkest)), float(np.percentile(values, brightest)))


def _heading(figure: SubFigure, text: str) -> None:
    figure.text(0.012, 0.985, text, fontsize=11, fontweight="bold", color=DARK, va="top")


def _along(frame: Axes, data: str = "") -> Transform:
    """Coordinates that are shares of the axes in x and data in y, or (for "y") the other way round."""
    if data == "y":
        return blended_transform_factory(frame.transData, frame.transAxes)
    return blended_transform_factory(frame.transAxes, frame.transData)


def _resolution_axis(axis: Axis, limit: Callable[[float, float], object], highest: float) -> None:
    """An axis linear in frequency (1/A) whose ticks say the resolution in A."""
    ticks = resolution_ticks(highest)
    axis.set_ticks([1 / tick for tick in ticks], [f"{tick:g}" for tick in ticks])
    limit(0, highest)


def resolution_ticks(highest: float, distance: float = 0.075) -> list[float]:
    """Round resolutions (A) up to frequency `highest` that stand at least `distance` of the axis apart."""
    ticks: list[float] = []
    for tick in RESOLUTIONS_A:
        if 1 / tick <= highest and (not ticks or 1 / tick - 1 / ticks[-1] >= distance * highest):
            ticks.append(tick)
    return ticks
