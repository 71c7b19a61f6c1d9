"""`swiftres simulate`: an atomic model or a map -> particles with a known truth."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.settings import SimulateSettings

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
    add_settings(parser, tree=SimulateSettings)


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

    chosen = settings_from(args, SimulateSettings)
    images, microscope = chosen.images, chosen.microscope
    settings = SimulationSettings(
        count=images.count, snr_db=images.snr, defocus_range_a=(microscope.defocus_min, microscope.defocus_max),
        astigmatism_a=microscope.astigmatism, shift_sigma_px=images.shift_sigma, voltage_kv=microscope.voltage,
        spherical_aberration_mm=microscope.cs, amplitude_contrast=microscope.amplitude_contrast,
        coloured_noise=microscope.noise == "coloured", junk_fraction=images.junk, symmetry=images.symmetry,
        initial_resolution_a=images.resolution_of_initial, float16=images.float16, seed=images.seed,
        optics_star=microscope.optics)
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
