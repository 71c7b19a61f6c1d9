"""The protocol `swiftres - post-process`: half maps to a sharpened map, and how well it is resolved."""
from __future__ import annotations

import json
from typing import Any

from pwem.objects import FSC, Volume, VolumeMask
from pwem.protocols import ProtAnalysis3D
from pyworkflow.protocol import params

from swiftres_plugin import convert, layout, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol


class ProtSwiftresPostprocess(EngineProtocol, ProtAnalysis3D):
    """Sharpens the map of two half maps and measures its resolution: overall, at each place, and by direction.

    *What it is for.* The last step before a model is built: the contrast that the images lost is given back, and the numbers
    that a paper needs are measured.

    *Inputs.* A volume with half maps that are neither filtered nor masked, as refinements give them. A mask is optional: one
    is made from the map. With the particles, how evenly their views cover the sphere is told as well.

    *How it works.* The amplitudes of the average are weighted by the FSC and raised by the B-factor, which is fitted to the
    Guinier plot, and end at the resolution. The local resolution is where the FSC in a small window falls to 0.5, the
    directional one where that in a cone does.

    *Outputs.* The sharpened volume (not masked) with its half maps; the volume of local resolutions, in angstroms, 0 outside
    the mask; the FSC corrected for the mask; the mask when none was given. Pictures lie in the run's folder.

    *Advice.* A B-factor well below -200 of a map coarser than 4 A sharpens noise: give a milder one. A mask that is too
    tight raises the masked FSC; the corrected curve takes that back, and far apart they tell of it.
    """

    _label = "post-process"
    _possibleOutputs = {"outputVolume": Volume, "outputLocalResolution": Volume, "outputFSC": FSC, "outputMask": VolumeMask}
    _choices = settings.POSTPROCESS

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        form.addSection("Input")
        form.addParam("inputVolume", params.PointerParam, pointerClass="Volume", pointerCondition="hasHalfMaps",
                      important=True, label="Volume with half maps", help="Half maps neither filtered nor masked.")
        self._addMaskParam(form, "Optional: 1 inside the particle, 0 in the solvent, with a soft edge, in the box of the "
                                 "volume. Without it one is made from the map.")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", allowsNull=True,
                      pointerCondition="hasAlignmentProj", label="Particles",
                      help="Optional: the particles of the volume with their poses, to tell how evenly their views cover the "
                           "sphere.")
        settings_form.add_settings(form, self._tree, ("symmetry", "bfactor"))
        self._addSymmetryHelp(form)
        settings_form.add_remaining(form, "Computing", self._tree, self._choices)
        form.addParallelSection(threads=4, mpi=0)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        targets = [pointer.get() for pointer in (self.inputVolume, self.mask, self.inputParticles)]
        inputs = json.dumps([None if target is None else target.getObjId() for target in targets])
        chosen = json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.postprocessStep, inputs, chosen, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        for half, target in zip(convert.half_volumes(self.inputVolume.get()), self._halfFiles()):
            convert.write_map(half, target)
        self._convertMask()
        if self.inputParticles.get() is not None:
            self._convertParticles()

    def postprocessStep(self, inputs: str, chosen: str):
        first, second = self._halfFiles()
        particles = [] if self.inputParticles.get() is None else ["--particles", self._particlesFile()]
        self._runAnew("postprocess", ["--half1", first, "--half2", second, *self._maskOptions(), *particles, "--threads",
                                      str(self.numberOfThreads.get())], chosen, ("symmetry",), onDevice=False)

    def createOutputStep(self, inputs: str, chosen: str):
        sharpened, local = self._newVolume(Volume, layout.MAP_SHARPENED), self._newVolume(Volume, layout.LOCAL_RESOLUTION)
        sharpened.setHalfMaps(self._halfFiles())
        curve = convert.make_fsc(convert.read_curves(self._getRunPath(layout.FSC)), "corrected", "corrected FSC")
        self._setOutput("outputVolume", sharpened, self.inputVolume)
        self._setOutput("outputLocalResolution", local, self.inputVolume)
        self._setOutput("outputFSC", curve, self.inputVolume)
        if self.mask.get() is None:
            self._setOutput("outputMask", self._newVolume(VolumeMask, layout.MASK), self.inputVolume)

    def _newVolume(self, kind: type, name: str) -> Any:
        volume = kind()
        volume.setFileName(self._getRunPath(name))
        volume.setSamplingRate(self.inputVolume.get().getSamplingRate())
        return volume

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        errors, volume, mask = self._settingErrors(), self.inputVolume.get(), self.mask.get()
        if volume is not None and not volume.hasHalfMaps():
            errors.append("The volume has no half maps, and everything here is measured between them. Take the volume of a "
                          "refinement, or import it with its half maps.")
        if volume is not None and mask is not None and mask.getDim() != volume.getDim():
            errors.append(f"The mask has a box of {mask.getDim()[0]} px, the volume of {volume.getDim()[0]} px.")
        return errors

    def _summary(self):
        if not self.hasAttribute("outputVolume"):
            return ["The results are not ready yet."]
        told = self._told()
        local, efficiency = told["local_resolution_a"]["median"], told["orientation_efficiency"]
        return [f"Resolution (FSC 0.143): *{told['resolution_a']:.2f} A*; B-factor {told['b_factor_a2']:.0f} A^2.",
                *([f"Local resolution (FSC 0.5): median {local:.2f} A."] if local else []),
                *([f"Efficiency of orientations: {efficiency:.2f}."] if efficiency else [])]

    def _methods(self):
        if not self.hasAttribute("outputVolume"):
            return []
        told = self._told()
        return [f"The map was sharpened with swiftres {Plugin.getActiveVersion()} [{THESIS}] by a B-factor of "
                f"{told['b_factor_a2']:.0f} A^2. Its resolution of {told['resolution_a']:.2f} A is by the FSC=0.143 "
                "criterion, corrected for the mask by phase randomisation; local and directional resolutions are by FSC=0.5."]

    def _citations(self):
        return [THESIS]

    # -------------------------- UTILS functions --------------------------
    def _told(self) -> dict[str, Any]:
        with open(self._getRunPath(layout.POSTPROCESS)) as file:
            return json.load(file)

    def _halfFiles(self) -> list[str]:
        return [self._getExtraPath(f"input_half{number}.mrc") for number in (1, 2)]
