"""Atomic models from and to PDB and mmCIF, by gemmi."""
from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from ...errors import InputError
from ..data.atoms import Atoms
from .files import written_atomically

WATER = ("HOH", "DOD", "WAT")
HYDROGEN = ("H", "D")


def require_gemmi() -> ModuleType:
    """The gemmi module; raises `InputError` where it is not installed."""
    try:
        import gemmi
    except ImportError as error:
        raise InputError("atomic models need the package gemmi", remedy="Install it: pip install gemmi") from error
    return gemmi


def read_atoms(path: Path | str) -> Atoms:
    """The atoms of the first model in a PDB or mmCIF file (also .gz), without hydrogens, water and second conformations.

    Raises `InputError` when the file cannot be read or has no atoms.
    """
    gemmi = require_gemmi()
    try:
        structure = gemmi.read_structure(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError("cannot be read as an atomic model", where=path, found=error,
                         expected="PDB or mmCIF") from error
    rows = [
        (atom.pos.tolist(), atom.element.name, atom.occ, atom.name, residue.name, residue.seqid.num, chain.name)
        for model in list(structure)[:1] for chain in model for residue in chain if residue.name not in WATER
        for atom in residue if atom.element.name not in HYDROGEN and atom.altloc in ("\0", "", "A", "1")]
    if not rows:
        raise InputError("no atoms in the model", where=path)
    position, element, occupancy, name, residue, number, chain = map(np.array, zip(*rows))
    return Atoms(position, element, np.where(occupancy > 0, occupancy, 1.0), name, residue, number, chain)


def write_atoms(path: Path | str, atoms: Atoms, title: str = "model") -> None:
    """Write `atoms` as mmCIF (`.cif`) or PDB (any other name); whole or not at all."""
    gemmi = require_gemmi()
    structure, model = gemmi.Structure(), gemmi.Model(1)
    structure.name = title
    for chain_name in dict.fromkeys(atoms.chain.tolist()):
        chain = gemmi.Chain(chain_name)
        for residue in _residues(gemmi, atoms, np.flatnonzero(atoms.chain == chain_name)):
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    with written_atomically(path) as part:
        if Path(path).suffix == ".cif":
            structure.make_mmcif_document().write_file(str(part))
        else:
            structure.write_pdb(str(part))


def _residues(gemmi: ModuleType, atoms: Atoms, rows: np.ndarray) -> list:
    residues: list = []
    for row in rows.tolist():
        number = int(atoms.residue_number[row])
        if not residues or residues[-1].seqid.num != number:
            residues.append(gemmi.Residue())
            residues[-1].name, residues[-1].seqid = str(atoms.residue[row]), gemmi.SeqId(str(number))
        atom = gemmi.Atom()
        atom.name, atom.element = str(atoms.name[row]), gemmi.Element(str(atoms.element[row]))
        atom.pos, atom.occ = gemmi.Position(*atoms.position_a[row]), float(atoms.occupancy[row])
        residues[-1].add_atom(atom)
    return residues
