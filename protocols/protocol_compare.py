"""The protocol `swiftres - compare alignments`: where two sets of poses agree, and by how much they differ."""
from __future__ import annotations

import json

import pyworkflow.utils as pwutils
from pwem.objects import SetOfParticles
from pwem.protocols import EMProtocol

from swiftres_plugin import convert, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol

INPUT = ("symmetry", "max_angle", "max_move")


# All particles that both sets have, with their differences; and those whose poses agree.
DIFFERENCES, AGREED = "outputDifferences", "outputParticles"


class ProtSwiftresCompare(EngineProtocol, EMProtocol):
    """Compares the poses that two alignments gave to the same particles, and keeps the particles on which they agree.

    *What it is for.* Two programs, two runs, or a run and the truth of a simulation: particles to which both give one pose
    are likely right; a consensus of them often makes a better map than all.

    *Inputs.* Two sets of particles with projection alignment. A particle is found in the other set by its image; particles
    of which one set was binned or extracted anew by their number.

    *How it works.* The rotation and the move between the two map frames, which every alignment is free to choose, are found
    from all particles and removed. The angle of a particle is the smallest over the symmetry.

    *Outputs.* _outputDifferences_: the particles of the first set that are in the second as well, with the attributes
    __swiftresAngleDifference_ (degrees) and __swiftresShiftDifference_ (angstroms). _outputParticles_: those of them below
    both limits, with the poses of the first set.

    *Advice.* Look at the histogram of the differences first, and put the limits where its peak ends.
    """

    _label = "compare alignments"
    _possibleOutputs = {DIFFERENCES: SetOfParticles, AGREED: SetOfParticles}
    _tree = settings.CompareSettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        form.addSection("Input")
        self._addParticlesParam(form, label="Particles", condition="hasAlignmentProj",
                                help="Particles with projection alignment. The outputs keep these poses.")
        self._addParticlesParam(form, "otherParticles", label="The same particles, aligned otherwise",
                                condition="hasAlignmentProj", help="What the poses are compared with.")
        settings_form.add_settings(form, self._tree, INPUT)
        self._addSymmetryHelp(form)
        settings_form.add_remaining(form, "Matching", self._tree)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._digest(self.inputParticles, self.otherParticles), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.compareStep, inputs, chosen, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        for pointer, name in ((self.inputParticles, "first"), (self.otherParticles, "second")):
            convert.write_particles(pointer.get(), self._starFile(name), self._getExtraPath(f"converted_{name}"))

    def compareStep(self, inputs: str, chosen: str):
        options = settings_form.as_options(json.loads(chosen), always=("symmetry", *INPUT[1:]), tree=self._tree)
        pwutils.cleanPath(self._differencesFile())
        self._runEngine(["compare", self._starFile("first"), self._starFile("second"), *options,
                         "--output", self._differencesFile()], onDevice=False)

    def createOutputStep(self, inputs: str, chosen: str):
        particles, found = self.inputParticles.get(), convert.read_differences(self._differencesFile())
        for name, suffix, update in ((DIFFERENCES, "Differences", found.update), (AGREED, "", found.keep_agreed)):
            kept = self._createSetOfParticles(suffix)
            kept.copyInfo(particles)
            kept.copyItems(particles, doClone=False, updateItemCallback=update)
            if kept.getSize() or self.hasAttribute(name):  # an empty set is no output, but Continue cannot take one back
                self._setOutput(name, kept, self.inputParticles, self.otherParticles)
        self._keepFigures(count=len(found), median_angle_deg=found.median_angle_deg, median_shift_a=found.median_shift_a,
                          agreed=found.agreed_count)

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        errors = self._settingErrors()
        for particles in (self.inputParticles.get(), self.otherParticles.get()):
            errors += self._particleErrors(particles, withPoses=True)
        return list(dict.fromkeys(errors))

    def _summary(self):
        found = self._keptFigures()
        if not found:
            return ["The results are not ready yet."]
        return [f"Median difference: *{found['median_angle_deg']:.2f} degrees*, {found['median_shift_a']:.2f} A, of "
                f"{found['count']} particles.",
                f"{found['agreed']} of them ({found['agreed'] / found['count']:.0%}) agree within {self.maxAngle.get():g} "
                f"degrees and {self.maxMove.get():g} A."]

    def _methods(self):
        found = self._keptFigures()
        if not found:
            return []
        return [f"Poses of {found['count']} particles from two alignments were compared with swiftres "
                f"{Plugin.getActiveVersion()} [{THESIS}] under symmetry {self.symmetry.get()}: the median difference was "
                f"{found['median_angle_deg']:.2f} degrees and {found['median_shift_a']:.2f} A. {found['agreed']} particles "
                f"within {self.maxAngle.get():g} degrees and {self.maxMove.get():g} A were kept."]

    def _citations(self):
        return [THESIS]

    # -------------------------- UTILS functions --------------------------
    def _starFile(self, name: str) -> str:
        return self._getExtraPath(f"input_{name}.star")

    def _differencesFile(self) -> str:
        return self._getExtraPath("differences.csv")
