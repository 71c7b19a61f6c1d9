"""A phantom of every point group, refined in its group and in C1, held against maps of the oracle's poses.

    python benchmarks/groups.py [--groups C1 C3 D2 T O I1 ...] [--count 1000] [--box 64] [--pixel-size 3] [--snr -5] [--seed 1]

Copies of a protein-like chain, some 400 kDa in all, stand at the mates of one place. Both refinements start from the map
low-passed to 25 A. The oracle is maximum likelihood from the true poses against half maps of them (benchmarks/oracle.py);
its poses and those found make a map in the same way, whose FSC with the true map falls to 0.5 at the resolutions that are
printed. A refinement in C1 may place each particle at any of its mates: its angles are those to the nearest.
"""
from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from oracle import assignment, describe, open_truth, reconstructed, refined_from_truth

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main as swiftres
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.demo_model import build_demo_model
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.render import render_atoms
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.simulate import SimulationSettings, simulate

GROUPS = [*(f"C{n}" for n in range(1, 9)), *(f"D{n}" for n in range(2, 9)), "T", "O", "I1", "I2", "I3", "I4"]
RESIDUES = 3600
LEAST_RESIDUES = 120  # of a chain
START_A = 25.0
VOLUME_A3 = 133.0  # of a residue
DIRECTIONS = 500  # tried for the place that lies farthest from its mates


@dataclass(frozen=True)
class Reached:
    """Median error in degrees of a refinement, and where the FSC with the true map falls to 0.5, of it and of the oracle."""

    error_deg: float
    found_a: float
    oracle_a: float


def phantom(name: str, box_px: int, pixel_size_a: float) -> Map:
    """Copies of one chain at the mates of the place on a sphere that lies farthest from its own mates."""
    operators = open_symmetry(name)
    chain = build_demo_model(3, max(LEAST_RESIDUES, RESIDUES // len(operators))).centred()
    total_a3 = VOLUME_A3 * len(operators) * max(LEAST_RESIDUES, RESIDUES // len(operators))
    radius_a = 0.65 * (3 * total_a3 / (4 * np.pi)) ** (1 / 3)
    directions = np.random.default_rng(1).standard_normal((DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    nearest = [np.sort((operators @ one) @ one)[::-1][1:2].max(initial=-1.0) for one in directions]
    place_a = radius_a * directions[int(np.argmin(nearest))] * (len(operators) > 1)
    copies = [render_atoms(replace(chain, position_a=(chain.position_a + place_a) @ operator.T), box_px, pixel_size_a)
              for operator in operators]
    return replace(copies[0], voxels=np.sum([one.voxels for one in copies], axis=0))


def reached(folder: Path, symmetry: str, group: str, seed: int) -> Reached:
    """What a refinement in `symmetry` comes to, of particles that have the symmetry of `group`."""
    run = folder / f"run_{symmetry}"
    code = swiftres(["refine", "--particles", str(folder / "particles.star"), "--reference", str(folder / "initial_map.mrc"),
                     "--initial-resolution", str(START_A), "--symmetry", symmetry, "--device", "cpu", "--seed", str(seed),
                     "--output", str(run)])
    if code:
        raise SystemExit(code)
    truth = open_truth(folder, symmetry, "cpu")
    halves, _, _ = reconstructed(truth, truth.poses)
    oracle = refined_from_truth(truth, halves, truth.engine.spectra.band.last_shell)
    poses = read_particles(run / layout.PARTICLES)
    mates = replace(truth, engine=replace(truth.engine, operators=open_symmetry(group)))
    found = assignment(poses.poses)
    own = replace(truth, half=poses.half)
    error_deg, _, found_a = describe("", mates, found, reconstructed(own, found)[1])
    return Reached(error_deg, found_a, describe("", mates, oracle, reconstructed(truth, oracle)[1])[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", nargs="+", default=GROUPS)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--pixel-size", type=float, default=3.0)
    parser.add_argument("--snr", type=float, default=-5.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name in args.groups:
        with tempfile.TemporaryDirectory() as scratch:
            folder, began = Path(scratch), time.process_time()
            asked = SimulationSettings(count=args.count, snr_db=args.snr, shift_sigma_px=2.0, seed=args.seed, symmetry=name,
                                       initial_resolution_a=START_A)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                simulate(phantom(name, args.box, args.pixel_size), asked, folder, SilentReporter())
                cases = {symmetry: reached(folder, symmetry, name, args.seed) for symmetry in dict.fromkeys((name, "C1"))}
            told = "; ".join(f"in {symmetry} {one.error_deg:.2f} degrees, {one.found_a:.2f} A, oracle {one.oracle_a:.2f} A "
                             f"({one.found_a / one.oracle_a - 1:+.1%})" for symmetry, one in cases.items())
            print(f"{name}: {told}; {time.process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
