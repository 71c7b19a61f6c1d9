"""What the likelihood, its short vectors and the exact ranking gain over the thesis's search, one change at a time.

    python benchmarks/thesis.py [--particles 300] [--step 6] [--resolution 15] [--snr 0.1 0.02 0.005] [--quick]

A phantom of 300 A (the atoms of the demo's model, spread to that size) is seen at random orientations through CTFs and
white noise, without shifts; each search says which of the gallery's orientations it is. Printed is the share of
particles within 10 degrees of the truth, and for three ways to treat the CTF that within 20 degrees. SNR is that of an
image of 200 px of 2 A: variance of signal over variance of noise. --quick leaves out the product quantisers, which take
minutes to train.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from swiftres_plugin.engine.align import comparison
from swiftres_plugin.engine.compute import Compute, open_compute
from swiftres_plugin.engine.data.particles import Ctf, Optics, Particles, Poses
from swiftres_plugin.engine.data.search import Candidates
from swiftres_plugin.engine.data.spectra import ParticleBatch, Spectra
from swiftres_plugin.engine.demo_model import build_demo_model
from swiftres_plugin.engine.maths.fourier import filter_shells, image_band, low_pass_gain
from swiftres_plugin.engine.maths.geometry import random_rotations, rotation_angle, so3_grid
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.gallery import build_gallery
from swiftres_plugin.engine.stages.index import build_index, parse_recipe, visit_lists
from swiftres_plugin.engine.stages.preprocess import particle_ctf
from swiftres_plugin.engine.stages.search import search
from swiftres_plugin.settings import SearchSettings

SIZE_A, BOX_PX, PIXEL_A = 300.0, 64, 5.5
IMAGE_PX = 200  # of the image whose SNR is told
NEAR_RAD, NEAR_CTF_RAD = np.deg2rad(10), np.deg2rad(20)
PRODUCT = "Wiener, L2, OPQ48_192,IVF,PQ48"


@dataclass(frozen=True)
class Method:
    """A way to search: what is compared, how references are kept, how many candidates are ranked exactly (1: none)."""

    name: str
    search: SearchSettings
    ranked: int = 1
    nprobe: tuple[int, ...] = (64,)


THESIS = SearchSettings(metric="euclidean", wiener=True, recipe="exact")
METHODS = (
    Method("likelihood, every coefficient", SearchSettings(recipe="exact")),
    Method("Wiener, cosine", replace(THESIS, metric="cosine")),
    Method("Wiener, L2", THESIS),
    Method(PRODUCT, replace(THESIS, recipe="IVFPQ48"), nprobe=(1, 64)),
    Method("likelihood, 128 components", SearchSettings()),
    Method("likelihood, 128 components, 64 ranked exactly", SearchSettings(), ranked=64),
    Method("uncorrected, cosine", SearchSettings(metric="cosine", recipe="exact")),
)
TREATMENTS = {"CTF on the references": "likelihood, every coefficient", "Wiener filter": "Wiener, cosine",
              "uncorrected": "uncorrected, cosine"}


@dataclass(frozen=True)
class Task:
    """Particles of one noise level and what they are compared with."""

    snr: float
    batch: ParticleBatch
    noise: torch.Tensor
    truth: np.ndarray


def phantom(resolution_a: float, seed: int) -> torch.Tensor:
    """Density of the demo model's atoms spread over SIZE_A, to a little beyond the resolution."""
    places = build_demo_model(seed).position_a
    places = places - places.mean(0)
    places *= 0.5 * SIZE_A / np.linalg.norm(places, axis=1).max()
    index = np.round(places / PIXEL_A).astype(int) + BOX_PX // 2
    voxels = np.zeros((BOX_PX,) * 3, np.float32)
    np.add.at(voxels, tuple(index[:, ::-1].T), 1.0)
    return filter_shells(torch.from_numpy(voxels), low_pass_gain(BOX_PX, PIXEL_A, 0.8 * resolution_a))


def particles(count: int, generator: np.random.Generator) -> Particles:
    """Random orientations and defoci of 0.5 to 2.5 micrometres."""
    defocus = generator.uniform(5000, 25000, count)
    ctf = Ctf(defocus + 150, defocus - 150, generator.uniform(0, np.pi, count), np.zeros(count))
    poses = Poses(random_rotations(count, generator), np.zeros((count, 2)))
    rows = np.arange(count)
    return Particles(rows, ("none",), np.zeros(count, np.int64), rows, (Optics(300.0, 2.7, 0.1, PIXEL_A, BOX_PX),),
                     np.zeros(count, np.int64), ctf, poses=poses)


def make_tasks(volume: torch.Tensor, resolution_a: float, count: int, levels: list[float], seed: int) -> list[Task]:
    """The same particles under each noise level."""
    generator = np.random.default_rng(seed)
    seen = particles(count, generator)
    whole = image_band(BOX_PX, PIXEL_A)
    band = whole.up_to(whole.shell_of(resolution_a))
    spectra = Spectra(torch.empty(0), band, seen)
    ctf = particle_ctf(spectra, np.arange(count), band, volume.device)
    signal = ctf * extract_slices(volume, torch.from_numpy(seen.poses.image_to_volume).float().to(volume.device), band.wave_px)
    noise = torch.from_numpy(generator.standard_normal((count, len(band), 2)).astype(np.float32)).to(volume.device)
    power = 2 * float((signal.abs() ** 2).sum(1).mean()) / IMAGE_PX ** 2
    tasks = []
    for snr in levels:
        images = signal + torch.view_as_complex(noise) * (0.5 * power / snr) ** 0.5
        batch = ParticleBatch(np.arange(count), images, ctf, torch.zeros(count, dtype=torch.int64), band)
        tasks.append(Task(snr, batch, torch.full(ctf.shape, power / snr), seen.poses.image_to_volume))
    return tasks


def answers(method: Method, tasks: list[Task], volume: torch.Tensor, rotations: np.ndarray, step_rad: float,
            compute: Compute) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Errors (N,) in radians for each task, for each number of lists visited; the index serves all tasks."""
    middle = tasks[len(tasks) // 2]
    recipe = parse_recipe(method.search.recipe, method.search.components)
    basis = comparison(volume, rotations, middle.batch, middle.noise, method.search, recipe.components)
    gallery = build_gallery(volume, rotations, step_rad, basis, compute)
    index = build_index(gallery.vectors, method.search.recipe)
    none = torch.zeros((1, 2))
    for nprobe in method.nprobe:
        name = method.name
        if len(method.nprobe) > 1:
            name += visit_lists(index.index, index.description, nprobe)
        errors = []
        for task in tasks:
            centre = torch.zeros((len(task.truth), 2))
            found = search(task.batch, task.noise, centre, none, basis, gallery, index, method.ranked)
            errors.append(rotation_angle(chosen(found, task, volume, method.ranked), task.truth))
        yield name, errors


def chosen(found: Candidates, task: Task, volume: torch.Tensor, ranked: int) -> np.ndarray:
    """(N, 3, 3) the first candidate, or that of the highest exact likelihood."""
    best = local.score_candidates(task.batch, task.noise, volume, found).best(1) if ranked > 1 else found
    return best.image_to_volume[:, 0].double().numpy()


def table(rows: dict[str, list[np.ndarray]], tasks: list[Task], near_rad: float, title: str) -> str:
    width = max(len(name) for name in rows) + 2
    lines = [title, " " * width + "".join(f"SNR {task.snr:<8g}" for task in tasks)]
    for name, errors in rows.items():
        lines.append(name.ljust(width) + "".join(f"{np.mean(e < near_rad):>7.1%}     " for e in errors))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--step", type=float, default=6.0, help="spacing of the orientations in degrees")
    parser.add_argument("--resolution", type=float, default=15.0)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.02, 0.005])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began, compute = time.process_time(), open_compute("cpu")
    shell = int(BOX_PX * PIXEL_A / args.resolution)
    volume = fourier_volume(phantom(args.resolution, args.seed), shell)
    rotations = so3_grid(np.deg2rad(args.step))
    tasks = make_tasks(volume, args.resolution, args.particles, args.snr, args.seed)
    rows: dict[str, list[np.ndarray]] = {}
    for method in METHODS:
        if not (args.quick and "PQ" in method.search.recipe):
            rows.update(answers(method, tasks, volume, rotations, np.deg2rad(args.step), compute))
    print(f"{len(rotations):,} references, {args.particles} particles, {args.resolution:g} A, "
          f"{time.process_time() - began:.0f} s of processor time\n")
    print(table(rows, tasks, NEAR_RAD, "share within 10 degrees"), "\n")
    print(table({name: rows[row] for name, row in TREATMENTS.items()}, tasks, NEAR_CTF_RAD, "CTF: share within 20 degrees"))


if __name__ == "__main__":
    main()
