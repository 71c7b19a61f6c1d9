"""Two conformations of one particle, and how many particles come to the right one.

    python benchmarks/classes.py [--seeds 5] [--count 2000] [--box 96] [--lobe 0.07] [--shares 0.5 0.1] [--soft/--no-soft]

A protein-like body has a bound lobe of a part of its mass (`--lobe`), or has not. Images have a signal-to-noise ratio of
-10 dB over the particle's area. Particles stand at their true poses with a jitter of 1 degree and 0.5 A, as a refinement of
all together leaves them; the classes are found from nothing. Printed for every seed: the share on the right class, of all
and of the minority; the same when both true maps are given (what the data allow); sizes; agreement of the halves; seconds.
A class that ends with less than a quarter of its particles has collapsed. With `--shares 0` all particles are
alike, and what is to be seen is that the halves do not agree.
"""
from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.class_maps import Setting
from swiftres_plugin.engine.classify import Round, classify
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import ArraySource, Particles, Poses
from swiftres_plugin.engine.demo_model import build_demo_model
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import fixed_scores, noise_and_window
from swiftres_plugin.engine.refine import draw_halves, input_poses
from swiftres_plugin.engine.render import render_atoms
from swiftres_plugin.engine.report import Reporter, SilentReporter, TerminalReporter
from swiftres_plugin.engine.simulate import (
    NOISE_SAMPLE,
    Projector,
    SimulationSettings,
    draw_particles,
    noise_image,
    noise_level,
)
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.settings import RefineSettings

BODY_RESIDUES = 2700
SIDE = np.array([0.8, 0.5, 0.33])


@dataclass(frozen=True)
class Case:
    """One data set: its maps on the scale of the noise, the true class of each particle, and the engine over it."""

    maps: tuple[Map, Map]
    label: np.ndarray
    engine: Engine


def conformations(box_px: int, pixel_size_a: float, part: float) -> tuple[Map, Map]:
    """The body without and with a lobe, of `part` of the whole mass, at its rim."""
    body = build_demo_model(7, BODY_RESIDUES).centred()
    lobe = build_demo_model(5, round(BODY_RESIDUES * part / (1 - part))).centred()
    reach = np.percentile(body.position_a @ (SIDE / np.linalg.norm(SIDE)), 97)
    moved = replace(lobe, position_a=lobe.position_a + reach * SIDE / np.linalg.norm(SIDE))
    without = render_atoms(body, box_px, pixel_size_a)
    return without, replace(without, voxels=without.voxels + render_atoms(moved, box_px, pixel_size_a).voxels)


def simulated(maps: tuple[Map, Map], count: int, minority: float, snr_db: float, seed: int,
              reporter: Reporter) -> Case:
    """Particles in memory; those of the second class are the minority. All have noise of variance one."""
    settings = SimulationSettings(count=count, snr_db=snr_db, shift_sigma_px=2.0, seed=seed)
    truth, _ = draw_particles(maps[0], settings, Path("none.mrcs"))
    label = (np.random.default_rng([seed, 77]).permutation(count) < round(minority * count)).astype(int)
    sigma, _ = noise_level(Projector(maps[0]), truth.take(np.arange(min(count, NOISE_SAMPLE))), snr_db)
    scaled = tuple(replace(one, voxels=(one.voxels / sigma).astype(np.float32)) for one in maps)
    images = np.zeros((count, maps[0].box_px, maps[0].box_px), np.float32)
    for number, one in enumerate(scaled):
        projector = Projector(one)
        for rows in np.array_split(np.flatnonzero(label == number), max(1, count // 64)):
            images[rows] = projector.project(truth.take(rows), with_ctf=True)
    images += np.stack([noise_image(settings, row, maps[0].box_px) for row in range(count)])
    return Case((scaled[0], scaled[1]), label, engine_over(ArraySource(jittered(truth, seed), images), reporter))


def jittered(truth: Particles, seed: int) -> Particles:
    random, count = np.random.default_rng([seed, 78]), len(truth)
    turn = Rotation.from_rotvec(np.deg2rad(1.0) * random.normal(size=(count, 3))).as_matrix()
    shift_a = truth.poses.shift_a + 0.5 * random.normal(size=(count, 2))
    return replace(truth, poses=Poses(truth.poses.image_to_volume @ turn, shift_a))


def engine_over(source: ArraySource, reporter: Reporter) -> Engine:
    settings, compute = RefineSettings(), Compute(torch.device("cpu"), 1, 2 << 30)
    with tempfile.TemporaryDirectory() as scratch:
        spectra = load_spectra(source, settings.preprocess, compute, SilentReporter(), Path(scratch))
    return Engine(spectra, compute, np.eye(3)[None], settings, reporter)


def right(label: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Share on the right class of all, and of the second (the minority), by the better naming of the classes."""
    same = found == label
    same = same if same.mean() >= 0.5 else ~same
    return float(same.mean()), float(same[label == 1].mean()) if label.any() else float("nan")


def possible(case: Case, setting: Setting) -> tuple[float, float]:
    """The same with both true maps, at the particles' poses, and the true sizes of the classes."""
    if not case.label.any():
        return 1.0, float("nan")
    rows = np.arange(len(case.label))
    scores = np.concatenate([fixed_scores(case.engine, torch.from_numpy(np.array(one.voxels)), setting.noise[0], rows,
                                          setting.poses) for one in case.maps], axis=1)
    odds = scores[:, 1] - scores[:, 0] + np.log(case.label.mean() / (1 - case.label.mean()))
    same = (odds > 0) == case.label
    return float(same.mean()), float(same[case.label == 1].mean())


def described(case: Case, last: Round, rounds: int, seconds: float, best: tuple[float, float]) -> str:
    sizes = np.bincount(last.shares.argmax(axis=1), minlength=2)
    every, few = right(case.label, last.shares.argmax(axis=1))
    true = np.bincount(case.label, minlength=2)
    collapsed = 0 < true.min() and sizes.min() < 0.25 * true.min()
    return (f"right {every:.3f} (minority {few:.3f}); possible {best[0]:.3f} ({best[1]:.3f}); sizes {sizes[0]} {sizes[1]} "
            f"of {true[0]} {true[1]}; agreement {last.agreement.min():.2f}; entropy {last.entropy:.2f}; {rounds} rounds, "
            f"{seconds:.0f} s{'; COLLAPSED' if collapsed else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--box", type=int, default=96)
    parser.add_argument("--pixel-size", type=float, default=1.8)
    parser.add_argument("--snr", type=float, default=-10.0)
    parser.add_argument("--lobe", type=float, default=0.07, help="part of the mass")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.1], help="part of the particles that have the lobe")
    parser.add_argument("--resolution", type=float, default=7.0)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--soft", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    maps = conformations(args.box, args.pixel_size, args.lobe)
    reporter: Reporter = TerminalReporter() if args.verbose else SilentReporter()
    for minority in args.shares:
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            case = simulated(maps, args.count, minority, args.snr, seed, reporter)
            poses, half = input_poses(case.engine.spectra.particles), draw_halves(case.engine.spectra.particles, seed)
            noise, window = noise_and_window(case.engine, poses, half, None)
            setting = Setting(poses, noise, half, window, hard=not args.soft)
            began = time.process_time()
            found = classify(case.engine, setting, 2, args.resolution, args.starts, seed)
            seconds = time.process_time() - began
            print(f"{minority:.0%} with the lobe, seed {seed}: "
                  + described(case, found[-1], len(found), seconds, possible(case, setting)), flush=True)


if __name__ == "__main__":
    main()
