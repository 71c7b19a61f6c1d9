"""How well `swiftres classify2d` parts simulated particles by their views, how often classes collapse, and what it costs.

    python benchmarks/classes2d.py FOLDER --symmetry D2 [--seeds 5] [--classes 50]

FOLDER holds particles.star and particles_true.star, as `swiftres simulate` writes them; class 2 of the truth is junk. For
each seed: the share of particles whose view lies within two cells of its class's central view (a cell is what each class
would get of the views, were they dealt out evenly), the same for classes dealt by chance, how much of the junk stands in
classes that are mostly junk, how many classes hold particles, the effective number of classes (exp of the entropy of their
shares: near 1 or 2 means collapse), and processor seconds for 1,000 particles.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.classify2d import new_classification
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.settings import Classify2dSettings, from_flat

CELLS = 2.0


def angles_deg(views: np.ndarray, centre: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """(N,) smallest angle of views (N, 3) to a view, over the symmetry mates."""
    cosine = (views @ np.einsum("sij,j->si", operators, centre).T).max(1)
    return np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))


def central_view(views: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """The view among at most 60 of them that lies nearest to the others (median angle)."""
    tried = views[:: max(1, len(views) // 60)]
    return min(tried, key=lambda view: float(np.median(angles_deg(views, view, operators))))


def near_share(class_id: np.ndarray, views: np.ndarray, operators: np.ndarray, classes: int) -> float:
    """Share of particles within `CELLS` cells of their class's central view."""
    cell_deg = np.rad2deg(np.arccos(max(-1.0, 1 - 2 / (len(operators) * classes))))
    near = 0
    for number in np.unique(class_id):
        members = views[class_id == number]
        near += int((angles_deg(members, central_view(members, operators), operators) < CELLS * cell_deg).sum())
    return near / len(views)


def junk_gathered(class_id: np.ndarray, junk: np.ndarray) -> tuple[float, float]:
    """Shares of the junk, and of the particles, that stand in classes of which more than half is junk."""
    mostly = np.array([junk[class_id == number].mean() > 0.5 for number in range(class_id.max() + 1)])
    return float(mostly[class_id[junk]].mean()), float(mostly[class_id[~junk]].mean())


def effective_classes(size: np.ndarray) -> float:
    share = size[size > 0] / size.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def measure(folder: Path, symmetry: str, seed: int, choices: dict) -> str:
    truth = read_particles(folder / "particles_true.star")
    operators = open_symmetry(symmetry)
    settings = from_flat({"seed": seed, **choices}, Classify2dSettings)
    with TemporaryDirectory() as output:
        began = time.process_time()
        averages = new_classification(str(folder / "particles.star"), settings, Path(output), SilentReporter())
        seconds = time.process_time() - began
        found = read_particles(Path(output) / layout.PARTICLES).scores["class_id"]
    junk = truth.scores.get("class_id", np.zeros(len(found))) == 1
    views, real = truth.poses.image_to_volume[~junk, :, 2], found[~junk]
    by_chance = np.random.default_rng(0).permutation(real)
    text = (f"seed {seed}: near {near_share(real, views, operators, len(averages)):.1%} "
            f"(by chance {near_share(by_chance, views, operators, len(averages)):.1%}), "
            f"{(averages.size > 0).sum()} classes hold particles, effectively {effective_classes(averages.size):.1f}, "
            f"largest {averages.size[0] / len(found):.1%}, median resolution {np.median(averages.resolution_a):.1f} A, "
            f"{1000 * seconds / len(found):.1f} s for 1,000 particles")
    if not junk.any():
        return text
    return text + "; junk gathered {:.1%}, particles among it {:.1%}".format(*junk_gathered(found, junk))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--classes", type=int, default=0)
    parser.add_argument("--finest-resolution", type=float, default=10.0)
    args = parser.parse_args()
    choices = {"classes": args.classes, "finest_resolution": args.finest_resolution}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        print(measure(args.folder, args.symmetry, seed, choices), flush=True)


if __name__ == "__main__":
    main()
