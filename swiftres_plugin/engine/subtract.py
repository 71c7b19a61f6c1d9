"""Particle subtraction: images from which the projection of a part of the map is taken away, so that the rest stands alone."""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin import layout
from swiftres_plugin.engine.checks import check_box
from swiftres_plugin.engine.data.maps import HalfMaps, Map
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.given_poses import COARSE_A, SPHERE, opened_mask
from swiftres_plugin.engine.io.mrc import MrcSource, StackWriter, read_map, write_map
from swiftres_plugin.engine.io.star import write_particles
from swiftres_plugin.engine.io.tables import write_json
from swiftres_plugin.engine.maths.fourier import filter_shells
from swiftres_plugin.engine.recentre import Window, about, centre_of_mass, cut_map
from swiftres_plugin.engine.reconstruct import open_particles
from swiftres_plugin.engine.report import Reporter, TeeReporter
from swiftres_plugin.engine.run import versions
from swiftres_plugin.engine.searching import evenly
from swiftres_plugin.engine.simulate import Projector
from swiftres_plugin.engine.stages.postprocess import compute_fsc, signal_to_noise, solvent_mask
from swiftres_plugin.engine.stages.preprocess import circular_window
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import SubtractionSettings

BATCH = 64
SAMPLE = 500  # particles that find the grey scale of a map
EDGE_PX = 1  # between the particle's circle and the border of the box
WHOLE_MASK = 0.99  # of the mask, that a new box should hold
WRITTEN = (layout.LEFT_STACK, layout.LEFT_MAP, layout.LEFT_MASK, layout.LEFT_FIGURES)


@dataclass(frozen=True)
class SubtractInputs:
    """The files: particles with poses; the map of them, one for each half set or one for all; the mask of what is kept, or
    empty to keep nothing."""

    particles: str
    maps: tuple[str, ...]
    mask: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Subtraction:
    """What was done: the factors of the two maps, and the part of the images' variance that was taken away."""

    grey_scales: tuple[float, float]
    variance_taken: float


def subtract_files(inputs: SubtractInputs, settings: SubtractionSettings, star: Path, reporter: Reporter) -> Particles:
    """Write the particles without what the map holds outside the mask to `star`, and what `layout` names beside it.

    Images are written with a background of mean 0 and deviation 1, white on black. Raises `InputError` before any work
    where a file cannot be used.
    """
    reporter = TeeReporter(reporter)
    check_new(star)
    particles = open_particles(inputs.particles)
    check_one_sampling(particles, inputs.particles)
    maps = without_noise(opened_maps(inputs, particles), settings.solvent_mask)
    kept = opened_mask(inputs.mask, particles)
    centre_px = middle(kept, settings)
    window, poses = view(particles, centre_px, settings)
    warn_of_window(window, kept, centre_px, particles.box_px, reporter)
    outside = 1 - kept if kept is not None else np.ones((particles.box_px,) * 3, np.float32)
    stack = Path(layout.beside(star, layout.LEFT_STACK))
    done = subtract(MrcSource(particles), maps, outside, window, settings.invert_contrast, stack, reporter)
    left = of_stack(particles, stack, window.box_px, poses)
    write_particles(star, left)
    if kept is not None:
        write_kept(star, maps, kept, centre_px, window.box_px)
    write_json(layout.beside(star, layout.LEFT_FIGURES), {
        "inputs": asdict(inputs), "settings": asdict(settings), "versions": versions(), "particles": len(left),
        "box_px": window.box_px, "centre_px": centre_px.tolist(), **asdict(done), "warnings": reporter.warnings})
    return left


def check_new(star: Path) -> None:
    """Raises `InputError` where one of the files to write is there."""
    for path in (star, *(Path(layout.beside(star, ending)) for ending in WRITTEN)):
        if path.exists():
            raise InputError("the output exists already", where=path, remedy="Name another file.")


def without_noise(maps: tuple[Map, Map], solvent: bool) -> tuple[Map, Map]:
    """The maps without what the images do not show: the noise of half maps, by the Wiener filter that their FSC tells, and
    with `solvent` all that is outside the boundary of the particle."""
    box_px, pixel_a = maps[0].box_px, maps[0].pixel_size_a
    both = HalfMaps(*maps)
    window = (solvent_mask(both.average.voxels, pixel_a, COARSE_A, SPHERE * box_px) if solvent
              else np.ones((box_px,) * 3, np.float32))
    voxels = [one.voxels for one in maps]
    if maps[0] is not maps[1]:
        ratio = signal_to_noise(compute_fsc(both, window if solvent else None))
        gain = torch.from_numpy(ratio / (1 + ratio))
        voxels = [filter_shells(torch.from_numpy(one), gain).numpy() for one in voxels]
    first, second = (replace(one, voxels=(left * window).astype(np.float32)) for one, left in zip(maps, voxels))
    return first, second


def middle(kept: np.ndarray | None, settings: SubtractionSettings) -> np.ndarray:
    """(3,) the voxel (x, y, z), from the centre of the map, that comes to the middle of the images."""
    if not settings.recentre:
        return np.zeros(3, np.int64)
    if kept is None:
        raise InputError("nothing to centre on", found="--recentre without --mask", remedy="Give the mask of what is kept.")
    return centre_of_mass(kept)


def view(particles: Particles, centre_px: np.ndarray, settings: SubtractionSettings) -> tuple[Window, Poses | None]:
    """The window of every image, and the poses in it; all of the images where neither a box nor a centre is asked for."""
    box_px = settings.new_box or particles.box_px
    if box_px > particles.box_px:
        raise InputError("the new box is larger than that of the particles", where="new box", found=f"{box_px} px",
                         expected=f"at most {particles.box_px} px", remedy="Extract the particles in a larger box first.")
    check_box(box_px, particles.pixel_size_a, "new box")
    if not settings.recentre and not settings.new_box:
        return Window(box_px, np.zeros((len(particles), 2), np.int64)), particles.poses
    return about(particles, centre_px * particles.pixel_size_a, box_px)


def warn_of_window(window: Window, kept: np.ndarray | None, centre_px: np.ndarray, box_px: int, reporter: Reporter) -> None:
    """Tell where the new box does not hold what is kept, or more than the images show."""
    if kept is not None:
        inside = cut_map(Map(kept, 1.0), centre_px, window.box_px).voxels.sum() / kept.sum()
        if inside < WHOLE_MASK:
            reporter.warning(f"The new box of {window.box_px} px holds only {inside:.0%} of the mask: take a larger one, or "
                             "recentre on the mask.")
    over = window.over_border(box_px).mean()
    if over > 0 and window.box_px < box_px:
        reporter.warning(f"The windows of {over:.1%} of the particles reach over the border of their images, and show the "
                         "opposite border there: extract the particles in a larger box, or take a smaller new one.")


def of_stack(particles: Particles, stack: Path, box_px: int, poses: Poses | None) -> Particles:
    """The particles as images of the new stack, in their order."""
    count = len(particles)
    optics = tuple(replace(group, box_px=box_px) for group in particles.optics)
    return replace(particles, stack_paths=(str(stack.resolve()),), stack_index=np.zeros(count, np.int64),
                   slice_index=np.arange(count), optics=optics, poses=poses)


def write_kept(star: Path, maps: tuple[Map, Map], kept: np.ndarray, centre_px: np.ndarray, box_px: int) -> None:
    """The map of what is kept, and the mask of it, as the images that are left show it."""
    whole = replace(maps[0], voxels=(maps[0].voxels + maps[1].voxels) / 2 * kept)
    for ending, density in ((layout.LEFT_MAP, whole), (layout.LEFT_MASK, replace(maps[0], voxels=kept))):
        write_map(layout.beside(star, ending), replace(cut_map(density, centre_px, box_px), origin_a=(0.0, 0.0, 0.0)))


def check_one_sampling(particles: Particles, name: str) -> None:
    """Raises `InputError` where optics groups differ in box or pixel size: one stack has one of each."""
    first = particles.optics[0]
    if any(one.box_px != first.box_px or abs(one.pixel_size_a / first.pixel_size_a - 1) > 1e-3 for one in particles.optics):
        raise InputError("the optics groups differ in box or pixel size", where=name, expected="one sampling",
                         remedy="Subtract each group by itself.")


def opened_maps(inputs: SubtractInputs, particles: Particles) -> tuple[Map, Map]:
    """One map for each half set (twice the same where one was given), in the box and at the pixel size of the particles."""
    if len(inputs.maps) == 2 and particles.half is None:
        raise InputError("two half maps need particles in half sets", where=inputs.particles, found="no rlnRandomSubset",
                         remedy="Give the particles of the refinement, or one map.")
    maps = [read_map(path) for path in inputs.maps]
    for one, path in zip(maps, inputs.maps):
        same_pixel = abs(one.pixel_size_a / particles.pixel_size_a - 1) < 0.01
        if one.box_px != particles.box_px or not same_pixel:
            raise InputError("the map does not fit the particles", where=path,
                             found=f"{one.box_px} px of {one.pixel_size_a:g} A",
                             expected=f"{particles.box_px} px of {particles.pixel_size_a:g} A",
                             remedy="Give a map that these particles were reconstructed to.")
    return (maps[0], maps[-1])


def subtract(source: MrcSource, maps: tuple[Map, Map], outside: np.ndarray, window: Window, invert: bool, stack: Path,
             reporter: Reporter) -> Subtraction:
    """Write the windows of the images less their map's part `outside` (n, n, n; from 0 to 1), in the particles' order."""
    particles = source.particles
    half = np.zeros(len(particles), np.int64) if particles.half is None else particles.half
    scales = [grey_scale(source, one, np.flatnonzero(half == h), invert) for h, one in enumerate(maps)]
    parts = [Projector(replace(one, voxels=(scale * one.voxels * outside).astype(np.float32)))
             for one, scale in zip(maps, scales)]
    before, after = 0.0, 0.0
    reporter.stage("subtraction", len(particles))
    with StackWriter(stack, len(particles), window.box_px, particles.pixel_size_a) as writer:
        for rows in np.array_split(np.arange(len(particles)), math.ceil(len(particles) / BATCH)):
            images = normalised(source.read(rows), invert)
            before += float(images.var(axis=(1, 2)).sum())
            for h in np.unique(half[rows]):
                of_half = np.flatnonzero(half[rows] == h)
                images[of_half] -= parts[h].project(particles.take(rows[of_half]), with_ctf=True)
            after += float(images.var(axis=(1, 2)).sum())
            writer.write(window.cut(images, rows))
            reporter.advance(len(rows))
    return Subtraction((scales[0], scales[1]), 1 - after / before)


def normalised(images: np.ndarray, invert: bool) -> np.ndarray:
    """(B, n, n) with a background of mean 0 and deviation 1 outside the circle in the box; what is outside stays."""
    n = images.shape[-1]
    outside = circular_window(n, n / 2 - EDGE_PX) < 0.5
    sign = -1.0 if invert else 1.0
    background = images[:, outside.numpy()]
    mean, deviation = background.mean(axis=1), background.std(axis=1)
    if not (deviation > 0).all():
        raise InputError("a particle image is constant outside the particle, so it cannot be normalised",
                         remedy="Remove empty images from the particle set.")
    return ((images - mean[:, None, None]) * (sign / deviation)[:, None, None]).astype(np.float32)


def grey_scale(source: MrcSource, density: Map, rows: np.ndarray, invert: bool) -> float:
    """Factor that brings a map to the scale of the normalised images: least squares over a sample, of what is not constant."""
    few = evenly(rows, SAMPLE)
    if len(few) == 0:
        return 1.0
    images = normalised(source.read(few), invert)
    predicted = Projector(density).project(source.particles.take(few), with_ctf=True)
    images, predicted = (values - values.mean(axis=(1, 2), keepdims=True) for values in (images, predicted))
    return max(float((images * predicted).sum(dtype=np.float64) / (predicted ** 2).sum(dtype=np.float64)), 0.0)
