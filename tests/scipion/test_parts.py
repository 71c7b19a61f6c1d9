"""Protocols for structures of which a part differs: subtraction of the rest, symmetry relaxation and expansion, and classes
without alignment."""
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from pwem.protocols import ProtImportMask, ProtImportParticles, ProtImportVolumes  # noqa: E402
from pyworkflow.object import Integer, Pointer  # noqa: E402
from pyworkflow.project import Manager  # noqa: E402
from pyworkflow.protocol import MODE_RESUME  # noqa: E402

from swiftres_plugin import convert  # noqa: E402
from swiftres_plugin.protocols import (  # noqa: E402
    ProtSwiftres,
    ProtSwiftresClassify,
    ProtSwiftresExpand,
    ProtSwiftresReconstruct,
    ProtSwiftresRelax,
    ProtSwiftresSubtract,
)

from . import phantom  # noqa: E402
from .running import launch, new  # noqa: E402

COUNT, NEW_BOX, LOCAL = 100, 20, 1
QUARTER = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
MATES = [np.linalg.matrix_power(QUARTER, turns) for turns in range(4)]
LOBE_A = np.array([34.0, 0, 26])
BODY_A = np.concatenate([np.array([[30, 6, -12], [14, 18, 12], [20, -4, -34]]) @ mate.T for mate in MATES])
BODY = BODY_A, np.tile([1.0, 0.8, 0.7], 4)
WHOLE = np.vstack([BODY_A, LOBE_A]), np.append(BODY[1], 1.6)
LOBE = LOBE_A[None], np.array([1.6])
# The voxel of the lobe, from the middle of the box, and what is left of a voxel.
MIDDLE_PX = np.rint(LOBE_A / phantom.PIXEL_SIZE_A).astype(int)
REST_A = LOBE_A - MIDDLE_PX * phantom.PIXEL_SIZE_A


def write_set(folder, name, truth, images, matrices, noise):
    """A stack of `images` (N, n, n) with CTF and noise, and a set of them; ids are not contiguous, halves alternate."""
    random = np.random.default_rng(4)
    defocus_a = random.uniform(8000, 16000, len(images))
    images = phantom.apply_ctf(images, defocus_a)
    images += random.normal(0, noise * images.std(), images.shape)
    phantom.write_mrc(folder / f"{name}.mrcs", images, stack=True)
    particles = phantom.empty_set(folder / f"{name}.sqlite")
    particles.setAlignmentProj()
    for i, matrix in enumerate(matrices):
        item = phantom.particle(folder / f"{name}.mrcs", i, defocus_a[i], item_id=3 * i + 5, matrix=matrix)
        item._rlnRandomSubset = Integer(i % 2 + 1)
        particles.append(item)
    particles.write()
    particles.close()
    return SimpleNamespace(truth=truth, sqlite=folder / f"{name}.sqlite", defocus_a=defocus_a)


def imported(project, sqlite):
    return launch(project, project.newProtocol(
        ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_SCIPION, sqliteFile=str(sqlite),
        samplingRate=phantom.PIXEL_SIZE_A, magnification=50000))


def ball(centre_a, radius_a=26.0):
    """(n, n, n) a soft ball."""
    x, y, z = np.meshgrid(*3 * [(np.arange(phantom.BOX_PX) - phantom.BOX_PX // 2) * phantom.PIXEL_SIZE_A], indexing="ij")
    distance = np.sqrt(sum((axis - place) ** 2 for axis, place in zip((x, y, z), centre_a)))
    return np.clip((radius_a - distance) / 8, 0, 1).transpose(2, 1, 0)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A C4 body with one lobe; subtracted from its particles but for the lobe, which is brought to the middle."""
    folder = tmp_path_factory.mktemp("parts")
    truth = phantom.random_truth(COUNT)
    matrices = [phantom.scipion_matrix(truth, i) for i in range(COUNT)]
    given = write_set(folder, "particles", truth, phantom.projections(truth, *WHOLE), matrices, noise=1.0)
    for number in (0, 1, 2):
        noisy = phantom.volume(*WHOLE) + np.random.default_rng(number).normal(0, 0.02, (phantom.BOX_PX,) * 3)
        phantom.write_mrc(folder / f"volume{number}.mrc", noisy)
    phantom.write_mrc(folder / "mask.mrc", ball(LOBE_A))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        project = Manager().createProject("parts", location=str(folder))
        patch.chdir(project.path)
        pw.Config.getDomain().findClass("ProtSwiftres")
        particles = imported(project, given.sqlite)
        volume = launch(project, project.newProtocol(
            ProtImportVolumes, filesPath=str(folder / "volume0.mrc"), samplingRate=phantom.PIXEL_SIZE_A, setHalfMaps=True,
            half1map=str(folder / "volume1.mrc"), half2map=str(folder / "volume2.mrc")))
        mask = launch(project, project.newProtocol(
            ProtImportMask, maskPath=str(folder / "mask.mrc"), samplingRate=phantom.PIXEL_SIZE_A))
        made = SimpleNamespace(project=project, folder=folder, given=given, particles=particles, volume=volume, mask=mask)
        made.subtracted = launch(project, subtraction(made, recentre=True, newBox=NEW_BOX))
        poses = (particles, "outputParticles")
        made.expanded = launch(project, new(project, ProtSwiftresExpand, inputParticles=poses, symmetry="c4"))
        yield made


@pytest.fixture(scope="module")
def relaxed(work):
    return launch(work.project, new(work.project, ProtSwiftresRelax, inputParticles=(work.particles, "outputParticles"),
                                    symmetry="C4", resolution=16.0))


@pytest.fixture(scope="module")
def classified(work):
    return launch(work.project, new(
        work.project, ProtSwiftresClassify, inputParticles=(work.expanded, "outputParticles"), resolution=16.0, starts=1,
        mask=(work.mask, "outputMask")))


def subtraction(work, **choices):
    return new(work.project, ProtSwiftresSubtract, inputParticles=(work.particles, "outputParticles"),
               inputVolume=(work.volume, "outputVolume"), mask=(work.mask, "outputMask"), **choices)


def test_images_that_are_left_show_the_lobe_where_the_poses_say(work):
    """Against analytic projections of the lobe, at the poses that Scipion holds, in the small box."""
    particles = work.subtracted.outputParticles
    assert particles.getDim()[0] == NEW_BOX and particles.hasAlignmentProj() and particles.hasCTF()
    assert particles.getSamplingRate() == phantom.PIXEL_SIZE_A
    items = [item.clone() for item in particles.iterItems()]
    assert [item.getObjId() for item in items] == [3 * i + 5 for i in range(COUNT)]
    assert [item._rlnRandomSubset.get() for item in items] == [i % 2 + 1 for i in range(COUNT)]
    inverses = np.array([np.linalg.inv(item.getTransform().getMatrix()) for item in items])
    shift_a = -inverses[:, :2, 3] * phantom.PIXEL_SIZE_A
    np.testing.assert_allclose(inverses[:, :3, :3].transpose(0, 2, 1), work.given.truth.image_to_volume, atol=1e-5)
    assert np.abs(shift_a).max() <= phantom.PIXEL_SIZE_A / 2 + 1e-4
    found = phantom.Truth(work.given.truth.image_to_volume, shift_a)
    expected = phantom.apply_ctf(phantom.projections(found, REST_A[None], LOBE[1]), work.given.defocus_a)
    inner = slice(phantom.BOX_PX // 2 - NEW_BOX // 2, phantom.BOX_PX // 2 + NEW_BOX // 2)
    with mrcfile.open(items[0].getFileName()) as stack:
        images = stack.data.copy()
    expected = expected[:, inner, inner]
    # the lobe of every image stands in the middle, and is found there in spite of the noise
    likeness, wrong = (float((images * one).sum() / np.sqrt((images ** 2).sum() * (one ** 2).sum()))
                       for one in (expected, np.roll(expected, 5, 1)))
    assert likeness > 0.5 and likeness > 3 * wrong


def test_volume_and_mask_of_what_is_left_stand_in_the_same_frame(work):
    for name in ("outputVolume", "outputMask"):
        output = getattr(work.subtracted, name)
        assert output.getDim()[0] == NEW_BOX and output.getSamplingRate() == phantom.PIXEL_SIZE_A
        assert not Path(output.getFileName()).is_absolute()
        with mrcfile.open(output.getFileName()) as mrc:
            place = [(axis * mrc.data).sum() / mrc.data.sum() - NEW_BOX // 2 for axis in np.indices(mrc.data.shape)][::-1]
        np.testing.assert_allclose(place, REST_A / phantom.PIXEL_SIZE_A, atol=0.35)


def test_subtraction_says_what_it_did(work):
    summary, methods = " ".join(work.subtracted.summary()), " ".join(work.subtracted.methods())
    assert f"{COUNT} images of {NEW_BOX} px" in summary and "own half map" in summary and "voxel (+7, +0, +5)" in summary
    assert f"{COUNT} particles" in methods and f"cut to {NEW_BOX} px" in methods
    relations = {(row["object_parent_id"], row["object_child_id"])
                 for row in work.subtracted.getMapper().getRelationsByCreator(work.subtracted)}
    sources = [protocol.getObjId() for protocol in (work.particles, work.volume, work.mask)]
    assert {parent for parent, _ in relations} == set(sources)
    left = {name: getattr(work.subtracted, name).getObjId() for name in ("outputParticles", "outputVolume", "outputMask")}
    assert {parent for parent, child in relations if child == left["outputParticles"]} == {sources[0]}
    for name in ("outputVolume", "outputMask"):
        assert {parent for parent, child in relations if child == left[name]} == set(sources)


# What the viewers draw, and how many axes that has: sliders and colour bars count.
OF_THE_SUBTRACTION = {"showSlices": 9, "showSurface": 2, "showGallery": 16}
OF_THE_RELAXATION = {"showProbability": 1, "showMates": 1, "showRounds": 1}
OF_THE_CLASSIFICATION = {"showSlices": 9, "showSurface": 2, "showFsc": 1, "showClassSizes": 1, "showCertainty": 1,
                         "showRounds": 1, "showGallery": 16}


def viewer_of(work, protocol):
    """The viewer that Scipion offers."""
    (kind,) = [one for one in pw.Config.getDomain().findViewers(protocol, pw.viewer.DESKTOP_TKINTER)
               if one.__name__.startswith("Swiftres")]
    viewer = kind(project=work.project)
    viewer.setProtocol(protocol)
    return viewer


def check_picture(viewer, field, axes):
    from matplotlib import pyplot
    (view,) = viewer._getVisualizeDict()[field]()
    assert hasattr(view, "figure"), f"{field}: {getattr(view, '_msg', view)}"
    assert len(view.figure.axes) == axes, field
    pyplot.close(view.figure)


def check_pictures(viewer, expected):
    """Every picture of the viewer."""
    assert set(viewer._getVisualizeDict()) - {"showChimera"} == {*expected, "savePictures"}
    if "showGallery" in expected:
        viewer.galleryCount.set(8)
    for field, axes in expected.items():
        check_picture(viewer, field, axes)


def test_what_is_left_is_shown(work):
    check_picture(viewer_of(work, work.subtracted), "showSlices", 9)


@pytest.mark.slow
def test_viewers_draw_their_pictures(work, relaxed, classified):
    check_pictures(viewer_of(work, work.subtracted), OF_THE_SUBTRACTION)
    check_pictures(viewer_of(work, classified), OF_THE_CLASSIFICATION)
    viewer = viewer_of(work, relaxed)
    check_pictures(viewer, OF_THE_RELAXATION)
    assert [len(frame.patches) for frame in viewer._drawMates().figure.axes] == [4]  # a bar for each mate


def test_subtraction_refuses_what_cannot_be(work):
    without = new(work.project, ProtSwiftresSubtract, inputParticles=(work.particles, "outputParticles"), recentre=True,
                  inputVolume=(work.volume, "outputVolume"), newBox=80)
    problems = " ".join(without.validate())
    assert "centre of mass" in problems and "80 px were asked for" in problems
    other = subtraction(work)
    other.inputParticles = Pointer(work.subtracted, extended="outputParticles")
    problems = " ".join(other.validate())
    assert f"The volume has {phantom.BOX_PX} px" in problems and "Resample the mask" in problems
    assert subtraction(work, useHalfMaps=False).warnings() == []


@pytest.mark.slow
def test_the_lobe_is_refined_by_itself(work):
    """The chain of a user: local refinement of what is left, with volume and mask from the subtraction."""
    refined = new(work.project, ProtSwiftres, inputParticles=(work.subtracted, "outputParticles"), alignment=LOCAL,
                  iterations=1, initialResolution=20.0, anglePrior=3.0, shiftPrior=2.0, mask=(work.subtracted, "outputMask"))
    refined.inputVolumes.append(Pointer(work.subtracted, extended="outputVolume"))
    launch(work.project, refined)
    plain = launch(work.project, new(work.project, ProtSwiftresReconstruct, mask=(work.subtracted, "outputMask"),
                                     inputParticles=(work.subtracted, "outputParticles")))
    axis = (np.arange(NEW_BOX) - NEW_BOX // 2) * phantom.PIXEL_SIZE_A
    lines = [np.exp(-0.5 * ((axis - place) / phantom.SIGMA_A) ** 2) for place in REST_A]
    true = np.einsum("z,y,x->zyx", *lines[::-1])
    for protocol in (refined, plain):
        with mrcfile.open(protocol.outputVolume.getFileName()) as mrc, mrcfile.open(
                work.subtracted.outputMask.getFileName()) as window:
            inside = window.data > 0.5
            assert np.corrcoef(mrc.data[inside], true[inside])[0, 1] > 0.9


@pytest.mark.slow
def test_continue_after_another_choice_cuts_anew(work):
    """A changed box repeats the last two steps and renews the outputs in place."""
    copy = launch(work.project, work.project.copyProtocol(work.project.getProtocol(work.subtracted.getObjId())))
    before = copy.outputParticles.getObjId()
    copy = work.project.getProtocol(copy.getObjId())
    copy.newBox.set(24)
    copy.runMode.set(MODE_RESUME)
    launch(work.project, copy)
    assert copy.outputParticles.getObjId() == before and copy.outputParticles.getDim()[0] == 24
    assert convert.half_sets(copy.outputParticles) == {1, 2}


def rotations(particles):
    """{id: (3, 3) image_to_volume} by the definition x_image = inv(M) x_volume."""
    return {item.getObjId(): np.linalg.inv(item.getTransform().getMatrix())[:3, :3].T for item in particles.iterItems()}


def mates_of(found, true):
    """(N,) the number of the operator, from 0, that takes the true orientation to the one found."""
    turns = np.einsum("nij,nkj->nik", found, true)
    distance = np.abs(turns[:, None] - np.array(MATES)).max(axis=(2, 3))
    assert distance.min(axis=1).max() < 1e-4  # at a mate, and nowhere else
    return distance.argmin(axis=1)


@pytest.mark.slow
def test_relaxed_particles_are_at_the_right_mate(work, relaxed):
    """Input mates are forgotten first; which of the four frames the lobe ends in is free, but one for all particles."""
    particles = relaxed.outputParticles
    items = [item.clone() for item in particles.iterItems()]
    assert [item.getObjId() for item in items] == [3 * i + 5 for i in range(COUNT)]
    numbers = mates_of(np.array(list(rotations(particles).values())), work.given.truth.image_to_volume)
    assert np.bincount(numbers).max() >= 0.98 * COUNT  # the lobe is a seventh of the mass, and all find it
    told = np.array([item._swiftresRelaxedMate.get() for item in items])
    sure = np.array([item._swiftresRelaxedProbability.get() for item in items])
    assert set(told) <= {1, 2, 3, 4}
    assert len({(a, b) for a, b in zip(told, numbers)}) == len(set(numbers))  # one number for each operator
    assert 0.9 < sure.mean() <= 1
    assert [item._rlnRandomSubset.get() for item in items] == [i % 2 + 1 for i in range(COUNT)]


@pytest.mark.slow
def test_relaxation_says_what_it_found(work, relaxed):
    summary, methods = " ".join(relaxed.summary()), " ".join(relaxed.methods())
    assert "mates in C4" in summary and "Agreement of the halves" in summary and "Warning" not in summary
    assert f"{COUNT} particles was put at the likeliest" in methods and "to 16 A" in methods


def test_relaxation_needs_a_symmetry(work):
    wrong = new(work.project, ProtSwiftresRelax, inputParticles=(work.particles, "outputParticles"))
    assert "no mates to choose among" in " ".join(wrong.validate())


def test_expanded_particles_stand_at_every_mate(work):
    """Four of each, with numbers of their own; image, CTF and half set are those of the particle they come from."""
    particles, given = work.expanded.outputParticles, work.particles.outputParticles
    assert particles.getSize() == 4 * COUNT and particles.hasAlignmentProj()
    sources = {item.getObjId(): item.clone() for item in given.iterItems()}
    seen = {}
    for item in particles.iterItems():
        source = sources[item._swiftresSourceParticle.get()]
        assert item.getLocation() == source.getLocation()
        assert item.getCTF().getDefocusU() == source.getCTF().getDefocusU()
        assert item._rlnRandomSubset.get() == source._rlnRandomSubset.get()
        turn = item.getTransform().getMatrix() @ np.linalg.inv(source.getTransform().getMatrix())
        # the operator about the axis through the centre, so that the lobe of the image stays where it is in it
        np.testing.assert_allclose(turn[:3, :3], MATES[item._swiftresMate.get() - 1], atol=1e-5)
        np.testing.assert_allclose(turn[:3, 3], 0, atol=1e-4)
        seen.setdefault(source.getObjId(), []).append(item._swiftresMate.get())
    assert seen.keys() == sources.keys() and all(mates == [1, 2, 3, 4] for mates in seen.values())
    assert str(4 * COUNT) in work.expanded.summary()[0] and str(4 * COUNT) in work.expanded.methods()[0]


def test_particles_are_expanded_once(work):
    again = new(work.project, ProtSwiftresExpand, inputParticles=(work.expanded, "outputParticles"), symmetry="C4")
    assert again.validate() == ["These particles are expanded already."]
    none = new(work.project, ProtSwiftresExpand, inputParticles=(work.particles, "outputParticles"))
    assert "C1 has no mates" in " ".join(none.validate())


@pytest.mark.slow
def test_copies_with_the_lobe_are_found_among_expanded_particles(classified):
    """The mask holds one of four places; each particle has the lobe there at one of its mates: a class of a quarter."""
    items = [item.clone() for item in classified.outputParticles.iterItems()]
    assert len(items) == 4 * COUNT
    number = np.array([item.getClassId() for item in items])
    first = np.array([item._swiftresMate.get() for item in items]) == 1  # the poses as they were, with the lobe in the mask
    lobe = np.bincount(number[first]).argmax()
    assert np.mean((number == lobe) == first) >= 0.93
    assert np.mean([item._swiftresClassProbability.get() for item in items]) > 0.9
    assert all(item.getTransform() is not None for item in items)


@pytest.mark.slow
def test_classes_volumes_and_curves_belong_together(classified):
    sizes = classified._report()["class_sizes"]
    classes = [one.clone() for one in classified.outputClasses.iterItems()]
    found = {one.getObjId(): one.getSize() for one in classified.outputClasses.iterItems()}
    assert found == {number: size for number, size in enumerate(sizes, 1)}
    volumes = [one.clone() for one in classified.outputVolumes.iterItems()]
    curves = [one.clone() for one in classified.outputFSCs.iterItems()]
    assert [one.getObjId() for one in volumes] == [1, 2] and [one.getObjLabel() for one in curves] == ["class 1", "class 2"]
    maps = []
    for volume, one in zip(volumes, classes):
        assert one.getRepresentative().getFileName() == volume.getFileName() and volume.hasHalfMaps()
        assert volume.getSamplingRate() == phantom.PIXEL_SIZE_A
        for path in (volume.getFileName(), *volume.getHalfMaps().split(",")):
            assert not Path(path).is_absolute() and Path(path).exists()
        with mrcfile.open(volume.getFileName()) as mrc:
            maps.append(mrc.data.copy())
    difference = np.abs(maps[0] - maps[1])
    place = np.array(np.unravel_index(difference.argmax(), difference.shape))[::-1] - phantom.BOX_PX // 2
    assert np.abs(place - LOBE_A / phantom.PIXEL_SIZE_A).max() < 1.5  # they differ where the lobe is


@pytest.mark.slow
def test_classification_says_what_it_found(classified):
    summary, methods = " ".join(classified.summary()), " ".join(classified.methods())
    assert f"{4 * COUNT} particles in 2 classes" in summary and "Class 2:" in summary and "agreement of the halves" in summary
    assert "from the directions in which the particles vary" in methods and "to 16 A" in methods


def test_classification_refuses_what_cannot_be(work):
    one = new(work.project, ProtSwiftresClassify, inputParticles=(work.particles, "outputParticles"), classes=20)
    one.inputVolumes.append(Pointer(work.volume, extended="outputVolume"))
    assert "One volume makes no classes" in " ".join(one.validate())
    many = new(work.project, ProtSwiftresClassify, inputParticles=(work.particles, "outputParticles"), classes=20)
    assert "20 classes need at least 1000 particles" in " ".join(many.validate())


@pytest.mark.slow
def test_every_path_is_relative_to_the_project(work, relaxed, classified):
    for protocol in (work.subtracted, work.expanded, relaxed, classified):
        for _, output in protocol.iterOutputAttributes():
            for path in output.getFiles() or ():
                assert not Path(path).is_absolute() and Path(path).exists(), path
