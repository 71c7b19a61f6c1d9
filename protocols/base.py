"""What the protocols share: device parameters, the child process of the engine, and outputs made from its files."""
from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pyworkflow.utils as pwutils
from pwem.objects import FSC, SetOfParticles, SetOfVolumes, Volume, VolumeMask
from pyworkflow import BETA
from pyworkflow.object import Pointer, Set
from pyworkflow.protocol import GPU_LIST, STEPS_SERIAL, USE_GPU, params

from swiftres_plugin import convert, layout, settings
from swiftres_plugin.constants import PROGRAM, SYMMETRY
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form

SYMMETRY_HELP = (
    "\n\nThe axes are those of RELION and Xmipp: Dn has a twofold axis on x (Scipion's Dxn), T a threefold on z (Tz3), "
    "I and I2 are I222r, I1 is I222, I3 and I4 are In25 and In25r.")
LOOK_AFTER_S = 5.0  # how often a running engine is asked for new results


def read_kept(path: str) -> dict[str, Any]:
    """What a JSON file of a run holds; nothing before it is written."""
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


class EngineProtocol:
    """Mixed into every protocol: convert -> run the engine in a child process -> collect.

    `_tree` and `_choices` say which settings the form offers: those of the command that the protocol runs.
    """

    _devStatus = BETA
    stepsExecutionMode = STEPS_SERIAL
    _tree: type = settings.RefineSettings
    _choices: Sequence[str] | None = None

    @classmethod
    def getClassLabel(cls, prependPackageName=True):
        """'swiftres - reconstruct': the program's name, where Scipion would take that of the Python package."""
        label = cls.__dict__.get("_label", cls.__name__)
        return f"{PROGRAM} - {label}" if prependPackageName else label

    # -------------------------- parameters --------------------------
    def _addDeviceParams(self, form):
        form.addHidden(USE_GPU, params.BooleanParam, default=True, label="Use GPU?",
                       help="Yes uses the GPU when the machine that runs the protocol has one, and its processor "
                            "otherwise. No always uses the processor.")
        form.addHidden(GPU_LIST, params.StringParam, default="0", label="GPU IDs",
                       help="GPUs to use: 0, for example, or 0 1 for two that share the particles.")

    def _addParticlesParam(self, form, name="inputParticles", label="Particles", condition="hasCTF", help=""):
        form.addParam(name, params.PointerParam, pointerClass="SetOfParticles", pointerCondition=condition,
                      important=True, label=label, help=help)

    def _addMaskParam(self, form, help, label="Mask"):
        form.addParam("mask", params.PointerParam, pointerClass="VolumeMask", allowsNull=True, label=label, help=help)

    def _addSymmetryHelp(self, form):
        symmetry = form.getParam("symmetry")
        symmetry.help.set(symmetry.help.get() + SYMMETRY_HELP)

    def _chosen(self) -> dict[str, Any]:
        """{setting name: value} of the form."""
        values = settings_form.chosen(self, self._tree, self._choices)
        if "symmetry" not in values:
            return values
        named = SYMMETRY.fullmatch(values["symmetry"])
        return {**values, "symmetry": values["symmetry"].upper() if named else values["symmetry"]}

    # -------------------------- files --------------------------
    def _getRunPath(self, *names: str) -> str:
        """Folder of the engine's run, and files in it."""
        return self._getExtraPath("run", *names)

    def _particlesFile(self) -> str:
        return self._getExtraPath("input_particles.star")

    def _digest(self, *pointers: Pointer) -> str:
        """What these inputs are, so that Continue sees a change."""
        targets = [pointer.get() for pointer in pointers]
        return json.dumps([None if target is None else [target.getObjId(), target.getSize() if isinstance(target, Set) else 1]
                           for target in targets])

    def _convertParticles(self) -> None:
        """Write the particles as the engine reads them."""
        convert.write_particles(self.inputParticles.get(), self._particlesFile(), self._getExtraPath("converted"))

    def _convertMask(self) -> None:
        """Write the mask, if there is one, as the engine reads it."""
        if self.mask.get() is not None:
            convert.write_map(self.mask.get(), self._maskFile())

    def _maskFile(self) -> str:
        return self._getExtraPath("input_mask.mrc")

    def _maskOptions(self) -> list[str]:
        return [] if self.mask.get() is None else ["--mask", self._maskFile()]

    # -------------------------- running --------------------------
    def _runEngine(self, arguments: Sequence[str], onDevice: bool = True) -> None:
        """Run a command of the engine in a child process."""
        device = self._computeOptions() if onDevice else []
        program, line = Plugin.getEngineCommand([*arguments, *device])
        self.runJob(program, line, env=self._environ(), numberOfMpi=1)

    def _environ(self) -> dict[str, str]:
        """The engine's environment; it records its runs in one file for the project, unless the site keeps another."""
        environ = Plugin.getEnviron()
        environ.setdefault(layout.RUNS_VARIABLE, os.path.abspath(self.getProject().getPath(layout.RUNS_DATABASE)))
        return environ

    def _runAnew(self, command: str, inputs: Sequence[str], chosen: str, always: Sequence[str], onDevice: bool = True) -> None:
        """Run a command from its start, with the settings `chosen` (JSON), into the folder of the run."""
        pwutils.cleanPath(self._getRunPath())  # of an attempt that was stopped
        self._runInto(self._getRunPath(), command, inputs, chosen, always, onDevice)

    def _runAnewToParticles(self, command: str, inputs: Sequence[str], chosen: str, always: Sequence[str]) -> None:
        """As `_runAnew`, a command that writes particles and no folder, on the processor."""
        pwutils.cleanPath(self._getRunPath())
        pwutils.makePath(self._getRunPath())
        self._runInto(self._getRunPath(layout.PARTICLES), command, inputs, chosen, always, onDevice=False)

    def _runInto(self, output: str, command: str, inputs: Sequence[str], chosen: str, always: Sequence[str],
                 onDevice: bool) -> None:
        options = settings_form.as_options(json.loads(chosen), always=always, tree=self._tree)
        self._runEngine([command, *inputs, *options, "--output", output], onDevice)

    def _runEngineWatched(self, arguments: Sequence[str], look: Callable[[], None]) -> None:
        """As `_runEngine`, calling `look` every few seconds. The job waits in a thread: only this one may use databases.

        A step that goes to a queue by itself is waited for in this thread, which Scipion knows it by; nobody looks meanwhile.
        """
        if self.useQueueForSteps():
            self._runEngine(arguments)
            return
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(self._runEngine, arguments)
            while not wait([job], timeout=LOOK_AFTER_S).done:
                try:
                    look()
                except (OSError, sqlite3.Error) as error:  # a locked database, a file just replaced: the next look will do
                    self.warning(f"Results so far could not be shown: {error}")
            job.result()

    def _computeOptions(self) -> list[str]:
        return ["--device", self._device(), "--threads", str(self.numberOfThreads.get())]

    def _device(self) -> str:
        """Device of this run, decided on the machine that runs it; where that is another one, a GPU asked for is there."""
        if not self.usesGpu() or not (Plugin.hasGpu() or self.useQueueForSteps()):
            return "cpu"
        return "cuda:" + ",".join(str(number) for number in self._gpusHere())

    def _gpusHere(self) -> list[int]:
        """The GPUs by their numbers in this process: a queue shows a job its own ones only, counted from 0."""
        running = getattr(self, "_stepsExecutor", None)
        return self.getGpuList() if running is None else running.getGpuList()

    def getSubmitDict(self) -> dict[str, Any]:
        """What the template of a queue may name; no GPU is asked for where the form says that none is used."""
        return {**super().getSubmitDict(), "GPU_COUNT": len(self.getGpuList()) if self.usesGpu() else 0}

    def _report(self) -> dict[str, Any]:
        """The run's own report, `run.json`; empty when there is none yet."""
        return read_kept(self._getRunPath(layout.RUN))

    def _keepFigures(self, **figures: float) -> None:
        """Keep what the summary tells: it is asked for in the windows' own thread, where no table of particles is read."""
        with open(self._figuresFile(), "w") as file:
            json.dump(figures, file)

    def _keptFigures(self) -> dict[str, float]:
        """What the last step kept; empty before it."""
        return read_kept(self._figuresFile())

    def _figuresFile(self) -> str:
        return self._getExtraPath("figures.json")

    # -------------------------- outputs --------------------------
    def _setOutput(self, name: str, result: Any, *sources: Any) -> None:
        """Define an output, or renew the one there is: its id, and so what points to it, stays.

        `sources` are the pointers that the output comes from; relations are made once.
        """
        if self.hasAttribute(name):
            there = getattr(self, name)
            if isinstance(result, Set):
                result.write()
            there.copy(result, copyId=False, **({"ignoreAttrs": []} if isinstance(result, Set) else {}))
            self._store(there)
            for one in (result, there) if isinstance(result, Set) else ():
                one.close()  # `there` may still read the file that the new set replaced
            return
        self._defineOutputs(**{name: result})
        for pointer in sources:
            relate = self._defineTransformRelation if isinstance(result, SetOfParticles) else self._defineSourceRelation
            relate(pointer, result)

    def _mapOf(self, folder: str, pixelSize: float, number: int = 1) -> Volume:
        """The map of class `number` (from 1) that lies in `folder`, with its half maps."""
        volume = Volume(objId=number)
        volume.setFileName(f"{folder}/{layout.map_name(number)}")
        volume.setHalfMaps([f"{folder}/{layout.half_name(half, number)}" for half in (1, 2)])
        volume.setSamplingRate(pixelSize)
        return volume

    def _fscOf(self, folder: str, label: str = "corrected FSC", number: int = 1) -> FSC:
        return convert.make_fsc(convert.read_curves(f"{folder}/{layout.fsc_name(number)}"), "corrected", label)

    def _resolutionOf(self, number: int = 1, curve: str = "corrected") -> float:
        """Resolution (A) of class `number` by one of the curves of the run's FSC."""
        return convert.resolution_a(convert.read_curves(self._getRunPath(layout.fsc_name(number))), curve)

    def _maskOf(self, folder: str, pixelSize: float) -> VolumeMask:
        mask = VolumeMask()
        mask.setFileName(f"{folder}/{layout.mask_name()}")
        mask.setSamplingRate(pixelSize)
        return mask

    def _alignedSet(self, particles: SetOfParticles, several: bool) -> SetOfParticles:
        """The input particles with what the engine found, those that it left out left out; with classes when `several`."""
        found = convert.read_refined(self._getRunPath(layout.PARTICLES), particles.getSamplingRate())
        aligned = self._createSetOfParticles()
        aligned.copyInfo(particles)
        aligned.setAlignmentProj()
        aligned.copyItems(particles, doClone=False, updateItemCallback=found.classify if several else found.update)
        return aligned

    # -------------------------- checks and texts --------------------------
    def _settingErrors(self) -> list[str]:
        errors = []
        asked = self.symmetry.get() or "" if self.hasAttribute("symmetry") else "C1"
        if not SYMMETRY.fullmatch(asked) and not os.path.isfile(asked):
            errors.append(f"Unknown symmetry '{asked}'. "
                          "Give C1, C2, ..., D2, ..., T, O, I, I1, I2, I3 or I4, or a file of matrices.")
        try:
            settings.from_flat(settings_form.chosen(self, self._tree, self._choices), self._tree)
        except (ValueError, TypeError) as error:
            errors.append(str(error))
        return errors

    def _particleErrors(self, particles: SetOfParticles | None, withPoses: bool) -> list[str]:
        if particles is None:
            return []
        errors = []
        if not particles.hasCTF():
            errors.append("The particles have no CTF. Estimate it, or assign it with a protocol of your choice.")
        if withPoses and not particles.hasAlignmentProj():
            errors.append("This needs the poses of the particles (projection alignment), and these particles have none.")
        return errors

    def _priorErrors(self, particles: SetOfParticles | None) -> list[str]:
        asked = self.anglePrior.get() or self.shiftPrior.get()
        if not asked or particles is None or particles.hasAlignmentProj():
            return []
        return ["*Angle prior* and *Shift prior* keep to the poses of the particles, and these particles have none. Set both "
                "to 0."]

    def _maskErrors(self, particles: SetOfParticles | None) -> list[str]:
        mask, box = self.mask.get(), None if particles is None else particles.getDim()
        if mask is None or not box or not mask.getDim() or mask.getDim()[0] == box[0]:
            return []
        return [f"The mask has a box of {mask.getDim()[0]} px, the particles of {box[0]} px. Resample the mask."]

    def _deviceWarnings(self) -> list[str]:
        if self.usesGpu() and not Plugin.hasGpu():
            return ["A GPU was asked for, but this machine has no NVIDIA driver: the run will use the processor."]
        return []

    def _opticsWarnings(self) -> list[str]:
        particles = self.inputParticles.get()
        groups = 0 if particles is None else convert.forgotten_groups(particles)
        if not groups:
            return []
        return [f"The particles have {groups} optics groups, but do not say which of them they are in (the import of the "
                "RELION plugin forgets it): all are taken for the first. *relion - assign optics groups* tells them apart "
                "again; where voltage, aberrations and pixel size are alike, nothing is lost."]


class VolumesInput:
    """Mixed into protocols with one or several volumes in `inputVolumes`."""

    def _addVolumesParam(self, form, label, help, optional=False):
        form.addParam("inputVolumes", params.MultiPointerParam, pointerClass="Volume,SetOfVolumes",
                      minNumObjects=0 if optional else 1, allowsNull=optional, important=not optional, label=label, help=help)

    def _inputsDigest(self) -> str:
        """What the inputs are, so that Continue sees a change."""
        return self._digest(self.inputParticles, self.mask, *self.inputVolumes)

    def _volumes(self) -> list[Volume]:
        """Every volume that was pointed to, those within sets included."""
        found: list[Volume] = []
        for pointer in self.inputVolumes:
            target = pointer.get()
            if isinstance(target, SetOfVolumes):
                found += [volume.clone() for volume in target.iterItems()]
            elif target is not None:
                found.append(target)
        return found

    def _convertInputs(self) -> None:
        """Write what the engine reads."""
        self._convertParticles()
        for number, volume in enumerate(self._volumes(), 1):
            convert.write_map(volume, self._referenceFile(number))
        self._convertMask()

    def _inputOptions(self) -> list[str]:
        """What was converted, as options of the command line."""
        options = ["--particles", self._particlesFile()]
        for number in range(1, len(self._volumes()) + 1):
            options += ["--reference", self._referenceFile(number)]
        return options + self._maskOptions()

    def _referenceFile(self, number: int) -> str:
        return self._getExtraPath(f"input_reference{number}.mrc")

    def _samplingWarnings(self) -> list[str]:
        particles, volumes = self.inputParticles.get(), self._volumes()
        if particles is None or not volumes:
            return []
        ours, theirs = particles.getSamplingRate(), volumes[0].getSamplingRate()
        if theirs and abs(ours - theirs) > 1e-3 * ours:
            return [f"The volume ({theirs:g} A/px) is resampled to the particles ({ours:g} A/px)."]
        return []
