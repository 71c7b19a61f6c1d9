"""Plain tables, comma-separated with a line of column names, and JSON."""
from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.maps import Fsc
from .files import written_atomically


def write_table(path: Path | str, columns: Mapping[str, Sequence | np.ndarray]) -> None:
    """Columns of equal length to a CSV file; floats with six significant digits."""
    with written_atomically(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])


def write_fsc(path: Path | str, fsc: Fsc) -> None:
    """One row a shell: frequency (1/A) and the four curves, named as in `Fsc`."""
    write_table(path, {field.name: getattr(fsc, field.name) for field in dataclasses.fields(fsc)})


def read_fsc(path: Path | str) -> Fsc:
    """The curves of a file written by `write_fsc`."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [field.name for field in dataclasses.fields(Fsc)]
    return Fsc(**{name: np.array([float(row[name]) for row in rows]) for name in names})


def write_json(path: Path | str, tree: Mapping) -> None:
    """A tree of dictionaries, lists, texts and numbers to a JSON file; whole or not at all."""
    with written_atomically(path) as part:
        part.write_text(json.dumps(tree, indent=1))


def add_to_json(path: Path | str, tree: Mapping) -> None:
    """Entries to the dictionary in a JSON file; those of the same name are replaced."""
    write_json(path, {**json.loads(Path(path).read_text()), **tree})
