"""Figures of what a run wrote: slices, FSC, directions, course. Each fills an `EmPlotter` and returns it."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pwem.viewers import EmPlotter

from swiftres_plugin import convert

CURVES = {"unmasked": "C0", "masked": "C1", "randomised": "C7", "corrected": "C3"}
AXES = ("x", "y", "z")
THRESHOLD = 0.143


def plot_slices(voxels: np.ndarray, pixel_size_a: float, title: str) -> EmPlotter:
    """The three central slices of a map (n, n, n), and its three projections below them."""
    plotter = EmPlotter(x=2, y=3, mainTitle=title, windowTitle=title, figsize=(9, 6.6))
    width_a = voxels.shape[-1] * pixel_size_a
    for kind in ("slice", "projection"):
        for i, axis in enumerate(AXES):
            centre = voxels.shape[2 - i] // 2
            image = voxels.take(centre, 2 - i) if kind == "slice" else voxels.sum(2 - i)
            frame = plotter.createSubPlot(f"{kind} along {axis} (A)", "", "")
            frame.imshow(image, cmap="gray", origin="lower", extent=(0, width_a, 0, width_a), interpolation="nearest")
            frame.tick_params(labelsize=7)
    return plotter


def plot_fsc(curves: dict[str, list[float]], title: str) -> EmPlotter:
    """The curves of a run's FSC file, with the resolution at 0.143 in the legend."""
    plotter = EmPlotter(windowTitle=title, figsize=(7, 5))
    frame = plotter.createSubPlot(title, "resolution (A)", "FSC")
    for name, colour in CURVES.items():
        label = f"{name} ({_resolution_text(convert.resolution_a(curves, name))})" if name != "randomised" else name
        frame.plot(curves["frequency"], curves[name], color=colour, label=label, lw=1 if name == "randomised" else 1.8)
    frame.axhline(THRESHOLD, color="k", ls="--", lw=0.8)
    frame.axhline(0, color="k", lw=0.5)
    frame.set_ylim(-0.1, 1.05)
    _label_frequencies(frame, curves["frequency"][-1])
    frame.legend(loc="upper right", fontsize=8)
    return plotter


def plot_directions(matrices: np.ndarray, title: str) -> EmPlotter:
    """How many particles are seen from where, relative to an even distribution; matrices (N, 4, 4) or (N, 3, 3)."""
    beam = matrices[:, :3, 2]
    longitude = np.arctan2(beam[:, 1], beam[:, 0])
    bins = int(np.clip(np.sqrt(len(beam) / 20), 6, 36))  # some ten particles a cell
    edges = np.linspace(-np.pi, np.pi, 2 * bins + 1), np.linspace(-1, 1, bins + 1)  # equal areas on the sphere
    counts, _, _ = np.histogram2d(longitude, np.clip(beam[:, 2], -1, 1), bins=edges)
    plotter = EmPlotter(windowTitle=title, figsize=(8, 4.8))
    frame = plotter.createSubPlot(title, "", "", projection="mollweide")
    fine = np.linspace(-1, 1, 8 * bins + 1)  # so that cells follow the outline
    relative = counts.repeat(8, axis=1).T / counts.mean()
    density = frame.pcolormesh(edges[0], np.arcsin(fine), relative, cmap="viridis", vmin=0)
    plotter.figure.colorbar(density, ax=frame, shrink=0.8, label="particles relative to even views")
    frame.tick_params(labelsize=7)
    frame.grid(alpha=0.3)
    return plotter


def plot_course(numbers: Sequence[int], curves: Sequence[dict[str, list[float]]], title: str) -> EmPlotter:
    """Resolution of the half maps after each iteration."""
    plotter = EmPlotter(windowTitle=title, figsize=(7, 5))
    frame = plotter.createSubPlot(title, "iteration", "resolution (A)")
    for name in ("unmasked", "corrected"):
        frequencies = [1 / convert.resolution_a(of, name) for of in curves]
        frame.plot(numbers, frequencies, "o-", color=CURVES[name], label=name)
    _label_frequencies(frame, curves[-1]["frequency"][-1], axis="y")
    frame.set_xticks(list(numbers))
    frame.legend(loc="lower right", fontsize=8)
    return plotter


def _label_frequencies(frame, highest: float, axis: str = "x") -> None:
    """An axis linear in frequency (1/A) whose ticks say the resolution in A."""
    ticks = np.linspace(0, highest, 7)[1:]
    limits, places = (frame.set_xlim, frame.set_xticks) if axis == "x" else (frame.set_ylim, frame.set_yticks)
    limits(0, highest)
    places(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    frame.grid(alpha=0.3)


def _resolution_text(value_a: float) -> str:
    return f"{value_a:.2f} A" if np.isfinite(value_a) else "none"
