"""The protocol `swiftres - initial model`: one or several starting volumes from particles alone."""
from __future__ import annotations

import json
import os
from typing import Any

from pwem.objects import Class3D, SetOfClasses3D, SetOfParticles, SetOfVolumes, Volume
from pwem.protocols import ProtInitialVolume
from pyworkflow.object import Pointer

from swiftres_plugin import layout, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol

INPUT = ("symmetry", "count", "diameter", "finest_resolution", "max_offset", "starts")
ALWAYS_NAMED = ("symmetry", "count")
LEAST_PARTICLES = 20  # for each volume
HAND = "The hand is undetermined: projections do not tell a volume from its mirror image."
OUTPUTS = {"outputParticles": SetOfParticles, "outputVolume": Volume, "outputVolumes": SetOfVolumes,
           "outputClasses": SetOfClasses3D}


class ProtSwiftresInitialModel(EngineProtocol, ProtInitialVolume):
    """Finds one or several starting volumes from particles alone.

    *What it is for.* To begin a refinement when no map of the particle is known, or when one should not bias the result. With
    several volumes, particles that differ a lot are parted, and what is no particle finds a place of its own.

    *Inputs.* Particles with CTF, white on black. Poses that they may have are ignored.

    *How it works.* The particles are first parted into classes of one view. From random orientations of these classes, each
    step shares every class out over all orientations by its likelihood, from a coarse to a finer resolution. The likeliest of
    several such starts go on over single particles, and the volume that explains others best is taken: all particles are
    aligned to it and make the next, twice.

    *Outputs.* The volume (with several: the volumes and the classes) and the particles with their poses. There are no half
    maps: a resolution cannot be measured here, a refinement does that.

    *The hand is undetermined.* Projections do not tell a volume from its mirror image, so the hand of the result is one of two
    by chance. Look at helices once they are resolved, and flip the volume if they turn the wrong way.

    *Advice.* Begin with symmetry C1 when the group is not known, and look at the volume. Name the diameter of the particle
    where the box is more than twice as wide. The summary tells how many of the starts came to the same volume: where no
    other did, do not trust it, and run it again with more starts, more particles or the right symmetry. Go on with
    _swiftres - 3D refinement_ at the initial resolution that the summary names.
    """

    _label = "initial model"
    _possibleOutputs = OUTPUTS
    _tree = settings.InitialModelSettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        self._addDeviceParams(form)
        form.addSection("Input")
        self._addParticlesParam(form, help="Particles with CTF, white on black. Poses that they have are ignored.")
        settings_form.add_settings(form, self._tree, INPUT)
        self._addSymmetryHelp(form)
        settings_form.add_remaining(form, "Search and computing", self._tree)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._digest(self.inputParticles), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.searchStep, inputs, chosen, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertParticles()

    def searchStep(self, inputs: str, chosen: str):
        self._runAnew("initial-model", ["--particles", self._particlesFile()], chosen, ALWAYS_NAMED)

    def createOutputStep(self, inputs: str, chosen: str):
        count = self.count.get()
        aligned = self._alignedSet(self.inputParticles.get(), several=count > 1)
        self._setOutput("outputParticles", aligned, self.inputParticles)
        if count == 1:
            self._setOutput("outputVolume", self._model(1), self.inputParticles)
            return
        volumes = self._createSetOfVolumes()
        volumes.setSamplingRate(self._pixelSize())
        for number in range(1, count + 1):
            volumes.append(self._model(number))
        classes = self._createSetOfClasses3D(Pointer(self, extended="outputParticles"))
        classes.classifyItems(updateClassCallback=self._describeClass)
        self._setOutput("outputClasses", classes, self.inputParticles)
        self._setOutput("outputVolumes", volumes, self.inputParticles)

    def _describeClass(self, one: Class3D) -> None:
        one.setAlignmentProj()
        one.setRepresentative(self._model(one.getObjId()))

    def _model(self, number: int) -> Volume:
        """Volume `number`, from 1."""
        volume = Volume(objId=number)
        volume.setFileName(self._getRunPath(layout.map_name(number)))
        volume.setSamplingRate(self._pixelSize())
        return volume

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles = self.inputParticles.get()
        errors = self._settingErrors() + self._particleErrors(particles, withPoses=False)
        finest = self.finestResolution.get()
        if particles is None:
            return errors
        least = LEAST_PARTICLES * self.count.get()
        if particles.getSize() < least:
            errors.append(f"{self.count.get()} volume(s) need at least {least} particles, the set has {particles.getSize()}.")
        if 0 < finest < 2 * particles.getSamplingRate():
            errors.append(f"The finest resolution ({finest:g} A) is beyond the Nyquist limit of the particles "
                          f"({2 * particles.getSamplingRate():g} A).")
        return errors

    def _warnings(self):
        return self._deviceWarnings() + self._opticsWarnings()

    def _summary(self):
        if not self.hasAttribute("outputParticles"):
            return ["The results are not ready yet."]
        report = self._report()
        sizes, picture = report["class_sizes"], os.path.abspath(self._getRunPath(layout.SLICES))
        return [f"{len(sizes)} volume(s) from {report['particles']} particles, symmetry {self.symmetry.get()}, "
                f"to {report['resolution_a']:.1f} A.",
                *(f"Volume {number}: {size} particles." for number, size in enumerate(sizes, 1) if len(sizes) > 1),
                *self._agreement(report), f"*{HAND}*", f"Sections and projections: [[{picture}][{layout.SLICES}]]"]

    def _methods(self):
        if not self.hasAttribute("outputParticles"):
            return []
        report = self._report()
        return [f"{len(report['class_sizes'])} initial map(s) were found from {report['particles']} particles with swiftres "
                f"{Plugin.getActiveVersion()} [{THESIS}]: by expectation maximisation over the sums of 2D classes from "
                f"{self.starts.get()} random starts, then by two rounds of all particles, to {report['resolution_a']:.1f} A, "
                f"in symmetry {self.symmetry.get()}. Their hand was left to chance."]

    def _citations(self):
        return [THESIS]

    # -------------------------- UTILS functions --------------------------
    @staticmethod
    def _agreement(report: dict[str, Any]) -> list[str]:
        """How many starts came to the same volumes, and what to do next."""
        told = f"{report['agreeing']} of the {len(report['agreement'])} likeliest random starts came to the same volume(s)."
        if report["doubtful"]:
            return [f"*{told} They may mean nothing: look at them before you go on.*"]
        resolution = report["initial_resolution_a"]
        return [f"{told} Go on with _swiftres - 3D refinement_ at an initial resolution of {resolution:g} A."]

    def _pixelSize(self) -> float:
        return self.inputParticles.get().getSamplingRate()
