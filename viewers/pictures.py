"""Figures of what a run wrote. Each fills an `EmPlotter` and returns it; its window saves as PNG, PDF or SVG."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from matplotlib.widgets import Slider
from pwem.viewers import EmPlotter

from swiftres_plugin import convert
from swiftres_plugin.viewers import coverage, gallery, surface

CURVES = {"unmasked": "C0", "masked": "C1", "randomised": "C7", "corrected": "C3"}
LINE_STYLES = ("-", "--", ":")
AXES = ("x", "y", "z")
THRESHOLD = 0.143
BINS = 50
RADIANS_PER_PIXEL = 0.01
STILL_PX, MOVING_PX = 192, 96  # width of the picture of a surface, as it lies and while it turns
SLIDER = (0.025, 0.5)  # height of a slider and width of it, as shares of the figure


# ------------------------------------------------------------------------------------------------ maps

def plot_slices(voxels: np.ndarray, pixel_size_a: float, title: str) -> EmPlotter:
    """Three slices of a map (n, n, n) and its projections below them, with sliders for their place and for contrast."""
    plotter = EmPlotter(x=2, y=3, mainTitle=title, windowTitle=title, figsize=(9, 7.6))
    half_a = voxels.shape[0] * pixel_size_a / 2
    slices = []
    for kind in ("slice", "projection"):
        for i, axis in enumerate(AXES):
            image = voxels.take(voxels.shape[2 - i] // 2, 2 - i) if kind == "slice" else voxels.sum(2 - i)
            frame = plotter.createSubPlot(f"{kind} along {axis} (A)", "", "")
            shown = frame.imshow(image, cmap="gray", origin="lower", extent=(-half_a, half_a, -half_a, half_a),
                                 interpolation="nearest")
            frame.tick_params(labelsize=7)
            if kind == "slice":
                slices.append(shown)
    arranged(plotter, bottom=0.17, top=0.9, left=0.06, right=0.98, wspace=0.12, hspace=0.25)
    control_slices(plotter, slices, voxels, pixel_size_a)
    return plotter


def control_slices(plotter: EmPlotter, slices: list, voxels: np.ndarray, pixel_size_a: float) -> None:
    """Sliders: the place of the slices (A from the centre), and black and white (shares of the range of densities)."""
    n = len(voxels)
    low, high = float(voxels.min()), float(voxels.max())
    ends_a = -(n // 2) * pixel_size_a, (n - 1 - n // 2) * pixel_size_a
    place = add_slider(plotter, 0.09, "place (A)", *ends_a, 0.0, pixel_size_a)
    black = add_slider(plotter, 0.055, "black", 0, 1, 0)
    white = add_slider(plotter, 0.02, "white", 0, 1, 1)

    def move(_value: float) -> None:
        at = int(np.clip(round(place.val / pixel_size_a) + n // 2, 0, n - 1))
        for i, shown in enumerate(slices):
            shown.set_data(voxels.take(at, 2 - i))
        contrast(_value)

    def contrast(_value: float) -> None:
        for shown in slices:
            shown.set_clim(low + black.val * (high - low), low + max(white.val, black.val + 0.01) * (high - low))
        plotter.figure.canvas.draw_idle()

    place.on_changed(move)
    black.on_changed(contrast)
    white.on_changed(contrast)
    contrast(0)


def plot_surface(density: np.ndarray, title: str, colouring: np.ndarray | None = None) -> EmPlotter:
    """The map as a surface: drag to turn it, move the slider for its level; coloured by a second map if there is one."""
    plotter = EmPlotter(windowTitle=title, figsize=(6.8, 6.6))
    plotter.tightLayoutOn = False
    frame = plotter.figure.add_axes((0.02, 0.12, 0.82, 0.82))
    frame.set_title(f"{title}\ndrag to turn", fontsize=9)
    frame.axis("off")
    SurfaceControl(plotter, frame, surface.scene(density, colouring))
    return plotter


class SurfaceControl:
    """Keeps level and rotation of a surface, and draws it anew when they change."""

    def __init__(self, plotter: EmPlotter, frame: Any, scene: surface.Scene):
        self.figure, self.frame, self.scene, self.rotation = plotter.figure, frame, scene, np.eye(3)
        self.grabbed: tuple[float, float] | None = None
        self.limits = self._colour_limits()
        level, top = scene.first_level(), float(scene.density.max())
        self.level = add_slider(plotter, 0.05, "level", min(0.0, level), top, level)
        self.image = frame.imshow(self._picture(STILL_PX), origin="lower", interpolation="bilinear")
        if self.limits is not None:
            self.image.set_clim(*self.limits)
            self.image.set_cmap("turbo")
            self.figure.colorbar(self.image, cax=self.figure.add_axes((0.86, 0.2, 0.025, 0.6)), label="local resolution (A)")
        self.level.on_changed(lambda _: self.draw(STILL_PX))
        for name, answer in (("button_press_event", self.grab), ("motion_notify_event", self.turn),
                             ("button_release_event", self.release)):
            self.figure.canvas.mpl_connect(name, answer)
        plotter.figure.controls.append(self)  # widgets live as long as something holds them

    def _colour_limits(self) -> tuple[float, float] | None:
        if self.scene.colouring is None:
            return None
        inside = self.scene.colouring[self.scene.density > self.scene.first_level()]
        low, high = np.quantile(inside, (0.02, 0.98))
        return float(low), float(max(high, low + 1e-3))

    def _picture(self, width_px: int) -> np.ndarray:
        shade, values = surface.draw(self.scene, self.level.val, self.rotation, width_px / len(self.scene.density))
        if values is None or self.limits is None:
            return surface.coloured(shade)
        low, high = self.limits
        return surface.coloured(shade, colormaps["turbo"](np.clip((values - low) / (high - low), 0, 1))[..., :3])

    def draw(self, width_px: int) -> None:
        self.image.set_data(self._picture(width_px))
        self.figure.canvas.draw_idle()

    def grab(self, event: Any) -> None:
        if event.inaxes is self.frame:
            self.grabbed = event.x, event.y

    def turn(self, event: Any) -> None:
        if self.grabbed is not None:
            right, up = event.x - self.grabbed[0], event.y - self.grabbed[1]
            self.grabbed = event.x, event.y
            self.rotation = surface.rotation_of_drag(RADIANS_PER_PIXEL * right, RADIANS_PER_PIXEL * up) @ self.rotation
            self.draw(MOVING_PX)

    def release(self, _event: Any) -> None:
        if self.grabbed is not None:
            self.grabbed = None
            self.draw(STILL_PX)


# ------------------------------------------------------------------------------------------ resolution

def plot_fsc(curves: dict[str, list[float]], title: str) -> EmPlotter:
    """The curves of a run's FSC file, with the resolution at 0.143 in the legend."""
    plotter, frame = fsc_frame(title, curves["frequency"][-1])
    for name, colour in CURVES.items():
        label = f"{name} ({_resolution_text(convert.resolution_a(curves, name))})" if name != "randomised" else name
        frame.plot(curves["frequency"], curves[name], color=colour, label=label, lw=1 if name == "randomised" else 1.8)
    frame.legend(fontsize=8)
    return plotter


def plot_fsc_of_iterations(found: dict[int, dict[str, list[float]]], kinds: Sequence[str], title: str) -> EmPlotter:
    """One or more kinds of curve of several iterations, early ones dark; the resolution is that of the first kind."""
    plotter, frame = fsc_frame(title, next(iter(found.values()))["frequency"][-1])
    for place, (number, curves) in zip(np.linspace(0, 0.85, len(found)), found.items()):
        colour = colormaps["viridis"](place)
        label = f"iteration {number} ({_resolution_text(convert.resolution_a(curves, kinds[0]))})"
        for kind, style in zip(kinds, LINE_STYLES):
            frame.plot(curves["frequency"], curves[kind], color=colour, ls=style, label=label if kind == kinds[0] else None)
    for kind, style in zip(kinds, LINE_STYLES) if len(kinds) > 1 else ():
        frame.plot([], [], color="0.3", ls=style, label=kind)
    frame.legend(fontsize=7)
    return plotter


def fsc_frame(title: str, highest: float, columns: int = 1) -> tuple[EmPlotter, Any]:
    """A figure whose first frame, of `columns` in a row, is for curves up to the frequency `highest` (1/A)."""
    plotter = EmPlotter(x=1, y=columns, windowTitle=title, figsize=(7 * columns, 5))
    frame = plotter.createSubPlot(title, "resolution (A)", "FSC")
    frame.axhline(THRESHOLD, color="k", ls="--", lw=0.8)
    frame.text(0.995 * highest, THRESHOLD + 0.01, f"{THRESHOLD}", fontsize=7, ha="right")
    frame.axhline(0, color="k", lw=0.5)
    frame.set_ylim(-0.1, 1.05)
    _label_frequencies(frame, highest)
    return plotter, frame


def plot_guinier(table: dict[str, list[float]], line: dict[str, Any], b_factor_a2: float) -> EmPlotter:
    """Logarithm of the amplitudes against squared frequency, and the fitted line (slope_a2, intercept) where there is one."""
    title = f"Guinier plot, B-factor {b_factor_a2:.0f} A^2"
    plotter = EmPlotter(windowTitle=title, figsize=(7, 5))
    frame = plotter.createSubPlot(title, "squared frequency (1/A^2)", "ln of the amplitude")
    square, amplitude = np.array(table["square_frequency"]), np.array(table["log_amplitude"])
    fitted = np.array(table["fitted"]) > 0
    frame.plot(square, amplitude, "o-", color="0.6", ms=3, label="amplitudes, weighted by the FSC")
    if fitted.any():
        frame.plot(square[fitted], amplitude[fitted], "o", color="C0", ms=4, label="fitted")
        frame.plot(square[fitted], line["intercept"] + line["slope_a2"] * square[fitted], color="C1",
                   label=f"slope {line['slope_a2']:.1f} A^2")
    frame.legend(fontsize=8)
    frame.grid(alpha=0.3)
    return plotter


def plot_directional(curves: dict[str, list[float]], directions: dict[str, list[float]], title: str) -> EmPlotter:
    """The FSC in cones: its mean, spread and extremes; and the resolution (A) of each direction on the sphere."""
    plotter, frame = fsc_frame(title, curves["frequency"][-1], columns=2)
    frequency, mean, deviation = (np.array(curves[name]) for name in ("frequency", "mean", "deviation"))
    frame.fill_between(frequency, curves["lowest"], curves["highest"], color="C0", alpha=0.15, label="all directions")
    frame.fill_between(frequency, mean - deviation, mean + deviation, color="C0", alpha=0.3, label="standard deviation")
    frame.plot(frequency, mean, color="C0", label="mean")
    frame.legend(fontsize=8)
    x, y, z, found = (np.array(directions[name]) for name in ("x", "y", "z", "resolution_a"))
    sphere = plotter.createSubPlot("where the FSC falls to 0.5 (A)", "", "", projection="mollweide")
    both = np.concatenate([np.arctan2(y, x), np.arctan2(-y, -x)]), np.concatenate([np.arcsin(z), np.arcsin(-z)])
    shown = sphere.scatter(*both, c=np.tile(found, 2), s=12, cmap="turbo")  # a direction is its opposite too
    plotter.figure.colorbar(shown, ax=sphere, shrink=0.6)
    sphere.tick_params(labelsize=6)
    return plotter


def plot_course(record: dict[str, Any], title: str) -> EmPlotter:
    """Resolution, change of the poses, certainty and time of each iteration."""
    plotter = EmPlotter(x=2, y=2, mainTitle=title, windowTitle=title, figsize=(10, 7.4))
    rows = record["iterations"]
    numbers = [row["number"] for row in rows]
    _course_of_resolution(plotter.createSubPlot("resolution", "iteration", "A"), rows)
    frame = plotter.createSubPlot("median change of the poses", "iteration", "since the iteration before")
    for name, key, factor in (("turn (degrees)", "median_turn_rad", 180 / np.pi), ("move (A)", "median_move_a", 1.0)):
        changes = [np.nan if row[key] is None else max(factor * row[key], 1e-4) for row in rows]
        frame.semilogy(numbers, changes, "o-", label=name)
    frame.legend(fontsize=8)
    _course_of_certainty(plotter.createSubPlot("certainty", "iteration", "share"), rows)
    stages = {name: [row["seconds"].get(name, 0.0) for row in rows] for row in rows for name in row["seconds"]}
    stacked(plotter.createSubPlot("time", "iteration", "seconds"), numbers, stages)
    for axes in plotter.figure.axes:
        axes.set_xticks(numbers if len(numbers) < 15 else numbers[:: len(numbers) // 10])
        axes.grid(alpha=0.3)
    plotter.figure.subplots_adjust(hspace=0.4, bottom=0.08)
    return plotter


def _course_of_resolution(frame: Any, rows: list[dict[str, Any]]) -> None:
    numbers = [row["number"] for row in rows]
    for one in range(len(rows[-1]["class_sizes"])):
        reached = [row["class_resolution_a"][one] for row in rows]
        frame.plot(numbers, [np.nan if a is None else 1 / a for a in reached], "o-",
                   label=f"class {one + 1}" if len(rows[-1]["class_sizes"]) > 1 else "reached (FSC 0.143)")
    used = [row["max_frequency"] for row in rows]
    frame.step(numbers, used, where="mid", color="0.6", label="used for the alignment")
    highest = max(used + [1 / a for row in rows for a in row["class_resolution_a"] if a])
    _label_frequencies(frame, 1.1 * highest, axis="y")
    frame.legend(loc="lower right", fontsize=8)


def _course_of_certainty(frame: Any, rows: list[dict[str, Any]]) -> None:
    """Shares from 0 to 1; figures that the run did not keep are left out."""
    shares = {"posterior share of the best pose, mean": [row["mean_max_probability"] for row in rows],
              "best poses that the vector search found": [row.get("recall") for row in rows],
              "particles kept": [None if row.get("untrusted") is None else 1 - row["untrusted"] for row in rows]}
    if any(len(row["class_sizes"]) > 1 for row in rows):
        for name, key in (("particles that changed class", "class_changes"),
                          ("entropy of the class posterior (1: none is sure)", "class_entropy")):
            shares[name] = [row.get(key) if np.count_nonzero(row["class_sizes"]) > 1 else None for row in rows]
    for (name, values), marker in zip(shares.items(), "osD^v"):
        if any(value is not None for value in values):
            frame.plot([row["number"] for row in rows], [np.nan if value is None else value for value in values],
                       marker=marker, label=name)
    frame.set_ylim(0, 1.05)
    frame.legend(fontsize=7)


def plot_class_sizes(record: dict[str, Any], title: str) -> EmPlotter:
    """Particles in each class after each iteration."""
    plotter = EmPlotter(windowTitle=title, figsize=(7, 5))
    rows = record["iterations"]
    sizes = np.array([row["class_sizes"] for row in rows])
    stacked(plotter.createSubPlot(title, "iteration", "particles"), [row["number"] for row in rows],
            {f"class {number}": column.tolist() for number, column in enumerate(sizes.T, 1)})
    return plotter


def plot_evidence(evidence: Sequence[float], title: str) -> EmPlotter:
    """Mean log-likelihood of a particle, relative to an empty image, at each step of a search."""
    plotter = EmPlotter(windowTitle=title, figsize=(7, 5))
    frame = plotter.createSubPlot(title, "step", "evidence of a particle")
    frame.plot(range(1, len(evidence) + 1), evidence)
    frame.grid(alpha=0.3)
    return plotter


def plot_rounds(values: dict[str, Sequence[float]], title: str) -> EmPlotter:
    """Shares from 0 to 1 in each round, one line for each name."""
    plotter = EmPlotter(windowTitle=title, figsize=(7, 5))
    frame = plotter.createSubPlot(title, "round", "share")
    for name, shares in values.items():
        frame.plot(range(1, len(shares) + 1), shares, "o-", label=name)
    frame.set_ylim(0, 1.05)
    frame.xaxis.set_major_locator(MaxNLocator(integer=True))
    frame.legend(fontsize=8)
    frame.grid(alpha=0.3)
    return plotter


def plot_sizes(sizes: Sequence[int], title: str, number: str = "number") -> EmPlotter:
    """Particles of each class, or of whatever the numbers name."""
    plotter = EmPlotter(windowTitle=title, figsize=(7, 5))
    frame = plotter.createSubPlot(title, number, "particles")
    frame.bar_label(frame.bar(range(1, len(sizes) + 1), sizes, 0.75), fontsize=8)
    frame.set_xticks(range(1, len(sizes) + 1))
    return plotter


def stacked(frame: Any, numbers: Sequence[int], values: dict[str, list[float]]) -> None:
    """Bars in layers, one for each name."""
    base = np.zeros(len(numbers))
    for name, heights in values.items():
        frame.bar(numbers, heights, 0.75, bottom=base, label=name)
        base += heights
    frame.xaxis.set_major_locator(MaxNLocator(integer=True))
    frame.legend(fontsize=7)


# -------------------------------------------------------------------------------------------- particles

def plot_directions(beams: np.ndarray, symmetry: str, title: str) -> EmPlotter:
    """How many particles are seen from where, mates included, relative to an even distribution; beams (N, 3).

    The title tells the efficiency.
    """
    beams = coverage.with_mates(beams, symmetry)
    longitudes, sines, density = coverage.view_density(beams)
    plotter = EmPlotter(windowTitle=title, figsize=(8, 4.8))
    whole = f"{title}\n{symmetry}, efficiency of the orientations {coverage.efficiency(beams):.2f} (1: even)"
    frame = plotter.createSubPlot(whole, "", "", projection="mollweide")
    fine = np.linspace(-1, 1, 8 * (len(sines) - 1) + 1)  # so that cells follow the outline
    shown = frame.pcolormesh(longitudes, np.arcsin(fine), density.repeat(8, axis=0), cmap="viridis", vmin=0)
    plotter.figure.colorbar(shown, ax=frame, shrink=0.8, label="particles relative to even views")
    frame.tick_params(labelsize=7)
    frame.grid(alpha=0.3)
    return plotter


def plot_histograms(values: dict[str, np.ndarray], title: str) -> EmPlotter:
    """One histogram for each name, over all but the outermost 0.5 % on either side, with the median."""
    columns = 2 if len(values) > 1 else 1
    plotter = EmPlotter(x=-(-len(values) // columns), y=columns, mainTitle=title, windowTitle=title, figsize=(9, 6.6))
    for name, found in values.items():
        low, high = np.quantile(found, (0.005, 0.995))
        if low == high:  # all alike: shown from 0
            low, high = min(low, 0.0), max(high, 0.0) or 1.0
        frame = plotter.createSubPlot("", name, "particles")
        frame.hist(found, np.linspace(low, high, BINS), color="C0", edgecolor="white", lw=0.3)
        frame.axvline(np.median(found), color="C1", label=f"median {np.median(found):.4g}")
        frame.legend(fontsize=8)
    return plotter


def plot_differences(found: convert.PoseDifferences, max_angle_deg: float, max_shift_a: float, title: str) -> EmPlotter:
    """How far apart two alignments are: histograms, both differences together, and the share of particles below each."""
    plotter = EmPlotter(x=2, y=2, mainTitle=title, windowTitle=title, figsize=(9, 7.6))
    both = (("angle (degrees)", found.angle_deg, max_angle_deg), ("shift (A)", found.shift_a, max_shift_a))
    for name, values, limit in both:
        frame = plotter.createSubPlot("", name, "particles")
        widest = max(np.quantile(values, 0.98), 1.2 * limit)
        frame.hist(values, np.linspace(0, widest, BINS), color="C0", edgecolor="white", lw=0.3)
        frame.axvline(np.median(values), color="C1", label=f"median {np.median(values):.3g}")
        frame.axvline(limit, color="k", ls="--", lw=1, label=f"limit {limit:g}")
        frame.legend(fontsize=8)
    frame = plotter.createSubPlot("", "angle (degrees)", "shift (A)")
    frame.loglog(found.angle_deg, found.shift_a, ".", ms=3, alpha=0.5)
    frame.axvline(max_angle_deg, color="k", ls="--", lw=1)
    frame.axhline(max_shift_a, color="k", ls="--", lw=1)
    frame = plotter.createSubPlot("", "difference", "share of particles below")
    for name, values, _ in both:
        frame.semilogx(np.sort(values), np.arange(1, len(values) + 1) / len(values), label=name)
    frame.grid(alpha=0.3)
    frame.legend(fontsize=8)
    return plotter


def plot_gallery(pairs: gallery.Pairs, pixel_size_a: float, low_pass_a: float, title: str) -> EmPlotter:
    """Particles above their reprojections, from the best score to the worst."""
    columns = min(8, len(pairs.images))
    rows = -(-len(pairs.images) // columns)
    order = "in their order" if pairs.score is None else "by rank and score"
    whole = f"{title}\nparticles (to {low_pass_a:g} A) above their reprojections, {order}"
    plotter = EmPlotter(x=2 * rows, y=columns, mainTitle=whole, windowTitle=title, figsize=(1.3 * columns, 2.9 * rows + 0.8))
    shown = {0: gallery.low_passed(pairs.images, low_pass_a, pixel_size_a), 1: pairs.reprojections}
    grid = plotter.figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for place, rank in enumerate(pairs.rank):
        for below, images in shown.items():
            frame = grid[2 * (place // columns) + below][place % columns]
            limits = np.percentile(images[place], (1, 99))
            frame.imshow(images[place], cmap="gray", origin="lower", vmin=limits[0], vmax=limits[1])
        label = f"{rank}" if pairs.score is None else f"{rank}: {pairs.score[place]:.0f}"
        grid[2 * (place // columns)][place % columns].set_title(label, fontsize=7, pad=2)
    arranged(plotter, bottom=0.01, top=1 - 0.7 / (2.9 * rows + 0.8), left=0.01, right=0.99, wspace=0.04, hspace=0.12)
    return plotter


# --------------------------------------------------------------------------------------------- helpers

def add_slider(plotter: EmPlotter, bottom: float, label: str, low: float, high: float, start: float,
               step: float | None = None) -> Slider:
    """A slider near the foot of the figure, which holds it."""
    figure = plotter.figure
    slider = Slider(figure.add_axes((0.25, bottom, SLIDER[1], SLIDER[0])), label, low, high, valinit=start, valstep=step)
    figure.controls = [*getattr(figure, "controls", []), slider]
    return slider


def arranged(plotter: EmPlotter, **margins: float) -> None:
    """Leave the margins of the figure as they are given here."""
    plotter.tightLayoutOn = False
    plotter.figure.subplots_adjust(**margins)


def _label_frequencies(frame: Any, highest: float, axis: str = "x") -> None:
    """An axis linear in frequency (1/A) whose ticks say the resolution in A."""
    ticks = np.linspace(0, highest, 7)[1:]
    limits, places = (frame.set_xlim, frame.set_xticks) if axis == "x" else (frame.set_ylim, frame.set_yticks)
    limits(0, highest)
    places(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    frame.grid(alpha=0.3)


def _resolution_text(value_a: float) -> str:
    return f"{value_a:.2f} A" if np.isfinite(value_a) else "none"
