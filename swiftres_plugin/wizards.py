"""Helpers beside the fields of the form. Every value they set can be typed as well."""
from __future__ import annotations

from collections.abc import Iterator

import pyworkflow.object as pwobj
from pwem.constants import UNIT_ANGSTROM
from pwem.objects import Volume
from pwem.wizards import ParticleMaskRadiusWizard
from pyworkflow.gui import dialog
from pyworkflow.gui.tree import ListTreeProviderString
from pyworkflow.protocol import Protocol
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

    _targets = [(ProtSwiftres, ["initialResolution"]), *((kind, ["resolution"]) for kind in (
        ProtSwiftresAlign, ProtSwiftresClassify, ProtSwiftresRelax))]

    def show(self, form, *params):
        volume = next(measurable(form.protocol), None)
        if volume is None:
            dialog.showWarning("Resolution", "No volume of this form, or of the run that gave the particles, has half maps to "
                               "measure a resolution from. Type the resolution that you know.", form.root)
            return
        choices = resolutions(volume, to_begin_with=form.wizParamName == "initialResolution")
        provider = ListTreeProviderString([pwobj.String(f"{value:.1f} A: {reason}") for value, reason in choices])
        chooser = dialog.ListDialog(form.root, "Resolution", provider, "From the FSC of the half maps, without a mask",
                                    selectmode="browse", selectOnDoubleClick=True)
        if chooser.values:
            form.setVar(form.wizParamName, float(chooser.values[0].get().split()[0]))


def measurable(protocol: Protocol) -> Iterator[Volume]:
    """Volumes with half maps: those of the form first, then those of the run that gave the particles."""
    given = [protocol.inputVolume.get()] if protocol.hasAttribute("inputVolume") else protocol._volumes()
    maker = protocol.inputParticles.getObjValue()
    made = [one for _, one in maker.iterOutputAttributes(Volume)] if isinstance(maker, Protocol) else []
    return (one for one in (*given, *made) if one is not None and one.hasHalfMaps())


def resolutions(volume: Volume, to_begin_with: bool) -> list[tuple[float, str]]:
    """(angstroms, why) by the half maps of the volume; `to_begin_with` adds one for a refinement's first iteration."""
    curves = convert.half_map_curve(volume)
    limits = [convert.resolution_a(curves, "unmasked", threshold) for threshold in (0.143, 0.5)]
    first = [(3 * limits[0], "3 times FSC 0.143, to start without bias")] if to_begin_with else []
    return [(limits[0], "FSC 0.143, all that the volume holds"), (limits[1], "FSC 0.5, what it holds for sure"), *first]
