"""What the data allow: maximum likelihood started at the true poses, and how near a refinement comes to it.

    python benchmarks/oracle.py FOLDER --symmetry D2 [--resolution 9.45] [--run RUN]

FOLDER holds particles_true.star (true poses), true_map.mrc and mask.mrc, as `swiftres simulate` writes them. Two oracles are
measured: one refines against the true map, the other against the half maps that the true poses reconstruct to, which is the
best a refinement that keeps its halves apart can do. With --run the poses of a refinement are compared with both.
"""
from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin.engine.align import align_half, image_noise, residual_noise
from swiftres_plugin.engine.compute import open_compute
from swiftres_plugin.engine.data.maps import HalfMaps, Map
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.insertion import reconstruct_half
from swiftres_plugin.engine.io.mrc import MrcSource, read_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.maths.symmetry import angular_errors, in_frame_of
from swiftres_plugin.engine.refine import by_row, draw_halves
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.postprocess import (
    compute_fsc,
    correlation,
    masked_reference,
    particle_diameter_px,
    signal_to_noise,
)
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.engine.stages.reconstruct import solve
from swiftres_plugin.settings import RefineSettings, ScheduleSettings


@dataclass(frozen=True)
class Truth:
    """A data set with known answer."""

    engine: Engine
    particles: Particles
    voxels: torch.Tensor
    mask: np.ndarray
    half: np.ndarray

    @property
    def poses(self) -> Assignment:
        return assignment(self.particles.poses)


def assignment(poses: Poses) -> Assignment:
    n = len(poses)
    return Assignment(poses.image_to_volume, poses.shift_a, np.zeros(n), np.ones(n), np.zeros((n, 5, 5)),
                      np.zeros(n, dtype=np.int64))


def open_truth(folder: Path, symmetry: str, device: str) -> Truth:
    particles = read_particles(folder / "particles_true.star")
    settings = RefineSettings(schedule=ScheduleSettings(symmetry=symmetry))
    compute = open_compute(device)
    spectra = load_spectra(MrcSource(particles), settings.preprocess, compute, SilentReporter(), folder / "oracle-cache")
    engine = Engine(spectra, compute, open_symmetry(symmetry), settings, SilentReporter())
    voxels = torch.from_numpy(read_map(folder / "true_map.mrc").voxels.copy())
    return Truth(engine, particles, voxels, read_map(folder / "mask.mrc").voxels, draw_halves(particles, 1))


def rows_of(truth: Truth, h: int) -> np.ndarray:
    return np.flatnonzero(truth.half == h)


def reconstructed(truth: Truth, poses: Assignment) -> tuple[list[torch.Tensor], torch.Tensor, HalfMaps]:
    """Regularised, masked half maps for alignment; the combined map; the plain half maps; from given poses."""
    engine, box = truth.engine, truth.engine.spectra.band.box_px
    pixel = truth.engine.spectra.band.pixel_size_a
    sums = []
    for h in (0, 1):
        rows = rows_of(truth, h)
        sums.append(reconstruct_half(engine, image_noise(engine, rows), rows, poses.take(rows), ""))
    halves = HalfMaps(*(Map(solve(s, box).numpy(), pixel) for s in sums))
    ratio = signal_to_noise(compute_fsc(halves, truth.mask))
    return [masked_reference(solve(s, box, ratio), truth.mask) for s in sums], solve(sums[0] + sums[1], box, 2 * ratio), halves


def refined_from_truth(truth: Truth, references: list[torch.Tensor], shell: int) -> Assignment:
    """Continuous refinement started at the true poses against one map per half."""
    diameter_a = truth_diameter(truth)
    plan = IterationPlan(1, shell, False, shell, 0.1, 1.0, 1.0)
    parts = []
    for h in (0, 1):
        rows = rows_of(truth, h)
        noise = residual_noise(truth.engine, [references[h]], rows, truth.poses.take(rows))
        parts.append(align_half(truth.engine, references[h], noise, rows, plan, truth.poses, diameter_a, ""))
    return by_row(truth.half, parts)


def truth_diameter(truth: Truth) -> float:
    return particle_diameter_px(truth.voxels.numpy()) * truth.engine.spectra.band.pixel_size_a


def crossing_a(curve: np.ndarray, threshold: float, box_a: float) -> float:
    below = np.flatnonzero(curve[1:] < threshold)
    if len(below) == 0:
        return box_a / (len(curve) - 1)
    s = below[0] + 1
    return box_a / (s - 1 + (curve[s - 1] - threshold) / (curve[s - 1] - curve[s]))


def describe(name: str, truth: Truth, poses: Assignment, combined: torch.Tensor | None = None) -> tuple[float, float, float]:
    """Print and return median angle (degrees), median shift (px) and masked FSC 0.5 against truth (A)."""
    found = Poses(poses.image_to_volume, poses.shift_a)
    true, _, _ = in_frame_of(found, truth.particles.poses, truth.engine.operators)
    angle, shift = angular_errors(found, true, truth.engine.operators)
    if combined is None:
        combined = reconstructed(truth, poses)[1]
    mask = torch.from_numpy(truth.mask)
    curve = correlation(combined * mask, truth.voxels * mask)
    band = truth.engine.spectra.band
    median, move = np.degrees(np.median(angle)), np.median(shift) / band.pixel_size_a
    limit = crossing_a(curve, 0.5, band.box_a)
    print(f"{name:28s} {median:8.3f} {move:9.3f} {np.mean(angle > np.radians(10)):10.3f} {limit:10.2f}")
    return median, move, limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--resolution", type=float, default=0.0, help="band limit in A (Nyquist by default)")
    parser.add_argument("--run", type=Path, help="folder of a refinement of particles.star")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    truth = open_truth(args.folder, args.symmetry, args.device)
    band = truth.engine.spectra.band
    shell = band.shell_of(args.resolution) if args.resolution else band.last_shell
    print(f"{'':28s} {'degrees':>8s} {'shift px':>9s} {'>10 deg':>10s} {'FSC 0.5 A':>10s}    "
          f"(band to {band.box_a / shell:.2f} A)")
    halves, combined, _ = reconstructed(truth, truth.poses)
    describe("true poses", truth, truth.poses, combined)
    best = describe("oracle, true map", truth, refined_from_truth(truth, [truth.voxels] * 2, shell))
    gold = describe("oracle, half maps", truth, refined_from_truth(truth, halves, shell))
    if args.run:
        found = read_particles(args.run / "particles.star")
        ours = describe("refinement", replace(truth, half=found.half), assignment(found.poses))
        for name, other in (("true map", best), ("half maps", gold)):
            print(f"ratio to the oracle, {name:9s}: angle {ours[0] / other[0]:.3f}, shift {ours[1] / other[1]:.3f}, "
                  f"resolution {ours[2] / other[2]:.3f}")


if __name__ == "__main__":
    main()
