"""Symmetry expansion: a particle set in which every particle stands at each of its symmetry mates."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.refine import draw_halves

SOURCE, MATE, IDENTITY = "swiftresSourceParticle", "swiftresMate", "swiftresParticleId"


def expanded(particles: Particles, operators: np.ndarray, seed: int) -> Particles:
    """(N * |G|) particles, the mates of one after another; the first of each is the particle as it was.

    Every mate of a particle is in its half set, which is drawn where there was none: the same noise in both halves would
    agree with itself. New columns name each row, the row that it came from, and the operator (all from 1).
    Raises `ValueError` for particles without poses.
    """
    if particles.poses is None:
        raise ValueError("particles without poses have no mates")
    count, mates = len(particles), len(operators)
    source, mate = np.repeat(np.arange(count), mates), np.tile(np.arange(mates), count)
    every = replace(particles, half=draw_halves(particles, seed)).take(source)
    poses = Poses(operators[mate] @ particles.poses.image_to_volume[source], particles.poses.shift_a[source])
    names = {IDENTITY: np.arange(count * mates), SOURCE: source, MATE: mate}
    extra = {**every.extra, **{name: (values + 1).astype(str) for name, values in names.items()}}
    return replace(every, particle_id=np.arange(count * mates), poses=poses, extra=extra)
