"""Helpers beside the fields of the form. Every value they set can be typed as well."""
from __future__ import annotations

import pyworkflow.object as pwobj
from pwem.constants import UNIT_ANGSTROM
from pwem.wizards import ParticleMaskRadiusWizard
from pyworkflow.gui import dialog
from pyworkflow.gui.tree import ListTreeProviderString
from pyworkflow.wizard import Wizard

from swiftres_plugin.protocols import ProtSwiftres

SYMMETRIES = ("C1", "C2", "C3", "C4", "C5", "C6", "D2", "D3", "D4", "D5", "D6", "D7", "T", "O", "I1", "I2", "I3", "I4")


class SwiftresSymmetryWizard(Wizard):
    """Choose the point group from a list."""

    _targets = [(ProtSwiftres, ["symmetry"])]

    def show(self, form, *params):
        provider = ListTreeProviderString([pwobj.String(name) for name in SYMMETRIES])
        chooser = dialog.ListDialog(form.root, "Symmetry", provider, "Point group in RELION's axes",
                                    selectmode="browse", selectOnDoubleClick=True)
        if chooser.values:
            form.setVar("symmetry", chooser.values[0].get())


class SwiftresDiameterWizard(ParticleMaskRadiusWizard):
    """Draw the particle's circle on the images; the form takes its diameter in angstroms."""

    _targets = [(ProtSwiftres, ["diameter"])]

    def _getProvider(self, protocol):
        return self._getListProvider(protocol.inputParticles)

    def show(self, form, *params):
        diameter_a = form.protocol.diameter.get() or 0
        super().show(form, diameter_a / 2 if diameter_a > 0 else -1, "diameter", units=UNIT_ANGSTROM)

    def setVar(self, form, label, value):
        form.setVar(label, 2 * value)
