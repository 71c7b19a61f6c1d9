"""An index of references as a folder: `index.json`, and for each class its arrays, its FAISS index and its map.

    index.json            what the index was built from and with; written last, so that a folder without it is not whole
    class1_index.npz      orientations of the references, weights and principal components
    class1_index.faiss    the references, by faiss.write_index; absent where the search is a plain matrix product
    class1_map.mrc        the map as it was searched: low-passed, on the particles' grey scale
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ... import layout
from ...errors import InputError, StateError
from ..data.maps import Map
from .files import written_atomically
from .mrc import read_map, write_map
from .tables import write_json

FORMAT = 1
DESCRIPTION = "index.json"


def check_new_index(folder: Path) -> None:
    """Raises `InputError` where `folder` is a file or holds anything."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("the folder for the index is not empty", where=folder, remedy="Name another folder.")


def write_class(folder: Path, number: int, arrays: Mapping[str, np.ndarray], index: Any, density: Map) -> None:
    """One class of an index; `index` is FAISS's, or None where `arrays` hold the vectors."""
    with written_atomically(folder / arrays_name(number)) as part, part.open("wb") as file:
        np.savez(file, **arrays)
    if index is not None:
        import faiss
        with written_atomically(folder / faiss_name(number)) as part:
            faiss.write_index(index, str(part))
    write_map(folder / layout.map_name(number), density)


def write_description(folder: Path, tree: Mapping[str, Any]) -> None:
    write_json(folder / DESCRIPTION, {"format": FORMAT, **tree})


def read_description(folder: Path) -> dict[str, Any]:
    """What `write_description` wrote. Raises `InputError` for a folder that holds no index, or one of another format."""
    try:
        tree = json.loads((folder / DESCRIPTION).read_text())
        found = tree["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("there is no index in this folder", where=folder, found=error, expected=f"a readable {DESCRIPTION}",
                         remedy="Make one with 'swiftres train'.") from error
    if found != FORMAT:
        raise InputError("the index was written by another version of the program", where=folder, found=f"format {found}",
                         expected=f"format {FORMAT}", remedy="Make it anew with 'swiftres train'.")
    return tree


def read_class(folder: Path, number: int) -> tuple[dict[str, np.ndarray], Any, Map]:
    """Arrays, FAISS index (None without its file) and map of a class. Raises `StateError` where they are damaged."""
    try:
        with np.load(folder / arrays_name(number), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        density = read_map(folder / layout.map_name(number))
    except (OSError, ValueError, EOFError, BadZipFile, InputError) as error:
        raise StateError(f"{folder}: this index is damaged ({error}). Make it anew with 'swiftres train'.") from error
    if "vectors" in arrays:
        return arrays, None, density
    index = _read_faiss(folder / faiss_name(number))
    if index.ntotal != len(arrays["image_to_volume"]):
        raise StateError(f"{folder / faiss_name(number)}: holds {index.ntotal} references, {arrays_name(number)} tells of "
                         f"{len(arrays['image_to_volume'])}. Make the index anew with 'swiftres train'.")
    return arrays, index, density


def _read_faiss(path: Path) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError("this index needs FAISS", where=path, found=error,
                         remedy="Install faiss-cpu or faiss-gpu.") from error
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise StateError(f"{path}: this index is damaged. Make it anew with 'swiftres train'.") from error


def arrays_name(number: int) -> str:
    return f"class{number}_index.npz"


def faiss_name(number: int) -> str:
    return f"class{number}_index.faiss"
