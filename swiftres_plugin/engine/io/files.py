"""Writing a file so that it is either whole or not there, and a folder by one process at a time."""
from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError


@contextlib.contextmanager
def written_atomically(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` when the block ends, deleted when it raises.

    Raises `InputError` when the folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError("the folder to write to does not exist", where=path, remedy=f"Create '{path.parent}' first.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path | str) -> Iterator[None]:
    """Keep other processes from holding `folder` too, until the block ends or the process does, however that happens.

    Raises `InputError` when another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path | str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError("another process is writing to this folder", where=folder,
                         remedy="Wait until it ends, or stop it, and try again.") from None
    except OSError:  # some network file systems cannot lock folders, and runs must work there as well
        pass
