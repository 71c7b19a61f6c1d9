"""`swiftres - 2D classification` in a project: classes, averages, in-plane alignment, the viewer and its subsets."""
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import mrcfile
import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from pwem.constants import ALIGN_2D  # noqa: E402
from pwem.protocols import ProtImportParticles  # noqa: E402
from pyworkflow.project import Manager  # noqa: E402
from scipy import ndimage  # noqa: E402

from swiftres_plugin import layout  # noqa: E402
from swiftres_plugin.protocols import ProtSwiftresClassify2D  # noqa: E402

from . import phantom  # noqa: E402
from .running import launch  # noqa: E402

COUNT, CLASSES = 120, 6


def new(project, imported, **choices):
    protocol = project.newProtocol(ProtSwiftresClassify2D, useGpu=False, numberOfThreads=1, **choices)
    protocol.inputParticles.set(imported)
    protocol.inputParticles.setExtended("outputParticles")
    return protocol


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    _, sqlite = phantom.write_data(folder, COUNT, noise=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        project = Manager().createProject("classes", location=str(folder))
        patch.chdir(project.path)
        pw.Config.getDomain().findClass("ProtSwiftres")
        imported = launch(project, project.newProtocol(
            ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_SCIPION, sqliteFile=str(sqlite),
            samplingRate=phantom.PIXEL_SIZE_A))
        protocol = launch(project, new(
            project, imported, classes=CLASSES, diameter=150.0, maxOffset=10.0, searchResolution=24.0, finestResolution=15.0,
            steps=8, batch=60, passes=1))
        yield SimpleNamespace(project=project, imported=imported, protocol=protocol, folder=folder)


def averages(work) -> np.ndarray:
    with mrcfile.open(work.protocol._getRunPath(layout.CLASSES)) as stack:
        return stack.data.copy()


def test_every_particle_is_in_one_class(work):
    classes, particles = work.protocol.outputClasses, work.protocol.outputParticles
    assert particles.getSize() == COUNT and particles.getAlignment() == ALIGN_2D
    class_of = {item.getObjId(): item.getClassId() for item in particles.iterItems()}
    assert set(class_of) == {3 * i + 5 for i in range(COUNT)}
    members = {item.getObjId(): one.getObjId() for one in classes.iterItems() for item in one.iterItems()}
    assert members == class_of
    sizes = work.protocol._report()["class_sizes"]
    assert {one.getObjId(): one.getSize() for one in classes.iterItems()} == {
        number: size for number, size in enumerate(sizes, 1) if size}
    assert all(one.getAlignment() == ALIGN_2D for one in classes.iterItems())


def test_representatives_are_the_averages(work):
    images = averages(work)
    for one in work.protocol.outputClasses.iterItems():
        index, path = one.getRepresentative().getLocation()
        assert index == one.getObjId() and not Path(path).is_absolute() and Path(path).exists()
        assert one.getRepresentative().getSamplingRate() == pytest.approx(phantom.PIXEL_SIZE_A)
    found = work.protocol.outputAverages
    assert found.getSize() == CLASSES == len(images) and found.getDim()[0] == phantom.BOX_PX


def unround(image: np.ndarray) -> np.ndarray:
    """(P,) pixels inside the particle less the mean of their ring: what shows a wrong rotation."""
    axis = np.arange(phantom.BOX_PX) - phantom.BOX_PX // 2
    ring = np.hypot(axis[:, None], axis[None]).round().astype(int)
    means = np.bincount(ring.ravel(), image.ravel()) / np.bincount(ring.ravel())
    return (image - means[ring])[ring < 13]


def test_the_matrix_carries_a_particle_onto_its_average(work):
    """x_average = M x_particle, in pixels about the centre: the mean of the particles so moved resembles the average."""
    centre, total = phantom.BOX_PX // 2, np.zeros((phantom.BOX_PX,) * 2)
    wrong = total.copy()
    largest = next(one for one in work.protocol.outputClasses.iterItems() if one.getObjId() == 1)
    for item in largest.iterItems():
        with mrcfile.mmap(item.getFileName()) as stack:
            image = np.array(stack.data[item.getIndex() - 1], float)
        matrix = item.getTransform().getMatrix()
        for back, sums in ((np.linalg.inv(matrix), total), (matrix, wrong)):
            turn = back[:2, :2][::-1, ::-1]  # from (x, y) to (row, column)
            sums += ndimage.affine_transform(image, turn, centre - turn @ [centre, centre] + back[:2, 3][::-1], order=1)
    average = unround(averages(work)[0])
    right, other = (np.corrcoef(unround(sums), average)[0, 1] for sums in (total, wrong))
    assert right > 0.5 and right > other + 0.25  # not 1: the CTF is still in the mean


def test_summary_and_methods_have_numbers(work):
    text = " ".join(work.protocol._summary())
    assert f"{COUNT} particles in" in text and "Resolution of the averages" in text
    assert f"{COUNT} particles" in work.protocol._methods()[0]


def test_wrong_input_is_named(work):
    assert any("need at least 500" in text for text in new(work.project, work.imported, classes=100).validate())
    assert any("finest" in text for text in new(work.project, work.imported, finestResolution=1.0).validate())


def made(work, chosen):
    from swiftres_plugin.viewers import SwiftresClassesViewer
    viewer = SwiftresClassesViewer(project=work.project)
    viewer.setProtocol(work.protocol)
    viewer.chosen.set(chosen)
    return viewer


def test_the_viewer_shows_averages_and_makes_a_subset_of_those_clicked(work, monkeypatch):
    matplotlib.use("Agg")
    from swiftres_plugin.viewers import viewer_classify2d

    viewer = made(work, "2")
    launched = []
    create = viewer_classify2d.create_subset
    monkeypatch.setattr(viewer_classify2d, "create_subset",
                        lambda protocol, numbers: launched.append(create(protocol, numbers, wait=True)))
    (plotter,) = viewer._getVisualizeDict()["showClasses"]()
    (picker,) = plotter.figure.controls
    frame = next(frame for frame, number in picker._number_of.items() if number == 1)
    picker._click(SimpleNamespace(inaxes=frame))
    assert picker.chosen == {1, 2}
    plotter.figure.savefig(work.folder / "picker.png")
    picker._press(None)
    (subset,) = launched
    sizes = work.protocol._report()["class_sizes"]
    kept = subset.outputParticles
    assert subset.isFinished() and kept.getSize() == sizes[0] + sizes[1]
    assert kept.getAlignment() == ALIGN_2D and {item.getClassId() for item in kept.iterItems()} == {1, 2}


def test_the_viewer_refuses_classes_that_are_not_there(work, monkeypatch):
    from swiftres_plugin.viewers import viewer_classify2d

    monkeypatch.setattr(viewer_classify2d, "create_subset", lambda *_: pytest.fail("nothing to create"))
    viewer = made(work, "99")
    monkeypatch.setattr(viewer, "errorMessage", lambda text, title: text)
    assert "Choose among" in viewer._getVisualizeDict()["createSubset"]()[0]
