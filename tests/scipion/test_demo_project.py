"""The demonstration's set of particles is what its STAR file says."""
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

from pwem.objects import SetOfParticles  # noqa: E402

from swiftres_plugin.demo import scipion_project  # noqa: E402

STAR = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
1 200.0 1.4 0.07 3.0

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
000002@particles.mrcs 1 12000.5 11000.25 30.0
000001@particles.mrcs 1 9000 8500 170
"""


def test_set_of_particles(tmp_path):
    (tmp_path / "particles.star").write_text(STAR)
    scipion_project.write_set(tmp_path / "particles.star", tmp_path / "particles.sqlite", 3.0)
    particles = SetOfParticles(filename=str(tmp_path / "particles.sqlite"))
    particles.loadAllProperties()
    assert particles.getSamplingRate() == 3.0 and particles.hasCTF() and not particles.hasAlignmentProj()
    acquisition = particles.getAcquisition()
    assert (acquisition.getVoltage(), acquisition.getSphericalAberration(), acquisition.getAmplitudeContrast()) == (
        200.0, 1.4, 0.07)
    first, second = [particle.clone() for particle in particles.iterItems()]
    assert first.getLocation() == (2, str(tmp_path / "particles.mrcs")) and second.getLocation()[0] == 1
    ctf = first.getCTF()
    assert (ctf.getDefocusU(), ctf.getDefocusV(), ctf.getDefocusAngle()) == (12000.5, 11000.25, 30.0)


def test_the_protocol_is_found_by_its_name():
    """As the demonstration looks it up, after setting Scipion's variables."""
    import pyworkflow
    assert pyworkflow.Config.getDomain().findClass("ProtSwiftres") is not None
    assert scipion_project.scipion_problem() == ""
