"""Grey pictures as PNG files, without a drawing library."""
from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from swiftres_plugin.engine.io.files import written_atomically

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_png(path: Path | str, grey: np.ndarray) -> None:
    """A picture (height, width) of values from 0, black, to 1, white; values beyond are cut. The first row is on top."""
    height, width = grey.shape
    pixels = np.round(255 * np.clip(np.nan_to_num(grey), 0, 1)).astype(np.uint8)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)  # each row begins with its filter: none
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # eight bits of grey, not interlaced
    with written_atomically(path) as part:
        part.write_bytes(SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes()))
                         + _chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def montage(tiles: list[list[np.ndarray]], gap_px: int = 2) -> np.ndarray:
    """Rows of tiles of one shape (h, w) on a white ground, `gap_px` apart; missing tiles at the end of a row stay white."""
    height, width = tiles[0][0].shape
    columns = max(len(row) for row in tiles)
    page = np.ones((len(tiles) * (height + gap_px) + gap_px, columns * (width + gap_px) + gap_px))
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            top, left = gap_px + i * (height + gap_px), gap_px + j * (width + gap_px)
            page[top:top + height, left:left + width] = tile
    return page


def stretched(tile: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values mapped from `low` and `high` to 0 and 1."""
    return (tile - low) / max(high - low, 1e-30)


def enlarged(tile: np.ndarray, least_px: int = 160) -> np.ndarray:
    """Every pixel repeated so often that the sides have at least `least_px` pixels."""
    times = max(1, -(-least_px // tile.shape[0]))
    return np.kron(tile, np.ones((times, times)))
