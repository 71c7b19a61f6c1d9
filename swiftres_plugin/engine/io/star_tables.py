"""STAR files as tables of strings (Hall, J. Chem. Inf. Comput. Sci. 1991, as far as cryo-EM programs use it)."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import InputError

Table = dict[str, list[str]]

QUOTED_VALUE = re.compile(r"""'([^']*)'(?=\s|$)|"([^"]*)"(?=\s|$)|(\S+)""")


def read_tables(path: Path | str) -> dict[str, Table]:
    """Every block of a STAR file: block name (without 'data_') -> column label (without '_') -> one string a row.

    A block of single values is a table of one row. Raises `InputError` for a missing file, one without blocks, or a row
    with another number of values than columns.
    """
    tables: dict[str, Table] = {}
    labels: list[str] = []
    rows: list[Sequence[str]] = []
    name = None
    for number, line in enumerate(_lines(path), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("data_"):
            _finish(tables, name, labels, rows)
            name, labels, rows = text[len("data_"):], [], []
        elif text.startswith("loop_"):
            _finish(tables, name, labels, rows)
            labels, rows = [], []
        elif name is None:
            raise InputError("is no STAR file", where=f"{path}, line {number}", expected="a line starting with 'data_'")
        elif text.startswith("_"):
            _add_label(text, labels, rows)
        else:
            rows.append(_values(text))
            if len(rows[-1]) != len(labels):
                raise InputError("a row does not fit the columns of its table", where=f"{path}, line {number}",
                                 found=f"{len(rows[-1])} values", expected=f"{len(labels)}",
                                 remedy="The file is cut off or was edited by hand: write it again.")
    _finish(tables, name, labels, rows)
    if not tables:
        raise InputError("is no STAR file", where=path, found="no table")
    return tables


def _lines(path: Path | str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readlines()
    except OSError as error:
        raise InputError("cannot be opened", where=path, found=error.strerror,
                         remedy="Check the path and the permissions of the file.") from error


def _values(text: str) -> Sequence[str]:
    if "'" not in text and '"' not in text:
        return text.split()
    return [single or double or plain for single, double, plain in QUOTED_VALUE.findall(text)]


def _add_label(text: str, labels: list[str], rows: list[Sequence[str]]) -> None:
    """A column of a loop ('_rlnVoltage #3'), or a single value ('_rlnVoltage 300')."""
    words = _values(text)
    labels.append(words[0][1:])
    if len(words) > 1 and not words[1].startswith("#"):
        rows[:] = [[*(rows[0] if rows else []), words[1]]]


def _finish(tables: dict[str, Table], name: str | None, labels: list[str], rows: list[Sequence[str]]) -> None:
    if name is not None and labels:
        columns = zip(*rows) if rows else ([] for _ in labels)
        tables[name] = {label: list(column) for label, column in zip(labels, columns)}


def format_table(name: str, columns: Mapping[str, Sequence[str]]) -> str:
    """One looped block, labels numbered as RELION does; values with blanks are quoted."""
    header = [f"data_{name}", "", "loop_", *(f"_{label} #{i}" for i, label in enumerate(columns, start=1))]
    rows = map(" ".join, zip(*(_quoted(values) for values in columns.values())))
    return "\n".join(["", "# version 30001", "", *header, *rows, "", ""])


def _quoted(values: Sequence[str]) -> Sequence[str]:
    joined = "".join(values)
    # One look at the whole column: nearly every one is free of blanks.
    if all(values) and not re.search(r"""[\s'"#]""", joined):
        return values
    return [value if value and not re.search(r"""\s|^['"#_]""", value) else _in_quotes(value) for value in values]


def _in_quotes(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'
