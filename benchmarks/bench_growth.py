"""How time and memory grow with particles, box and classes: python benchmarks/bench_growth.py [--particles 1000 10000 100000]

Runs one exhaustive and one local iteration for each size, each in a process of its own, varying one size at a time from the
smallest of the others. Particles are projections of a phantom with CTF and noise; after `--distinct` of them the images
repeat, so that any number costs no disk. Writes growth.csv, growth.md and growth.png into `--output`: seconds of processor
time (of the clock on a GPU) for every stage, the exponent of its growth, host memory per particle, and what share of the
machine's measured limits (matrix product, copying) search and insertion reach. Figures of the same machine class that
`--store` kept in benchmarks/figures/ are compared with.
"""
from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
from matplotlib.figure import Figure

from swiftres_plugin.engine.compute import open_compute
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Ctf, Optics, Particles
from swiftres_plugin.engine.data.state import IterationPlan, RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.ctf import contrast_transfer
from swiftres_plugin.engine.maths.fourier import image_band, spectra_to_images
from swiftres_plugin.engine.maths.geometry import random_rotations
from swiftres_plugin.engine.maths.slices import extract_slices, fourier_volume
from swiftres_plugin.engine.plan import plan_iteration, reconstructed_shell
from swiftres_plugin.engine.refine import diameter, iterate, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.searching import prepare_search
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.settings import from_flat

FIGURES = Path(__file__).parent / "figures"
EXTENT_A = 256.0  # of every box: a larger one has smaller pixels
SEARCH_A = 20.0
NOISE = 2.0  # deviations of the signal
SIZES = ("particles", "box", "classes")
PEAK, CACHE = "peak memory, bytes", "particle cache, bytes"


@dataclass(frozen=True)
class Case:
    particles: int
    box: int
    classes: int


@dataclass(frozen=True)
class Repeated:
    """A source of many particles that share few images."""

    particles: Particles
    images: np.ndarray

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.images[rows % len(self.images)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--particles", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--distinct", type=int, default=1000, help="different images; the others repeat them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("growth"))
    parser.add_argument("--store", action="store_true", help="keep the figures for this machine class")
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)  # one case, in this process
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(Case(*args.one), args)))
        return
    machine = machine_class(args.device, args.threads)
    rows = []
    for case in cases(args.particles, args.boxes, args.classes):
        rows.append({**vars(case), **in_own_process(case, args)})
        print(f"{case.particles:>8} particles, box {case.box:>3}, {case.classes} classes: "
              f"{sum(v for k, v in rows[-1].items() if k.endswith(' s')):8.1f} s", flush=True)
    stored = FIGURES / f"{machine}.csv"
    before = read_table(stored) if stored.exists() else []
    args.output.mkdir(parents=True, exist_ok=True)
    write_table(args.output / "growth.csv", rows)
    text = report(rows, before, machine)
    (args.output / "growth.md").write_text(text)
    draw(rows, args.output / "growth.png")
    if args.store:
        FIGURES.mkdir(exist_ok=True)
        write_table(stored, rows)
    print(text)


def cases(particles: list[int], boxes: list[int], classes: list[int]) -> Iterator[Case]:
    """Each size in turn, the others at their smallest."""
    least = Case(min(particles), min(boxes), min(classes))
    yield least
    for name, values in zip(SIZES, (particles, boxes, classes)):
        for value in sorted(values)[1:]:
            yield replace(least, **{name: value})


def in_own_process(case: Case, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", *map(str, (case.particles, case.box, case.classes)), "--device", args.device,
               "--threads", str(args.threads), "--distinct", str(args.distinct)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------- measuring

def measured(case: Case, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each stage of two iterations, bytes, and shares of the machine's limits."""
    compute = open_compute(args.device, args.threads)
    clock = time.perf_counter if compute.device.type == "cuda" else time.process_time
    source, maps = phantom(case, args.distinct)
    settings = from_flat({"initial_resolution": SEARCH_A, "search_resolution": SEARCH_A, "diameter": 0.6 * EXTENT_A})
    before = peak_bytes()
    with TemporaryDirectory() as folder, mock.patch.object(time, "perf_counter", clock):
        began = clock()
        spectra = load_spectra(source, settings.preprocess, compute, SilentReporter(), Path(folder))
        seconds = {"reading s": clock() - began}
        engine = Engine(spectra, compute, np.eye(3)[None], settings, SilentReporter())
        state = start(engine, maps, None)
        for kind, exhaustive in (("", True), ("local ", False)):
            plan = plan_iteration(state, spectra.band, diameter(engine, state), settings)
            state = iterate(engine, state, replace(plan, exhaustive=exhaustive))
            seconds |= {f"{kind}{stage} s": value for stage, value in engine.seconds.items()}
            if exhaustive:
                limits = shares_of_limits(engine, state, plan, case, seconds)
    return {**seconds, **limits, PEAK: peak_bytes() - before, CACHE: float(spectra.values.nbytes)}


def phantom(case: Case, distinct: int) -> tuple[Repeated, list[Map]]:
    """Noisy projections of Gaussian blobs, and as many different starting maps as there are classes."""
    random, box, pixel = np.random.default_rng(1), case.box, EXTENT_A / case.box
    blobs_a = random.uniform(-1, 1, (14, 3)) * [70, 54, 40]
    moves_a = [8.0 * number * random.normal(size=blobs_a.shape) for number in range(case.classes)]
    maps = [blob_map(blobs_a + move_a, box, pixel) for move_a in moves_a]
    count = min(distinct, case.particles)
    defocus = np.resize(random.uniform(8000, 22000, count), case.particles)
    ctf = Ctf(defocus, defocus - 300, np.zeros(case.particles), np.zeros(case.particles))
    number = np.arange(case.particles)
    optics = (Optics(300.0, 2.7, 0.1, pixel, box),)
    particles = Particles(number, ("none.mrcs",), 0 * number, number % count, optics, 0 * number, ctf)
    return Repeated(particles, noisy_projections(maps[0], particles.take(number[:count]), random)), maps


def blob_map(blobs_a: np.ndarray, box: int, pixel_a: float) -> Map:
    axis = (np.arange(box) - box // 2) * pixel_a
    x, y, z = (np.exp(-(axis - blobs_a[:, i, None]) ** 2 / (2 * 12.0 ** 2)) for i in range(3))
    return Map(np.einsum("kz,ky,kx->zyx", z, y, x).astype(np.float32), pixel_a)


def noisy_projections(truth: Map, particles: Particles, random: np.random.Generator) -> np.ndarray:
    band = image_band(truth.box_px, truth.pixel_size_a)
    optics, (x, y) = particles.optics[0], band.frequency()
    transfer = contrast_transfer(
        x, y, **{name: torch.from_numpy(getattr(particles.ctf, name)) for name in (
            "defocus_u_a", "defocus_v_a", "defocus_angle_rad", "phase_shift_rad")}, voltage_kv=optics.voltage_kv,
        spherical_aberration_mm=optics.spherical_aberration_mm, amplitude_contrast=optics.amplitude_contrast)
    rotation = torch.from_numpy(random_rotations(len(particles), random)).float()
    volume = fourier_volume(torch.from_numpy(truth.voxels), band.last_shell)
    images = spectra_to_images(extract_slices(volume, rotation, band.wave_px) * transfer, band).numpy()
    return (images + NOISE * images.std() * random.standard_normal(images.shape)).astype(np.float32)


def shares_of_limits(engine: Engine, state: RefinementState, plan: IterationPlan, case: Case,
                     seconds: dict[str, float]) -> dict[str, float]:
    """What search and insertion reach of the products and the bytes a second that this machine was measured to do."""
    rows = np.flatnonzero(state.half == 0)
    volume = engine.volume(state.classes[0].references[0], plan.last_shell)
    operations = 2.0 * case.particles * case.classes * prepare_search(engine, volume, state.noise[0], rows, plan).products
    length = len(engine.spectra.band.up_to(reconstructed_shell(plan, engine.spectra.band)))
    # numerator and weight of eight corners, read and written
    moved = 2.0 * case.particles * engine.settings.reconstruct.pose_samples * length * 8 * 3 * 4
    return {"search, share of product limit": operations / max(seconds["search s"], 1e-9) / products_a_second(engine.device),
            "insertion, share of copy limit": moved / max(seconds["reconstruction s"], 1e-9) / bytes_a_second(engine.device)}


def products_a_second(device: torch.device, size: int = 1024) -> float:
    """Floating point operations a second of a matrix product."""
    a = torch.randn(size, size, device=device)
    return 2.0 * size ** 3 / best_time(lambda: a @ a, device)


def bytes_a_second(device: torch.device, size: int = 1 << 26) -> float:
    """Bytes read and written a second by a copy."""
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2.0 * size / best_time(lambda: b.copy_(a), device)


def best_time(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(5):
        began = time.process_time() if device.type == "cpu" else time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.process_time() if device.type == "cpu" else time.perf_counter()) - began)
    return max(min(times), 1e-6)


def peak_bytes() -> float:
    text = Path("/proc/self/status").read_text()
    return float(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024


# ------------------------------------------------------------------------------------------------------ telling

def machine_class(device: str, threads: int) -> str:
    """A name for machines whose figures may be compared."""
    name = torch.cuda.get_device_name(0) if device.startswith("cuda") else platform.machine()
    cpu = Path("/proc/cpuinfo")
    if not device.startswith("cuda") and cpu.exists() and (found := re.search(r"model name\s*:\s*(.+)", cpu.read_text())):
        name = found[1]
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{name} {threads} of {os.cpu_count()} threads").strip("-").lower()


def exponent(rows: list[dict[str, float]], size: str, stage: str) -> float:
    """p of the power law seconds ~ size^p through the cases that vary `size` alone; not a number where they do not."""
    points = [(row[size], row[stage]) for row in varied(rows, size) if row.get(stage, 0) > 0]
    if len({x for x, _ in points}) < 2:
        return float("nan")
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def varied(rows: list[dict[str, float]], size: str) -> list[dict[str, float]]:
    """Cases in which the other sizes are the smallest."""
    others = [name for name in SIZES if name != size]
    return [row for row in rows if all(row[name] == min(r[name] for r in rows) for name in others)]


def report(rows: list[dict[str, float]], before: list[dict[str, float]], machine: str) -> str:
    stages = [name for name in rows[0] if name.endswith(" s")]
    lines = [f"# Growth on {machine}", "", "Exponents of processor time (1: proportional):", "",
             "| stage | with particles | with box | with classes | ms per particle, fewest | most | of stored figures |",
             "|---|---|---|---|---|---|---|"]
    few, *_, many = sorted(varied(rows, "particles"), key=lambda row: row["particles"])
    for stage in stages:
        powers = " | ".join(f"{exponent(rows, size, stage):.2f}" for size in SIZES)
        each = " | ".join(f"{1e3 * row.get(stage, np.nan) / row['particles']:.3f}" for row in (few, many))
        lines.append(f"| {stage[:-2]} | {powers} | {each} | {compared(rows, before, stage)} |")
    whole = [sum(row[s] for s in stages if s in row) / row["particles"] * 1e3 for row in (few, many)]
    growth = (many[PEAK] - many[CACHE] - few[PEAK] + few[CACHE]) / max(many["particles"] - few["particles"], 1)
    lines += ["", f"Both iterations: {whole[0]:.2f} ms per particle with {few['particles']:.0f}, {whole[1]:.2f} ms with "
              f"{many['particles']:.0f} (ratio {whole[1] / whole[0]:.2f}).",
              f"Host memory beyond the particle cache grows by {growth:.0f} bytes per particle.",
              "Shares of the measured limits, smallest to largest number of particles: " + "; ".join(
                  f"{name} {few[name]:.0%} to {many[name]:.0%}" for name in few if "limit" in name) + ".", ""]
    return "\n".join(lines)


def compared(rows: list[dict[str, float]], before: list[dict[str, float]], stage: str) -> str:
    """Median ratio to the stored figures of the same cases."""
    known = {tuple(row[name] for name in SIZES): row for row in before}
    pairs = [(row, known[tuple(row[name] for name in SIZES)]) for row in rows if tuple(row[name] for name in SIZES) in known]
    ratios = [row[stage] / old[stage] for row, old in pairs if row.get(stage, 0) > 0 and old.get(stage, 0) > 0]
    return f"{np.median(ratios):.2f}" if ratios else "none stored"


def write_table(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)


def read_table(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Seconds against each size; a stage has one colour, and broken lines are the local iteration."""
    figure = Figure(figsize=(17, 4.6), layout="constrained")
    stages = [name[:-2] for name in rows[0] if name.endswith(" s")]
    colours = {stage: f"C{number}" for number, stage in enumerate(dict.fromkeys(s.removeprefix("local ") for s in stages))}
    for axes, size in zip(figure.subplots(1, 3), SIZES):
        chosen = sorted(varied(rows, size), key=lambda row: row[size])
        for stage in stages:
            points = [(row[size], row[f"{stage} s"]) for row in chosen if row.get(f"{stage} s", 0) > 0]
            if points:
                power = exponent(rows, size, f"{stage} s")
                axes.loglog(*zip(*points), "o--" if stage.startswith("local ") else "o-", ms=3, label=f"{stage}: {power:.2f}",
                            color=colours[stage.removeprefix("local ")])
        axes.set(xlabel=size, ylabel="seconds of processor", title=f"growth with {size}")
        axes.set_xticks([row[size] for row in chosen], [f"{row[size]:.0f}" for row in chosen])
        axes.minorticks_off()
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
