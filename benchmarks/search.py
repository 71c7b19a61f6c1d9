"""What one global search finds, and how fast: the share of particles within two grid steps of their true pose.

    python benchmarks/search.py [--snr 0.1 0.02 0.005] [--particles 300] [--resolution 15] [--residues 30000]

The built-in protein-like model, larger than usual, seen from everywhere, searched with its own map low-passed at --resolution.
Asked: 99 % within two steps of the grid (orientation and shift) at the lowest SNR, and 30 ms a particle on two cores. Columns:
SNR (of variances, on the projection's area); share whose best match by the vector search alone, whose best candidate after
the exact ranking, and one of whose candidates is within two steps; share that any search could find at this resolution, since
the true pose, refined, is likelier than the pose that was found; seconds of the gallery, ms of the search a particle.
"""
from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin.engine.align import align_half, image_noise, refine_candidates
from swiftres_plugin.engine.compute import open_compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.search import Candidates
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.demo_model import build_demo_model
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.mrc import MrcSource, read_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.render import render_atoms
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.searching import joined, prepare_search, search_rows
from swiftres_plugin.engine.simulate import TRUE_MAP, TRUE_PARTICLES, SimulationSettings, simulate
from swiftres_plugin.engine.stages.postprocess import particle_diameter_px
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.settings import RefineSettings

BOX_PX, PIXEL_A = 200, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.02, 0.005])
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--resolution", type=float, default=15.0)
    parser.add_argument("--residues", type=int, default=30000)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    density = render_atoms(build_demo_model(residues=args.residues).centred(), BOX_PX, PIXEL_A)
    diameter_a = particle_diameter_px(density.voxels) * PIXEL_A
    print(f"{args.residues} residues, {diameter_a:.0f} A; {args.particles} particles of {BOX_PX} px, {PIXEL_A:g} A; "
          f"search at {args.resolution:g} A")
    heads = (f"{'SNR':>6s}", f"{'vector best':>12s}", f"{'exact best':>11s}", f"{'in candidates':>14s}", f"{'possible':>9s}",
             f"{'gallery s':>9s}", f"{'ms':>7s}")
    print(*heads, flush=True)
    for snr in args.snr:
        with tempfile.TemporaryDirectory() as folder:
            print(measured(Path(folder), density, snr, diameter_a, args), flush=True)


def measured(folder: Path, density: Map, snr: float, diameter_a: float, args: argparse.Namespace) -> str:
    simulate(density, SimulationSettings(count=args.particles, snr_db=10 * np.log10(snr)), folder, SilentReporter())
    engine, truth = opened(folder, args.device)
    band = engine.spectra.band
    shell = band.shell_of(args.resolution)
    finest_a = band.box_a / shell
    plan = IterationPlan(1, shell, True, shell, float(np.arcsin(finest_a / diameter_a)), finest_a / 2, 0.1 * band.box_a)
    voxels = torch.from_numpy(read_map(folder / TRUE_MAP).voxels.copy())
    rows, centre = np.arange(len(engine.spectra)), np.zeros((len(engine.spectra), 2))
    noise = image_noise(engine, rows)
    volume = engine.volume(voxels, shell)
    began = time.perf_counter()
    searcher = prepare_search(engine, volume, noise, rows, plan)
    gallery, began = time.perf_counter() - began, time.perf_counter()
    found = joined(search_rows(engine, searcher, noise, rows, centre, report=False))
    seconds = time.perf_counter() - began
    exact = align_half(engine, voxels, noise, rows, plan, None, diameter_a, "")
    near = within(found, truth, plan)
    best = within(Candidates(*(torch.from_numpy(v).float()[:, None] for v in (exact.image_to_volume, exact.shift_a)),
                             score=torch.zeros(len(rows), 1)), truth, plan)
    from_truth = refine_candidates(engine, volume, noise, replace(plan, exhaustive=False), rows, truth, diameter_a)
    possible = best[:, 0] | (from_truth.log_likelihood > exact.log_likelihood)
    return (f"{snr:6g} {near[:, 0].mean():12.3f} {best[:, 0].mean():11.3f} {near.any(1).mean():14.3f} "
            f"{possible.mean():9.3f} {gallery:9.1f} {1000 * seconds / len(rows):7.1f}")


def opened(folder: Path, device: str) -> tuple[Engine, Candidates]:
    """The engine over a simulated set, and its true poses."""
    particles = read_particles(folder / TRUE_PARTICLES)
    settings, compute = RefineSettings(), open_compute(device)
    spectra = load_spectra(MrcSource(particles), settings.preprocess, compute, SilentReporter(), folder)
    poses = particles.poses
    rotation, shift = (torch.from_numpy(v).float()[:, None] for v in (poses.image_to_volume, poses.shift_a))
    return (Engine(spectra, compute, symmetry_operators("C1"), settings, SilentReporter()),
            Candidates(rotation, shift, torch.zeros(len(particles), 1)))


def within(found: Candidates, truth: Candidates, plan: IterationPlan) -> np.ndarray:
    """(N, K) whether each candidate is within two steps of the truth, in orientation and shift."""
    trace = (found.image_to_volume.cpu() * truth.image_to_volume).sum((2, 3))
    angle = torch.acos(((trace - 1) / 2).clamp(-1, 1))
    move = (found.shift_a.cpu() - truth.shift_a).norm(dim=2)
    return ((angle < 2 * plan.angular_step_rad) & (move < 2 * plan.shift_step_a)).numpy()


if __name__ == "__main__":
    main()
