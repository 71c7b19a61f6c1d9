"""The protocol `swiftres - 3D refinement`: it converts, runs the engine as a child process, and collects."""
from __future__ import annotations

import itertools
import json
import os
from typing import Any

import pyworkflow.utils as pwutils
from pwem.objects import FSC, Class3D, SetOfClasses3D, SetOfFSCs, SetOfParticles, SetOfVolumes, Volume, VolumeMask
from pwem.protocols import ProtRefine3D
from pyworkflow.object import Pointer

from swiftres_plugin import layout
from swiftres_plugin.constants import THESIS, VECTOR_SEARCH
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol, VolumesInput, read_kept

MAY_CHANGE = ("iterations", "memory", "scratch")  # in a run that goes on
ALWAYS_NAMED = ("initial_resolution", "symmetry")  # on the command line, for who reads the log


# One starting volume gives volume, FSC and mask; several give classes and volumes.
OUTPUTS = {
    "outputParticles": SetOfParticles, "outputVolume": Volume, "outputFSC": FSC, "outputMask": VolumeMask,
    "outputIterations": SetOfVolumes, "outputFSCs": SetOfFSCs, "outputClasses": SetOfClasses3D,
    "outputVolumes": SetOfVolumes}


class ProtSwiftres(EngineProtocol, VolumesInput, ProtRefine3D):
    """Refines a 3D map from particles by vector search.

    *What it is for.* Given particles with CTF and a rough starting volume, swiftres finds the orientation and
    position of every particle and reconstructs two independent half maps, their average and the Fourier shell
    correlation (FSC) between them.

    *Inputs.* Particles must be white on black, with CTF; phase-flipped particles are recognised by the flag of
    their set. The starting volume may have another box or sampling rate than the particles, and any grey scale: it
    is resampled, and only its frequencies below the _initial resolution_ are used. A mask is optional; without one
    the solvent boundary is found from the map in every iteration. Poses of the input are ignored unless the
    alignment is _local_. Half sets that came with the particles (from a RELION refinement, say) are kept, otherwise
    they are drawn at random from the seed.

    *How it works.* In each iteration projections of the map are searched exhaustively for every particle by vector
    search, the best candidates are scored with the particle's own CTF and refined continuously, and each half set
    is reconstructed on its own. The resolution used for the next iteration follows from the FSC of the two halves.
    The refinement stops by itself when neither the resolution nor the poses change.

    *Several starting volumes.* Each starts a class. In every iteration a particle is aligned to the maps of all
    classes and goes to the one where it is likeliest. The volumes should stand in one orientation and must differ at
    the initial resolution.

    *Outputs.* The particles with their projection alignment, log-likelihood and half set; the volume with its half
    maps; the FSC, corrected for the effect of the mask; the mask. With several starting volumes: the particles, the
    classes and a volume for each. The map and the FSC of each iteration appear while the refinement runs; volume and
    FSC are renewed with every iteration.

    *Advice.* Begin with the defaults. Give the diameter when neighbouring particles are in the box. Take a higher
    initial resolution (in angstroms, so a coarser map) when the starting volume may be of another conformation. A
    run that was stopped goes on with _Continue_ after its last finished iteration.
    """

    _label = "3D refinement"
    _possibleOutputs = OUTPUTS

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        self._addDeviceParams(form)
        form.addSection("Input")
        self._addParticlesParam(form, help="Particles with CTF, white on black.")
        self._addVolumesParam(
            form, "Starting volume", "A rough map of the particle. Another box, sampling rate or grey scale does not matter. "
            "Several volumes divide the particles into as many classes.")
        self._addMaskParam(form, "Optional: 1 inside the particle, 0 in the solvent, with a soft edge, in the box of the "
                                 "particles. Without it the solvent boundary is found from the map.")
        settings_form.add_input_settings(form)
        self._addSymmetryHelp(form)
        settings_form.add_other_sections(form)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        inputs, chosen = self._inputsDigest(), json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.refineStep, inputs, chosen, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        self._convertInputs()
        pwutils.cleanPath(self._getRunPath())

    def refineStep(self, inputs: str, chosen: str):
        """Run the engine; a run of the same settings that was interrupted goes on after its last finished iteration."""
        asked = json.loads(chosen)
        if layout.finished_iterations(self._getRunPath()) and _fixed(self._askedBefore()) == _fixed(asked):
            self.info("Going on after the last finished iteration.")
            changeable = {name: asked[name] for name in MAY_CHANGE}
            arguments = ["--resume", self._getRunPath(), *settings_form.as_options(changeable)]
        else:
            pwutils.cleanPath(self._getRunPath())
            arguments = [*self._inputOptions(), *settings_form.as_options(asked, always=ALWAYS_NAMED),
                         "--output", self._getRunPath()]
        with open(self._askedFile(), "w") as file:
            json.dump(asked, file)
        self._runEngineWatched(["refine", *arguments], self._showIterations)

    def createOutputStep(self, inputs: str, chosen: str):
        self._showIterations(anew=True)
        count = self._classCount()
        aligned = self._alignedSet(self.inputParticles.get(), several=count > 1)
        self._setOutput("outputParticles", aligned, self.inputParticles)
        if count > 1:
            self._defineClasses(self.outputParticles, count)

    def _showIterations(self, anew: bool = False) -> None:
        """Outputs of the iterations that are finished: the newest map and curve, and those of every iteration.

        The engine writes its report last in an iteration, so all files of the iterations in it are there. `anew` renews
        outputs that may be of an earlier run.
        """
        done, count, pixel_size_a = len(self._report().get("iterations", ())), self._classCount(), self._pixelSize()
        finished = layout.finished_iterations(self._getRunPath())[:done]
        if done == 0 or (sum(_classesIn(folder) for _, folder in finished) == self._shownCurves() and not anew):
            return
        sources = (self.inputParticles, *self.inputVolumes)
        self._setOutput("outputIterations", self._iterationVolumes(finished, pixel_size_a), *sources)
        self._setOutput("outputFSCs", self._iterationCurves(finished), *sources)
        if count == 1 or self.hasAttribute("outputVolume"):
            folder = self._getRunPath()
            self._setOutput("outputVolume", self._mapOf(folder, pixel_size_a), *sources)
            self._setOutput("outputFSC", self._fscOf(folder), *sources)
            self._setOutput("outputMask", self._maskOf(folder, pixel_size_a), *sources)
        if count > 1 and self.hasAttribute("outputVolume"):  # one structure, which was divided on the way
            self.outputVolume.setObjLabel(f"map of class 1 of {count}")
            self._store(self.outputVolume)

    def _iterationVolumes(self, finished, pixelSize: float) -> SetOfVolumes:
        """The map of every class after every iteration."""
        volumes = self._createSetOfVolumes(suffix="Iterations")
        volumes.setSamplingRate(pixelSize)
        for iteration, folder in finished:
            count = _classesIn(folder)
            for number in range(1, count + 1):
                volume = Volume(objLabel=_called(iteration, number, count))  # without halves: only the newest are kept
                volume.setFileName(self._getRunPath(folder.name, layout.map_name(number)))
                volumes.append(volume)
        return volumes

    def _iterationCurves(self, finished) -> SetOfFSCs:
        """The corrected FSC of every class after every iteration."""
        curves = self._createSetOfFSCs()
        for iteration, folder in finished:
            count = _classesIn(folder)
            for number in range(1, count + 1):
                curves.append(self._fscOf(self._getRunPath(folder.name), _called(iteration, number, count), number))
        return curves

    def _defineClasses(self, aligned: SetOfParticles, count: int) -> None:
        """Classes, each with its volume, and the volumes by themselves; an empty class has a volume only."""
        pixel_size_a, sources = aligned.getSamplingRate(), (self.inputParticles, *self.inputVolumes)
        volumes = self._createSetOfVolumes()
        volumes.setSamplingRate(pixel_size_a)
        for number in range(1, count + 1):
            volumes.append(self._mapOf(self._getRunPath(), pixel_size_a, number))

        def describe(one: Class3D) -> None:
            one.setAlignmentProj()
            one.setRepresentative(self._mapOf(self._getRunPath(), pixel_size_a, one.getObjId()))

        classes = self._createSetOfClasses3D(Pointer(self, extended="outputParticles"))
        classes.classifyItems(updateClassCallback=describe)
        self._setOutput("outputClasses", classes, *sources)
        self._setOutput("outputVolumes", volumes, *sources)

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        particles = self.inputParticles.get()
        errors = self._settingErrors()
        local = self.getEnumText("alignment") == "local"
        if local and particles is not None and not particles.hasAlignmentProj():
            errors.append("Local alignment starts from the poses of the particles, and these particles have none. "
                          "Choose 'global'.")
        return [*errors, *self._particleErrors(particles, withPoses=False), *self._priorErrors(particles),
                *self._classErrors(), *self._maskErrors(particles)]

    def _classErrors(self) -> list[str]:
        """Classes to be found, where each starting volume is one, or where the particles are on other machines."""
        if self.classes.get() <= 1:
            return []
        errors = []
        if len(self._volumes()) > 1:
            errors.append("Several starting volumes are classes of their own. Give one volume, or set *Classes* to 1.")
        if (self.cluster.get() or "").strip():
            errors.append("Classes are found in one process. Leave *Cluster* empty, or set *Classes* to 1.")
        return errors

    def _warnings(self):
        return self._deviceWarnings() + self._opticsWarnings() + self._samplingWarnings()

    def _summary(self):
        if not self.hasAttribute("outputParticles"):
            return self._progressLines()
        report = self._report()
        return [f"Resolution (FSC 0.143): *{report['resolution_a']:.2f} A* "
                f"after {len(report['iterations'])} iterations.",
                f"{self.outputParticles.getSize()} particles, symmetry {self.symmetry.get()}, "
                f"on {report['device']['kind']} ({report['device']['name']}).",
                *self._classLines(), *self._undividedLine(), *self._pageLine(),
                *(f"Warning: {text}" for text in report.get("warnings", []))]

    def _progressLines(self) -> list[str]:
        """How far a run is that has not ended."""
        done = self._report().get("iterations", [])
        if not done:
            return ["The results are not ready yet."]
        reached = done[-1]["resolution_a"]
        return [f"{len(done)} iterations finished" + (f", resolution {reached:.2f} A." if reached else ".")]

    def _pageLine(self) -> list[str]:
        """A link to the run's report, a page for any browser."""
        path = os.path.abspath(self._getRunPath(layout.REPORT))
        return [f"Report: [[{path}][{layout.REPORT}]]"] if os.path.exists(path) else []

    def _classLines(self) -> list[str]:
        """Size and resolution of every class, where there are several."""
        report = self._report()
        sizes = report["class_sizes"]
        found = enumerate(zip(sizes, report["class_resolution_a"]), 1) if len(sizes) > 1 else ()
        return [f"Class {number}: {size} particles, " + ("no resolution." if reached is None else f"{reached:.2f} A.")
                for number, (size, reached) in found]

    def _undividedLine(self) -> list[str]:
        """Why there are no classes, where some were asked for."""
        if self.classes.get() <= 1 or self._classCount() > 1:
            return []
        return [f"Not divided into {self.classes.get()} classes: the structure was not at rest when the iterations ran out. "
                "*Continue* with more iterations."]

    def _methods(self):
        if not self.hasAttribute("outputParticles"):
            return []
        report, particles = self._report(), self.outputParticles
        count = self._classCount()
        what = "The map was" if count == 1 else f"The maps of {count} classes were"
        return [f"{what} refined from {particles.getSize()} particles with swiftres {Plugin.getActiveVersion()} "
                f"[{THESIS}] in symmetry {self.symmetry.get()}. Images had {particles.getDim()[0]} px of "
                f"{particles.getSamplingRate():g} A, starting maps were low-pass filtered to {self.initialResolution.get():g} "
                f"A. {self._howAligned(report['iterations'])} The resolution of {report['resolution_a']:.2f} A is by the "
                "FSC=0.143 criterion between independently refined half maps, corrected for the mask by phase "
                "randomisation.", *self._classLines()]

    @staticmethod
    def _howAligned(iterations: list[dict[str, Any]]) -> str:
        searches = sum(iteration["exhaustive"] for iteration in iterations)
        if searches == 0:
            return f"In {len(iterations)} iterations the given orientations were refined locally by maximum likelihood."
        return (f"In {searches} of {len(iterations)} iterations orientations were found by exhaustive vector search "
                f"[{VECTOR_SEARCH}]; in all they were refined continuously by maximum likelihood.")

    def _citations(self):
        return [THESIS, VECTOR_SEARCH]

    # -------------------------- UTILS functions --------------------------
    def _askedFile(self) -> str:
        return self._getExtraPath("asked.json")

    def _askedBefore(self) -> dict[str, Any]:
        """Settings of the run that is in the run folder, if there is one."""
        return read_kept(self._askedFile())

    def _classCount(self) -> int:
        return len(self._report().get("class_sizes", ()))

    def _pixelSize(self) -> float:
        return self.inputParticles.get().getSamplingRate()

    def _shownCurves(self) -> int:
        """Curves, one a class and iteration, that are an output already."""
        shown = getattr(self, "outputFSCs", None)
        return 0 if shown is None else shown.getSize()


def _called(iteration: int, number: int, count: int) -> str:
    """What an output of an iteration is called."""
    return f"iteration {iteration}" if count == 1 else f"iteration {iteration}, class {number}"


def _fixed(chosen: dict[str, Any]) -> dict[str, Any]:
    """The settings that a run keeps from its beginning to its end."""
    return {name: value for name, value in chosen.items() if name not in MAY_CHANGE}


def _classesIn(folder) -> int:
    """Classes of an iteration: a refinement may divide its particles on the way."""
    return next(number for number in itertools.count() if not (folder / layout.map_name(number + 1)).exists())
