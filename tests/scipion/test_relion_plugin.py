"""Beside the RELION plugin of Scipion: its import feeds the engine, and its writer reads what came back."""
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from emtable import Table  # noqa: E402
from pwem.objects import SetOfParticles  # noqa: E402
from pwem.protocols import ProtImportParticles  # noqa: E402
from pyworkflow.object import Integer  # noqa: E402

from swiftres_plugin import convert  # noqa: E402

from . import phantom  # noqa: E402

# A mark, and not an exception while the module is read: `scipion tests` reads it too.
pytestmark = pytest.mark.skipif(find_spec("relion") is None,
                                reason="the RELION plugin of Scipion is not installed: its import is not tried")

COUNT = 12
OPTICS = ("opticsGroup1 1 300.0 2.7 0.10 5.0 32 2 0.25\n", "opticsGroup2 2 300.0 2.7 0.10 5.0 32 2 -0.50\n")
# (The import gives all groups the voltage, aberration and amplitude contrast of the first.)
OPTICS_LABELS = ("rlnOpticsGroupName", "rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
                 "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality", "rlnBeamTiltX")
LABELS = ("rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift",
          *convert.ANGLES, *convert.ORIGINS, "rlnRandomSubset")
NUMBERS = LABELS[1:]


def rows_of(path):
    return list(Table.iterRows(f"particles@{path}", guessType=False))


def numbers_of(path, names=NUMBERS):
    return np.array([[float(getattr(row, name)) for name in names] for row in rows_of(path)])


@pytest.fixture
def star(tmp_path):
    """A RELION 3.1 file of two stacks and two optics groups, one of them with beam tilt."""
    random = np.random.default_rng(7)
    for name in ("a.mrcs", "b.mrcs"):
        phantom.write_mrc(tmp_path / name, random.normal(size=(COUNT // 2, 32, 32)), stack=True)
    lines = []
    for row in range(COUNT):
        stack, pose = "ab"[row % 2], [*random.uniform([-180, 1, -180], [180, 179, 180]), *random.normal(0, 10, 2)]
        words = [f"{row // 2 + 1:06d}@{stack}.mrcs", row % 2 + 1, 12000.5 + row, 11000.25, 33.5, 0.0, *pose, row // 2 % 2 + 1]
        lines.append(" ".join(f"{word:.6f}" if isinstance(word, float) else str(word) for word in words) + "\n")
    tables = (("optics", OPTICS_LABELS, OPTICS), ("particles", LABELS, lines))
    path = tmp_path / "particles.star"
    path.write_text("".join(f"\ndata_{name}\n\nloop_\n" + "".join(f"_{label}\n" for label in labels) + "".join(rows) + "\n"
                            for name, labels, rows in tables))
    return path


@pytest.fixture
def imported(project, star):
    """The set that pwem's import makes of the file with the help of the RELION plugin."""
    domain = pw.Config.getDomain()
    domain.findClass("ProtSwiftres")
    protocol = project.newProtocol(
        ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_RELION, starFile=str(star),
        samplingRate=phantom.PIXEL_SIZE_A, magnification=50000)
    project.launchProtocol(protocol, wait=True)
    assert protocol.isFinished(), Path(protocol.getStdoutLog()).read_text()[-2000:]
    return protocol.outputParticles


def with_groups(particles, path):
    """The set with the groups that its import forgot, as *relion - assign optics groups* leaves them on the particles."""
    assigned = SetOfParticles(filename=str(path))
    assigned.copyInfo(particles)
    assigned.setAlignmentProj()
    for number, particle in enumerate(particles.iterItems()):
        particle._rlnOpticsGroup = Integer(number % 2 + 1)
        assigned.append(particle)
    assigned.write()
    return assigned


def test_star_file_to_engine_and_back_to_relion(imported, star, tmp_path):
    """RELION's file -> import -> engine's file -> set -> RELION's file: every number comes through, to 1e-6."""
    assert convert.forgotten_groups(imported) == 2
    particles = with_groups(imported, tmp_path / "assigned.sqlite")
    assert convert.forgotten_groups(particles) == 0
    ours = tmp_path / "ours.star"
    assert convert.write_particles(particles, str(ours), str(tmp_path)) == COUNT
    np.testing.assert_allclose(numbers_of(ours), numbers_of(star), atol=1e-5)  # the file is rounded to six digits
    optics = list(Table.iterRows(f"optics@{ours}"))
    assert [(row.rlnVoltage, row.rlnBeamTiltX) for row in optics] == [(300, 0.25), (300, -0.5)]
    assert [row.rlnImageName.split("/")[-1] for row in rows_of(ours)] == [
        row.rlnImageName.split("@")[1] for row in rows_of(star)]

    from relion.convert import writeSetOfParticles
    found = convert.read_refined(str(ours), particles.getSamplingRate())
    refined = SetOfParticles(filename=str(tmp_path / "refined.sqlite"))
    refined.copyInfo(particles)
    refined.setAlignmentProj()
    refined.copyItems(particles, doClone=False, updateItemCallback=found.update)
    refined.write()
    theirs = tmp_path / "theirs.star"
    writeSetOfParticles(refined, str(theirs), alignType=refined.getAlignment())
    np.testing.assert_allclose(numbers_of(theirs, (*convert.ANGLES, *convert.ORIGINS)),
                               numbers_of(ours, (*convert.ANGLES, *convert.ORIGINS)), atol=1e-5)
    assert [int(row.rlnOpticsGroup) for row in rows_of(theirs)] == [1, 2] * (COUNT // 2)
    for row, matrix in zip(refined.iterItems(), found.matrices):
        np.testing.assert_allclose(row.getTransform().getMatrix(), matrix, atol=1e-6)
