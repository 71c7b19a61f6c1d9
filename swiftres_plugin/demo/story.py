"""What the pictures show, read from the files of the demonstration."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.demo.folder import DemoFolder
from swiftres_plugin.demo.judge import MASK, TRUE_MAP, Verdict, carried_file
from swiftres_plugin.demo.parts import Part, swiftres
from swiftres_plugin.demo.surface import bounding_box, draw_surface, level_of_volume
from swiftres_plugin.engine.io.mrc import MrcSource, read_map
from swiftres_plugin.engine.io.star import read_particles, write_particles

START_MAP = "initial_map.mrc"  # of `swiftres simulate`
SHOWN_PARTICLES = 5
SMOOTH_A = 20.0
SHOWN_ITERATIONS = 4
SURFACE_SHARE = 0.30  # of the strong density: where the true map's surface is drawn
BLUE, AMBER = (0.36, 0.60, 0.82), (0.92, 0.62, 0.33)


@dataclass(frozen=True, eq=False)
class Story:
    """Maps are (n, n, n), (z, y, x), each brought to the grey scale of the true map; images are (P, n, n).

    `surfaces` are (title, RGBA picture) of the map in the course of the refinement; `noise` is half the difference of the
    half maps in the scale of the refined map.
    """

    pixel_size_a: float
    start: np.ndarray
    refined: np.ndarray
    noise: np.ndarray
    truth: np.ndarray
    surfaces: list[tuple[str, np.ndarray]]
    images: np.ndarray
    smooth_images: np.ndarray
    reprojections: np.ndarray
    start_resolution_a: float
    verdict: Verdict


def project_some(folder: DemoFolder) -> Part:
    """Reprojections of the refined map at the found poses of a few particles, by `swiftres project`."""
    particles = read_particles(folder.refined / layout.PARTICLES)
    some = folder.judged / "some_particles.star"
    write_particles(some, particles.take(most_defocused(particles.ctf.defocus_u_a)))
    return swiftres("reprojections", ["project", "--map", folder.refined / layout.map_name(), "--particles", some,
                                      "--ctf", "--output", folder.judged / "reprojections.mrcs"])


def most_defocused(defocus_a: np.ndarray) -> np.ndarray:
    """Rows of the particles that a person sees best, the most defocused ones."""
    return np.sort(np.argsort(-defocus_a, kind="stable")[:SHOWN_PARTICLES])


def read_story(folder: DemoFolder, name: str, verdict: Verdict, start_resolution_a: float) -> Story:
    """Everything the pictures need of the run that was judged as `name`; `project_some` must have run."""
    truth = read_map(carried_file(folder, name, TRUE_MAP))
    inside = read_map(carried_file(folder, name, MASK)).voxels > 0.5
    run = folder.refined
    start, refined = read_map(folder.data / START_MAP).voxels, read_map(run / layout.map_name()).voxels
    halves = [read_map(run / layout.half_name(number)).voxels for number in (1, 2)]
    scale = scale_to(refined, truth.voxels, inside)
    maps = [(f"starting map\nlow-passed to {start_resolution_a:.0f} Å", start), *_course(run, verdict)]
    images = _images(folder.judged / "some_particles.star")
    return Story(
        pixel_size_a=truth.pixel_size_a, start=start, refined=scale * refined, noise=scale * (halves[0] - halves[1]) / 2,
        truth=truth.voxels, surfaces=draw_surfaces(maps, truth.voxels, inside), images=images,
        smooth_images=smoothed(images, truth.pixel_size_a, SMOOTH_A),
        reprojections=_images(folder.judged / "reprojections.star"), start_resolution_a=start_resolution_a,
        verdict=verdict)


def _course(run: Path, verdict: Verdict) -> list[tuple[str, np.ndarray]]:
    """(title, map) of the first iterations and of the last."""
    kept = [(number, folder / layout.map_name()) for number, folder in layout.finished_iterations(run)
            if (folder / layout.map_name()).exists()]
    shown = kept if len(kept) <= SHOWN_ITERATIONS else [*kept[:SHOWN_ITERATIONS - 1], kept[-1]]
    titles = {number: "refined, iteration" if number == kept[-1][0] else "iteration" for number, _ in shown}
    rows = {row["number"]: row["resolution_a"] for row in verdict.record["iterations"]}
    return [(f"{titles[number]} {number}\n{rows[number]:.1f} Å", read_map(path).voxels) for number, path in shown]


def draw_surfaces(maps: list[tuple[str, np.ndarray]], truth: np.ndarray,
                  inside: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(title, picture) of the maps and of the truth, each at the level that encloses the volume of the true surface."""
    strong = SURFACE_SHARE * float(np.percentile(truth[inside], 99.5))
    count = int((truth[inside] > strong).sum())
    coloured = [*((*entry, BLUE) for entry in maps), ("truth\n(simulated from)", truth, AMBER)]
    levels = [level_of_volume(voxels, inside, count) for _, voxels, _ in coloured]
    box = bounding_box(np.any([inside & (entry[1] > level) for entry, level in zip(coloured, levels)], axis=0))
    pictures = []
    for (title, voxels, colour), level in zip(coloured, levels):
        within = np.where(inside, voxels, min(level, float(voxels[inside].min())))
        pictures.append((title, draw_surface(within[box], level, colour)))
    return pictures


def _images(star: object) -> np.ndarray:
    particles = read_particles(str(star))
    return MrcSource(particles).read(np.arange(len(particles)))


def scale_to(voxels: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> float:
    """The factor that brings a map nearest to the truth (least squares inside the particle)."""
    ours, theirs = voxels[inside].astype(float), truth[inside].astype(float)
    return float(ours @ theirs / max(float(ours @ ours), 1e-30))


def smoothed(images: np.ndarray, pixel_size_a: float, resolution_a: float) -> np.ndarray:
    """Images (P, n, n) without detail finer than `resolution_a`, by a Gaussian that halves amplitudes there."""
    n = images.shape[-1]
    square = np.fft.fftfreq(n, pixel_size_a)[:, None] ** 2 + np.fft.rfftfreq(n, pixel_size_a)[None, :] ** 2
    return np.fft.irfft2(np.fft.rfft2(images) * 0.5 ** (square * resolution_a ** 2), s=images.shape[1:])
