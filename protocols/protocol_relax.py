"""The protocol `swiftres - symmetry relaxation`: which of its symmetry mates each particle is."""
from __future__ import annotations

import json

from pwem.objects import SetOfParticles
from pwem.protocols import Prot3D
from pyworkflow.protocol import params

from swiftres_plugin import convert, layout, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol

INPUT = ("symmetry", "resolution", "diameter", "scatter")
ALWAYS_NAMED = ("symmetry", "resolution")
CONFIDENT = 0.9  # posterior probability of a mate that can be built on


class ProtSwiftresRelax(EngineProtocol, Prot3D):
    """Tells which of its symmetry mates each particle is, where a part of the structure breaks the symmetry.

    *What it is for.* A ligand on one subunit of four, a tail on one side of a capsid, a channel that is symmetric but for one
    domain: refined in the symmetry of the rest, every copy gets a share of it. This puts every particle at the one mate where
    it belongs, and the map in C1 shows the part whole.

    *Inputs.* Particles with CTF and projection alignment, refined in the symmetry or in C1 from a symmetric map. A volume in
    C1 that shows the part is optional: the first choice is made against it. A mask is optional: around the particle, or around
    the part with all of its mates, which keeps the rest of the particle from adding noise.

    *How it works.* All mates of every pose are compared, by the exact likelihood, with maps in C1 made of other particles
    than the one that is asked; the particle goes to the likeliest, the maps are made anew, and so on until hardly a particle
    changes. The half sets never see each other's maps.

    *Outputs.* The particles at the chosen mates, with the attributes __swiftresRelaxedMate_ (number of the operator, from 1)
    and __swiftresRelaxedProbability_ (how sure the choice is).

    *Advice.* Look at the agreement of the halves in the summary: below 0.35 nothing may break the symmetry, whatever single
    particles say. Keep the particles above a probability of 0.9 with a subset protocol if the rest blurs the part. Go on with
    _swiftres - reconstruct_ or a _local_ refinement in C1. To follow several copies of a part on each particle, expand.
    """

    _label = "symmetry relaxation"
    _possibleOutputs = {"outputParticles": SetOfParticles}
    _tree = settings.RelaxSettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        self._addDeviceParams(form)
        form.addSection("Input")
        self._addParticlesParam(form, condition="hasCTF and hasAlignmentProj",
                                help="Particles with CTF and projection alignment, white on black.")
        form.addParam("inputVolume", params.PointerParam, pointerClass="Volume", allowsNull=True, label="Volume in C1",
                      help="Optional: a map without symmetry that the first choice of mates is made against, in the frame of "
                           "the poses. Without it the particles find their own.")
        self._addMaskParam(form, "Optional: what is compared, 1 inside and 0 outside with a soft edge, in the box of the "
                                 "particles: the particle, or the part with all of its mates.")
        settings_form.add_settings(form, self._tree, INPUT)
        self._addSymmetryHelp(form)
        settings_form.add_remaining(form, "Computing", self._tree)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._digest(self.inputParticles, self.inputVolume, self.mask), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.relaxStep, inputs, chosen, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertParticles()
        self._convertMask()
        if self.inputVolume.get() is not None:
            convert.write_map(self.inputVolume.get(), self._referenceFile())

    def relaxStep(self, inputs: str, chosen: str):
        reference = [] if self.inputVolume.get() is None else ["--reference", self._referenceFile()]
        files = ["--particles", self._particlesFile(), *reference, *self._maskOptions()]
        self._runAnew("relax", files, chosen, ALWAYS_NAMED)

    def createOutputStep(self, inputs: str, chosen: str):
        relaxed = self._alignedSet(self.inputParticles.get(), several=False)
        given = [pointer for pointer in (self.inputParticles, self.inputVolume) if pointer.get() is not None]
        self._setOutput("outputParticles", relaxed, *given)
        found = convert.read_columns(self._getRunPath(layout.PARTICLES), (convert.MATE_PROBABILITY,))
        self._keepFigures(confident=float((found[convert.MATE_PROBABILITY] > CONFIDENT).mean()))

    def _referenceFile(self) -> str:
        return self._getExtraPath("input_reference.mrc")

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles = self.inputParticles.get()
        errors = [*self._settingErrors(), *self._particleErrors(particles, withPoses=True), *self._maskErrors(particles)]
        if (self.symmetry.get() or "").upper() == "C1":
            errors.append("C1 has no mates to choose among. Name the group that the structure nearly has.")
        return errors

    def _warnings(self):
        return self._deviceWarnings() + self._opticsWarnings()

    def _summary(self):
        if not self.hasAttribute("outputParticles"):
            return ["The results are not ready yet."]
        report, confident = self._report(), self._keptFigures()["confident"]
        return [f"{report['particles']} particles at one of their mates in {self.symmetry.get()}, chosen with a mean "
                f"probability of *{report['mean_probability']:.2f}*; {confident:.0%} above {CONFIDENT:g}.",
                f"Agreement of the halves in what breaks the symmetry: *{report['agreement']:.2f}*, after "
                f"{len(report['changes'])} rounds.",
                *(f"Warning: {text}" for text in report["warnings"])]

    def _methods(self):
        if not self.hasAttribute("outputParticles"):
            return []
        report = self._report()
        return [f"The {self.symmetry.get()} symmetry was relaxed with swiftres {Plugin.getActiveVersion()} "
                f"[{THESIS}]: each of {report['particles']} particles was put at the likeliest of its mates against "
                f"maps in C1 of other particles, to {self.resolution.get():g} A, in {len(report['changes'])} rounds. The mean "
                f"posterior probability of the choice was {report['mean_probability']:.2f}; what breaks the symmetry "
                f"correlates to {report['agreement']:.2f} between the half sets, which were kept apart."]

    def _citations(self):
        return [THESIS]
