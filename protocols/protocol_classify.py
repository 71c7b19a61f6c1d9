"""The protocol `swiftres - classify without alignment`: classes of structure among particles whose poses are known."""
from __future__ import annotations

import json
import os

from pwem.objects import Class3D, SetOfClasses3D, SetOfFSCs, SetOfParticles, SetOfVolumes
from pwem.protocols import ProtClassify3D
from pyworkflow.object import Pointer

from swiftres_plugin import layout, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol, VolumesInput

INPUT = ("classes", "resolution", "symmetry", "diameter")
ALWAYS_NAMED = ("classes", "resolution", "symmetry")
LEAST_PARTICLES = 50  # for each class
OUTPUTS = {"outputParticles": SetOfParticles, "outputClasses": SetOfClasses3D, "outputVolumes": SetOfVolumes,
           "outputFSCs": SetOfFSCs}


class ProtSwiftresClassify(EngineProtocol, VolumesInput, ProtClassify3D):
    """Divides particles with poses into classes that differ in structure, without aligning them anew.

    *What it is for.* Particles that were refined together and differ in a part: bound or not, open or closed, on one copy
    of an expanded set. As nothing is aligned it is quick, and a class cannot be a matter of poses.

    *Inputs.* Particles with CTF and projection alignment. A mask is optional: around the particle, or around the part in which
    classes should differ, which then alone is compared. Two or more volumes to begin with are optional too; without them the
    classes are found from the particles.

    *How it works.* First the directions in which the particles vary are found, at 15 A, and the particles are divided along
    them into classes of whatever size. Each round then makes the map of every class from the particles' shares in it, and
    takes new shares from the likelihood of each particle in each class; no particle is compared with a map that it is in. No
    class attracts by its size.

    *Outputs.* The particles with their class and its probability (__swiftresClassProbability_); the classes; a volume with
    half maps and an FSC for each class. A class that no particle needs stays empty and has no volume.

    *Advice.* Look at the agreement of the halves in the summary: what sets a class apart is noise where it is low (below 0.5 a
    warning says so). For a small part give a mask of it, or subtract the rest first. After _swiftres - symmetry expansion_
    every copy of a part is a particle of its own here. Refine the classes with _swiftres - 3D refinement_, all volumes given.
    """

    _label = "classify without alignment"
    _possibleOutputs = OUTPUTS
    _tree = settings.ClassifySettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        self._addDeviceParams(form)
        form.addSection("Input")
        self._addParticlesParam(form, condition="hasCTF and hasAlignmentProj",
                                help="Particles with CTF and projection alignment, white on black.")
        self._addVolumesParam(form, "Volumes to begin with", optional=True, help=(
            "Optional: two or more maps in the frame of the poses, one for each class. Box, sampling rate and grey scale do "
            "not matter. Without them the classes are found from the particles, as many as *classes* says."))
        self._addMaskParam(form, "Optional: what is compared, 1 inside and 0 outside with a soft edge, in the box of the "
                                 "particles: the particle, or the part in which classes should differ. Without it the solvent "
                                 "boundary is found from the map of all.")
        settings_form.add_settings(form, self._tree, INPUT)
        self._addSymmetryHelp(form)
        settings_form.add_remaining(form, "Classes and computing", self._tree)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._inputsDigest(), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.classifyStep, inputs, chosen, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertInputs()

    def classifyStep(self, inputs: str, chosen: str):
        self._runAnew("classify", self._inputOptions(), chosen, ALWAYS_NAMED)

    def createOutputStep(self, inputs: str, chosen: str):
        particles, sources = self.inputParticles.get(), (self.inputParticles, *self.inputVolumes)
        pixel_size_a, folder = particles.getSamplingRate(), self._getRunPath()
        self._setOutput("outputParticles", self._alignedSet(particles, several=True), self.inputParticles)
        classes = self._createSetOfClasses3D(Pointer(self, extended="outputParticles"))
        classes.classifyItems(updateClassCallback=self._describeClass)
        self._setOutput("outputClasses", classes, *sources)
        volumes, curves = self._createSetOfVolumes(), self._createSetOfFSCs()
        volumes.setSamplingRate(pixel_size_a)
        for number in self._filled():
            volumes.append(self._mapOf(folder, pixel_size_a, number))
            curves.append(self._fscOf(folder, f"class {number}", number))
        self._setOutput("outputVolumes", volumes, *sources)
        self._setOutput("outputFSCs", curves, *sources)

    def _describeClass(self, one: Class3D) -> None:
        one.setAlignmentProj()
        number = one.getObjId()
        if number in self._filled():
            one.setRepresentative(self._mapOf(self._getRunPath(), self.inputParticles.get().getSamplingRate(), number))

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles, volumes = self.inputParticles.get(), self._volumes()
        errors = [*self._settingErrors(), *self._particleErrors(particles, withPoses=True), *self._maskErrors(particles)]
        if len(volumes) == 1:
            errors.append("One volume makes no classes. Give two or more, or none to find them from the particles.")
        count = len(volumes) or self.classes.get()
        if particles is not None and particles.getSize() < LEAST_PARTICLES * count:
            errors.append(f"{count} classes need at least {LEAST_PARTICLES * count} particles, and there are "
                          f"{particles.getSize()}.")
        return errors

    def _warnings(self):
        return self._deviceWarnings() + self._opticsWarnings() + self._samplingWarnings()

    def _summary(self):
        if not self.hasAttribute("outputClasses"):
            return ["The results are not ready yet."]
        report = self._report()
        return [f"{report['particles']} particles in {len(self._filled())} classes, in {len(report['rounds'])} rounds.",
                *self._classLines(), *(f"Warning: {text}" for text in report["warnings"])]

    def _classLines(self) -> list[str]:
        """Size, resolution and agreement of every class."""
        report, lines = self._report(), []
        for number, (size, agreement) in enumerate(zip(report["class_sizes"], report["class_agreement"]), 1):
            told = (f"{self._resolutionOf(number):.2f} A, agreement of the halves {agreement:.2f}." if number in self._filled()
                    else "no volume.")
            lines.append(f"Class {number}: {size} particles, {told}")
        return lines

    def _methods(self):
        if not self.hasAttribute("outputClasses"):
            return []
        report = self._report()
        how = "from given maps" if self._volumes() else "from the directions in which the particles vary"
        return [f"{report['particles']} particles were divided into {len(report['class_sizes'])} classes with swiftres "
                f"{Plugin.getActiveVersion()} [{THESIS}] at the poses they had, {how}, by their likelihood to "
                f"{self.resolution.get():g} A against maps of other particles, the half sets kept apart.", *self._classLines()]

    def _citations(self):
        return [THESIS]

    # -------------------------- UTILS functions --------------------------
    def _filled(self) -> list[int]:
        """Numbers of the classes that have a volume."""
        return [number for number, _ in enumerate(self._report()["class_sizes"], 1)
                if os.path.exists(self._getRunPath(layout.map_name(number)))]
