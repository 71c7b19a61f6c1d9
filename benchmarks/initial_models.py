"""How often `swiftres initial-model` finds the particle, seed by seed, and what a refinement makes of what it found.

    python benchmarks/initial_models.py FOLDER --symmetry D2 [--seeds 10] [--refine]

FOLDER holds particles.star and particles_true.star, as `swiftres simulate` writes them. For each seed: how many of the
likeliest random starts came to the same map, the median error of the poses in degrees and pixels against the truth or
its mirror image (whichever is nearer, in the frame that the group leaves free), and processor seconds. With --refine the same
of a refinement from the map found, and its resolution: to be held against one from the given initial_map.mrc, which --given
runs first.
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main as swiftres
from swiftres_plugin.engine.data.particles import Poses
from swiftres_plugin.engine.initial_model_files import initial_resolution, new_initial_model
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.maths.symmetry import angular_errors, in_frame_of
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.settings import InitialModelSettings, from_flat

MIRROR = np.diag([1.0, 1.0, -1.0])


def pose_errors(found: Poses, true: Poses, operators: np.ndarray, pixel_size_a: float) -> str:
    """Median errors against the truth or its mirror image. A mirrored map has the same projections at poses M R M."""
    errors = []
    for hand, name in ((np.eye(3), "same hand"), (MIRROR, "other hand")):
        carried, _, _ = in_frame_of(found, Poses(hand @ true.image_to_volume @ hand, true.shift_a), operators)
        angle, shift = (np.median(values) for values in angular_errors(found, carried, operators)[:2])
        errors.append((np.rad2deg(angle), shift / pixel_size_a, name))
    angle, shift, name = min(errors)
    return f"{angle:.2f} degrees, {shift:.2f} px ({name})"


def refined(folder: Path, reference: Path, resolution_a: float, symmetry: str, output: Path, truth: Poses) -> str:
    """Resolution, errors and processor seconds of a refinement from a map."""
    began = time.process_time()
    code = swiftres(["refine", "--particles", str(folder / "particles.star"), "--reference", str(reference), "--output",
                     str(output), "--symmetry", symmetry, "--initial-resolution", str(resolution_a)])
    if code:
        return f"the refinement failed with exit code {code}"
    particles = read_particles(output / layout.PARTICLES)
    reached = json.loads((output / layout.RUN).read_text())["resolution_a"]
    errors = pose_errors(particles.poses, truth, open_symmetry(symmetry), particles.pixel_size_a)
    return f"{reached:.2f} A, {errors}, {time.process_time() - began:.0f} s"


def measure(folder: Path, symmetry: str, seed: int, refine: bool, output: Path, starts: int) -> str:
    truth = read_particles(folder / "particles_true.star")
    settings = from_flat({"symmetry": symmetry, "seed": seed, "starts": starts}, InitialModelSettings)
    output.mkdir()
    began = time.process_time()
    found = new_initial_model(str(folder / "particles.star"), settings, output, SilentReporter())
    seconds = time.process_time() - began
    poses = Poses(found.assignment.image_to_volume, found.assignment.shift_a)
    errors = pose_errors(poses, truth.poses, open_symmetry(symmetry), truth.pixel_size_a)
    text = f"seed {seed}: {found.agreeing} of {len(found.agreement)} starts, {errors}, {seconds:.0f} s"
    if refine:
        run = output.with_name(output.name + "_refined")
        reference = output / layout.map_name()
        text += "; refined: " + refined(folder, reference, initial_resolution(found), symmetry, run, truth.poses)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--starts", type=int, default=InitialModelSettings().model.starts)
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--given", action="store_true")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        if args.given:
            truth = read_particles(args.folder / "particles_true.star").poses
            given = args.folder / "initial_map.mrc"
            print("given map:", refined(args.folder, given, 50.0, args.symmetry, Path(folder) / "given", truth), flush=True)
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            output = Path(folder) / f"seed{seed}"
            print(measure(args.folder, args.symmetry, seed, args.refine, output, args.starts), flush=True)


if __name__ == "__main__":
    main()
