"""The protocol `swiftres - 2D classification`: classes of one view each and their averages."""
from __future__ import annotations

import json

from pwem.objects import Class2D, Particle, SetOfAverages, SetOfClasses2D, SetOfParticles
from pwem.protocols import ProtClassify2D
from pyworkflow.object import Pointer

from swiftres_plugin import convert, layout, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol

INPUT = ("classes", "diameter", "finest_resolution", "max_offset")
ALWAYS_NAMED = ("classes",)


class ProtSwiftresClassify2D(EngineProtocol, ProtClassify2D):
    """Parts particles into classes that show one view each, and averages them.

    *What it is for.* The first look at new particles: whether they are there, from how many sides they are seen, and which of
    them are junk. The particles of the good classes go on, to an initial model or a refinement.

    *Inputs.* Particles with CTF, white on black. Their poses, if they have any, are not used.

    *How it works.* Averages are found stochastically, from random starts, coarse resolution first: every particle is compared
    with all averages at all in-plane rotations and shifts, with its own CTF, and shares itself out among them. Crowded
    classes start at a handicap, so that one does not draw all particles to itself. Then places are refined, and the
    averages are weighted by the signal-to-noise ratio that their own halves show.

    *Outputs.* The classes with their averages; the particles with in-plane alignment, class, log-likelihood and probability.
    The matrix of a particle carries its image onto the average of its class. Classes are numbered by size.

    *Advice.* _Analyze results_ shows all averages with size and resolution: click on those to keep and create the subset.
    Give the diameter: noise around the particle blurs the choice. Junk gathers in blurred averages of poor resolution; take
    some more classes if good views share one with it.
    """

    _label = "2D classification"
    _possibleOutputs = {"outputParticles": SetOfParticles, "outputClasses": SetOfClasses2D, "outputAverages": SetOfAverages}
    _tree = settings.Classify2dSettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        self._addDeviceParams(form)
        form.addSection("Input")
        self._addParticlesParam(form, help="Particles with CTF, white on black.")
        settings_form.add_settings(form, self._tree, INPUT)
        settings_form.add_remaining(form, "Search and computing", self._tree)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._digest(self.inputParticles), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.classifyStep, inputs, chosen, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertParticles()

    def classifyStep(self, inputs: str, chosen: str):
        self._runAnew("classify2d", ["--particles", self._particlesFile()], chosen, ALWAYS_NAMED)

    def createOutputStep(self, inputs: str, chosen: str):
        self._setOutput("outputParticles", self._alignedInPlane(self.inputParticles.get()), self.inputParticles)
        classes = self._createSetOfClasses2D(Pointer(self, extended="outputParticles"))
        classes.classifyItems(updateClassCallback=self._describeClass)
        self._setOutput("outputClasses", classes, self.inputParticles)
        averages = self._createSetOfAverages()
        averages.setSamplingRate(self.inputParticles.get().getSamplingRate())
        for number, _size in enumerate(self._report()["class_sizes"], 1):
            averages.append(self._average(number))
        self._setOutput("outputAverages", averages, self.inputParticles)

    def _alignedInPlane(self, particles: SetOfParticles) -> SetOfParticles:
        """The input particles with class and in-plane alignment."""
        found = convert.read_refined(self._getRunPath(layout.PARTICLES), particles.getSamplingRate())
        aligned = self._createSetOfParticles()
        aligned.copyInfo(particles)
        aligned.setAlignment2D()
        aligned.copyItems(particles, doClone=False, updateItemCallback=found.classify)
        return aligned

    def _describeClass(self, one: Class2D) -> None:
        one.setAlignment2D()
        one.setRepresentative(self._average(one.getObjId()))

    def _average(self, number: int) -> Particle:
        average = Particle(objId=number)
        average.setLocation(number, self._getRunPath(layout.CLASSES))
        average.setSamplingRate(self.inputParticles.get().getSamplingRate())
        average.setClassId(number)
        return average

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles = self.inputParticles.get()
        errors = self._settingErrors() + self._particleErrors(particles, withPoses=False)
        count = self.classes.get() or 0
        if particles is not None and count and particles.getSize() < 5 * count:
            errors.append(f"{count} classes need at least {5 * count} particles, and there are {particles.getSize()}.")
        return errors

    def _warnings(self):
        return self._deviceWarnings() + self._opticsWarnings()

    def _summary(self):
        if not self.hasAttribute("outputClasses"):
            return ["The results are not ready yet."]
        report = self._report()
        best = sorted(value for value in report["resolution_a"] if value)
        held = sum(size > 0 for size in report["class_sizes"])
        return [f"{report['particles']} particles in {held} classes, in {report['seconds']:.0f} s on "
                f"{report['device']['kind']}; the largest holds {max(report['class_sizes'])}.",
                *([f"Resolution of the averages: best {best[0]:.1f} A, median {best[len(best) // 2]:.1f} A."] if best else []),
                *(f"Warning: {text}" for text in report["warnings"])]

    def _methods(self):
        if not self.hasAttribute("outputClasses"):
            return []
        report = self._report()
        return [f"{report['particles']} particles were parted into {report['classes']} two-dimensional classes with swiftres "
                f"{Plugin.getActiveVersion()} [{THESIS}], by stochastic expectation maximisation over in-plane "
                "rotations and shifts with the CTF of each particle."]

    def _citations(self):
        return [THESIS]
