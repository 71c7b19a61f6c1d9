"""Writing a file so that it is either whole or not there."""
from __future__ import annotations

import contextlib
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
