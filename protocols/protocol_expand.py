"""The protocol `swiftres - symmetry expansion`: every particle at each of its symmetry mates."""
from __future__ import annotations

import json

from pwem.objects import SetOfParticles
from pwem.protocols import Prot3D

from swiftres_plugin import convert, layout, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol

INPUT = ("symmetry",)


class ProtSwiftresExpand(EngineProtocol, Prot3D):
    """Writes every particle once at each of its symmetry mates.

    *What it is for.* To look at every copy of a part by itself: after the expansion each copy stands once at the same place of
    the map, where a mask holds it. Then subtract the rest, part the copies into classes, or refine them locally.

    *Inputs.* Particles with projection alignment, refined in the symmetry.

    *Outputs.* As many particles for each one as the group has operators: same image, same CTF, pose turned by the operator.
    Every one has a number of its own and the attributes __swiftresSourceParticle_ (number of the particle that it comes
    from) and __swiftresMate_ (number of the operator, from 1; the first is the particle as it was). All mates of a particle
    are in one half set.

    *Advice.* Go on in C1 and at the given poses or near them: a global search would only bring the mates together again. Do
    not draw half sets anew afterwards: the same noise in both halves would agree with itself, and the FSC with it. For a
    single part that breaks the symmetry relax instead, which keeps one mate of each particle.
    """

    _label = "symmetry expansion"
    _possibleOutputs = {"outputParticles": SetOfParticles}
    _tree = settings.ExpandSettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        form.addSection("Input")
        self._addParticlesParam(form, condition="hasCTF and hasAlignmentProj",
                                help="Particles with CTF and projection alignment, refined in the symmetry.")
        settings_form.add_settings(form, self._tree, INPUT)
        self._addSymmetryHelp(form)
        settings_form.add_remaining(form, "Half sets", self._tree)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._digest(self.inputParticles), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.expandStep, inputs, chosen, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertParticles()

    def expandStep(self, inputs: str, chosen: str):
        self._runAnewToParticles("expand", ["--particles", self._particlesFile()], chosen, INPUT)

    def createOutputStep(self, inputs: str, chosen: str):
        particles = self.inputParticles.get()
        mates = convert.read_mates(self._getRunPath(layout.PARTICLES), particles.getSamplingRate())
        expanded = self._createSetOfParticles()
        expanded.copyInfo(particles)
        expanded.setAlignmentProj()
        for particle in particles.iterItems():
            for mate in mates.of(particle):
                expanded.append(mate)
        self._setOutput("outputParticles", expanded, self.inputParticles)

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles = self.inputParticles.get()
        errors = [*self._settingErrors(), *self._particleErrors(particles, withPoses=True)]
        if (self.symmetry.get() or "").upper() == "C1":
            errors.append("C1 has no mates. Name the group that the particles were refined in.")
        first = None if particles is None else particles.getFirstItem()
        if first is not None and first.getAttributeValue(f"_{convert.MATE}", None) is not None:
            errors.append("These particles are expanded already.")
        return errors

    def _warnings(self):
        return self._opticsWarnings()

    def _summary(self):
        if not self.hasAttribute("outputParticles"):
            return ["The results are not ready yet."]
        before, after = self.inputParticles.get().getSize(), self.outputParticles.getSize()
        return [f"{before} particles, each at its mates in {self.symmetry.get()}: *{after}* of them."]

    def _methods(self):
        if not self.hasAttribute("outputParticles"):
            return []
        return [f"{self.inputParticles.get().getSize()} particles were expanded to {self.outputParticles.getSize()} by their "
                f"{self.symmetry.get()} symmetry with swiftres {Plugin.getActiveVersion()} [{THESIS}]; all mates of "
                "a particle were kept in one half set."]

    def _citations(self):
        return [THESIS]
