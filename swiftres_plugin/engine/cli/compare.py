"""`swiftres compare`: how far two sets of poses of the same particles are apart."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from swiftres_plugin.engine.cli.arguments import add_settings, settings_from
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import CompareSettings, DifferenceSettings

if TYPE_CHECKING:
    import numpy as np

    from swiftres_plugin.engine.data.particles import Particles, Poses

NAME = "compare"
HELP = "angular and shift differences between two STAR files of the same particles"
IMAGE_ID = "rlnImageId"
PERCENTILES = (75, 90, 95, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("found", metavar="FOUND", help="STAR file with the poses to judge")
    parser.add_argument("true", metavar="TRUE", help="STAR file with the poses to compare with")
    parser.add_argument("--output", metavar="CSV", help="write the differences of each particle to this file")
    parser.add_argument("--agreed", metavar="STAR", help="write the particles of FOUND whose poses agree to this file")
    add_settings(parser, tree=CompareSettings)


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from swiftres_plugin.engine.io.symmetry import open_symmetry
    from swiftres_plugin.engine.maths import symmetry
    chosen: DifferenceSettings = settings_from(args, CompareSettings).difference
    operators = open_symmetry(chosen.symmetry)
    found, true = read_matched(args.found, args.true, chosen.match_by)
    poses, truth = poses_of(found, args.found), poses_of(true, args.true)
    if chosen.align:
        truth, rotation, move = symmetry.in_frame_of(poses, truth, operators)
        _, turn = symmetry.closest_mates(rotation[None], np.eye(3)[None], operators)
        print(f"frames: turned by {np.degrees(turn[0]):.2f} degrees, moved by "
              f"({', '.join(f'{x:.2f}' for x in move)}) A (removed)")
    angles, shifts = symmetry.angular_errors(poses, truth, operators)
    agreed = (np.degrees(angles) <= chosen.max_angle) & (shifts <= chosen.max_move)
    if args.output:
        write_differences(args.output, found, np.degrees(angles), shifts, agreed)
    if args.agreed:
        write_agreed(args.agreed, found, agreed)
    print("\n".join(summary(np.degrees(angles), shifts)))
    print(f"agreed: {agreed.sum()} of {len(agreed)} particles, within {chosen.max_angle:g} degrees and {chosen.max_move:g} A")
    return 0


def read_matched(found_path: str, true_path: str, match_by: str = "image") -> tuple[Particles, Particles]:
    """The particles that both files have, in the order of the first; says so when some are in one file only."""
    from swiftres_plugin.engine.io.star import read_particles
    found, true = read_particles(found_path), read_particles(true_path)
    match = match_ids if match_by == "id" else match_images
    rows, true_rows = match(found, true, found_path, true_path)
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


def match_ids(found: Particles, true: Particles, found_path: str, true_path: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the same `rlnImageId` in both sets. Raises `InputError` where a file has none, or has one twice, or where
    none is in both."""
    import numpy as np
    ids, true_ids = _ids(found, found_path), _ids(true, true_path)
    _, rows, true_rows = np.intersect1d(ids, true_ids, assume_unique=True, return_indices=True)
    if len(rows) == 0:
        raise InputError("the two files have no particle number in common", where=found_path,
                         remedy="Match the particles by their image.")
    order = np.argsort(rows)
    return rows[order], true_rows[order]


def _ids(particles: Particles, path: str) -> np.ndarray:
    import numpy as np
    if IMAGE_ID not in particles.extra:
        raise InputError("particles without a number cannot be matched by it", where=path, expected=f"a column {IMAGE_ID}",
                         remedy="Match the particles by their image.")
    ids = particles.extra[IMAGE_ID]
    if len(np.unique(ids)) < len(ids):
        raise InputError("a particle number occurs twice", where=path, found=f"a repeated {IMAGE_ID}",
                         remedy="Remove the duplicates, or match the particles by their image.")
    return ids


def poses_of(particles: Particles, path: str) -> Poses:
    """The poses. Raises `InputError` when the file has none."""
    if particles.poses is None:
        raise InputError("no poses in the file", where=path, expected="the columns of angles and origins",
                         remedy="Give particles that were aligned.")
    return particles.poses


def write_differences(path: str, particles: Particles, angles_deg: np.ndarray, shifts_a: np.ndarray,
                      agreed: np.ndarray) -> None:
    """One row a particle: image name, its number if it has one, angle (degrees), shift (A), and 1 where both are small."""
    from swiftres_plugin.engine.io.mrc import image_name
    from swiftres_plugin.engine.io.tables import write_table
    names = [image_name(particles.stack_paths[stack], image)
             for stack, image in zip(particles.stack_index, particles.slice_index)]
    numbers = {"id": particles.extra[IMAGE_ID]} if IMAGE_ID in particles.extra else {}
    write_table(path, {"image": names, **numbers, "angle_deg": angles_deg, "shift_a": shifts_a, "agreed": agreed.astype(int)})


def write_agreed(path: str, particles: Particles, agreed: np.ndarray) -> None:
    """The particles that agree. Raises `InputError` when there is none."""
    import numpy as np

    from swiftres_plugin.engine.io.star import write_particles
    if not agreed.any():
        raise InputError("no particle agrees", remedy="Raise --max-angle or --max-move.")
    write_particles(Path(path), particles.take(np.flatnonzero(agreed)))


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
