"""`swiftres postprocess`: half maps to a sharpened map, and everything that is known of its resolution."""
from __future__ import annotations

import argparse
from pathlib import Path

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.settings import POSTPROCESS

NAME = "postprocess"
HELP = "sharpen the map of two half maps; its resolution, local and by direction, and the efficiency of the views"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--half1", metavar="MAP", required=True, help="first half map, neither filtered nor masked")
    files.add_argument("--half2", metavar="MAP", required=True, help="second half map")
    files.add_argument("--mask", metavar="MAP", default="", help="soft solvent mask from 0 to 1, in the box of the maps; "
                       "one is made from the maps when none is given")
    files.add_argument("--particles", metavar="STAR", default="", help="the particles with their poses, for the efficiency "
                       "of their orientations (under --symmetry)")
    files.add_argument("--pixel-size", metavar="A", type=_length, default=0.0, help="pixel size of the maps, in place of "
                       "what their headers say")
    files.add_argument("--output", metavar="FOLDER", required=True, help="folder for map_sharpened.mrc, "
                       "local_resolution.mrc, fsc.csv, directional_fsc.csv, postprocess.json and pictures")
    add_settings(parser, POSTPROCESS)


def _length(text: str) -> float:
    """A length in angstroms."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found '{text}', expected a length above 0 A")
    return value


def run(args: argparse.Namespace) -> int:
    from swiftres_plugin.engine.cli.fsc import resolution_table
    from swiftres_plugin.engine.compute import open_compute
    from swiftres_plugin.engine.postprocess import PostprocessInputs, figures, postprocess_files
    from swiftres_plugin.engine.report import TerminalReporter
    settings = settings_from(args)
    paths = {name: str(Path(given).resolve()) if (given := getattr(args, name)) else ""
             for name in ("half1", "half2", "mask", "particles")}
    open_compute("cpu", settings.compute.threads, settings.compute.memory)
    inputs = PostprocessInputs(**paths, pixel_size_a=args.pixel_size)
    result = postprocess_files(inputs, settings, Path(args.output), TerminalReporter())
    print("\n".join([*resolution_table(result.fsc, masked=True), *summary(figures(result)), f"results: {args.output}"]))
    return 0


def summary(told: dict) -> list[str]:
    """The figures as lines to read."""
    lines = [f"B-factor {told['b_factor_a2']:.1f} A^2 ({told['guinier']['shells']} shells of the Guinier plot)"]
    for title, name in (("local resolution", "local_resolution_a"), ("by direction", "directional_resolution_a")):
        fine, middle, coarse = (f"{v:.2f}" if v else "none" for v in told[name].values())
        lines.append(f"{title}: median {middle} A, nine tenths from {fine} to {coarse} A")
    if told["orientation_efficiency"] is not None:
        lines.append(f"efficiency of orientations {told['orientation_efficiency']:.2f} (1: even views; 0: one view)")
    return lines
