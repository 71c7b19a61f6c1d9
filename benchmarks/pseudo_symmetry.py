"""A C4 channel with one bound lobe (15 kDa on some 250 kDa): the share of particles that end on the right mate.

    python benchmarks/pseudo_symmetry.py [--count 1000] [--box 64] [--pixel-size 2.5] [--snr -10] [--seed 1]

Particles are simulated from a protein-like model and stand at their true poses but for a mate of C4 drawn at random and a
jitter of 1 degree and 0.5 A: what a refinement in C4 leaves. Printed are the share on the right mate when the true map is
given (what the data allow) and when the particles find their own maps, up to one turn of the whole.
"""
from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.data.atoms import Atoms
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Poses
from swiftres_plugin.engine.demo_model import build_demo_model
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.engine.maths.geometry import rotation_angle
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.relax_files import RelaxInputs, relax_files
from swiftres_plugin.engine.render import render_atoms
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.simulate import SimulationSettings, simulate
from swiftres_plugin.settings import ComputeSettings, RelaxationSettings, RelaxSettings

SUBUNIT_RESIDUES, LOBE_RESIDUES = 570, 136  # 63 and 15 kDa
RADIUS_A, LOBE_A = 26.0, (45.0, 12.0, 22.0)


def channel(box_px: int, pixel_size_a: float) -> Map:
    """Four copies of a chain about z, and one lobe at the rim."""
    subunit, lobe = build_demo_model(3, SUBUNIT_RESIDUES).centred(), build_demo_model(5, LOBE_RESIDUES).centred()
    parts = [render_atoms(placed(subunit, operator, (RADIUS_A, 0.0, 0.0)), box_px, pixel_size_a).voxels
             for operator in symmetry_operators("C4")]
    parts.append(render_atoms(placed(lobe, np.eye(3), LOBE_A), box_px, pixel_size_a).voxels)
    return Map(np.sum(parts, axis=0), pixel_size_a)


def placed(atoms: Atoms, operator: np.ndarray, at_a: tuple[float, float, float]) -> Atoms:
    return replace(atoms, position_a=(atoms.position_a + np.array(at_a)) @ operator.T)


def shuffled(folder: Path, seed: int) -> tuple[Path, np.ndarray]:
    """The particles at mates drawn at random, with a jitter; and the true rotations."""
    truth = read_particles(folder / "particles_true.star")
    random, count, group = np.random.default_rng(seed), len(truth), symmetry_operators("C4")
    jitter = Rotation.from_rotvec(np.deg2rad(1.0) * random.normal(size=(count, 3))).as_matrix()
    rotations = group[random.integers(len(group), size=count)] @ truth.poses.image_to_volume @ jitter
    poses = Poses(rotations, truth.poses.shift_a + 0.5 * random.normal(size=(count, 2)))
    path = folder / "particles_c4.star"
    write_particles(path, replace(truth, poses=poses))
    return path, truth.poses.image_to_volume


def right(found: np.ndarray, true: np.ndarray) -> float:
    """Share of particles within 20 degrees of the truth, after the turn of C4 under which this is largest."""
    shares = [np.mean(rotation_angle(operator @ found, true) < np.deg2rad(20)) for operator in symmetry_operators("C4")]
    return float(max(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--pixel-size", type=float, default=2.5)
    parser.add_argument("--snr", type=float, default=-10.0)
    parser.add_argument("--resolution", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = SimulationSettings(count=args.count, snr_db=args.snr, shift_sigma_px=2.0, seed=args.seed)
        simulate(channel(args.box, args.pixel_size), asked, folder, SilentReporter())
        particles, true = shuffled(folder, args.seed)
        settings = RelaxSettings(RelaxationSettings("C4", args.resolution), compute=ComputeSettings(device="cpu", threads=1))
        print(f"before: {right(read_particles(particles).poses.image_to_volume, true):.3f} on the right mate")
        for case, reference in (("true map given", str(folder / "true_map.mrc")), ("no map given", "")):
            output = folder / case.replace(" ", "_")
            output.mkdir()
            began = time.process_time()
            relax_files(RelaxInputs(str(particles), reference), settings, output, SilentReporter())
            found = read_particles(output / "particles.star")
            print(f"{case}: {right(found.poses.image_to_volume, true):.3f} on the right mate, "
                  f"{time.process_time() - began:.0f} s of processor")


if __name__ == "__main__":
    main()
