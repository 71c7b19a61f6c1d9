"""`swiftres simulate`: an atomic model or a map -> particles with a known truth."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swiftres_plugin.engine.data.maps import Map
    from swiftres_plugin.engine.simulate import SimulationSettings

NAME = "simulate"
HELP = "make particles with known poses, CTFs and noise from an atomic model or a map"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="FILE", help="atomic model, PDB or mmCIF (also .gz); it is centred")
    source.add_argument("--demo-model", action="store_true", help="the protein-like model that comes with this program")
    source.add_argument("--map", metavar="FILE", help="map of the particle; gives box and pixel size")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the data set; made if missing")
    _add_sizes(parser.add_argument_group("images"))
    _add_microscope(parser.add_argument_group("microscope and noise"))


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--box", type=int, default=128, metavar="PX", help="box size, with a model (default: 128)")
    group.add_argument("--pixel-size", type=float, default=3.0, metavar="A", help="with a model (default: 3 A)")
    group.add_argument("--count", type=int, default=1000, metavar="N", help="particles (default: 1000)")
    group.add_argument("--shift-sigma", type=float, default=3.0, metavar="PX",
                       help="spread of the centres, each axis, cut at three times this (default: 3 px)")
    group.add_argument("--junk", type=float, default=0.0, metavar="FRACTION",
                       help="part of the images that is pure noise, class 2 of the truth (default: 0)")
    group.add_argument("--symmetry", default="C1", metavar="G",
                       help="point group that the model or map has, about RELION's axes; noted in the truth (default: C1)")
    group.add_argument("--resolution-of-initial", type=float, default=50.0, metavar="A",
                       help="low-pass limit of the starting map (default: 50 A)")
    group.add_argument("--float16", action="store_true", help="store images in half precision (MRC mode 12)")
    group.add_argument("--seed", type=int, default=1, metavar="N", help="of everything random (default: 1)")


def _add_microscope(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--snr", type=float, default=-10.0, metavar="DB", help="signal to noise ratio in decibels: variances, "
                       "on the area of the projection (default: -10, noise ten times the signal)")
    group.add_argument("--noise", choices=("white", "coloured"), default="white",
                       help="coloured: half of the variance falls as 1/f (default: white)")
    group.add_argument("--defocus-range", type=float, nargs=2, default=(5000.0, 25000.0), metavar=("MIN", "MAX"),
                       help="underfocus, A (default: 5000 25000)")
    group.add_argument("--astigmatism", type=float, default=300.0, metavar="A",
                       help="spread of the difference between the two defoci (default: 300 A)")
    group.add_argument("--voltage", type=float, default=300.0, metavar="KV", help="default: 300 kV")
    group.add_argument("--cs", type=float, default=2.7, metavar="MM", help="spherical aberration (default: 2.7 mm)")
    group.add_argument("--amplitude-contrast", type=float, default=0.1, metavar="Q", help="default: 0.1")


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.report import TerminalReporter
    from swiftres_plugin.engine.simulate import check_symmetry, simulate

    settings = _settings(args)
    density = _density(args)
    check_symmetry(density, settings.symmetry)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    simulate(density, settings, folder, TerminalReporter())
    print(f"{settings.count} particles of {density.box_px} px, {density.pixel_size_a:g} A/px in {folder}")
    return 0


def _settings(args: argparse.Namespace) -> SimulationSettings:
    from swiftres_plugin.engine.simulate import SimulationSettings, check_settings

    settings = SimulationSettings(
        count=args.count, snr_db=args.snr, defocus_range_a=tuple(args.defocus_range), astigmatism_a=args.astigmatism,
        shift_sigma_px=args.shift_sigma, voltage_kv=args.voltage, spherical_aberration_mm=args.cs,
        amplitude_contrast=args.amplitude_contrast, coloured_noise=args.noise == "coloured", junk_fraction=args.junk,
        symmetry=args.symmetry, initial_resolution_a=args.resolution_of_initial, float16=args.float16, seed=args.seed)
    check_settings(settings)
    return settings


def _density(args: argparse.Namespace) -> Map:
    from swiftres_plugin.engine.demo_model import build_demo_model
    from swiftres_plugin.engine.io.atoms import read_atoms
    from swiftres_plugin.engine.io.mrc import read_map
    from swiftres_plugin.engine.render import render_atoms

    if args.map:
        return read_map(args.map)
    atoms = build_demo_model() if args.demo_model else read_atoms(args.model)
    return render_atoms(atoms.centred(), args.box, args.pixel_size)
