"""The protocols in a chain, from simulated particles to a sharpened map, and what they say of wrong input."""
import json
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from pwem.protocols import ProtImportVolumes, ProtSplitSet, ProtUnionSet  # noqa: E402
from pyworkflow.object import Pointer  # noqa: E402
from pyworkflow.project import Manager  # noqa: E402
from pyworkflow.protocol import MODE_RESUME  # noqa: E402

from swiftres_plugin import convert, layout  # noqa: E402
from swiftres_plugin.protocols import (  # noqa: E402
    ProtSwiftres,
    ProtSwiftresAlign,
    ProtSwiftresClassify,
    ProtSwiftresCompare,
    ProtSwiftresInitialModel,
    ProtSwiftresPostprocess,
    ProtSwiftresReconstruct,
    ProtSwiftresRelax,
    ProtSwiftresSimulate,
)

from . import outputs, phantom  # noqa: E402
from .running import launch, new  # noqa: E402

COUNT = 120
LOCAL = 1  # the position of 'local' in the list of alignments


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A project in which the protocols ran, one after another."""
    folder = tmp_path_factory.mktemp("chain")
    phantom.write_mrc(folder / "particle.mrc", phantom.volume())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        project = Manager().createProject("chain", location=str(folder))
        patch.chdir(project.path)
        pw.Config.getDomain().findClass("ProtSwiftres")
        volume = launch(project, project.newProtocol(
            ProtImportVolumes, filesPath=str(folder / "particle.mrc"), samplingRate=phantom.PIXEL_SIZE_A))
        simulated = launch(project, new(
            project, ProtSwiftresSimulate, "simulate", count=COUNT, snr=0.0, shiftSigma=1.0, defocusMax=15000.0,
            inputVolume=(volume, "outputVolume")))
        refined = new(project, ProtSwiftres, "refine", initialResolution=50.0, iterations=1, diameter=150.0,
                      inputParticles=(simulated, "outputParticles"))
        refined.inputVolumes.append(Pointer(simulated, extended="outputInitialVolume"))
        launch(project, refined)
        aligned = new(project, ProtSwiftresAlign, "align", resolution=20.0, diameter=150.0, alignment=LOCAL,
                      inputParticles=(refined, "outputParticles"))
        aligned.inputVolumes.append(Pointer(simulated, extended="outputVolume"))
        launch(project, aligned)
        compared = launch(project, new(
            project, ProtSwiftresCompare, "compare", inputParticles=(aligned, "outputParticles"), maxAngle=6.0,
            otherParticles=(simulated, "outputParticles"), align=False))
        reconstructed = launch(project, new(
            project, ProtSwiftresReconstruct, "reconstruct", inputParticles=(compared, "outputParticles"), diameter=150.0))
        processed = launch(project, new(
            project, ProtSwiftresPostprocess, "post-process", inputVolume=(reconstructed, "outputVolume"), bfactor="-50",
            inputParticles=(compared, "outputParticles")))
        yield SimpleNamespace(project=project, folder=folder, volume=volume, simulated=simulated, refined=refined,
                              aligned=aligned, compared=compared, reconstructed=reconstructed, processed=processed)


def matrices(particles):
    return {p.getObjId(): p.getTransform().getMatrix().copy() for p in particles.iterItems()}


def test_simulated_particles_hold_the_truth(work):
    """Image and pose belong together: the noise-free projection at the pose is what the image shows."""
    particles = work.simulated.outputParticles
    assert particles.getSize() == COUNT and particles.hasCTF() and particles.hasAlignmentProj()
    assert particles.getSamplingRate() == pytest.approx(phantom.PIXEL_SIZE_A)
    items = [item.clone() for item in particles.iterItems()]
    with mrcfile.open(items[0].getFileName()) as stack, mrcfile.open(work.simulated.outputVolume.getFileName()) as volume:
        images, scale = stack.data.copy(), volume.data.max() / phantom.volume().max()
    inverses = np.array([np.linalg.inv(item.getTransform().getMatrix()) for item in items])
    truth = phantom.Truth(inverses[:, :3, :3].transpose(0, 2, 1), -inverses[:, :2, 3] * phantom.PIXEL_SIZE_A)
    defocus = np.array([item.getCTF().getDefocusU() for item in items])
    predicted = scale * phantom.apply_ctf(phantom.projections(truth), defocus)
    with_noise = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, predicted)]
    assert np.median(with_noise) > 0.3  # signal as strong as noise on the area of the particle, and the box is larger
    assert np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, np.roll(predicted, 1, 0))]) < 0.2
    assert set(item._rlnRandomSubset.get() for item in items) == {1, 2}


def turns_deg(one, other):
    """{id: angle between the orientations} of two sets of particles."""
    found, true = matrices(one), matrices(other)
    assert found.keys() == true.keys()
    cosines = {i: (np.trace(found[i][:3, :3].T @ true[i][:3, :3]) - 1) / 2 for i in found}
    return {i: np.rad2deg(np.arccos(np.clip(cosine, -1, 1))) for i, cosine in cosines.items()}


def test_refinement_finds_the_poses_from_a_coarse_map(work):
    """One iteration to 50 A, 0.3 of a particle of 170 A: poses to some twenty degrees, where chance gives 126."""
    turns = turns_deg(work.refined.outputParticles, work.simulated.outputParticles)
    assert np.median(list(turns.values())) < 30
    assert work.refined.outputVolume.hasHalfMaps() and work.refined.outputFSCs.getSize() == 1


def test_half_sets_of_the_input_are_kept(work):
    """From the simulation through refinement and alignment: a particle never changes its half."""
    given, *kept = [{p.getObjId(): p._rlnRandomSubset.get() for p in one.outputParticles.iterItems()}
                    for one in (work.simulated, work.refined, work.aligned)]
    assert set(given.values()) == {1, 2} and all(one == given for one in kept)


def test_aligned_poses_are_near_the_truth(work):
    """Refined locally, against the true map, from what the refinement found: 6 degrees in the median."""
    coarse = np.median(list(turns_deg(work.refined.outputParticles, work.simulated.outputParticles).values()))
    fine = np.median(list(turns_deg(work.aligned.outputParticles, work.simulated.outputParticles).values()))
    assert fine < 8 and fine < coarse
    assert all(np.isfinite(p._rlnLogLikeliContribution.get()) for p in work.aligned.outputParticles.iterItems())


def test_differences_are_attributes_and_the_consensus_obeys_the_limits(work):
    differences, agreed = work.compared.outputDifferences, work.compared.outputParticles
    values = {p.getObjId(): (p._swiftresAngleDifference.get(), p._swiftresShiftDifference.get())
              for p in differences.iterItems()}
    assert len(values) == COUNT
    within = {i for i, (angle, shift) in values.items() if angle <= 6.0 and shift <= 5.0}
    assert {p.getObjId() for p in agreed.iterItems()} == within and COUNT / 4 < len(within) <= COUNT
    found, true = matrices(work.aligned.outputParticles), matrices(work.simulated.outputParticles)
    some = next(iter(values))
    turn = np.rad2deg(np.arccos((np.trace(found[some][:3, :3].T @ true[some][:3, :3]) - 1) / 2))
    assert values[some][0] == pytest.approx(turn, abs=1e-2)


def test_reconstruction_resembles_the_particle(work):
    volume = work.reconstructed.outputVolume
    assert volume.hasHalfMaps() and volume.getSamplingRate() == pytest.approx(phantom.PIXEL_SIZE_A)
    with mrcfile.open(volume.getFileName()) as mrc:
        assert np.corrcoef(mrc.data.ravel(), phantom.volume().ravel())[0, 1] > 0.8
    assert Path(work.reconstructed.outputMask.getFileName()).exists()


def test_post_processing_gives_maps_curve_and_mask(work):
    protocol = work.processed
    assert protocol.outputVolume.hasHalfMaps() and "B-factor -50" in protocol.summary()[0]
    with mrcfile.open(protocol.outputLocalResolution.getFileName()) as local:
        inside = local.data[local.data > 0]
        assert 2 * phantom.PIXEL_SIZE_A <= inside.min() and np.median(inside) < 60
    assert protocol.outputMask.getSamplingRate() == pytest.approx(phantom.PIXEL_SIZE_A)
    assert "Efficiency of orientations" in " ".join(protocol.summary())


@pytest.fixture(scope="module")
def models(work):
    """Two starting volumes of the simulated particles, found in as few steps as there can be."""
    return launch(work.project, new(
        work.project, ProtSwiftresInitialModel, "initial model", count=2, finestResolution=34.0, steps=5, starts=1,
        diameter=150.0, inputParticles=(work.simulated, "outputParticles")))


def test_initial_models_are_volumes_and_classes(work, models):
    """Every particle has a pose and a class; class sizes are the engine's; the hand is said to be open."""
    volumes = [volume.clone() for volume in models.outputVolumes.iterItems()]
    assert [Path(volume.getFileName()).name for volume in volumes] == [layout.map_name(number) for number in (1, 2)]
    for volume in volumes:
        assert volume.getSamplingRate() == pytest.approx(phantom.PIXEL_SIZE_A) and not volume.hasHalfMaps()
        with mrcfile.open(volume.getFileName()) as mrc:
            assert mrc.data.shape == phantom.volume().shape and mrc.data.std() > 0
    told = json.loads(Path(models._getRunPath(layout.RUN)).read_text())
    classes = [particle.getClassId() for particle in models.outputParticles.iterItems()]
    assert np.bincount(classes, minlength=3)[1:].tolist() == told["class_sizes"] and len(classes) == COUNT
    filled = {one.getObjId(): one.getSize() for one in models.outputClasses.iterItems()}
    assert filled == {number: size for number, size in enumerate(told["class_sizes"], 1) if size}
    assert models.outputParticles.hasAlignmentProj() and told["handedness"] == "undetermined"
    assert f"{told['agreeing']} of the {len(told['agreement'])} likeliest random starts" in " ".join(models.summary())
    assert "hand is undetermined" in " ".join(models.summary()) and f"{COUNT} particles" in models.methods()[0]


def test_initial_models_refuse_what_cannot_be(work):
    protocol = new(work.project, ProtSwiftresInitialModel, "too much", count=10, finestResolution=8.0,
                   inputParticles=(work.simulated, "outputParticles"))
    problems = " ".join(protocol.validate())
    assert "at least 200 particles" in problems and "Nyquist" in problems


def test_poses_survive_splitting_and_joining(work):
    """pwem's own protocols split the aligned set by chance and join the parts: ids and poses reach the engine unchanged."""
    split = new(work.project, ProtSplitSet, "split", numberOfSets=2, randomize=True,
                inputSet=(work.aligned, "outputParticles"))
    launch(work.project, split)
    parts = [name for name, _ in split.iterOutputAttributes()]
    joined = work.project.newProtocol(ProtUnionSet)
    for name in sorted(parts, reverse=True):
        joined.inputSets.append(Pointer(split, extended=name))
    launch(work.project, joined)
    (particles,) = [output for _, output in joined.iterOutputAttributes()]
    star = work.folder / "joined.star"
    assert convert.write_particles(particles, str(star), str(work.folder)) == COUNT
    found = convert.read_refined(str(star), particles.getSamplingRate())
    by_image = {p.getLocation(): p.getTransform().getMatrix().copy() for p in work.aligned.outputParticles.iterItems()}
    for item in particles.iterItems():
        ours = found.matrices[found.row_of_id[item.getObjId()]]
        np.testing.assert_allclose(ours, by_image[item.getLocation()], atol=1e-6)


def test_every_path_is_relative_to_the_project(work):
    for protocol in (work.simulated, work.refined, work.aligned, work.compared, work.reconstructed, work.processed):
        for _, output in protocol.iterOutputAttributes():
            for path in output.getFiles() or ():  # an FSC has none
                assert not Path(path).is_absolute() and Path(path).exists(), path


def test_summary_and_methods_have_numbers(work):
    for protocol, number in ((work.simulated, f"{COUNT} particle"), (work.aligned, f"{COUNT} particles"),
                             (work.refined, f"{COUNT} particles"), (work.compared, f"{COUNT} particles"),
                             (work.reconstructed, "aligned particles"), (work.processed, "B-factor of -50 A^2")):
        again = work.project.getProtocol(protocol.getObjId())
        assert number in " ".join(again.methods()) and again.summary() and again.citations()
        assert "not ready" not in " ".join(again.summary())


def test_outputs_are_related_to_inputs(work):
    links = [tuple(relation[1:]) for relation in relations(work.aligned)]
    assert len(links) == len(set(links)) > 0


def relations(protocol):
    mapper = protocol.getMapper()
    return [(row["id"], row["name"], row["object_parent_id"], row["object_child_id"])
            for row in mapper.getRelationsByCreator(protocol)]


def test_continue_renews_outputs_and_keeps_their_ids(work):
    """A changed limit repeats the last two steps; what points to the outputs stays right."""
    protocol = work.project.getProtocol(work.compared.getObjId())
    before = protocol.outputDifferences.getObjId()
    copy = work.project.copyProtocol(protocol)
    launch(work.project, copy)
    ids = [copy.outputDifferences.getObjId(), copy.outputParticles.getObjId()]
    size = copy.outputParticles.getSize()
    copy = work.project.getProtocol(copy.getObjId())
    copy.maxAngle.set(180.0)
    copy.maxMove.set(1000.0)
    copy.runMode.set(MODE_RESUME)
    launch(work.project, copy)
    assert [copy.outputDifferences.getObjId(), copy.outputParticles.getObjId()] == ids
    assert copy.outputParticles.getSize() == COUNT >= size
    assert len(list(copy.outputParticles.iterItems())) == COUNT
    assert protocol.outputDifferences.getObjId() == before
    copy = work.project.getProtocol(copy.getObjId())
    copy.maxAngle.set(0.0)
    copy.runMode.set(MODE_RESUME)
    copy = work.project.getProtocol(launch(work.project, copy).getObjId())
    assert copy.outputParticles.getSize() == 0 and copy.outputDifferences.getSize() == COUNT  # nothing agrees
    assert copy.summary()[1].startswith("0 of them (0%)")


def test_an_exported_workflow_runs_again_with_the_same_images(work, monkeypatch):
    """Exported to JSON, loaded in a new project and run there: images, poses and maps are the same to the last bit."""
    ours = [work.project.getProtocol(protocol.getObjId()) for protocol in (work.volume, work.simulated)]
    work.project.getRunsGraph(refresh=True)
    work.project.exportProtocols(ours, str(work.folder / "workflow.json"))
    expected, first = [outputs.contents(protocol) for protocol in ours], images(work.simulated)
    other = Manager().createProject("again", location=str(work.folder))
    with monkeypatch.context() as patch:
        patch.chdir(other.path)
        loaded = other.loadProtocols(filename=str(work.folder / "workflow.json")).values()
        for protocol, theirs in zip(loaded, expected):
            outputs.assert_same(outputs.contents(launch(other, protocol)), theirs)
        np.testing.assert_array_equal(images(protocol), first)


def images(protocol):
    with mrcfile.open(protocol.outputParticles.getFirstItem().getFileName()) as stack:
        return stack.data.copy()


def test_wrong_input_is_named(work):
    project = work.project
    bare = new(project, ProtSwiftresSimulate, "bare", defocusMin=9000.0, defocusMax=100.0)
    problems = " ".join(bare.validate())
    assert "Give the volume" in problems and "least defocus" in problems
    local = new(project, ProtSwiftresAlign, "local", symmetry="Q", inputParticles=(work.simulated, "outputParticles"))
    local.inputVolumes.append(Pointer(work.simulated, extended="outputVolume"))
    assert "Unknown symmetry 'Q'" in " ".join(local.validate())


def test_the_engine_was_asked_what_the_form_says(work):
    report = json.loads(Path(work.aligned._getRunPath(layout.RUN)).read_text())
    assert report["settings"]["target"] == {"resolution": 20.0, "symmetry": "C1", "alignment": "local"}
    assert report["settings"]["preprocess"]["diameter"] == 150.0


def test_the_resolution_wizard_measures_volumes_of_the_form_and_then_those_of_the_particles(work):
    from swiftres_plugin.wizards import measurable, resolutions

    def first(kind, **pointers):
        found = next(measurable(new(work.project, kind, "wizard", **pointers)), None)
        return found and found.getFileName()

    refined = {"inputParticles": (work.refined, "outputParticles")}
    for kind in (ProtSwiftresRelax, ProtSwiftresClassify):
        assert first(kind, **refined) == work.refined.outputVolume.getFileName()
    made = first(ProtSwiftresRelax, **refined, inputVolume=(work.reconstructed, "outputVolume"))
    assert made == work.reconstructed.outputVolume.getFileName()
    assert first(ProtSwiftresClassify, inputParticles=(work.simulated, "outputParticles")) is None
    found = [value for value, _ in resolutions(work.reconstructed.outputVolume, to_begin_with=True)]
    assert 2 * phantom.PIXEL_SIZE_A <= found[0] < found[1] < found[2] == 3 * found[0]


# What each viewer draws, and how many axes that has: sliders and colour bars count.
VIEWERS = {
    "simulated": {"showSlices": 9, "showSurface": 2, "showDirections": 2, "showDefocus": 1, "showGallery": 16},
    "aligned": {"showDirections": 2, "showScores": 2, "showClassSizes": 1, "showGallery": 16},
    "compared": {"showDifferences": 4},
    "models": {"showSlices": 9, "showSurface": 2, "showEvidence": 1, "showClassSizes": 1, "showDirections": 2,
               "showGallery": 16},
    "reconstructed": {"showSlices": 9, "showSurface": 2, "showLocalResolution": 3, "showFsc": 1, "showDirections": 2},
    "processed": {"showSlices": 9, "showSurface": 2, "showLocalResolution": 3, "showFsc": 1, "showGuinier": 1,
                  "showDirectional": 3, "showDirections": 2}}
OF_THE_ENGINE = {"showGallery", "showLocalResolution"}  # takes seconds; that of the post-processing has its map already


@pytest.fixture
def viewers(work, models):
    """The viewer that Scipion offers for each protocol, by the protocol's name here."""
    from matplotlib import pyplot
    found = {}
    for name in VIEWERS:
        protocol = models if name == "models" else getattr(work, name)
        (kind,) = [one for one in pw.Config.getDomain().findViewers(protocol, pw.viewer.DESKTOP_TKINTER)
                   if one.__name__.startswith("Swiftres")]
        found[name] = kind(project=work.project)
        found[name].setProtocol(protocol)
    sizes = {one.getObjId(): one.getSize() for one in models.outputClasses.iterItems()}
    found["models"].classNumber.set(max(sizes, key=sizes.get))  # of two maps of one particle the other may stay empty
    yield found
    pyplot.close("all")


def test_every_viewer_draws_its_pictures(viewers):
    for name, pictures in VIEWERS.items():
        assert set(viewers[name]._getVisualizeDict()) - {"showChimera"} == {*pictures, "savePictures"}
        for field in set(pictures) - OF_THE_ENGINE:
            check_picture(viewers[name], field, pictures[field])


@pytest.mark.slow
def test_every_viewer_draws_what_the_engine_makes_for_it(viewers):
    for name, pictures in VIEWERS.items():
        if "showGallery" in pictures:
            viewers[name].galleryCount.set(8)
        for field in OF_THE_ENGINE & set(pictures):
            check_picture(viewers[name], field, pictures[field])


def check_picture(viewer, field, axes):
    from matplotlib import pyplot
    (view,) = viewer._getVisualizeDict()[field]()
    assert hasattr(view, "figure"), f"{viewer.getClassName()} {field}: {getattr(view, '_msg', view)}"
    assert len(view.figure.axes) == axes, (viewer.getClassName(), field)
    pyplot.close(view.figure)


def test_the_limits_stand_in_the_picture_of_the_differences(work, viewers):
    figure = viewers["compared"]._drawDifferences().figure
    angles, shifts = figure.axes[:2]
    assert {line.get_xdata()[0] for line in angles.lines} >= {work.compared.maxAngle.get()}
    assert {line.get_xdata()[0] for line in shifts.lines} >= {work.compared.maxMove.get()}
    below = figure.axes[3].lines[0]
    assert below.get_ydata()[-1] == 1 and len(below.get_xdata()) == COUNT
