"""Names and tables that several modules of the Scipion side share: the program, its variable, its papers, point groups."""
import re

from pwem import constants

PROGRAM = "swiftres"  # before the label of every protocol
ENV_ACTIVATION = "SWIFTRES_ENV_ACTIVATION"  # variable of scipion.conf
ENGINE_MODULES = ("torch", "scipy", "mrcfile", "healpix")  # without any of these the engine does not start

# Keys of `bibtex.py`, as `_citations` gives them and as `_methods` has them in brackets.
THESIS = "SwiftresThesis2023"
VECTOR_SEARCH = "Johnson2021"

# Point groups by RELION's names and about RELION's axes, as the engine takes them.
SYMMETRY = re.compile(r"([CD][1-9]\d*|T|O|I[1-4]?)", re.IGNORECASE)
LISTED_SYMMETRIES = ("C1", "C2", "C3", "C4", "C5", "C6", "D2", "D3", "D4", "D5", "D6", "D7", "T", "O", "I1", "I2", "I3", "I4")
# The same in Scipion's numbers: families with an order, and groups without one.
CYCLIC_AND_DIHEDRAL = {"C": constants.SYM_CYCLIC, "D": constants.SYM_DIHEDRAL_X}
POLYHEDRAL = {"T": constants.SYM_TETRAHEDRAL_Z3, "O": constants.SYM_OCTAHEDRAL, "I1": constants.SYM_I222,
              "I2": constants.SYM_I222r, "I": constants.SYM_I222r, "I3": constants.SYM_In25, "I4": constants.SYM_In25r}
