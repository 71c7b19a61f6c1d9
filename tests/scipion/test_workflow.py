"""The protocol in a real project, fed by pwem's own imports: outputs exist and their numbers are right."""
import json
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlparse

import mrcfile
import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from emtable import Table  # noqa: E402
from pwem.objects import FSC, SetOfParticles, Volume  # noqa: E402
from pwem.protocols import ProtImportMask, ProtImportParticles, ProtImportVolumes  # noqa: E402
from pyworkflow.object import Pointer  # noqa: E402
from pyworkflow.project import Manager, Project  # noqa: E402
from pyworkflow.protocol import MODE_RESUME  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from swiftres_plugin import layout  # noqa: E402
from swiftres_plugin.protocols import ProtSwiftres  # noqa: E402

from . import phantom  # noqa: E402

COUNT = 200


def launch(project, protocol):
    project.launchProtocol(protocol, wait=True)
    log = Path(protocol.getStdoutLog())
    assert protocol.isFinished(), f"{protocol.getErrorMessage()}\n{log.read_text()[-3000:] if log.exists() else ''}"
    return protocol


def import_data(project, folder, sqlite):
    particles = project.newProtocol(
        ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_SCIPION, sqliteFile=str(sqlite),
        samplingRate=phantom.PIXEL_SIZE_A, magnification=50000)
    volume = project.newProtocol(
        ProtImportVolumes, filesPath=str(folder / "reference.mrc"), samplingRate=phantom.PIXEL_SIZE_A)
    mask = project.newProtocol(ProtImportMask, maskPath=str(folder / "mask.mrc"), samplingRate=phantom.PIXEL_SIZE_A)
    return SimpleNamespace(
        particles=launch(project, particles), volume=launch(project, volume), mask=launch(project, mask))


def new_refinement(project, imported, **choices):
    protocol = project.newProtocol(ProtSwiftres, useGpu=False, numberOfThreads=1, **choices)
    protocol.inputParticles.set(imported.particles)
    protocol.inputParticles.setExtended("outputParticles")
    protocol.inputVolumes.append(Pointer(imported.volume, extended="outputVolume"))
    return protocol


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A project with imported data and one finished refinement; other tests look at it."""
    folder = tmp_path_factory.mktemp("études de β-gal")  # paths of users hold spaces and letters of all kinds
    truth, sqlite = phantom.write_data(folder, COUNT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        project = Manager().createProject("refine", location=str(folder))
        patch.chdir(project.path)
        pw.Config.getDomain().findClass("ProtSwiftres")
        imported = import_data(project, folder, sqlite)
        protocol = new_refinement(project, imported, initialResolution=40.0, iterations=2, diameter=150.0)
        protocol.mask.set(imported.mask)
        protocol.mask.setExtended("outputMask")
        launch(project, protocol)
        yield SimpleNamespace(project=project, imported=imported, truth=truth, protocol=protocol, folder=folder)


def refined_poses(protocol):
    """(image_to_volume (N, 3, 3), shift_a (N, 2)) by the definition x_image = inv(M) x_volume."""
    inverses = [np.linalg.inv(p.getTransform().getMatrix()) for p in protocol.outputParticles.iterItems()]
    inverses = np.array(inverses)
    return inverses[:, :3, :3].transpose(0, 2, 1), -inverses[:, :2, 3] * phantom.PIXEL_SIZE_A


def test_particles_keep_their_identity(work):
    ours, theirs = work.protocol.outputParticles, work.imported.particles.outputParticles
    assert isinstance(ours, SetOfParticles) and ours.hasAlignmentProj() and ours.hasCTF()
    assert ours.getSize() == COUNT
    assert ours.getSamplingRate() == phantom.PIXEL_SIZE_A
    for refined, original in zip(ours.iterItems(), [item.clone() for item in theirs.iterItems()]):
        assert refined.getObjId() == original.getObjId()
        assert refined.getLocation() == original.getLocation()
        assert refined.getCTF().getDefocusU() == original.getCTF().getDefocusU()


def test_poses_are_close_to_the_truth(work):
    """The reference stands in the frame of the truth, so no rotation between frames has to be removed.

    Blobs of 9 A in a particle of 100 A, with as much noise as signal, leave a few degrees; a wrong sign leaves ninety.
    """
    rotations, shift_a = refined_poses(work.protocol)
    between = Rotation.from_matrix(rotations).inv() * Rotation.from_matrix(work.truth.image_to_volume)
    assert np.median(np.rad2deg(between.magnitude())) < 5
    assert np.median(np.linalg.norm(shift_a - work.truth.shift_a, axis=1)) < 0.5 * phantom.PIXEL_SIZE_A


def test_volume_has_halves_and_resembles_the_truth(work):
    volume = work.protocol.outputVolume
    assert isinstance(volume, Volume) and volume.hasHalfMaps()
    assert volume.getSamplingRate() == phantom.PIXEL_SIZE_A
    maps = []
    for path in (volume.getFileName(), *volume.getHalfMaps().split(",")):
        assert not Path(path).is_absolute()  # a project may be moved
        with mrcfile.open(path) as mrc:
            assert mrc.data.shape == (phantom.BOX_PX,) * 3
            assert mrc.voxel_size.x == pytest.approx(phantom.PIXEL_SIZE_A)
            maps.append(mrc.data.copy())
    assert np.corrcoef(maps[0].ravel(), phantom.volume().ravel())[0, 1] > 0.9
    assert not np.array_equal(maps[1], maps[2])


def test_fsc_has_a_value_for_every_shell(work):
    fsc = work.protocol.outputFSC
    assert isinstance(fsc, FSC)
    frequency, values = (np.array(list(column), float) for column in fsc.getData())
    assert (frequency[0], values[0]) == (0, 1)
    np.testing.assert_allclose(frequency, np.arange(phantom.BOX_PX // 2 + 1) / (phantom.BOX_PX * phantom.PIXEL_SIZE_A),
                               atol=1e-6)
    assert values[1:4].min() > 0.9 and values.max() <= 1 + 1e-6


def test_iterations_are_outputs(work):
    """Map and curve of each iteration, the newest as `outputVolume`, and the mask; all inside the project."""
    protocol = work.protocol
    maps = [volume.clone() for volume in protocol.outputIterations.iterItems()]
    assert [volume.getObjLabel() for volume in maps] == ["iteration 1", "iteration 2"]
    assert [Path(v.getFileName()).parent.name for v in maps] == [layout.iteration_name(n) for n in (1, 2)]
    assert all(Path(v.getFileName()).exists() and v.getSamplingRate() == phantom.PIXEL_SIZE_A for v in maps)
    curves = [fsc.clone() for fsc in protocol.outputFSCs.iterItems()]
    assert [fsc.getObjLabel() for fsc in curves] == ["iteration 1", "iteration 2"]
    last = np.array([list(map(float, column)) for column in curves[-1].getData()])
    np.testing.assert_allclose(last, [list(map(float, column)) for column in protocol.outputFSC.getData()])
    assert protocol.outputMask.getFileName().endswith(layout.mask_name())


def test_outputs_of_a_running_refinement_are_renewed_in_place(work, monkeypatch):
    """As many looks as there are iterations, at a run that grows: one output each, always of the newest iteration."""
    protocol = new_refinement(work.project, work.imported, iterations=2)
    work.project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    shutil.copytree(work.protocol._getRunPath(), protocol._getRunPath())
    report = Path(protocol._getRunPath(layout.RUN))
    whole = json.loads(report.read_text())
    seen = []
    for done in (0, 1, 1, 2):
        report.write_text(json.dumps({**whole, "iterations": whole["iterations"][:done]}))
        protocol._showIterations()
        if done:
            seen.append((protocol.outputFSC.getObjId(), protocol.outputIterations.getSize(), protocol.outputFSCs.getSize()))
            assert len(list(protocol.outputIterations.iterItems())) == done
    assert seen == [(seen[0][0], 1, 1), (seen[0][0], 1, 1), (seen[0][0], 2, 2)]
    stored = work.project.getProtocol(protocol.getObjId())
    assert (stored.outputFSCs.getSize(), stored.outputFSC.getObjId()) == (2, seen[0][0])
    assert "2 iterations finished" in stored.summary()[0]


def test_a_division_on_the_way_is_seen_in_the_outputs(work):
    """One structure in the first iteration, two classes in the second."""
    protocol = new_refinement(work.project, work.imported, iterations=2, classes=2)
    work.project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    shutil.copytree(work.protocol._getRunPath(), protocol._getRunPath())
    report = Path(protocol._getRunPath(layout.RUN))
    whole = json.loads(report.read_text())
    report.write_text(json.dumps({**whole, "iterations": whole["iterations"][:1]}))
    protocol._showIterations()
    assert protocol._undividedLine()
    for folder in (report.parent, report.parent / layout.iteration_name(2)):
        for path in folder.glob("class1_*"):
            shutil.copy(path, folder / path.name.replace("class1", "class2"))
    report.write_text(json.dumps({**whole, "class_sizes": [150, 50]}))
    protocol._showIterations()
    names = ["iteration 1", "iteration 2, class 1", "iteration 2, class 2"]
    for found in (protocol.outputIterations, protocol.outputFSCs):
        assert [one.clone().getObjLabel() for one in found.iterItems()] == names
    assert work.project.getProtocol(protocol.getObjId()).outputVolume.getObjLabel() == "map of class 1 of 2"
    assert not protocol._undividedLine()


def test_half_sets_and_scores_come_back(work):
    items = [item.clone() for item in work.protocol.outputParticles.iterItems()]
    halves = [item._rlnRandomSubset.get() for item in items]
    assert abs(halves.count(1) - COUNT // 2) <= 0.2 * COUNT and halves.count(1) + halves.count(2) == COUNT
    assert all(np.isfinite(item._rlnLogLikeliContribution.get()) for item in items)


def test_summary_and_methods_say_what_was_done(work):
    protocol = work.project.getProtocol(work.protocol.getObjId())
    summary = "\n".join(protocol.summary())
    assert re.search(r"Resolution \(FSC 0.143\): \*\d+\.\d\d A\* after 2 iterations", summary)
    assert "200 particles, symmetry C1, on cpu" in summary
    methods = "".join(protocol.methods())
    assert "200 particles with swiftres" in methods and "In 2 of 2 iterations" in methods
    assert "32 px of 5 A" in methods and "low-pass filtered to 40 A" in methods
    assert "Johnson" in "".join(protocol.citations())


# Axes of each picture: sliders and colour bars count. The engine makes a part of the last two.
PICTURES = {"showSlices": 9, "showSurface": 2, "showFsc": 1, "showFscOfIterations": 1, "showCourse": 4, "showClassSizes": 1,
            "showDirections": 2, "showScores": 4}
OF_THE_ENGINE = {"showGallery", "showLocalResolution"}


@pytest.fixture
def viewer(work):
    from matplotlib import pyplot as plt

    from swiftres_plugin.viewers import SwiftresViewer
    made = SwiftresViewer(project=work.project)
    made.setProtocol(work.protocol)
    yield made
    plt.close("all")


def test_viewer_draws_everything(viewer):
    show = viewer._getVisualizeDict()
    for name, axes in PICTURES.items():
        (view,) = show[name]()
        assert hasattr(view, "figure"), f"{name}: {getattr(view, '_msg', view)}"
        assert len(view.figure.axes) == axes, name


def test_curves_of_all_kinds_stand_together(viewer):
    viewer.curveKind.set(3)
    (view,) = viewer._getVisualizeDict()["showFscOfIterations"]()
    lines = [line for line in view.figure.axes[0].lines if len(line.get_xdata()) > 2]
    assert len(lines) == 2 * 3  # iterations and kinds
    np.testing.assert_allclose(lines[2].get_ydata(), viewer._curves(1)["unmasked"])


def test_every_picture_is_saved(work, viewer):
    viewer.galleryCount.set(6)
    viewer.galleryLowPass.set(0.0)
    (view,) = viewer._getVisualizeDict()["savePictures"]()
    assert "not there" not in view._msg
    folder = Path(work.protocol._getExtraPath("pictures"))
    for name in {*PICTURES, *OF_THE_ENGINE}:
        for kind in ("png", "pdf"):
            assert (folder / f"{name.removeprefix('show').lower()}.{kind}").stat().st_size > 4000
    local = Path(work.protocol._getExtraPath("viewer", "class1_half1_local", layout.LOCAL_RESOLUTION))
    before = local.stat().st_mtime_ns
    viewer._getVisualizeDict()["showLocalResolution"]()
    assert local.stat().st_mtime_ns == before  # measured once


def test_every_field_of_the_viewer_has_its_picture(viewer):
    from pyworkflow.protocol.params import LabelParam
    fields = {name for name, param in viewer._definition.iterAllParams() if isinstance(param, LabelParam)}
    assert fields - {"showChimera"} == set(viewer._getVisualizeDict()) - {"showChimera"}  # offered where it is installed
    assert set(viewer._pictures) == {*PICTURES, *OF_THE_ENGINE}


def test_viewer_says_what_is_not_there(work, viewer):
    from pyworkflow.viewer import MessageView

    show = viewer._getVisualizeDict()
    viewer.localResolutionFile.set("nowhere.mrc")
    (view,) = show["showLocalResolution"]()
    assert isinstance(view, MessageView) and "nowhere.mrc" in view._msg
    for text in ("9", "1-x"):
        viewer.iterationList.set(text)
        (view,) = show["showFscOfIterations"]()
        assert isinstance(view, MessageView) and ("no iteration" in view._msg or "no list of numbers" in view._msg)
    viewer.iteration.set(77)
    (view,) = show["showSlices"]()
    assert isinstance(view, MessageView)
    viewer.iteration.set(0)
    viewer.classNumber.set(2)  # of one
    for name in ("showSlices", "showFsc", "showGallery"):
        (view,) = show[name]()
        assert isinstance(view, MessageView)


def test_the_gallery_pairs_particles_with_their_own_reprojections(work):
    """Each particle resembles its reprojection more than those of other particles do: the noise is as strong as the signal."""
    from swiftres_plugin.viewers.gallery import read_pairs

    run = work.protocol._getRunPath
    pairs = read_pairs(run(layout.PARTICLES), run(layout.map_name()), str(work.folder / "gallery"), 20)
    assert pairs.count == COUNT and list(pairs.rank[[0, -1]]) == [1, COUNT] and (np.diff(pairs.score) <= 0).all()
    flat = [images.reshape(len(images), -1) for images in (pairs.images, pairs.reprojections)]
    likeness = np.corrcoef(*flat)[: len(pairs.images), len(pairs.images):]
    assert (likeness.argmax(axis=1) == np.arange(len(likeness))).mean() > 0.9


def test_the_gallery_finds_the_images_of_a_project_that_was_moved(work):
    """The engine names stacks by their full path, which is no more; below the runs of the project they are still there."""
    from swiftres_plugin.viewers.gallery import located

    row = next(Table.iterRows(f"particles@{work.protocol._getRunPath(layout.PARTICLES)}"))
    here = str(Path.cwd())
    assert here in row.rlnImageName
    moved = row._replace(rlnImageName=row.rlnImageName.replace(here, "/somewhere else"))
    index, stack = located(moved, "")["rlnImageName"].split("@")
    assert index == row.rlnImageName.split("@")[0] and Path(stack).samefile(row.rlnImageName.split("@")[1])


@pytest.mark.slow
def test_a_project_that_was_moved_goes_on(work, tmp_path, monkeypatch):
    """Copied elsewhere, and its old place gone: one more iteration follows those that are there."""
    moved, hidden = tmp_path / "moved project", Path(f"{work.project.path} hidden")
    shutil.copytree(work.project.path, moved, symlinks=True)
    first = moved / work.protocol._getRunPath(layout.iteration_name(1), layout.STATE)
    written = first.stat().st_mtime_ns
    Path(work.project.path).rename(hidden)
    try:
        with monkeypatch.context() as patch:
            patch.chdir(moved)
            project = Project(pw.Config.getDomain(), str(moved))
            project.load()
            protocol = project.getProtocol(work.protocol.getObjId())
            protocol.iterations.set(3)
            protocol.runMode.set(MODE_RESUME)
            launch(project, protocol)
            assert protocol.outputFSCs.getSize() == 3 and first.stat().st_mtime_ns == written
    finally:
        hidden.rename(work.project.path)


def test_the_summary_leads_to_the_report(work):
    (line,) = [text for text in work.protocol.summary() if layout.REPORT in text]
    path = Path(re.search(r"\[\[(.+?)\]\[", line).group(1))
    assert path.is_absolute() and "Fourier shell correlation" in path.read_text(encoding="utf-8")


def test_the_report_opens_at_an_address_that_browsers_read(work, viewer):
    (page,) = viewer._getVisualizeDict()["showReport"]()
    assert page.address.isascii() and " " not in page.address
    assert Path(unquote(urlparse(page.address).path)).samefile(work.protocol._getRunPath(layout.REPORT))


@pytest.fixture
def started(work, monkeypatch):
    """A protocol whose refinement was interrupted after its first iteration; commands are kept instead of run."""
    protocol = new_refinement(work.project, work.imported, iterations=5)
    work.project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    commands = []
    environs = []

    def keep(program, line, env, **_):
        commands.append(line.split())
        environs.append(env)

    monkeypatch.setattr(protocol, "runJob", keep)
    protocol.refineStep("inputs", json.dumps(protocol._chosen()))
    iteration = Path(protocol._getRunPath(layout.iteration_name(1)))
    iteration.mkdir(parents=True)
    (iteration / layout.STATE).write_text("{}")
    return SimpleNamespace(protocol=protocol, commands=commands, environs=environs, iteration=iteration)


def test_the_command_line_says_what_the_form_says(started):
    (line,) = started.commands
    words = dict(zip(line[3::2], line[4::2]))
    assert line[:3] == ["-m", "swiftres_plugin.engine", "refine"]
    assert words["--particles"].endswith("input_particles.star") and words["--output"].endswith("extra/run")
    assert (words["--initial-resolution"], words["--symmetry"], words["--iterations"]) == ("40", "C1", "5")
    assert (words["--device"], words["--threads"]) == ("cpu", "1")


def test_runs_are_recorded_in_the_project(started):
    """Not in the folder of the protocol, which Scipion deletes with it."""
    project = Path(started.protocol.getProject().getPath()).resolve()
    assert started.environs[0][layout.RUNS_VARIABLE] == str(project / layout.RUNS_DATABASE)


def test_an_interrupted_run_goes_on(started):
    started.protocol.refineStep("inputs", json.dumps(started.protocol._chosen()))
    assert started.commands[1][3:] == [
        "--resume", started.protocol._getRunPath(), "--iterations", "5", "--device", "cpu", "--threads", "1"]
    assert started.iteration.exists()


def test_a_run_goes_on_with_more_iterations(started):
    started.protocol.iterations.set(9)
    started.protocol.refineStep("inputs", json.dumps(started.protocol._chosen()))
    assert "--resume" in started.commands[1] and "9" in started.commands[1]
    assert started.iteration.exists()


def test_other_settings_start_anew(started):
    started.protocol.symmetry.set("c2")
    started.protocol.refineStep("inputs", json.dumps(started.protocol._chosen()))
    assert "--resume" not in started.commands[1] and "C2" in started.commands[1]
    assert not started.iteration.exists()


def test_other_settings_are_seen_by_continue(started):
    """Scipion runs a step again when its arguments changed: every setting must be among them."""
    started.protocol._insertAllSteps()
    before = [step.argsStr.get() for step in started.protocol._steps]
    started.protocol._steps = []
    started.protocol.maxShift.set(12.0)
    started.protocol._insertAllSteps()
    after = [step.argsStr.get() for step in started.protocol._steps]
    assert [old == new for old, new in zip(before, after)] == [True, False, False]


def test_continue_of_a_finished_run_repeats_nothing(work):
    written = Path(work.protocol._getRunPath(layout.RUN)).stat().st_mtime_ns
    protocol = work.project.getProtocol(work.protocol.getObjId())
    protocol.runMode.set(MODE_RESUME)
    launch(work.project, protocol)
    assert Path(protocol._getRunPath(layout.RUN)).stat().st_mtime_ns == written
    assert protocol.outputParticles.getSize() == COUNT


def test_continue_with_more_iterations_adds_to_the_run(work):
    """The engine itself goes on: the first iteration is not computed again, and the outputs are made anew."""
    protocol = launch(work.project, new_refinement(work.project, work.imported, initialResolution=40.0, iterations=1))
    first = Path(protocol._getRunPath(layout.iteration_name(1), layout.STATE))
    written = first.stat().st_mtime_ns
    protocol = work.project.getProtocol(protocol.getObjId())
    protocol.iterations.set(2)
    protocol.runMode.set(MODE_RESUME)
    launch(work.project, protocol)
    report = json.loads(Path(protocol._getRunPath(layout.RUN)).read_text())
    assert [iteration["number"] for iteration in report["iterations"]] == [1, 2]
    assert first.stat().st_mtime_ns == written
    assert protocol.outputParticles.getSize() == COUNT


def test_several_volumes_give_classes(work):
    """All particles are of the reference; the second map is its mirror image, and few are likelier there."""
    phantom.write_mrc(work.folder / "mirror.mrc", phantom.volume()[:, :, ::-1].copy())
    mirror = launch(work.project, work.project.newProtocol(
        ProtImportVolumes, filesPath=str(work.folder / "mirror.mrc"), samplingRate=phantom.PIXEL_SIZE_A))
    protocol = new_refinement(work.project, work.imported, initialResolution=25.0, iterations=1, diameter=150.0)
    protocol.inputVolumes.append(Pointer(mirror, extended="outputVolume"))
    assert protocol.validate() == []
    launch(work.project, protocol)
    assert not protocol.hasAttribute("outputVolume") and protocol.outputParticles.getSize() == COUNT
    assert [Path(v.getFileName()).name for v in protocol.outputVolumes.iterItems()] == [layout.map_name(n) for n in (1, 2)]
    assert all(v.hasHalfMaps() for v in protocol.outputVolumes.iterItems())
    assigned = {p.getObjId(): p.getClassId() for p in protocol.outputParticles.iterItems()}
    classes = {c.getObjId(): c.clone() for c in protocol.outputClasses.iterItems()}
    sizes = json.loads(Path(protocol._getRunPath(layout.RUN)).read_text())["class_sizes"]
    assert sizes[0] > 0.8 * COUNT and sum(sizes) == COUNT
    for number, one in classes.items():
        assert Path(one.getRepresentative().getFileName()).name == layout.map_name(number)
    for one in protocol.outputClasses.iterItems():
        assert one.getSize() == sizes[one.getObjId() - 1] and one.hasAlignmentProj()
        assert all(assigned[p.getObjId()] == one.getObjId() for p in one.iterItems())
    assert f"Class 1: {sizes[0]} particles" in "\n".join(protocol.summary())


def test_validation_tells_what_is_wrong(work):
    protocol = new_refinement(work.project, work.imported, symmetry="X3", alignment=1)
    errors = "\n".join(protocol.validate())
    assert "Unknown symmetry 'X3'" in errors
    assert "Local alignment starts from the poses" in errors


def test_validation_tells_what_the_engine_would_refuse(work):
    protocol = new_refinement(work.project, work.imported, anglePrior=3.0, classes=2, cluster="local:2")
    protocol.inputVolumes.append(Pointer(work.imported.volume, extended="outputVolume"))
    errors = "\n".join(protocol.validate())
    for words in ("these particles have none", "Several starting volumes are classes", "Leave *Cluster* empty"):
        assert words in errors


def test_validation_accepts_what_is_right(work):
    assert new_refinement(work.project, work.imported, symmetry="i3").validate() == []


def test_mask_of_another_box_is_refused(work):
    phantom.write_mrc(work.folder / "small.mrc", np.ones((16, 16, 16)))
    mask = launch(work.project, work.project.newProtocol(
        ProtImportMask, maskPath=str(work.folder / "small.mrc"), samplingRate=phantom.PIXEL_SIZE_A))
    protocol = new_refinement(work.project, work.imported)
    protocol.mask.set(mask)
    protocol.mask.setExtended("outputMask")
    assert any("16 px" in error and "32 px" in error for error in protocol.validate())


def test_warnings_tell_what_the_user_may_not_expect(work, monkeypatch):
    monkeypatch.setattr("swiftres_plugin.plugin.Plugin.hasGpu", classmethod(lambda cls: False))
    protocol = new_refinement(work.project, work.imported)
    protocol.useGpu.set(True)
    assert any("processor" in warning for warning in protocol.warnings())
    assert protocol._device() == "cpu"


def test_exported_workflow_comes_back(work, tmp_path, monkeypatch):
    work.project.getRunsGraph(refresh=True)
    work.project.exportProtocols([work.project.getProtocol(work.protocol.getObjId())], str(tmp_path / "workflow.json"))
    monkeypatch.chdir(tmp_path)
    other = Manager().createProject("reload", location=str(tmp_path))
    (loaded,) = other.loadProtocols(filename=str(tmp_path / "workflow.json")).values()
    assert isinstance(loaded, ProtSwiftres)
    assert (loaded.iterations.get(), loaded.diameter.get(), loaded.useGpu.get()) == (2, 150.0, False)


def stop_when(work, protocol, moment):
    """Launch `protocol` and stop it (a kill, as the button does) as soon as `moment(protocol)` is true."""
    work.project.launchProtocol(protocol, wait=False)
    end = time.monotonic() + 300
    while not moment(protocol):
        assert time.monotonic() < end, Path(protocol.getStdoutLog()).read_text()[-2000:]
        time.sleep(0.02)
    work.project.stopProtocol(protocol)
    return work.project.getProtocol(protocol.getObjId())


def outputs_of(protocol):
    """Everything a run gives, as numbers and names."""
    found = {p.getObjId(): (p.getTransform().getMatrix().tolist(), p._rlnRandomSubset.get(),
                            p._rlnLogLikeliContribution.get()) for p in protocol.outputParticles.iterItems()}
    maps = [protocol.outputVolume.getFileName(), *protocol.outputVolume.getHalfMaps().split(","),
            protocol.outputMask.getFileName(), *(v.getFileName() for v in protocol.outputIterations.iterItems())]
    voxels = []
    for path in maps:
        with mrcfile.open(path) as mrc:
            voxels.append(mrc.data.copy())
    return found, np.stack(voxels), [list(map(float, column)) for column in protocol.outputFSC.getData()]


def same_outputs(one, other):
    ours, theirs = outputs_of(one), outputs_of(other)
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    np.testing.assert_array_equal(ours[1], theirs[1])  # one thread, one seed: the same bits


def same_refinement(work):
    """A protocol as `work.protocol`, not launched."""
    protocol = new_refinement(work.project, work.imported, initialResolution=40.0, iterations=2, diameter=150.0)
    protocol.mask.set(work.imported.mask)
    protocol.mask.setExtended("outputMask")
    return protocol


def stopped_and_continued(work, moment):
    protocol = stop_when(work, same_refinement(work), moment)
    assert not protocol.hasAttribute("outputParticles"), "it had ended before it was stopped"
    protocol.runMode.set(MODE_RESUME)
    return launch(work.project, protocol)


def test_stop_in_the_second_iteration_and_continue(work):
    """The first iteration is done and shown when the process dies; the run ends as one that was left alone."""
    protocol = stopped_and_continued(work, lambda p: layout.finished_iterations(p._getRunPath()))
    same_outputs(protocol, work.protocol)
    assert len(relations_of(protocol)) == len(set(relations_of(protocol))) == len(relations_of(work.protocol))


def relations_of(protocol):
    rows = protocol.getMapper().getRelationsByCreator(protocol)
    return [(row["name"], row["object_parent_id"], row["object_child_id"]) for row in rows]


@pytest.fixture(scope="module")
def usual_s(work):
    """How long the refinement takes now that its code is compiled; left alone, it gives the same outputs again."""
    begin = time.monotonic()
    same_outputs(launch(work.project, same_refinement(work)), work.protocol)
    return time.monotonic() - begin


@pytest.mark.slow
@pytest.mark.parametrize("share", np.random.default_rng(20).uniform(0, 1, 10).round(2).tolist())
def test_stop_at_any_moment_and_continue(work, usual_s, share):
    """At ten moments drawn over the time that the run takes: conversion, either iteration, or after them.

    Where the machine is quicker than before, the last moment is that at which the engine has ended and the outputs are to
    be made: what has ended cannot be stopped.
    """
    begun: list[float] = []

    def moment(protocol):
        log = Path(protocol.getStdoutLog())
        said = log.read_text() if log.exists() else ""
        if not begun and "PID" in said:  # Scipion cannot stop what has not begun
            begun.append(time.monotonic())
        progress = Path(protocol._getRunPath(layout.PROGRESS))
        over = progress.exists() and "Finished" in progress.read_text()
        return begun and (over or time.monotonic() - begun[0] > share * usual_s)

    same_outputs(stopped_and_continued(work, moment), work.protocol)
