"""The protocol `swiftres - subtract`: particles of which only a part of the structure is left."""
from __future__ import annotations

import json
from typing import Any

from pwem.objects import Particle, SetOfParticles, Volume, VolumeMask
from pwem.protocols import Prot3D
from pyworkflow.protocol import params

from swiftres_plugin import convert, layout, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol

INPUT = ("recentre", "new_box")
LEAST_BOX_PX = 16
OUTPUTS = {"outputParticles": SetOfParticles, "outputVolume": Volume, "outputMask": VolumeMask}


class ProtSwiftresSubtract(EngineProtocol, Prot3D):
    """Takes a part of the structure away from the images, so that the rest can be looked at alone.

    *What it is for.* A part that moves against the rest, is bound to some particles only, or breaks the symmetry of the rest:
    with the rest gone, alignment and classes follow this part and nothing else.

    *Inputs.* Particles with CTF and projection alignment, the volume that they were refined to, and a mask of what stays: 1 on
    the part, 0 elsewhere, with a soft edge. Without a mask the whole particle is taken away, and noise is left.

    *How it works.* The volume outside the mask is projected at the pose of every particle, with its CTF and on its grey scale,
    and taken from the image. What the volume holds beyond the particle's boundary is noise and is not taken. With half maps
    each half of the particles is subtracted with its own, weighted by their FSC, and the halves stay independent.

    *Outputs.* The particles with new images (background of mean 0 and deviation 1, white on black), their poses and half
    sets; the part of the volume that is left and its mask, as these images show them: starting volume and mask of a
    refinement that goes on.

    *Advice.* Go on with _swiftres - 3D refinement_, alignment _local_, with volume and mask from here; for a small part set
    its _angle prior_ and _shift prior_. For a part that is far from the middle choose _recentre_, and a new box half as wide
    again as the part. After a refinement with symmetry the mask holds one copy of the part; expand the particles first to
    reach the others.
    """

    _label = "subtract"
    _possibleOutputs = OUTPUTS
    _tree = settings.SubtractSettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        form.addSection("Input")
        self._addParticlesParam(form, condition="hasCTF and hasAlignmentProj",
                                help="Particles with CTF and projection alignment.")
        form.addParam("inputVolume", params.PointerParam, pointerClass="Volume", important=True, label="Volume",
                      help="The volume that these particles were refined to, in their box and at their sampling rate.")
        self._addMaskParam(form, "1 on the part that stays, 0 elsewhere, with a soft edge, in the box of the particles. "
                                 "Without it all of the particle is taken away.", label="Mask of what stays")
        form.addParam("useHalfMaps", params.BooleanParam, default=True, label="Each half with its own half map?",
                      help="Yes subtracts each half of the particles with the half map that was refined from it, so that the "
                           "halves stay independent. It takes a volume with half maps, and particles with the half sets of "
                           "that refinement; without them the volume itself is subtracted from all. Choose No for particles "
                           "whose half sets are not those of the half maps.")
        settings_form.add_settings(form, self._tree, INPUT)
        settings_form.add_remaining(form, "Images", self._tree)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs = json.dumps([self._digest(self.inputParticles, self.inputVolume, self.mask), self._withHalfMaps()])
        chosen = json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.subtractStep, inputs, chosen, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertParticles()
        for map_, path in zip(self._maps(), self._mapFiles()):
            convert.write_map(map_, path)
        self._convertMask()

    def subtractStep(self, inputs: str, chosen: str):
        files = ["--particles", self._particlesFile()]
        for path in self._mapFiles():
            files += ["--map", path]
        self._runAnewToParticles("subtract", files + self._maskOptions(), chosen, INPUT)

    def createOutputStep(self, inputs: str, chosen: str):
        sources = [self.inputParticles, self.inputVolume, *([] if self.mask.get() is None else [self.mask])]
        self._setOutput("outputParticles", self._subtractedSet(self.inputParticles.get()), self.inputParticles)
        if self.mask.get() is None:
            return
        for name, kind, ending in (("outputVolume", Volume, layout.LEFT_MAP), ("outputMask", VolumeMask, layout.LEFT_MASK)):
            left = kind()
            left.setFileName(self._besideParticles(ending))
            left.setSamplingRate(self.inputParticles.get().getSamplingRate())
            self._setOutput(name, left, *sources)

    def _subtractedSet(self, particles: SetOfParticles) -> SetOfParticles:
        """The input particles with their new images, and their poses there."""
        found = convert.read_refined(self._getRunPath(layout.PARTICLES), particles.getSamplingRate())
        stack = self._besideParticles(layout.LEFT_STACK)

        def renew(particle: Particle, _row: object = None) -> None:
            found.update(particle)
            if particle._appendItem:  # images stand in the stack in the order of the STAR file
                particle.setLocation(found.row_of_id[particle.getObjId()] + 1, stack)

        left = self._createSetOfParticles()
        left.copyInfo(particles)
        left.setAlignmentProj()
        left.copyItems(particles, doClone=False, updateItemCallback=renew)
        return left

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles = self.inputParticles.get()
        errors = [*self._settingErrors(), *self._particleErrors(particles, withPoses=True), *self._maskErrors(particles)]
        if self.recentre.get() and self.mask.get() is None:
            errors.append("To recentre, give the mask of what stays: its centre of mass comes to the middle.")
        if particles is None or not particles.getDim():
            return errors
        return errors + self._boxErrors(particles.getDim()[0], particles.getSamplingRate())

    def _boxErrors(self, box_px: int, pixel_size_a: float) -> list[str]:
        """What is wrong with the volume and the new box beside the box of the particles."""
        errors, asked, volume = [], self.newBox.get() or 0, self.inputVolume.get()
        if asked and not LEAST_BOX_PX <= asked <= box_px:
            errors.append(f"A new box has from {LEAST_BOX_PX} to {box_px} px; {asked} px were asked for.")
        if volume is None or not volume.getDim():
            return errors
        theirs, rate_a = volume.getDim()[0], volume.getSamplingRate()
        if theirs != box_px or (rate_a and abs(rate_a / pixel_size_a - 1) > 0.01):
            errors.append(f"The volume has {theirs} px of {rate_a:g} A, the particles {box_px} px of {pixel_size_a:g} A. "
                          "Subtract the volume that they were refined to.")
        return errors

    def _warnings(self):
        given = None not in (self.inputVolume.get(), self.inputParticles.get())
        lacking = ["The volume has no half maps, or the particles have no half sets: the volume itself is subtracted from all "
                   "particles, so the halves are not independent in what is taken away."]
        return self._opticsWarnings() + (lacking if given and self.useHalfMaps.get() and not self._withHalfMaps() else [])

    def _summary(self):
        if not self.hasAttribute("outputParticles"):
            return ["The results are not ready yet."]
        told = self._figures()
        x, y, z = told["centre_px"]
        with_halves = "each half with its own half map" if len(told["inputs"]["maps"]) == 2 else "all with the volume itself"
        return [f"{told['particles']} images of {told['box_px']} px, *{told['variance_taken']:.1%}* of their variance taken "
                f"away; {with_halves}.",
                *([f"The middle of the images is the voxel ({x:+d}, {y:+d}, {z:+d}) from that of the input."]
                  if self.recentre.get() else []),
                *(f"Warning: {text}" for text in told["warnings"])]

    def _methods(self):
        if not self.hasAttribute("outputParticles"):
            return []
        told = self._figures()
        moved = (" Images were centred on the part that is left" if self.recentre.get() else "")
        cut = (f"{' and' if moved else ' Images were'} cut to {told['box_px']} px" if self.newBox.get() else "")
        what = "outside a mask of the part of interest" if self.mask.get() is not None else "of the whole particle"
        return [f"The density {what} was projected at the pose of each of {told['particles']} particles, with its CTF, and "
                f"subtracted with swiftres {Plugin.getActiveVersion()} [{THESIS}]; this took away "
                f"{told['variance_taken']:.1%} of the images' variance.{moved}{cut}{'.' if moved or cut else ''}"]

    def _citations(self):
        return [THESIS]

    # -------------------------- UTILS functions --------------------------
    def _withHalfMaps(self) -> bool:
        """Whether half maps can be subtracted, and are asked for."""
        if not (self.useHalfMaps.get() and self.inputVolume.get().hasHalfMaps()):
            return False
        return convert.half_sets(self.inputParticles.get()) >= {1, 2}

    def _maps(self) -> list[Volume]:
        """The volume, or its half maps."""
        volume = self.inputVolume.get()
        return convert.half_volumes(volume) if self._withHalfMaps() else [volume]

    def _mapFiles(self) -> list[str]:
        return [self._getExtraPath(f"input_map{number}.mrc") for number, _ in enumerate(self._maps(), 1)]

    def _besideParticles(self, ending: str) -> str:
        return layout.beside(self._getRunPath(layout.PARTICLES), ending)

    def _figures(self) -> dict[str, Any]:
        with open(self._besideParticles(layout.LEFT_FIGURES)) as file:
            return json.load(file)
