"""Room 2: where arrays as large as maps lie: in memory, or in files of a scratch folder where memory is short."""
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch

from swiftres_plugin.errors import InputError

LEAST_FILE_BYTES = 1 << 20  # smaller arrays stay in memory


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Where maps, their transforms and sums lie. folder: of their files; None where all of them fit in memory."""

    folder: Path | None = None

    @property
    def on_disk(self) -> bool:
        return self.folder is not None

    @property
    def makes(self) -> Callable[[tuple[int, ...], torch.dtype], torch.Tensor] | None:
        """What makes the arrays; None where they lie in memory, beside what they are made from."""
        return self.empty if self.on_disk else None

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An array on the host whose values are not set yet."""
        if self.folder is None or dtype.itemsize * int(np.prod(shape)) < LEAST_FILE_BYTES:
            return torch.empty(shape, dtype=dtype)
        return filed(shape, dtype, self.folder)


def filed(shape: tuple[int, ...], dtype: torch.dtype, folder: Path) -> torch.Tensor:
    """An array in a file of `folder`, memory-mapped: the system holds what of it memory has room for.

    The file has no name: no other run that shares the folder can write to it, and it goes when the array or the process
    does, whatever ends them. Raises `InputError` where the folder has no room for it.
    """
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    size = int(np.prod(shape)) * kind.itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a disk that fills up later would end the program without a word
            return torch.from_numpy(np.memmap(file, dtype=kind, mode="r+", shape=shape))
    except OSError as error:
        raise InputError("large arrays fit neither in memory nor in the scratch folder", where=folder, found=error.strerror,
                         expected=f"room for {size / 1e9:.1f} GB",
                         remedy="Name another folder with --scratch, or allow more memory with --memory.") from error
