"""The protocol `swiftres - reconstruct`: aligned particles to a volume with its half maps."""
from __future__ import annotations

import json

from pwem.objects import FSC, Volume, VolumeMask
from pwem.protocols import ProtReconstruct3D

from swiftres_plugin import settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol

INPUT = ("symmetry", "diameter")
OUTPUTS = {"outputVolume": Volume, "outputFSC": FSC, "outputMask": VolumeMask}


class ProtSwiftresReconstruct(EngineProtocol, ProtReconstruct3D):
    """Reconstructs a volume, its half maps and their FSC from particles whose poses are known.

    *What it is for.* A map of a subset, of one class, of particles aligned by another program, or in another symmetry:
    nothing is aligned.

    *Inputs.* Particles with CTF and projection alignment. Half sets that came with them (from a RELION or swiftres
    refinement) are kept; otherwise two are drawn at random from the seed.

    *How it works.* Every particle is inserted into the Fourier volume of its half with its CTF and the noise of its optics
    group, at every symmetry mate. The map of all particles is weighted by the signal-to-noise ratio that the FSC tells.

    *Outputs.* The volume with its half maps (these are as they are: not masked, filtered or sharpened), the FSC corrected
    for the mask, and the mask.

    *Advice.* The FSC is a gold standard only when the halves were refined independently: half sets drawn here, of particles
    that were aligned to one map, agree more than they should.
    """

    _label = "reconstruct"
    _possibleOutputs = OUTPUTS
    _choices = settings.RECONSTRUCT

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        self._addDeviceParams(form)
        form.addSection("Input")
        self._addParticlesParam(form, condition="hasCTF and hasAlignmentProj",
                                help="Particles with CTF and projection alignment, white on black.")
        self._addMaskParam(form, "Optional: the FSC is measured inside it. 1 inside the particle, 0 in the solvent, with a "
                                 "soft edge, in the box of the particles. Without it the solvent boundary is found from the "
                                 "map.")
        settings_form.add_settings(form, self._tree, INPUT)
        self._addSymmetryHelp(form)
        settings_form.add_remaining(form, "Computing", self._tree, self._choices)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._digest(self.inputParticles, self.mask), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.reconstructStep, inputs, chosen, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertParticles()
        self._convertMask()

    def reconstructStep(self, inputs: str, chosen: str):
        self._runAnew("reconstruct", ["--particles", self._particlesFile(), *self._maskOptions()], chosen, ("symmetry",))

    def createOutputStep(self, inputs: str, chosen: str):
        pixel_size_a, folder = self.inputParticles.get().getSamplingRate(), self._getRunPath()
        self._setOutput("outputVolume", self._mapOf(folder, pixel_size_a), self.inputParticles)
        self._setOutput("outputFSC", self._fscOf(folder), self.inputParticles)
        self._setOutput("outputMask", self._maskOf(folder, pixel_size_a), self.inputParticles)

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles = self.inputParticles.get()
        return self._settingErrors() + self._particleErrors(particles, withPoses=True) + self._maskErrors(particles)

    def _warnings(self):
        return self._deviceWarnings() + self._opticsWarnings()

    def _summary(self):
        if not self.hasAttribute("outputVolume"):
            return ["The results are not ready yet."]
        return [f"Resolution (FSC 0.143): *{self._resolutionOf():.2f} A* inside the mask, "
                f"{self._resolutionOf(curve='unmasked'):.2f} A without it.",
                f"{self.inputParticles.get().getSize()} particles, symmetry {self.symmetry.get()}."]

    def _methods(self):
        if not self.hasAttribute("outputVolume"):
            return []
        return [f"The map was reconstructed from {self.inputParticles.get().getSize()} aligned particles with swiftres "
                f"{Plugin.getActiveVersion()} [{THESIS}] in symmetry {self.symmetry.get()}. The FSC of its half "
                f"maps, corrected for the mask by phase randomisation, falls to 0.143 at "
                f"{self._resolutionOf():.2f} A."]

    def _citations(self):
        return [THESIS]
