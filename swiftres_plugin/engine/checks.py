"""What is looked at before work starts, so that a wrong input costs seconds and not hours."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .. import layout
from ..errors import InputError
from ..settings import SearchSettings
from .data.maps import Map
from .data.particles import Optics
from .maths.cubes import cube_spectrum, planes_of
from .maths.fourier import low_pass_gain
from .maths.padded import Empty
from .stages.index import parse_recipe
from .stages.postprocess import shell_products

PIXEL_TOLERANCE = 0.01
RANGE_TOLERANCE = 1e-3
SAME_MAP = 1 - 1e-6  # correlation of maps that only rounding tells apart
# Smaller boxes hold too few frequencies to align anything.
LEAST_BOX_PX = 16
LEAST_BOX_SHARE = 0.6  # of the first optics group's box, in angstroms: a particle takes up about as much


def check_mask(mask: Map, box_px: int, pixel_size_a: float, name: object = "mask") -> None:
    """Raises `InputError` unless `mask` fits the box and pixel size of the particles and runs from 0 to 1."""
    if mask.box_px != box_px:
        raise InputError("the mask has another box than the particles", where=name, found=f"{mask.box_px} px",
                         expected=f"{box_px} px", remedy="Make the mask from a map in the box of the particles.")
    if abs(mask.pixel_size_a - pixel_size_a) > PIXEL_TOLERANCE * pixel_size_a:
        raise InputError("the mask has another pixel size than the particles", where=name,
                         found=f"{mask.pixel_size_a:g} A", expected=f"{pixel_size_a:g} A",
                         remedy="Resample the mask, or correct the pixel size in its header.")
    low, high = float(mask.voxels.min()), float(mask.voxels.max())
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise InputError("the mask leaves the range from 0 to 1", where=name, found=f"{low:g} to {high:g}",
                         remedy="Threshold the map it was made from and add a soft edge.")
    if high < 0.5:
        raise InputError("the mask is empty", where=name, found=f"a maximum of {high:g}",
                         expected="1 inside the particle")


def check_reference(reference: Map, name: object = "reference") -> None:
    """Raises `InputError` where a starting map holds nothing to align to; its box, pixel and grey scale are free."""
    if reference.box_px < LEAST_BOX_PX:
        raise InputError("the map is too small", where=name, found=f"{reference.box_px} px",
                         expected=f"at least {LEAST_BOX_PX} px")
    if np.ptp(reference.voxels) == 0:
        raise InputError("the map is constant", where=name, found=f"{reference.voxels.flat[0]:g} everywhere",
                         remedy="Give a map of the particle, white on black.")


def check_different(references: Sequence[Map], names: Sequence[object], resolution_a: float,
                    empty: Empty | None = None) -> None:
    """Raises `InputError` where two starting maps (on one grid) are the same to `resolution_a` but for their grey scale:
    they would part the particles by chance alone. empty: makes their transforms."""
    if len(references) < 2:
        return
    gain = low_pass_gain(references[0].box_px, references[0].pixel_size_a, resolution_a)
    spectra = [cube_spectrum(planes_of(torch.from_numpy(one.voxels)), one.box_px, empty) for one in references]
    for second in range(len(spectra)):
        for first in range(second):
            if likeness(spectra[first], spectra[second], gain) > SAME_MAP:
                raise InputError("two starting maps are the same", where=names[second], found=f"what {names[first]} holds",
                                 expected=f"maps that differ at {resolution_a:g} A", remedy="Give one of them alone.")


def likeness(first: torch.Tensor, second: torch.Tensor, gain: torch.Tensor) -> float:
    """Correlation of two maps on one grid, without their means and with their shells times `gain`, from their `rfftn`."""
    cross, *power = shell_products(first, second)[:, 1:] @ gain[1:].double() ** 2
    return float(cross / (power[0] * power[1]).sqrt())


def check_search(settings: SearchSettings) -> None:
    """Raises `InputError` for a recipe that cannot be, or a choice that another one makes void."""
    parse_recipe(settings.recipe, settings.components)
    if settings.wiener and settings.metric == "likelihood":
        raise InputError("a Wiener filter before the likelihood would correct the CTF twice", found="--wiener",
                         remedy="Add --metric cosine (or another), or leave --wiener out.")


def check_box(box_px: int, pixel_size_a: float, name: object = "particles") -> None:
    """Raises `InputError` for a box too small to align, or a pixel size that is no length."""
    if box_px < LEAST_BOX_PX:
        raise InputError("the box is too small", where=name, found=f"{box_px} px",
                         expected=f"at least {LEAST_BOX_PX} px")
    if not 0 < pixel_size_a < np.inf:
        raise InputError("the pixel size is no length", where=name, found=f"{pixel_size_a:g} A")


def check_optics(optics: Sequence[Optics], name: object = "particles") -> None:
    """Raises `InputError` for a group with a bad box or pixel size, or one whose box covers too little of the first's."""
    for group in optics:
        check_box(group.box_px, group.pixel_size_a, name)
        if group.box_a < LEAST_BOX_SHARE * optics[0].box_a:
            raise InputError("the boxes of two optics groups are too different to hold the same particle", where=name,
                             found=f"{group.box_a:g} A in {group.name}, {optics[0].box_a:g} A in {optics[0].name}",
                             expected=f"at least {LEAST_BOX_SHARE:.0%} of the first group's",
                             remedy="Extract both groups in boxes of about one size in angstroms.")


def check_output_folder(path: Path | str) -> None:
    """Raises `InputError` when `path` holds a run already, is a file, or cannot be written to."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError("the output is a file", where=path, expected="a folder that is new or empty")
    holds = [name for name in (layout.SETTINGS, layout.RUN, layout.PROGRESS) if (path / name).exists()]
    holds += [folder.name for _, folder in layout.finished_iterations(path)]
    if holds:
        raise InputError("the output folder already holds a run", where=path, found=", ".join(holds[:3]),
                         remedy=f"Continue it with --resume {path}, or name another folder.")
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError("the output folder cannot be written", where=existing, remedy="Name another folder.")
