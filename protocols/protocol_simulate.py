"""The protocol `swiftres - simulate particles`: images of a known particle, for tests and teaching."""
from __future__ import annotations

import json

from pwem.objects import SetOfParticles, Volume, VolumeMask
from pwem.protocols import EMProtocol
from pyworkflow.protocol import params

from swiftres_plugin import convert, settings
from swiftres_plugin.constants import THESIS
from swiftres_plugin.plugin import Plugin
from swiftres_plugin.protocols import form as settings_form
from swiftres_plugin.protocols.base import EngineProtocol

FROM_VOLUME, FROM_ATOMS, FROM_DEMO = range(3)
SOURCES = ("volume", "atomic structure", "the built-in model")
OF_MODELS = ("box", "pixel_size")  # a volume brings its own
INPUT = ("count", "snr", "symmetry", "shift_sigma", "defocus_min", "defocus_max")
# What `swiftres simulate` writes.
PARTICLES = "particles_true.star"
MAPS = {"outputVolume": (Volume, "true_map.mrc"), "outputInitialVolume": (Volume, "initial_map.mrc"),
        "outputMask": (VolumeMask, "mask.mrc")}


class ProtSwiftresSimulate(EngineProtocol, EMProtocol):
    """Makes particles with known poses, CTFs and noise from a volume or an atomic structure.

    *What it is for.* To see what a program, a parameter or a number of particles can reach, when the answer is known; to
    learn the steps of an analysis without data; to test a workflow.

    *Inputs.* A volume, an atomic structure (PDB or mmCIF; it is centred and turned to density), or the protein-like model
    that comes with the program.

    *How it works.* Orientations are uniform, centres displaced by a Gaussian. Each image is a projection through its own CTF,
    with noise of the variance that the signal to noise ratio asks for, measured on the area of the projection.

    *Outputs.* The particles with their true poses, CTF and half sets; the volume on their grey scale; a starting volume
    low-passed to 50 A; a soft mask. Programs that align globally ignore the poses; _swiftres - compare alignments_ then
    tells how far their results are from the truth.

    *Advice.* -10 dB is about a good data set of a large particle. The noise is white or falls with frequency; there is no
    ice, no neighbour, no radiation damage: what fails here fails on real data, and not the other way round.
    """

    _label = "simulate particles"
    _possibleOutputs = {"outputParticles": SetOfParticles, **{name: kind for name, (kind, _) in MAPS.items()}}
    _tree = settings.SimulateSettings

    # -------------------------- DEFINE param functions --------------------------
    def _defineParams(self, form):
        form.addSection("Input")
        form.addParam("source", params.EnumParam, choices=list(SOURCES), default=FROM_VOLUME, label="Make particles of",
                      display=params.EnumParam.DISPLAY_HLIST, help="What the particle is.")
        form.addParam("inputVolume", params.PointerParam, pointerClass="Volume", condition=f"source=={FROM_VOLUME}",
                      allowsNull=True, important=True, label="Volume",
                      help="The particle, white on black; it gives box and sampling rate.")
        form.addParam("inputStructure", params.PointerParam, pointerClass="AtomStruct", condition=f"source=={FROM_ATOMS}",
                      allowsNull=True, important=True, label="Atomic structure", help="PDB or mmCIF.")
        settings_form.add_settings(form, self._tree, OF_MODELS, condition=f"source!={FROM_VOLUME}")
        settings_form.add_settings(form, self._tree, INPUT)
        settings_form.add_remaining(form, "Microscope and noise", self._tree)

    # -------------------------- INSERT steps functions --------------------------
    def _insertAllSteps(self):
        source = self._source()
        inputs = json.dumps([self.source.get(), None if source is None else source.getObjId()])
        chosen = json.dumps(self._chosen())
        self._insertFunctionStep(self.convertInputStep, inputs, needsGPU=False)
        self._insertFunctionStep(self.simulateStep, inputs, chosen, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, inputs, chosen, needsGPU=False)

    # -------------------------- STEPS functions --------------------------
    def convertInputStep(self, inputs: str):
        """Write what the engine reads; `inputs` (as in the other steps) lets Continue see that the input changed."""
        if self.source.get() == FROM_VOLUME:
            convert.write_map(self.inputVolume.get(), self._volumeFile())

    def simulateStep(self, inputs: str, chosen: str):
        self._runAnew("simulate", self._sourceOptions(), chosen, ("count", "snr", "symmetry"), onDevice=False)

    def createOutputStep(self, inputs: str, chosen: str):
        particles = self._createSetOfParticles()
        convert.read_particles(self._getRunPath(PARTICLES), particles)
        sources, pixel_size_a = self._sourcePointers(), particles.getSamplingRate()
        self._setOutput("outputParticles", particles, *sources)
        for name, (kind, file) in MAPS.items():
            volume = kind()
            volume.setFileName(self._getRunPath(file))
            volume.setSamplingRate(pixel_size_a)
            self._setOutput(name, volume, *sources)

    # -------------------------- INFO functions --------------------------
    def _validate(self):
        errors = self._settingErrors()
        if self.source.get() != FROM_DEMO and self._source() is None:
            errors.append(f"Give the {SOURCES[self.source.get()]} to make particles of.")
        if self.defocusMin.get() > self.defocusMax.get():
            errors.append("The least defocus is larger than the largest.")
        return errors

    def _summary(self):
        if not self.hasAttribute("outputParticles"):
            return ["The results are not ready yet."]
        particles = self.outputParticles
        return [f"{particles.getSize()} particles of {particles.getDim()[0]} px, {particles.getSamplingRate():g} A/px, "
                f"signal to noise {self.snr.get():g} dB."]

    def _methods(self):
        if not self.hasAttribute("outputParticles"):
            return []
        return [f"{self.outputParticles.getSize()} particle images were simulated with swiftres {Plugin.getActiveVersion()} "
                f"[{THESIS}] at {self.outputParticles.getSamplingRate():g} A/px, {self.voltage.get():g} kV, defocus "
                f"{self.defocusMin.get():g} to {self.defocusMax.get():g} A, with a signal to noise ratio of "
                f"{self.snr.get():g} dB on the area of the projection."]

    def _citations(self):
        return [THESIS]

    # -------------------------- UTILS functions --------------------------
    def _sourcePointers(self):
        return {FROM_VOLUME: [self.inputVolume], FROM_ATOMS: [self.inputStructure], FROM_DEMO: []}[self.source.get()]

    def _source(self):
        """The object that particles are made of, if one was given."""
        return next((pointer.get() for pointer in self._sourcePointers()), None)

    def _sourceOptions(self) -> list[str]:
        if self.source.get() == FROM_DEMO:
            return ["--demo-model"]
        if self.source.get() == FROM_ATOMS:
            return ["--model", self.inputStructure.get().getFileName()]
        return ["--map", self._volumeFile()]

    def _volumeFile(self) -> str:
        return self._getExtraPath("input_volume.mrc")
