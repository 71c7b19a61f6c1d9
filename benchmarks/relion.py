"""Beside RELION: the same particles and starting map refined by both, judged alike.

    python benchmarks/relion.py FOLDER --symmetry D2 --resolution 50 [--diameter A] --output OUT

FOLDER is as for benchmarks/oracle.py. `relion_refine_mpi --auto_refine` (3.1 was tried) and `swiftres refine` run one after
the other on this machine. The table gives processor seconds of all their processes (the leader of RELION's processes is left
out: it waits busily), seconds on the clock, the resolution each reports, median errors against the true poses, and the FSC 0.5
against the true map, inside mask.mrc, of what its poses reconstruct to. What is in OUT already is judged and not run again.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from oracle import assignment, describe, open_truth

from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.io.star import read_particles

COSTS = "costs.json"
WATCH = """
import os, pathlib, resource, subprocess, sys
subprocess.run(sys.argv[2:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
pathlib.Path(sys.argv[1], rank).write_text(str(used.ru_utime + used.ru_stime))
"""
OPTIONS = ("--auto_refine --split_random_halves --firstiter_cc --ctf --ctf_corrected_ref --flatten_solvent --zero_mask --norm "
           "--scale --oversampling 1 --healpix_order 2 --auto_local_healpix_order 4 --low_resol_join_halves 40 --pad 2 "
           "--dont_combine_weights_via_disc").split()


def main() -> None:
    args = arguments()
    folder, output = args.folder.resolve(), args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    runs = {"RELION": (relion_command(args, folder, output / "relion"), output / "relion"),
            "swiftres": (swiftres_command(args, folder, output / "swiftres"), output / "swiftres")}
    for command, place in runs.values():
        if not (place / COSTS).exists():
            measured(command, folder, place)
    truth = open_truth(folder, args.symmetry, "cpu")
    print(f"{'':22s} {'processor s':>12s} {'clock s':>8s} {'reported A':>10s}")
    for name, (_, place) in runs.items():
        costs = json.loads((place / COSTS).read_text())
        print(f"{name:22s} {costs['processor']:12.0f} {costs['clock']:8.0f} {reported(place):10.2f}")
    for name, (_, place) in runs.items():
        found = read_particles(final_particles(place))
        order = {image: row for row, image in enumerate(images(found))}
        rows = [order[image] for image in images(truth.particles)]
        describe(name, truth, assignment(found.take(rows).poses))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--resolution", type=float, required=True, help="of initial_map.mrc, in A")
    parser.add_argument("--diameter", type=float, default=200.0, help="of RELION's mask, in A")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def relion_command(args: argparse.Namespace, folder: Path, place: Path) -> list[str]:
    if shutil.which("relion_refine_mpi") is None or shutil.which("mpirun") is None:
        raise SystemExit("relion_refine_mpi and mpirun are needed (Debian: apt install relion)")
    width_px = 2 * round(0.1 * read_particles(folder / "particles.star").box_px / 2)
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "relion_refine_mpi", *OPTIONS,
            "--i", "particles.star", "--ref", "initial_map.mrc", "--ini_high", f"{args.resolution:g}",
            "--sym", args.symmetry, "--particle_diameter", f"{args.diameter:g}", "--offset_range", str(max(width_px, 6)),
            "--offset_step", "2", "--random_seed", "1", "--j", "1", "--o", str(place / "run")]


def swiftres_command(args: argparse.Namespace, folder: Path, place: Path) -> list[str]:
    return [sys.executable, "-m", "swiftres_plugin.engine", "refine", "--particles", "particles.star", "--reference",
            "initial_map.mrc", "--initial-resolution", f"{args.resolution:g}", "--symmetry", args.symmetry,
            "--output", str(place)]


def measured(command: Sequence[str], folder: Path, place: Path) -> None:
    """Run a program in `folder`, which writes to `place`, and write there what it cost."""
    parts = place.parent / f"{place.name}.seconds"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    if command[0] == "mpirun":
        place.mkdir(exist_ok=True)
    split = list(command).index("relion_refine_mpi") if command[0] == "mpirun" else 0
    watched = [*command[:split], sys.executable, "-c", WATCH, str(parts), *command[split:]]
    began = time.time()
    with place.with_suffix(".log").open("w") as lines:
        subprocess.run(watched, cwd=folder, stdout=lines, stderr=subprocess.STDOUT, check=True,
                       env={**os.environ, "OMPI_MCA_mpi_yield_when_idle": "1"})
    clock = time.time() - began
    spent = {int(file.name): float(file.read_text()) for file in parts.iterdir()}
    processor = sum(seconds for rank, seconds in spent.items() if rank or len(spent) == 1)
    (place / COSTS).write_text(json.dumps({"processor": processor, "clock": clock}))


def final_particles(place: Path) -> Path:
    relion = place / "run_data.star"
    return relion if relion.exists() else place / "particles.star"


def reported(place: Path) -> float:
    """The resolution that a program tells, in A."""
    if (place / "run.json").exists():
        return float(json.loads((place / "run.json").read_text())["resolution_a"])
    found = re.search(r"_rlnFinalResolution\s+(\S+)|_rlnCurrentResolution\s+(\S+)", (place / "run_model.star").read_text())
    if found is None:
        raise SystemExit(f"{place / 'run_model.star'} tells no resolution")
    return float(found[1] or found[2])


def images(particles: Particles) -> list[tuple[str, int]]:
    """Stack and number of each image, without folders."""
    stacks = [Path(path).name for path in particles.stack_paths]
    return [(stacks[stack], int(number)) for stack, number in zip(particles.stack_index, particles.slice_index)]


if __name__ == "__main__":
    main()
