"""How much faster several workers refine: python benchmarks/workers.py FOLDER [--symmetry D2] [--workers 1 2]

FOLDER holds particles.star and initial_map.mrc, as `swiftres simulate` writes them. Each number of workers, one core each,
refines them (`--cluster local:N`); seconds on the clock of the iterations are held against those of the first number. From
the first two, time = alone + shared / workers tells what stays with the process that leads them, and what more workers than
this machine has cores for would come to: that line is simulated, not measured.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.io.mrc import read_map

SIMULATED = (4, 8, 16)


def refined(folder: Path, workers: int, output: Path, options: Sequence[str]) -> float:
    """Seconds on the clock of all iterations of a refinement by so many workers."""
    command = [sys.executable, "-m", "swiftres_plugin.engine", "refine", "--particles", folder / "particles.star",
               "--reference", folder / "initial_map.mrc", "--output", output, "--cluster", f"local:{workers}",
               "--threads", "1", *options]
    passive = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=passive)
    iterations = json.loads((output / layout.RUN).read_text())["iterations"]
    return float(sum(sum(one["seconds"].values()) for one in iterations))


def parts(workers: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds that stay with the leading process, and that workers share, by least squares."""
    columns = np.stack([np.ones(len(workers)), 1 / np.array(workers, dtype=float)], axis=1)
    alone, shared = np.linalg.lstsq(columns, np.array(seconds), rcond=None)[0]
    return float(alone), float(shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    options = ["--symmetry", args.symmetry, "--iterations", str(args.iterations)]
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in args.workers:
            output = Path(scratch) / f"workers{number}"
            seconds.append(refined(args.folder, number, output, options))
            first, now = (read_map(Path(scratch) / f"workers{n}" / layout.map_name(1)).voxels
                          for n in (args.workers[0], number))
            differ = np.abs(first - now).max() / np.abs(first).max()
            print(f"{number} workers: {seconds[-1]:.0f} s, {seconds[0] / seconds[-1]:.2f} times as fast; the map differs by "
                  f"{differ:.1e} of its maximum", flush=True)
    if len(seconds) > 1:
        alone, shared = parts(args.workers, seconds)
        for number in SIMULATED:
            print(f"{number} workers, simulated: {alone + shared / number:.0f} s, "
                  f"{seconds[0] / (alone + shared / number):.2f} times as fast ({alone:.0f} s stay with the leader)")


if __name__ == "__main__":
    main()
