"""The protocol `swiftres - align particles`: poses against given volumes, which stay as they are."""
from __future__ import annotations

import json

from pwem.objects import Class3D, SetOfClasses3D, SetOfParticles
from pwem.protocols import Prot3D
from pyworkflow.object import Pointer

from swiftres_plugin import settings
from swiftres_plugin.constants import THESIS, VECTOR_SEARCH
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol, VolumesInput

INPUT = ("resolution", "symmetry", "diameter", "alignment")
ALWAYS_NAMED = ("resolution", "symmetry", "alignment")


class ProtSwiftresAlign(EngineProtocol, VolumesInput, Prot3D):
    """Finds the orientation and position of particles against volumes that are given and do not change.

    *What it is for.* New particles of a known structure, particles that a refinement left out, or a choice between known
    conformations: when the map is settled and only the poses are wanted, this takes the time of one iteration of a
    refinement.

    *Inputs.* Particles with CTF, white on black, and one or several volumes of any box, sampling rate or grey scale. Several
    volumes must stand in one orientation; each particle goes to the one where it is likeliest.

    *How it works.* All orientations are searched by vector search, the best candidates are scored with the particle's own
    CTF and refined continuously. With alignment _local_ the poses of the input are refined, nothing is searched.

    *Outputs.* The particles with projection alignment, log-likelihood and probability; with several volumes their classes.

    *Advice.* Give the resolution that the volume truly has: detail it does not hold pulls particles towards its noise. A map
    of these particles, reconstructed after this alignment, shows the volume's own detail wherever particles are noise: its
    FSC is not a gold standard. For that, refine.
    """

    _label = "align particles"
    _possibleOutputs = {"outputParticles": SetOfParticles, "outputClasses": SetOfClasses3D}
    _tree = settings.AlignSettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        self._addDeviceParams(form)
        form.addSection("Input")
        self._addParticlesParam(form, help="Particles with CTF, white on black.")
        self._addVolumesParam(form, "Reference volumes", "The maps to align to. Another box, sampling rate or grey scale does "
                              "not matter. Several maps divide the particles into as many classes.")
        self._addMaskParam(form, "Optional: 1 inside the particle, 0 in the solvent, with a soft edge, in the box of the "
                                 "particles. The volume is multiplied by it. Without it a sphere is used.")
        settings_form.add_settings(form, self._tree, INPUT)
        self._addSymmetryHelp(form)
        settings_form.add_remaining(form, "Search and computing", self._tree)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._inputsDigest(), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.alignStep, inputs, chosen, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertInputs()

    def alignStep(self, inputs: str, chosen: str):
        self._runAnew("align", self._inputOptions(), chosen, ALWAYS_NAMED)

    def createOutputStep(self, inputs: str, chosen: str):
        several = len(self._volumes()) > 1
        self._setOutput("outputParticles", self._alignedSet(self.inputParticles.get(), several),
                        self.inputParticles)
        if several:
            classes = self._createSetOfClasses3D(Pointer(self, extended="outputParticles"))
            classes.classifyItems(updateClassCallback=self._describeClass)
            self._setOutput("outputClasses", classes, self.inputParticles, *self.inputVolumes)

    def _describeClass(self, one: Class3D) -> None:
        one.setAlignmentProj()
        one.setRepresentative(self._volumes()[one.getObjId() - 1].clone())

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles = self.inputParticles.get()
        local = self.getEnumText("alignment") == "local"
        repeated = ["A local alignment searches no references that could be turned by chance: set *repeats* to 1, or the "
                    "alignment to _global_."] if local and self.repeats.get() > 1 else []
        return [*repeated, *self._settingErrors(), *self._particleErrors(particles, withPoses=local),
                *self._priorErrors(particles), *self._maskErrors(particles)]

    def _warnings(self):
        return self._deviceWarnings() + self._opticsWarnings() + self._samplingWarnings()

    def _summary(self):
        if not self.hasAttribute("outputParticles"):
            return ["The results are not ready yet."]
        report = self._report()
        sizes = report["class_sizes"]
        return [f"{self.outputParticles.getSize()} particles aligned to {self.resolution.get():g} A, symmetry "
                f"{self.symmetry.get()}, in {report['seconds']:.0f} s on {report['device']['kind']}.",
                *(f"Volume {number}: {size} particles." for number, size in enumerate(sizes, 1) if len(sizes) > 1),
                *(f"Warning: {text}" for text in report["warnings"])]

    def _methods(self):
        if not self.hasAttribute("outputParticles"):
            return []
        how = ("Their poses were refined locally" if self.getEnumText("alignment") == "local" else
               f"Orientations were found by vector search [{VECTOR_SEARCH}] and refined")
        return [f"{self.outputParticles.getSize()} particles were aligned with swiftres {Plugin.getActiveVersion()} "
                f"[{THESIS}] to {len(self._report()['class_sizes'])} reference map(s) at "
                f"{self.resolution.get():g} A in symmetry {self.symmetry.get()}. {how} by maximum likelihood."]

    def _citations(self):
        return [THESIS, VECTOR_SEARCH]
