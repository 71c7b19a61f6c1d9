"""What `scipion tests` lists and runs: particles with known poses, refined, and compared with the truth.

pytest has its own, finer tests beside this file and leaves it to Scipion; `test_scipion_tests.py` runs it as Scipion does.
"""
import numpy as np
from pyworkflow.object import Pointer
from pyworkflow.tests import BaseTest, setupTestProject

from swiftres_plugin.protocols import ProtSwiftres, ProtSwiftresCompare, ProtSwiftresSimulate
from swiftres_plugin.protocols.protocol_simulate import FROM_DEMO

COUNT = 200
WELL_DEG = 8.0  # at the end, of images whose noise is as strong as the signal, in which a pixel at the rim is 4 degrees


class TestSwiftresRefinement(BaseTest):
    """Simulate, refine, compare: a minute on two cores, with nothing to download."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)

    def test_poses_of_simulated_particles_are_found(self):
        simulated = self.newProtocol(ProtSwiftresSimulate, objLabel="simulate", source=FROM_DEMO, count=COUNT, box=32,
                                     pixelSize=6.0, snr=0.0, shiftSigma=1.0)
        self.launchProtocol(simulated)
        refined = self.newProtocol(ProtSwiftres, objLabel="refine", initialResolution=50.0, iterations=3, diameter=170.0,
                                   numberOfThreads=2)
        refined.inputParticles.set(simulated)
        refined.inputParticles.setExtended("outputParticles")
        refined.inputVolumes.append(Pointer(simulated, extended="outputInitialVolume"))
        self.launchProtocol(refined)
        self.assertSetSize(refined.outputParticles, COUNT)
        self.assertTrue(refined.outputVolume.hasHalfMaps())
        compared = self.newProtocol(ProtSwiftresCompare, objLabel="compare with the truth", align=False)
        for pointer, protocol in ((compared.inputParticles, refined), (compared.otherParticles, simulated)):
            pointer.set(protocol)
            pointer.setExtended("outputParticles")
        self.launchProtocol(compared)
        angles = [particle._swiftresAngleDifference.get() for particle in compared.outputDifferences.iterItems()]
        self.assertLess(np.median(angles), WELL_DEG)
