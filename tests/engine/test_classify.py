"""Particles of a body with and without a lobe come to two classes, from nothing and from given maps; noise makes none."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import (
    PLACES_A,
    WEIGHTS,
    Phantom,
    described,
    engine_over,
    images_of,
    plain_spectra,
    random_poses,
    write_data_set,
    write_volume,
)

from swiftres_plugin.engine.class_maps import Setting, seen_half
from swiftres_plugin.engine.classify import LEAST_AGREEMENT, Round, classify, one_round, rounds
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.given_poses import noise_and_window, small_engine
from swiftres_plugin.engine.io.mrc import read_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.refine import draw_halves, input_poses
from swiftres_plugin.engine.stages.postprocess import sphere_mask

COUNT, RESOLUTION_A = 480, 12.0
BODY = Phantom(places_a=np.concatenate([PLACES_A, -0.6 * PLACES_A[:3]]), weights=np.append(WEIGHTS, [1.0, 0.9, 0.8]))
WITH_LOBE = Phantom(np.concatenate([BODY.places_a, [[-10.0, 30, -12]]]), np.append(BODY.weights, 0.8))


def mixed(minority: float, other: Phantom = WITH_LOBE, uneven: bool = False) -> tuple[ArraySource, np.ndarray]:
    """Particles of which some have the lobe, and which (0 or 1). Uneven: their contrast differs by a quarter, and their poses
    are off by 2.5 degrees about each axis."""
    particles, random = described(random_poses(COUNT)), np.random.default_rng(4)
    label = (random.random(COUNT) < minority).astype(int)[:, None, None]
    images = np.where(label == 1, images_of(other, particles), images_of(BODY, particles))
    if uneven:
        images *= 1 + 0.25 * random.standard_normal((COUNT, 1, 1))
        off = Rotation.from_rotvec(np.deg2rad(2.5) * random.standard_normal((COUNT, 3))).as_matrix()
        particles = replace(particles, poses=replace(particles.poses, image_to_volume=particles.poses.image_to_volume @ off))
    noise = 0.6 * np.random.default_rng(7).standard_normal(images.shape)
    return ArraySource(particles, (images + noise).astype(np.float32)), label[:, 0, 0]


def setting_over(source: ArraySource, **changes) -> tuple:
    engine = engine_over(plain_spectra(source), initial_resolution=25.0)
    poses, half = input_poses(source.particles), draw_halves(source.particles, 1)
    noise, window = noise_and_window(engine, poses, half, sphere_mask(32, 13))
    return engine, Setting(poses, noise, half, window, **changes)


def right(shares: np.ndarray, label: np.ndarray) -> float:
    same = np.mean(shares.argmax(axis=1) == label)
    return max(same, 1 - same)


@pytest.mark.parametrize("minority, uneven", [(0.5, False), (0.2, True)])
def test_a_lobe_is_found_from_nothing(minority, uneven):
    source, label = mixed(minority, uneven=uneven)
    engine, setting = setting_over(source)
    found = classify(engine, setting, 2, RESOLUTION_A, starts=1, seed=1)
    assert right(found[-1].shares, label) > 0.95
    assert found[-1].agreement.min() > 1.2 * LEAST_AGREEMENT
    assert np.bincount(found[-1].shares.argmax(axis=1)).min() > 0.8 * np.bincount(label).min()
    assert found[-1].changes < 0.01 and found[-1].entropy < 0.2
    np.testing.assert_allclose(found[-1].shares.sum(axis=1), 1)
    for h in (0, 1):  # the classes of both halves have one name
        assert abs(np.mean((found[-1].shares.argmax(axis=1) == label)[setting.half == h]) - 0.5) > 0.4


@pytest.mark.slow
def test_halves_agree_in_nothing_where_all_particles_are_alike():
    source, _ = mixed(0.5, other=BODY)
    engine, setting = setting_over(source)
    found = classify(engine, setting, 2, 16.0, starts=1, seed=1)
    assert found[-1].agreement.max() < LEAST_AGREEMENT


def test_an_empty_class_stays_empty():
    source, label = mixed(0.5)
    engine, setting = setting_over(source)
    small, window = small_engine(engine, setting.window, 16.0)
    shares = np.eye(3)[label]
    found = one_round([seen_half(small, replace(setting, window=window), h) for h in (0, 1)], False, shares)
    np.testing.assert_array_equal(found.shares[:, 2], 0)
    assert right(found.shares[:, :2], label) > 0.95


def test_doubtful_classes_are_told_from_sure_ones():
    sure = np.eye(2)[[0, 0, 0, 1]]
    for shares, agreement, doubt in ((sure, 0.6, ""), (sure, 0.2, "correlation 0.20"),
                                     (np.full((4, 2), 0.5) + 0.1 * (sure - 0.5), 0.9, "not sure of their class")):
        told = Round(shares, 0.0, np.array([0.1, agreement]), 0.0).doubt
        assert doubt in told and bool(told) == bool(doubt)


def test_right_classes_stay_right():
    source, label = mixed(0.15)
    engine, setting = setting_over(source)
    found = rounds(engine, setting, np.eye(2)[label], RESOLUTION_A)
    assert right(found[-1].shares, label) > 0.97 and found[-1].agreement.min() > LEAST_AGREEMENT  # 36 particles a half


def test_classify_by_command_line(tmp_path):
    source, label = mixed(0.5)
    star = write_data_set(tmp_path, source)
    maps = [str(write_volume(tmp_path / f"{name}.mrc", one.map().voxels)) for name, one in (("a", BODY), ("b", WITH_LOBE))]
    run = ["classify", "--particles", str(star), "--resolution", str(RESOLUTION_A), "--threads", "1", "--device", "cpu"]
    assert main([*run, "--reference", maps[0], "--output", str(tmp_path / "none")]) == 2
    assert main([*run, "--reference", maps[0], "--reference", maps[1], "--output", str(tmp_path / "out")]) == 0
    found = read_particles(tmp_path / "out" / "particles.star")
    assert np.mean(found.scores["class_id"] == label) > 0.95  # the classes are those of the maps, in their order
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert sum(record["class_sizes"]) == COUNT and record["rounds"][-1]["entropy"] < 0.2 and not record["warnings"]
    lobe = read_map(tmp_path / "out" / "class2_map.mrc").voxels - read_map(tmp_path / "out" / "class1_map.mrc").voxels
    expected = WITH_LOBE.map().voxels - BODY.map().voxels
    assert np.corrcoef(lobe.ravel(), expected.ravel())[0, 1] > 0.6
