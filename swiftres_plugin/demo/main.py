"""`python -m swiftres_plugin.demo`: simulate, refine, refine again in Scipion, compare with the truth, show."""
from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from swiftres_plugin import layout
from swiftres_plugin.demo import scipion_project
from swiftres_plugin.demo.folder import DemoFolder
from swiftres_plugin.demo.parts import Part, PartFailed, run_part, say, swiftres
from swiftres_plugin.errors import InputError, SwiftresError

if TYPE_CHECKING:
    from swiftres_plugin.demo.judge import Verdict

COUNT, BOX_PX, PIXEL_SIZE_A = 1500, 80, 3.0
SNR_DB = -10.0
START_RESOLUTION_A = 50.0
FILLED = 0.65  # of the box, by the diameter of a model of one's own
FINEST_PIXEL_A = 1.5
COMMAND_LINE, SCIPION = "refine", "scipion"  # the two runs, in names of files
USER_ERROR, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration and return the exit code: 0 done, 1 a part failed, 2 a user's error, 130 stopped."""
    args = _parser().parse_args(argv)
    try:
        return demonstrate(args)
    except PartFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except (SwiftresError, OSError) as error:
        print(f"demo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("demo: stopped; the next run starts anew in the same folder", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m swiftres_plugin.demo", allow_abbrev=False,
        description="Simulate particles, refine them by command line and in a Scipion project, compare with the truth.")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), metavar="DIR",
                        help="new folder for everything (default: demo_output)")
    parser.add_argument("--model", type=Path, metavar="FILE",
                        help="atomic model to simulate from, PDB or mmCIF (default: the built-in protein-like model)")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (default: 1)")
    parser.add_argument("--no-scipion", action="store_true", help="leave out the Scipion project")
    return parser


def demonstrate(args: argparse.Namespace) -> int:
    """All parts in their order."""
    pixel_size_a = PIXEL_SIZE_A if args.model is None else pixel_size_for(args.model)
    problem = "--no-scipion" if args.no_scipion else scipion_project.scipion_problem()
    check_packages()
    folder = DemoFolder(Path(os.path.relpath(args.output.resolve())))
    folder.prepare()
    say(f"Everything goes to {folder.root}. This takes about five minutes on two free cores.")
    if problem and not args.no_scipion:
        say(f"\n*** WARNING: THE SCIPION PART IS LEFT OUT: {problem}. ***\n")
    parts = [simulated(args, folder, pixel_size_a), refined(args, folder)]

    from swiftres_plugin.demo.judge import judge
    heading("3. How near is it to the truth?")
    verdict, part = judge(folder.refined, folder, COMMAND_LINE)
    verdicts, parts = {"command line": verdict}, [*parts, part, drawn(folder, verdict, pixel_size_a)]
    if not problem:
        parts.append(in_scipion(args, folder, pixel_size_a))
        verdicts["Scipion"], part = judge(folder.scipion / scipion_project.RUN_LINK, folder, SCIPION)
        parts.append(part)
    from swiftres_plugin.demo.summary import facts_of, summary
    text = summary(folder, verdicts, parts, problem)
    folder.summary.write_text(text + "\n", encoding="utf-8")
    folder.save({"finished": True, **facts_of(verdicts), "parts": [asdict(part) for part in parts]})
    heading("The demonstration is finished")
    say(text)
    return 0


def heading(text: str) -> None:
    say(f"\n=== {text} ===")


def check_packages() -> None:
    """Raises `InputError` when what the engine needs is not installed."""
    missing = [name for name in ("torch", "matplotlib", "gemmi") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"this Python lacks {', '.join(missing)}", where=sys.executable,
                         remedy="Run 'make demo', which installs everything, or 'make install' first.")


def pixel_size_for(model: Path) -> float:
    """Pixel size (A) at which the model fills the box well, to a tenth of an angstrom."""
    from swiftres_plugin.engine.io.atoms import read_atoms
    diameter_a = 2 * read_atoms(model).centred().radius_a
    return max(FINEST_PIXEL_A, math.ceil(10 * diameter_a / (FILLED * BOX_PX)) / 10)


def simulated(args: argparse.Namespace, folder: DemoFolder, pixel_size_a: float) -> Part:
    heading(f"1. Simulate {COUNT:,} particles with noise ten times their signal")
    source = ["--demo-model"] if args.model is None else ["--model", args.model]
    return swiftres("simulation", [
        "simulate", *source, "--box", BOX_PX, "--pixel-size", f"{pixel_size_a:g}", "--count", COUNT,
        "--snr", f"{SNR_DB:g}", "--resolution-of-initial", f"{START_RESOLUTION_A:g}", "--float16",
        "--seed", args.seed, "--output", folder.data])


def refined(args: argparse.Namespace, folder: DemoFolder) -> Part:
    heading(f"2. Refine them from a {START_RESOLUTION_A:.0f} A map, by command line")
    return swiftres("refinement, command line", [
        "refine", "--particles", folder.data / layout.PARTICLES, "--reference", folder.data / "initial_map.mrc",
        "--initial-resolution", f"{START_RESOLUTION_A:g}", "--seed", args.seed, "--output", folder.refined])


def drawn(folder: DemoFolder, verdict: Verdict, pixel_size_a: float) -> Part:
    """Draw the pictures; the time includes the reprojections."""
    from swiftres_plugin.demo.pictures import draw_all
    from swiftres_plugin.demo.story import project_some, read_story
    began, before = time.monotonic(), time.process_time()
    projected = project_some(folder)
    story = read_story(folder, COMMAND_LINE, verdict, START_RESOLUTION_A)
    resolution_a = verdict.figures["resolution_a"]
    title = (f"swiftres demo: {COUNT:,} simulated particles of {BOX_PX} px, {pixel_size_a:g} Å/px; "
             f"from a {START_RESOLUTION_A:.0f} Å map to {resolution_a:.1f} Å")
    draw_all(story, folder.pictures, title)
    say(f"Pictures: {folder.pictures}")
    return Part("pictures", time.monotonic() - began, time.process_time() - before + projected.processor_s,
                projected.peak_bytes)


def in_scipion(args: argparse.Namespace, folder: DemoFolder, pixel_size_a: float) -> Part:
    heading("4. The same in a Scipion project: import particles, import the map, protocol 'swiftres'")
    folder.opener.write_text(scipion_project.opener(folder.scipion.name), encoding="utf-8")
    folder.opener.chmod(0o755)
    return run_part("Scipion project", [
        sys.executable, "-m", "swiftres_plugin.demo.scipion_project", "--data", str(folder.data),
        "--home", str(folder.scipion), "--pixel-size", f"{pixel_size_a:g}",
        "--initial-resolution", f"{START_RESOLUTION_A:g}", "--seed", str(args.seed)])
