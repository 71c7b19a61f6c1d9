"""Helpers beside the fields of the form. Every value they set can be typed as well."""
from __future__ import annotations

import pyworkflow.object as pwobj
from pwem.constants import UNIT_ANGSTROM
from pwem.wizards import ParticleMaskRadiusWizard
from pyworkflow.gui import dialog
from pyworkflow.gui.tree import ListTreeProviderString
from pyworkflow.wizard import Wizard

from swiftres_plugin import convert
from swiftres_plugin.constants import LISTED_SYMMETRIES
from swiftres_plugin.protocols import (
    ProtSwiftres,
    ProtSwiftresAlign,
    ProtSwiftresClassify,
    ProtSwiftresClassify2D,
    ProtSwiftresCompare,
    ProtSwiftresExpand,
    ProtSwiftresInitialModel,
    ProtSwiftresPostprocess,
    ProtSwiftresReconstruct,
    ProtSwiftresRelax,
    ProtSwiftresSimulate,
)

FIRST_SHARE = 0.7  # of the box: the circle that is shown first where no diameter is given


class SwiftresSymmetryWizard(Wizard):
    """Choose the point group from a list."""

    _targets = [(kind, ["symmetry"]) for kind in (ProtSwiftres, ProtSwiftresAlign, ProtSwiftresReconstruct,
                                                  ProtSwiftresCompare, ProtSwiftresPostprocess, ProtSwiftresInitialModel,
                                                  ProtSwiftresRelax, ProtSwiftresExpand, ProtSwiftresSimulate,
                                                  ProtSwiftresClassify)]

    def show(self, form, *params):
        provider = ListTreeProviderString([pwobj.String(name) for name in LISTED_SYMMETRIES])
        chooser = dialog.ListDialog(form.root, "Symmetry", provider, "Point group in RELION's axes",
                                    selectmode="browse", selectOnDoubleClick=True)
        if chooser.values:
            form.setVar("symmetry", chooser.values[0].get())


class SwiftresDiameterWizard(ParticleMaskRadiusWizard):
    """Draw the particle's circle on the images; the form takes its diameter in angstroms."""

    _targets = [(kind, ["diameter"]) for kind in (ProtSwiftres, ProtSwiftresAlign, ProtSwiftresReconstruct,
                                                  ProtSwiftresInitialModel, ProtSwiftresClassify2D, ProtSwiftresRelax,
                                                  ProtSwiftresClassify)]

    def _getProvider(self, protocol):
        return self._getListProvider(protocol.inputParticles)

    def show(self, form, *params):
        particles, diameter_a = form.protocol.inputParticles.get(), form.protocol.diameter.get() or 0
        if diameter_a <= 0 and particles is not None:
            diameter_a = FIRST_SHARE * particles.getDim()[0] * particles.getSamplingRate()
        super().show(form, diameter_a / 2, "diameter", units=UNIT_ANGSTROM)

    def setVar(self, form, label, value):
        form.setVar(label, 2 * value)


class SwiftresResolutionWizard(Wizard):
    """Choose a resolution from what the half maps of the volume agree on."""

    _targets = [(ProtSwiftres, ["initialResolution"]), (ProtSwiftresAlign, ["resolution"])]

    def show(self, form, *params):
        choices = self.choices(form.protocol)
        if not choices:
            dialog.showWarning("Resolution", "None of the volumes has half maps to measure a resolution from. Type the "
                               "resolution that you know.", form.root)
            return
        provider = ListTreeProviderString([pwobj.String(f"{value:.1f} A: {reason}") for value, reason in choices])
        chooser = dialog.ListDialog(form.root, "Resolution", provider, "From the FSC of the half maps, without a mask",
                                    selectmode="browse", selectOnDoubleClick=True)
        if chooser.values:
            form.setVar(form.wizParamName, float(chooser.values[0].get().split()[0]))

    @staticmethod
    def choices(protocol) -> list[tuple[float, str]]:
        """(angstroms, why) by the first volume that has half maps; none when no volume has."""
        volume = next((one for one in protocol._volumes() if one.hasHalfMaps()), None)
        if volume is None:
            return []
        curves = convert.half_map_curve(volume)
        limits = [convert.resolution_a(curves, "unmasked", threshold) for threshold in (0.143, 0.5)]
        return [(limits[0], "FSC 0.143, all that the volume holds"), (limits[1], "FSC 0.5, what it holds for sure"),
                (3 * limits[0], "3 times FSC 0.143, to start without bias")]
