"""The protocol `swiftres`: it converts, runs the engine as a child process, and collects."""
from __future__ import annotations

import json
import os
import re
from enum import Enum
from functools import cached_property
from typing import Any

import pyworkflow.utils as pwutils
from pwem.objects import FSC, Class3D, SetOfClasses3D, SetOfParticles, SetOfVolumes, Volume
from pwem.protocols import ProtRefine3D
from pyworkflow import BETA
from pyworkflow.object import Pointer
from pyworkflow.protocol import GPU_LIST, STEPS_SERIAL, USE_GPU, params

from swiftres_plugin import convert, layout, settings
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form

MAY_CHANGE = ("iterations", "memory", "scratch")  # in a run that goes on
ALWAYS_NAMED = ("initial_resolution", "symmetry")  # on the command line, for who reads the log
SYMMETRY = re.compile(r"([CD][1-9]\d*|T|O|I[1-4]?)", re.IGNORECASE)
SYMMETRY_HELP = (
    "\n\nThe axes are those of RELION and Xmipp: Dn has a twofold axis on x (Scipion's Dxn), T a threefold on z (Tz3), "
    "I and I2 are I222r, I1 is I222, I3 and I4 are In25 and In25r.")


class SwiftresOutputs(Enum):
    """What a run gives: volume and FSC with one starting volume, classes and volumes with several."""

    outputParticles = SetOfParticles
    outputVolume = Volume
    outputFSC = FSC
    outputClasses = SetOfClasses3D
    outputVolumes = SetOfVolumes


class ProtSwiftres(ProtRefine3D):
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
    maps; the FSC, corrected for the effect of the mask. With several starting volumes: the particles, the classes
    and a volume for each.

    *Advice.* Begin with the defaults. Give the diameter when neighbouring particles are in the box. Take a higher
    initial resolution (in angstroms, so a coarser map) when the starting volume may be of another conformation. A
    run that was stopped goes on with _Continue_ after its last finished iteration.
    """

    _label = "swiftres"
    _devStatus = BETA
    _possibleOutputs = SwiftresOutputs
    stepsExecutionMode = STEPS_SERIAL

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        form.addHidden(USE_GPU, params.BooleanParam, default=True, label="Use GPU?",
                       help="Yes uses the GPU when the machine that runs the protocol has one, and its processor "
                            "otherwise. No always uses the processor.")
        form.addHidden(GPU_LIST, params.StringParam, default="0", label="GPU IDs",
                       help="GPUs to use: 0, for example, or 0 1 for two that share the particles.")
        form.addSection("Input")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", pointerCondition="hasCTF",
                      important=True, label="Particles", help="Particles with CTF, white on black.")
        form.addParam("inputVolumes", params.MultiPointerParam, pointerClass="Volume,SetOfVolumes", minNumObjects=1,
                      important=True, label="Starting volume",
                      help="A rough map of the particle. Another box, sampling rate or grey scale does not matter. "
                           "Several volumes divide the particles into as many classes.")
        form.addParam("mask", params.PointerParam, pointerClass="VolumeMask", allowsNull=True, label="Mask",
                      help="Optional: 1 inside the particle, 0 in the solvent, with a soft edge, in the box of the "
                           "particles. Without it the solvent boundary is found from the map.")
        settings_form.add_input_settings(form)
        symmetry = form.getParam("symmetry")
        symmetry.help.set(symmetry.help.get() + SYMMETRY_HELP)
        settings_form.add_other_sections(form)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        particles = self.inputParticles.get()
        inputs = json.dumps([particles.getObjId(), particles.getSize(), self._volumeIds(), self._maskId()])
        chosen = json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.refineStep, inputs, chosen, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        convert.write_particles(self.inputParticles.get(), self._particlesFile(), self._getExtraPath("converted"))
        for number, volume in enumerate(self._volumes(), 1):
            convert.write_map(volume, self._referenceFile(number))
        if self.mask.get() is not None:
            convert.write_map(self.mask.get(), self._maskFile())
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
        program, line = Plugin.getEngineCommand(["refine", *arguments, *self._computeOptions()])
        self.runJob(program, line, env=self._environ(), numberOfMpi=1)

    def createOutputStep(self, inputs: str, chosen: str):
        particles = self.inputParticles.get()
        pixel_size_a = particles.getSamplingRate()

        count = self._classCount()
        refined = convert.read_refined(self._getRunPath(layout.PARTICLES), pixel_size_a)
        aligned = self._createSetOfParticles()
        aligned.copyInfo(particles)
        aligned.setAlignmentProj()
        aligned.copyItems(particles, doClone=False, updateItemCallback=refined.classify if count > 1 else refined.update)
        self._defineOutputs(**{SwiftresOutputs.outputParticles.name: aligned})
        self._defineTransformRelation(self.inputParticles, aligned)
        for result in self._singleOutputs(pixel_size_a) if count == 1 else self._classOutputs(aligned, count):
            self._defineSourceRelation(self.inputParticles, result)
            for pointer in self.inputVolumes:
                self._defineSourceRelation(pointer, result)

    def _singleOutputs(self, pixel_size_a: float) -> list[Any]:
        """Volume and FSC of a run with one starting volume."""
        volume = self._classVolume(1, pixel_size_a)
        curves = convert.read_curves(self._getRunPath(layout.fsc_name()))
        fsc = convert.make_fsc(curves, "corrected", "corrected FSC")
        self._defineOutputs(**{SwiftresOutputs.outputVolume.name: volume, SwiftresOutputs.outputFSC.name: fsc})
        return [volume, fsc]

    def _classOutputs(self, aligned: SetOfParticles, count: int) -> list[Any]:
        """Classes, each with its volume, and the volumes by themselves; an empty class has a volume only."""
        pixel_size_a = aligned.getSamplingRate()
        volumes = self._createSetOfVolumes()
        volumes.setSamplingRate(pixel_size_a)
        for number in range(1, count + 1):
            volumes.append(self._classVolume(number, pixel_size_a))

        def describe(one: Class3D) -> None:
            one.setAlignmentProj()
            one.setRepresentative(self._classVolume(one.getObjId(), pixel_size_a))

        classes = self._createSetOfClasses3D(Pointer(self, extended=SwiftresOutputs.outputParticles.name))
        classes.classifyItems(updateClassCallback=describe)
        self._defineOutputs(**{SwiftresOutputs.outputClasses.name: classes, SwiftresOutputs.outputVolumes.name: volumes})
        return [classes, volumes]

    def _classVolume(self, number: int, pixel_size_a: float) -> Volume:
        """The map of class `number` (from 1) with its half maps."""
        volume = Volume(objId=number)
        volume.setFileName(self._getRunPath(layout.map_name(number)))
        volume.setHalfMaps([self._getRunPath(layout.half_name(half, number)) for half in (1, 2)])
        volume.setSamplingRate(pixel_size_a)
        return volume

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        errors = []
        particles = self.inputParticles.get()
        if not SYMMETRY.fullmatch(self.symmetry.get() or "") and not os.path.isfile(self.symmetry.get() or ""):
            errors.append(f"Unknown symmetry '{self.symmetry.get()}'. "
                          "Give C1, C2, ..., D2, ..., T, O, I, I1, I2, I3 or I4, or a file of matrices.")
        if particles is not None:
            errors += self._validateParticles(particles)
        try:
            settings.from_flat(settings_form.chosen(self))
        except (ValueError, TypeError) as error:
            errors.append(str(error))
        return errors

    def _validateParticles(self, particles: SetOfParticles) -> list[str]:
        errors = []
        if not particles.hasCTF():
            errors.append("The particles have no CTF. Estimate it, or assign it with a protocol of your choice.")
        if self.getEnumText("alignment") == "local" and not particles.hasAlignmentProj():
            errors.append("Local alignment starts from the poses of the particles, and these particles have none. "
                          "Choose 'global'.")
        mask, box = self.mask.get(), particles.getDim()
        if mask is not None and box and mask.getDim() and mask.getDim()[0] != box[0]:
            errors.append(f"The mask has a box of {mask.getDim()[0]} px, the particles of {box[0]} px. "
                          "Resample the mask.")
        return errors

    def _warnings(self):
        warnings = []
        if self.usesGpu() and not Plugin.hasGpu():
            warnings.append("A GPU was asked for, but this machine has no NVIDIA driver: "
                            "the run will use the processor.")
        particles, volumes = self.inputParticles.get(), self._volumes()
        if particles is not None and volumes:
            ours, theirs = particles.getSamplingRate(), volumes[0].getSamplingRate()
            if theirs and abs(ours - theirs) > 1e-3 * ours:
                warnings.append(f"The starting volume ({theirs:g} A/px) is resampled to the particles ({ours:g} A/px).")
        return warnings

    def _summary(self):
        if not self.hasAttribute(SwiftresOutputs.outputParticles.name):
            done = layout.finished_iterations(self._getRunPath())
            return [f"{len(done)} iterations finished." if done else "The results are not ready yet."]
        report = self.report
        return [f"Resolution (FSC 0.143): *{report['resolution_a']:.2f} A* "
                f"after {len(report['iterations'])} iterations.",
                f"{self.outputParticles.getSize()} particles, symmetry {self.symmetry.get()}, "
                f"on {report['device']['kind']} ({report['device']['name']}).",
                *self._classLines(), *self._pageLine(),
                *(f"Warning: {text}" for text in report.get("warnings", []))]

    def _pageLine(self) -> list[str]:
        """A link to the run's report, a page for any browser."""
        path = os.path.abspath(self._getRunPath(layout.REPORT))
        return [f"Report: [[{path}][{layout.REPORT}]]"] if os.path.exists(path) else []

    def _classLines(self) -> list[str]:
        """Size and resolution of every class, where there are several."""
        sizes = self.report["class_sizes"]
        found = enumerate(zip(sizes, self.report["class_resolution_a"]), 1) if len(sizes) > 1 else ()
        return [f"Class {number}: {size} particles, " + ("no resolution." if reached is None else f"{reached:.2f} A.")
                for number, (size, reached) in found]

    def _methods(self):
        if not self.hasAttribute(SwiftresOutputs.outputParticles.name):
            return []
        return [f"The map was refined from {self.outputParticles.getSize()} particles with swiftres "
                f"{Plugin.getActiveVersion()} [SwiftresThesis2023], starting from a map low-pass filtered to "
                f"{self.initialResolution.get():g} A, in symmetry {self.symmetry.get()}. Orientations were found by "
                f"vector search [Johnson2021]. The resolution of {self.report['resolution_a']:.2f} A is by the FSC=0.143 "
                "criterion between independently refined half maps, corrected for the mask by phase randomisation."]

    def _citations(self):
        return ["SwiftresThesis2023", "Johnson2021"]

    # -------------------------- UTILS functions --------------------------
    def _getRunPath(self, *names: str) -> str:
        """Folder of the engine's run, and files in it."""
        return self._getExtraPath("run", *names)

    @cached_property
    def report(self) -> dict[str, Any]:
        """The run's own report, `run.json`."""
        with open(self._getRunPath(layout.RUN)) as file:
            return json.load(file)

    def _particlesFile(self) -> str:
        return self._getExtraPath("input_particles.star")

    def _referenceFile(self, number: int) -> str:
        return self._getExtraPath(f"input_reference{number}.mrc")

    def _maskFile(self) -> str:
        return self._getExtraPath("input_mask.mrc")

    def _askedFile(self) -> str:
        return self._getExtraPath("asked.json")

    def _askedBefore(self) -> dict[str, Any]:
        """Settings of the run that is in the run folder, if there is one."""
        if not os.path.exists(self._askedFile()):
            return {}
        with open(self._askedFile()) as file:
            return json.load(file)

    def _volumes(self) -> list[Volume]:
        """Every starting volume that was pointed to, those within sets included."""
        found: list[Volume] = []
        for pointer in self.inputVolumes:
            target = pointer.get()
            if isinstance(target, SetOfVolumes):
                found += [volume.clone() for volume in target.iterItems()]
            elif target is not None:
                found.append(target)
        return found

    def _volumeIds(self) -> list[list[int]]:
        """Every pointer's object with its size, so that Continue sees a change."""
        targets = [pointer.get() for pointer in self.inputVolumes]
        return [[target.getObjId(), target.getSize() if isinstance(target, SetOfVolumes) else 1] for target in targets]

    def _classCount(self) -> int:
        return len(self.report["class_sizes"])

    def _maskId(self) -> int | None:
        mask = self.mask.get()
        return None if mask is None else mask.getObjId()

    def _inputOptions(self) -> list[str]:
        """What was converted, as options of the command line."""
        options = ["--particles", self._particlesFile()]
        for number in range(1, len(self._volumes()) + 1):
            options += ["--reference", self._referenceFile(number)]
        return options if self.mask.get() is None else [*options, "--mask", self._maskFile()]

    def _chosen(self) -> dict[str, Any]:
        """{setting name: value} of the form."""
        values = settings_form.chosen(self)
        named = SYMMETRY.fullmatch(values["symmetry"])
        return {**values, "symmetry": values["symmetry"].upper() if named else os.path.abspath(values["symmetry"])}

    def _environ(self) -> dict[str, str]:
        """The engine's environment; it records its runs in one file for the project, unless the site keeps another."""
        environ = Plugin.getEnviron()
        environ.setdefault(layout.RUNS_VARIABLE, os.path.abspath(self.getProject().getPath(layout.RUNS_DATABASE)))
        return environ

    def _computeOptions(self) -> list[str]:
        return ["--device", self._device(), "--threads", str(self.numberOfThreads.get())]

    def _device(self) -> str:
        """Device of this run, decided on the machine that runs it."""
        numbers = ",".join(str(number) for number in self.getGpuList())
        return f"cuda:{numbers}" if self.usesGpu() and Plugin.hasGpu() else "cpu"


def _fixed(chosen: dict[str, Any]) -> dict[str, Any]:
    """The settings that a run keeps from its beginning to its end."""
    return {name: value for name, value in chosen.items() if name not in MAY_CHANGE}
