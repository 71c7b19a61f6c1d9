"""`swiftres compare`: how far two sets of poses of the same particles are apart."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from swiftres_plugin.engine.data.particles import Particles, Poses

NAME = "compare"
HELP = "angular and shift differences between two STAR files of the same particles"
PERCENTILES = (75, 90, 95, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("found", metavar="FOUND", help="STAR file with the poses to judge")
    parser.add_argument("true", metavar="TRUE", help="STAR file with the poses to compare with")
    parser.add_argument("--no-align", action="store_true", help="compare as they are, without first removing the "
                        "rotation and the move between the two map frames that the symmetry leaves free")
    parser.add_argument("--output", metavar="CSV", help="write the differences of each particle to this file")
    add_settings(parser, ("symmetry",))


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from swiftres_plugin.engine.maths import symmetry
    operators = symmetry.symmetry_operators(settings_from(args).schedule.symmetry)
    found, true = read_matched(args.found, args.true)
    poses, truth = poses_of(found, args.found), poses_of(true, args.true)
    if not args.no_align:
        truth, rotation, move = symmetry.in_frame_of(poses, truth, operators)
        _, turn = symmetry.closest_mates(rotation[None], np.eye(3)[None], operators)
        print(f"frames: turned by {np.degrees(turn[0]):.2f} degrees, moved by "
              f"({', '.join(f'{x:.2f}' for x in move)}) A (removed)")
    angles, shifts = symmetry.angular_errors(poses, truth, operators)
    if args.output:
        write_differences(args.output, found, np.degrees(angles), shifts)
    print("\n".join(summary(np.degrees(angles), shifts)))
    return 0


def read_matched(found_path: str, true_path: str) -> tuple[Particles, Particles]:
    """The particles that both files have, in the order of the first; says so when some are in one file only."""
    from swiftres_plugin.engine.io.star import read_particles
    found, true = read_particles(found_path), read_particles(true_path)
    rows, true_rows = match_images(found, true, found_path, true_path)
    print(f"particles: {len(rows)} compared, {len(found) - len(rows)} only in {found_path}, "
          f"{len(true) - len(rows)} only in {true_path}")
    return found.take(rows), true.take(true_rows)


def match_images(found: Particles, true: Particles, found_path: str, true_path: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the same images in both sets: same stack and slice, compared by whole path, then by ever less of it.

    Raises `InputError` when an image occurs twice in a file or when no image is in both.
    """
    import numpy as np
    for parts in (0, 3, 2, 1):
        first, second = _keys(found, found_path, parts), _keys(true, true_path, parts)
        common = [(row, second[key]) for key, row in first.items() if key in second]
        if common:
            rows, true_rows = np.array(common).T
            return rows, true_rows
    raise InputError("the two files have no image in common", where=found_path, found=_example(found),
                     expected=f"images such as {_example(true)} of {true_path}")


def poses_of(particles: Particles, path: str) -> Poses:
    """The poses. Raises `InputError` when the file has none."""
    if particles.poses is None:
        raise InputError("no poses in the file", where=path, expected="the columns of angles and origins",
                         remedy="Give particles that were aligned.")
    return particles.poses


def write_differences(path: str, particles: Particles, angles_deg: np.ndarray, shifts_a: np.ndarray) -> None:
    """One row a particle: image name, angle (degrees), shift (A)."""
    from swiftres_plugin.engine.io.mrc import image_name
    from swiftres_plugin.engine.io.tables import write_table
    names = [image_name(particles.stack_paths[stack], image)
             for stack, image in zip(particles.stack_index, particles.slice_index)]
    write_table(path, {"image": names, "angle_deg": angles_deg, "shift_a": shifts_a})


def summary(angles_deg: np.ndarray, shifts_a: np.ndarray) -> list[str]:
    """Lines with median, mean and percentiles of both."""
    import numpy as np
    columns = ("median", "mean", *(f"{p}%" if p < 100 else "largest" for p in PERCENTILES))
    lines = [" " * 18 + "".join(f"{name:>10}" for name in columns)]
    for name, values in (("angle (degrees)", angles_deg), ("shift (A)", shifts_a)):
        numbers = [np.median(values), np.mean(values)] + [np.percentile(values, p) for p in PERCENTILES]
        lines.append(f"{name:<18}" + "".join(f"{number:>10.3f}" for number in numbers))
    return lines


def _keys(particles: Particles, path: str, parts: int) -> dict[tuple[tuple[str, ...], int], int]:
    """{(stack, slice): row}, a stack named by the last `parts` parts of its path (0: all)."""
    stacks = [Path(stack).resolve().parts[-parts:] for stack in particles.stack_paths]
    keys: dict[tuple[tuple[str, ...], int], int] = {}
    for row, (stack, image) in enumerate(zip(particles.stack_index, particles.slice_index)):
        key = stacks[stack], int(image)
        if key in keys:
            raise InputError(f"particles {keys[key] + 1} and {row + 1} are the same image", where=path,
                             found=f"{key[1] + 1:06d}@{'/'.join(key[0])}", remedy="Remove the duplicates.")
        keys[key] = row
    return keys


def _example(particles: Particles) -> str:
    return f"{particles.slice_index[0] + 1:06d}@{particles.stack_paths[particles.stack_index[0]]}"
