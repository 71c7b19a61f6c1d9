"""Maps of single particles: those that no map was made of tell a right map from a wrong one, and steps over others mend it."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import Phantom, engine_over, particle_set, plain_spectra

from swiftres_plugin.engine.data.classes import ClassSearch
from swiftres_plugin.engine.data.particles import Poses
from swiftres_plugin.engine.maths.geometry import random_rotations
from swiftres_plugin.engine.maths.symmetry import angular_errors, in_frame_of, symmetry_operators
from swiftres_plugin.engine.stages.turns import Placings
from swiftres_plugin.engine.starts import Models, judged, map_of, seen_by
from swiftres_plugin.engine.views import particle_views
from swiftres_plugin.settings import ClassSettings

OPERATORS = symmetry_operators("D2")
FITTED, JUDGES = np.arange(60), np.arange(60, 100)


@pytest.fixture(scope="module")
def particles():
    return particle_set(100, noise=0.5, phantom=Phantom().symmetric(OPERATORS), shift_a=0.0)


@pytest.fixture(scope="module")
def seen(particles):
    """An engine, and the particles to fit and those to judge by, each a view of its own up to 16 A."""
    engine = engine_over(plain_spectra(particles), symmetry="D2", diameter=100.0)
    nowhere = torch.empty(0)
    search = ClassSearch(nowhere, nowhere, nowhere, np.full((1, 17), 0.25, dtype=np.float32), np.ones(1))
    zero = torch.zeros(100, 1)
    places = Placings(zero.long(), zero, torch.zeros(100, 1, 2), zero)
    return engine, *(particle_views(engine, search, places, ClassSettings(search_resolution=16.0), rows)
                     for rows in (FITTED, JUDGES))


def models_at(engine, views, frames: np.ndarray) -> Models:
    """The map of views that stand at frames (N, 3, 3)."""
    batch = views.batch(views.band.last_shell)
    turns = torch.from_numpy(frames).float()
    return Models((map_of(engine, batch.images * batch.ctf, batch.ctf ** 2, turns, batch.band),), np.ones(1))


def error_deg(models: Models, particles) -> float:
    """Median error of the judges against the truth, in the frame that the group leaves free."""
    still = np.zeros((len(JUDGES), 2))
    found = Poses(models.standing.image_to_volume, still)
    true = Poses(particles.particles.poses.image_to_volume[JUDGES], still)
    carried, _, _ = in_frame_of(found, true, OPERATORS)
    return float(np.rad2deg(np.median(angular_errors(found, carried, OPERATORS)[0])))


def test_judges_tell_the_right_map_from_a_wrong_one(particles, seen):
    """At the true poses, and at random ones. The grid's step is 9 degrees."""
    engine, fitted, judges = seen
    right = seen_by(engine, models_at(engine, fitted, particles.particles.poses.image_to_volume[FITTED]), judges)
    wrong = seen_by(engine, models_at(engine, fitted, random_rotations(60, np.random.default_rng(1))), judges)
    assert right.evidence > wrong.evidence + 5
    assert error_deg(right, particles) < 9 < 25 < error_deg(wrong, particles)


def test_steps_over_particles_mend_a_map(particles, seen):
    """Two in five particles stand anywhere: the map is mended, and comes before one of particles that all do."""
    engine, fitted, judges = seen
    frames, generator = particles.particles.poses.image_to_volume[FITTED].copy(), np.random.default_rng(2)
    frames[:24] = random_rotations(24, generator)
    blurred, wrong = models_at(engine, fitted, frames), models_at(engine, fitted, random_rotations(60, generator))
    before = seen_by(engine, blurred, judges)
    best = judged(engine, [wrong, blurred], fitted, judges)[0]
    assert best.evidence > before.evidence + 2 and error_deg(best, particles) < min(9, error_deg(before, particles))


def test_what_particles_like_less_is_not_taken(particles, seen):
    """Steps over two particles that make no map leave the right map as it was."""
    engine, fitted, judges = seen
    right = models_at(engine, fitted, particles.particles.poses.image_to_volume[FITTED])
    (kept,) = judged(engine, [right], replace(fitted.take(np.arange(2)), trust=(1.0, 1.0)), judges)
    assert kept.maps is right.maps and kept.standing is not None
