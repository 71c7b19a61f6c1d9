"""Room 2: whether the maps of a run fit in memory, and the disk that they take where they do not; asked before any work."""
from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.engine.scratch import Storage
from swiftres_plugin.errors import InputError

# Bytes per voxel of the twofold padded cube, as measured and a little more: sums of both halves, transforms, maps on the way.
MEMORY_BYTES, MEMORY_BYTES_PER_CLASS = 28, 6
DISK_BYTES, DISK_BYTES_PER_CLASS = 20, 6
VOLUME_BYTES = 4  # the transform that particles are compared with, which is read at random
LARGEST_SHARE = 0.5  # of a GPU's memory for that


def planned_storage(box_px: int, classes: int, memory_bytes: float, folder: Path, reporter: Reporter) -> Storage:
    """Where the maps of a run of so many classes lie: in memory of that size, or in files of `folder`.

    Raises `InputError` where the disk has no room for them.
    """
    voxels = float(2 * box_px) ** 3
    needed = (MEMORY_BYTES + MEMORY_BYTES_PER_CLASS * classes) * voxels
    if needed <= memory_bytes:
        return Storage()
    disk = (DISK_BYTES + DISK_BYTES_PER_CLASS * classes) * voxels
    free = shutil.disk_usage(_existing(folder)).free
    maps = f"the maps of a box of {box_px} px" + (f" and {classes} classes" if classes > 1 else "")
    if free < disk:
        raise InputError(f"{maps} fit neither in memory nor in the scratch folder", where=folder,
                         found=f"{memory_bytes / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB of disk",
                         expected=f"{needed / 1e9:.1f} GB of memory, or {disk / 1e9:.1f} GB of disk",
                         remedy="Name a larger folder with --scratch, or allow more memory with --memory.")
    reporter.message(f"{maps[0].upper()}{maps[1:]} take up to {needed / 1e9:.1f} GB, and {memory_bytes / 1e9:.1f} GB of "
                     f"memory may be used: they lie in files in {folder} (up to {disk / 1e9:.1f} GB), which is slower.")
    return Storage(folder)


def _existing(folder: Path) -> Path:
    """The folder, or the innermost one around it that is there already."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())


def housed(compute: Compute, storage: Storage, box_px: int, reporter: Reporter) -> Compute:
    """The place of work with its storage; the processor where a GPU has no room for what particles are compared with."""
    if compute.device.type == "cuda" and VOLUME_BYTES * (2 * box_px) ** 3 > LARGEST_SHARE * compute.memory_bytes:
        reporter.warning(f"The transform of a map of {box_px} px does not fit in the memory of the GPU: the processor does "
                         "the work.")
        compute = replace(compute, device=torch.device("cpu"), memory_bytes=compute.host_bytes, others=())
    return replace(compute, storage=storage)
