"""Particle subtraction: images from which the projection of a part of the map is taken away, so that the rest stands alone."""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.given_poses import opened_mask
from swiftres_plugin.engine.io.mrc import MrcSource, StackWriter, read_map
from swiftres_plugin.engine.io.star import write_particles
from swiftres_plugin.engine.reconstruct import open_particles
from swiftres_plugin.engine.refine import sampled_rows
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.engine.simulate import Projector
from swiftres_plugin.engine.stages.preprocess import circular_window
from swiftres_plugin.errors import InputError

BATCH = 64
EDGE_PX = 1  # between the particle's circle and the border of the box


@dataclass(frozen=True)
class SubtractInputs:
    """The files: particles with poses; the map of them, one for each half set or one for all; the mask of what is kept, or
    empty to keep nothing."""

    particles: str
    maps: tuple[str, ...]
    mask: str = ""


def subtract_files(inputs: SubtractInputs, invert: bool, star: Path, reporter: Reporter) -> Particles:
    """Write the particles without what the map holds outside the mask to `star`, and a stack of the same name beside it.

    Images are written with a background of mean 0 and deviation 1, white on black. Raises `InputError` before any work
    where a file cannot be used.
    """
    stack = star.with_suffix(".mrcs")
    for path in (star, stack):
        if path.exists():
            raise InputError("the output exists already", where=path, remedy="Name another file.")
    particles = open_particles(inputs.particles)
    check_one_sampling(particles, inputs.particles)
    maps = opened_maps(inputs, particles)
    kept = kept_part(inputs.mask, particles)
    subtract(MrcSource(particles), maps, kept, invert, stack, reporter)
    count = len(particles)
    left = replace(particles, stack_paths=(str(stack.resolve()),), stack_index=np.zeros(count, np.int64),
                   slice_index=np.arange(count))
    write_particles(star, left)
    return left


def check_one_sampling(particles: Particles, name: str) -> None:
    """Raises `InputError` where optics groups differ in box or pixel size: one stack has one of each."""
    first = particles.optics[0]
    if any(one.box_px != first.box_px or abs(one.pixel_size_a / first.pixel_size_a - 1) > 1e-3 for one in particles.optics):
        raise InputError("the optics groups differ in box or pixel size", where=name, expected="one sampling",
                         remedy="Subtract each group by itself.")


def opened_maps(inputs: SubtractInputs, particles: Particles) -> tuple[Map, ...]:
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


def kept_part(path: str, particles: Particles) -> np.ndarray:
    """(n, n, n) from 0 to 1: what is kept; nothing without a mask."""
    mask = opened_mask(path, particles)
    return np.zeros((particles.box_px,) * 3, np.float32) if mask is None else mask


def subtract(source: MrcSource, maps: tuple[Map, ...], kept: np.ndarray, invert: bool, stack: Path,
             reporter: Reporter) -> None:
    """Write the stack of images less their map's part outside `kept`, in the order of the particles."""
    particles = source.particles
    half = np.zeros(len(particles), np.int64) if particles.half is None else particles.half
    scales = [grey_scale(source, one, np.flatnonzero(half == h), invert) for h, one in enumerate(maps)]
    outside = [Projector(replace(one, voxels=(one.voxels * (1 - kept)).astype(np.float32))) for one in maps]
    reporter.stage("subtraction", len(particles))
    with StackWriter(stack, len(particles), particles.box_px, particles.pixel_size_a) as writer:
        for rows in np.array_split(np.arange(len(particles)), math.ceil(len(particles) / BATCH)):
            images = normalised(source.read(rows), invert)
            for h in (0, 1):
                of_half = np.flatnonzero(half[rows] == h)
                if len(of_half):
                    images[of_half] -= scales[h] * outside[h].project(particles.take(rows[of_half]), with_ctf=True)
            writer.write(images)
            reporter.advance(len(rows))


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
    few = sampled_rows(rows)
    if len(few) == 0:
        return 1.0
    images = normalised(source.read(few), invert)
    predicted = Projector(density).project(source.particles.take(few), with_ctf=True)
    images, predicted = (values - values.mean(axis=(1, 2), keepdims=True) for values in (images, predicted))
    return max(float((images * predicted).sum(dtype=np.float64) / (predicted ** 2).sum(dtype=np.float64)), 0.0)
