"""Scipion's objects to files and back: poses, ids, optics and formats survive."""
from pathlib import Path

import mrcfile
import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pwem.convert.transformations as tfs  # noqa: E402
from emtable import Table  # noqa: E402
from pwem.objects import SetOfParticles, Volume  # noqa: E402
from pyworkflow.object import Integer, String  # noqa: E402

from swiftres_plugin import convert  # noqa: E402

from . import phantom  # noqa: E402

COUNT = 12


def table(path, name="particles"):
    return list(Table.iterRows(f"{name}@{path}"))


def make_set(folder: Path, poses=True, change=lambda particle, i: None):
    """A set of `COUNT` particles with ids 7, 12, 17, ...; `change` may edit each before it is stored."""
    stack = folder / "stack.mrcs"
    phantom.write_mrc(stack, np.random.default_rng(0).normal(size=(COUNT, 32, 32)), stack=True)
    truth = phantom.random_truth(COUNT)
    particles = phantom.empty_set(folder / "set.sqlite")
    if poses:
        particles.setAlignmentProj()
    for i in range(COUNT):
        matrix = phantom.scipion_matrix(truth, i) if poses else None
        item = phantom.particle(stack, i, 10000 + i, 5 * i + 7, matrix)
        change(item, i)
        particles.append(item)
    particles.write()
    return particles, truth


def test_poses_follow_scipions_definition():
    """M by the two-line recipe with pwem's own Euler functions equals the vectorised conversion."""
    random = np.random.default_rng(3)
    angles, origins = random.uniform([-180, 0, -180], [180, 180, 180], (50, 3)), random.normal(0, 20, (50, 2))
    for row, matrix in enumerate(convert.matrices_from_poses(angles, origins, 1.7)):
        inverse = tfs.euler_matrix(*-np.deg2rad(angles[row]), "szyz")
        inverse[:2, 3] = -origins[row] / 1.7
        np.testing.assert_allclose(np.linalg.inv(matrix), inverse, atol=1e-10)


def test_poses_round_trip():
    random = np.random.default_rng(4)
    angles, origins = random.uniform([-180, 1, -180], [180, 179, 180], (200, 3)), random.normal(0, 20, (200, 2))
    back, origins_back = convert.poses_from_matrices(convert.matrices_from_poses(angles, origins, 1.7), 1.7)
    np.testing.assert_allclose(back, angles, atol=1e-6)
    np.testing.assert_allclose(origins_back, origins, atol=1e-6)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_poles_keep_their_matrix(tilt):
    """At the poles rot and psi are not unique, their matrix is."""
    matrices = convert.matrices_from_poses(np.array([[33.0, tilt, 20.0]]), np.array([[3.0, -2.0]]), 2.0)
    again = convert.matrices_from_poses(*convert.poses_from_matrices(matrices, 2.0), 2.0)
    np.testing.assert_allclose(again, matrices, atol=1e-9)


def test_mirrored_poses_are_refused():
    with pytest.raises(ValueError, match="mirrored"):
        convert.poses_from_matrices(np.diag([1.0, 1.0, -1.0, 1.0])[None], 1.0)


def test_particles_survive_the_round_trip(tmp_path):
    """Set -> STAR -> set gives every particle its own pose back, to 1e-6."""
    particles, truth = make_set(tmp_path)
    star = tmp_path / "particles.star"
    assert convert.write_particles(particles, str(star), str(tmp_path / "converted")) == COUNT
    refined = convert.read_refined(str(star), phantom.PIXEL_SIZE_A)
    for i, item in enumerate(particles.iterItems()):
        expected = item.getTransform().getMatrix().copy()
        item.getTransform().setMatrix(np.eye(4))
        refined.update(item)
        np.testing.assert_allclose(item.getTransform().getMatrix(), expected, atol=1e-6)
        np.testing.assert_allclose(expected, phantom.scipion_matrix(truth, i), atol=1e-12)


def test_columns_say_what_the_set_says(tmp_path):
    def with_phase_shift(item, i):
        item.getCTF().setStandardDefocus(12000.0 + i, 11000.0, 40.0)
        item.getCTF().setPhaseShift(90.0)

    particles, truth = make_set(tmp_path, change=with_phase_shift)
    particles.setIsPhaseFlipped(True)
    star = tmp_path / "particles.star"
    convert.write_particles(particles, str(star), str(tmp_path))
    rows, (optics,) = table(star), table(star, "optics")
    assert (optics.rlnVoltage, optics.rlnSphericalAberration, optics.rlnAmplitudeContrast) == (300, 2.7, 0.1)
    assert (optics.rlnImagePixelSize, optics.rlnImageSize, optics.rlnCtfDataArePhaseFlipped) == (5, 32, 1)
    assert [row.rlnImageId for row in rows] == [5 * i + 7 for i in range(COUNT)]
    assert (rows[3].rlnDefocusU, rows[3].rlnDefocusV, rows[3].rlnDefocusAngle) == (12003, 11000, 40)
    assert rows[3].rlnPhaseShift == 90
    assert rows[3].rlnImageName == f"000004@{tmp_path / 'stack.mrcs'}"
    np.testing.assert_allclose(
        [(row.rlnOriginXAngst, row.rlnOriginYAngst) for row in rows], truth.shift_a, atol=1e-6)


def test_disabled_items_stay_out(tmp_path):
    particles, _ = make_set(tmp_path, change=lambda item, i: item.setEnabled(i not in (0, 5)))
    star = tmp_path / "particles.star"
    assert convert.write_particles(particles, str(star), str(tmp_path)) == COUNT - 2
    assert [row.rlnImageId for row in table(star)] == [5 * i + 7 for i in range(COUNT) if i not in (0, 5)]


def test_particles_a_run_left_out_are_not_copied(tmp_path):
    particles, _ = make_set(tmp_path)
    star = tmp_path / "particles.star"
    convert.write_particles(particles, str(star), str(tmp_path))
    lines = star.read_text().splitlines(keepends=True)
    star.write_text("".join(line for line in lines if "000003@" not in line))
    copy = phantom.empty_set(tmp_path / "copy.sqlite")
    copy.setAlignmentProj()
    copy.copyItems(particles, doClone=False, updateItemCallback=convert.read_refined(str(star), 5.0).update)
    assert sorted(copy.getIdSet()) == [5 * i + 7 for i in range(COUNT) if i != 2]


def test_a_whole_number_in_the_first_row_does_not_make_a_column_of_whole_numbers(tmp_path):
    star = tmp_path / "particles.star"
    labels = (convert.ITEM_ID, *convert.ANGLES, *convert.ORIGINS, "rlnMaxValueProbDistribution", "rlnOther")
    head = "data_particles\n\nloop_\n" + "".join(f"_{label}\n" for label in labels)
    star.write_text(head + "5 0 0 0 0 0 1 7\n6 10.5 20.5 30.5 1.5 2.5 0.25 word\n")
    refined = convert.read_refined(str(star), 5.0)
    assert refined.row_of_id == {5: 0, 6: 1}
    np.testing.assert_allclose(refined.scores["rlnMaxValueProbDistribution"], [1, 0.25])


def test_no_poses_without_projection_alignment(tmp_path):
    particles, _ = make_set(tmp_path, poses=False)
    star = tmp_path / "particles.star"
    convert.write_particles(particles, str(star), str(tmp_path))
    assert "rlnAngleRot" not in star.read_text()


def test_each_acquisition_is_an_optics_group(tmp_path):
    particles, _ = make_set(
        tmp_path, change=lambda item, i: item.getAcquisition().setVoltage(200.0 if i % 2 else 300.0))
    star = tmp_path / "particles.star"
    convert.write_particles(particles, str(star), str(tmp_path))
    assert [(group.rlnOpticsGroup, group.rlnVoltage) for group in table(star, "optics")] == [(1, 300), (2, 200)]
    assert [row.rlnOpticsGroup for row in table(star)] == [1, 2] * (COUNT // 2)


def test_imported_optics_groups_are_kept(tmp_path):
    """The text that the RELION import leaves on a set comes back, with the set's own pixel size."""
    text = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnBeamTiltX #6
_rlnImagePixelSize #7
first 1 300.0 2.7 0.1 0.25 1.1
second 4 300.0 2.7 0.07 -0.5 1.1

"""
    particles, _ = make_set(
        tmp_path, change=lambda item, i: setattr(item, "_rlnOpticsGroup", Integer(4 if i > 6 else 1)))
    assert convert.forgotten_groups(particles) == 0
    particles.getAcquisition().opticsGroupInfo = String(text)
    assert convert.forgotten_groups(particles) == 0
    star = tmp_path / "particles.star"
    convert.write_particles(particles, str(star), str(tmp_path))
    groups = table(star, "optics")
    assert [(group.rlnOpticsGroupName, group.rlnOpticsGroup) for group in groups] == [("first", 1), ("second", 4)]
    assert [group.rlnBeamTiltX for group in groups] == [0.25, -0.5]
    assert {group.rlnImagePixelSize for group in groups} == {5.0}
    assert [row.rlnOpticsGroup for row in table(star)] == [1] * 7 + [4] * (COUNT - 7)
    (tmp_path / "other").mkdir()
    forgetful, _ = make_set(tmp_path / "other")
    forgetful.getAcquisition().opticsGroupInfo = String(text)
    assert convert.forgotten_groups(forgetful) == 2


def test_simulated_optics_groups_come_into_a_set_and_out_again(tmp_path):
    """A file of the engine with two groups, one with beam tilt: voltages on the particles, the whole table as text."""
    optics = ("1 first 300 2.7 0.1 5 32 2 0.25 [0.5,-1.5]\n", "2 second 200 2.0 0.07 5 32 2 -0.5 [0,2]\n")
    labels = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
              "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality", "rlnBeamTiltX", "rlnOddZernike")
    columns = ("rlnImageName", "rlnOpticsGroup", *convert.CTF, *convert.ANGLES, *convert.ORIGINS, "rlnRandomSubset",
               "rlnClassNumber")
    rows = [f"{i + 1:06d}@stack.mrcs {i % 2 + 1} 12000 11000 30 0 10 20 {i} 1.5 -2.5 {i % 2 + 1} 1\n" for i in range(6)]
    simulated = tmp_path / "simulated.star"
    simulated.write_text("".join(
        f"data_{name}\n\nloop_\n" + "".join(f"_{label}\n" for label in head) + "".join(lines) + "\n"
        for name, head, lines in (("optics", labels, optics), ("particles", columns, rows))))
    phantom.write_mrc(tmp_path / "stack.mrcs", np.zeros((6, 32, 32)), stack=True)
    particles = phantom.empty_set(tmp_path / "set.sqlite")
    convert.read_particles(str(simulated), particles)
    particles.write()
    particles.close()
    particles = SetOfParticles(filename=str(tmp_path / "set.sqlite"))  # as the next protocol finds it
    particles.loadAllProperties()
    assert [item.getAcquisition().getVoltage() for item in particles.iterItems()] == [300, 200] * 3
    again = tmp_path / "again.star"
    convert.write_particles(particles, str(again), str(tmp_path))
    groups = table(again, "optics")
    assert [(g.rlnOpticsGroupName, g.rlnVoltage, g.rlnBeamTiltX, g.rlnOddZernike) for g in groups] == [
        ("first", 300, 0.25, "[0.5,-1.5]"), ("second", 200, -0.5, "[0,2]")]
    assert [row.rlnOpticsGroup for row in table(again)] == [1, 2] * 3


@pytest.mark.parametrize("subsets, kept", [([1, 2], True), ([1, 1], False)])
def test_half_sets_are_kept_when_both_are_there(tmp_path, subsets, kept):
    particles, _ = make_set(
        tmp_path, change=lambda item, i: setattr(item, "_rlnRandomSubset", Integer(subsets[i % 2])))
    star = tmp_path / "particles.star"
    convert.write_particles(particles, str(star), str(tmp_path))
    assert ("_rlnRandomSubset" in star.read_text()) == kept
    if kept:
        assert [row.rlnRandomSubset for row in table(star)] == subsets * (COUNT // 2)


def test_type_suffix_of_file_names_is_removed(tmp_path):
    particles, _ = make_set(
        tmp_path, change=lambda item, i: item.setLocation(i + 1, f"{tmp_path / 'stack.mrcs'}:mrcs"))
    star = tmp_path / "particles.star"
    convert.write_particles(particles, str(star), str(tmp_path))
    assert {row.rlnImageName.split("@")[1] for row in table(star)} == {str(tmp_path / "stack.mrcs")}


def test_other_formats_are_converted(tmp_path):
    """A Spider stack is copied to MRC with the same images under the same numbers."""
    from pwem.emlib.image import ImageHandler

    particles, _ = make_set(tmp_path, poses=False)
    with mrcfile.open(tmp_path / "stack.mrcs") as mrc:
        images = mrc.data.copy()
    ImageHandler().convertStack(str(tmp_path / "stack.mrcs"), str(tmp_path / "other.stk"))
    foreign = phantom.empty_set(tmp_path / "foreign.sqlite")
    for i, item in enumerate(particles.iterItems()):
        item.setLocation(COUNT - i, str(tmp_path / "other.stk"))
        foreign.append(item)
    star = tmp_path / "particles.star"
    convert.write_particles(foreign, str(star), str(tmp_path / "converted"))
    index, stack = table(star)[2].rlnImageName.split("@")
    with mrcfile.open(stack) as mrc:
        np.testing.assert_allclose(mrc.data[int(index) - 1], images[COUNT - 3], atol=1e-6)
        assert mrc.data.shape == images.shape


def test_maps_get_scipions_pixel_size(tmp_path):
    """Headers of imported maps are often wrong; the sampling rate of the object is not."""
    voxels = phantom.volume()
    with mrcfile.new(tmp_path / "map.mrc") as mrc:
        mrc.set_data(voxels)
        mrc.voxel_size = 1.0
    volume = Volume()
    volume.setLocation(str(tmp_path / "map.mrc:mrc"))
    volume.setSamplingRate(5.0)
    convert.write_map(volume, str(tmp_path / "out.mrc"))
    with mrcfile.open(tmp_path / "out.mrc") as mrc:
        assert mrc.voxel_size.x == pytest.approx(5.0)
        np.testing.assert_array_equal(mrc.data, voxels)
    assert mrcfile.validate(str(tmp_path / "out.mrc"))


def test_resolution_of_half_maps(tmp_path):
    """Half maps of one signal up to shell 6 and noise beyond it: the FSC is one, and then none."""
    random = np.random.default_rng(3)
    box, pixel = 32, phantom.PIXEL_SIZE_A
    shells = np.linalg.norm(np.stack(np.meshgrid(*[np.fft.fftfreq(box, 1 / box)] * 3)), axis=0)
    signal = np.fft.fftn(random.normal(size=(box,) * 3)) * (shells < 6.5)
    for half in (1, 2):
        noise = np.fft.fftn(random.normal(size=(box,) * 3)) * (shells > 6.5)
        phantom.write_mrc(tmp_path / f"half{half}.mrc", np.fft.ifftn(signal + noise).real)
    volume = Volume()
    volume.setFileName(str(tmp_path / "half1.mrc"))
    volume.setHalfMaps([str(tmp_path / "half1.mrc"), str(tmp_path / "half2.mrc")])
    volume.setSamplingRate(pixel)
    curves = convert.half_map_curve(volume)
    np.testing.assert_allclose(curves["unmasked"][1:7], 1, atol=1e-3)  # single precision in the files
    assert np.abs(curves["unmasked"][7:]).max() < 0.2  # some 600 numbers in the shell and more
    assert box * pixel / 7 < convert.resolution_a(curves, "unmasked") < box * pixel / 6


@pytest.mark.parametrize("binning", [1, 4])
def test_shifts_are_pixels_of_the_set(tmp_path, binning):
    """A set that was binned has scaled shifts; in angstroms, which the engine reads, nothing moves."""
    particles, truth = make_set(tmp_path)
    binned = phantom.empty_set(tmp_path / "binned.sqlite")
    binned.setSamplingRate(binning * phantom.PIXEL_SIZE_A)
    binned.setAlignmentProj()
    for item in particles.iterItems():
        item.getTransform().scaleShifts(1 / binning)
        binned.append(item)
    convert.write_particles(binned, str(tmp_path / "p.star"), str(tmp_path))
    origins = np.array([[row.rlnOriginXAngst, row.rlnOriginYAngst] for row in table(tmp_path / "p.star")])
    np.testing.assert_allclose(origins, truth.shift_a, atol=1e-6)
    back = convert.read_refined(str(tmp_path / "p.star"), binning * phantom.PIXEL_SIZE_A)
    matrices = np.array([item.getTransform().getMatrix().copy() for item in binned.iterItems()])
    np.testing.assert_allclose(back.matrices, matrices, atol=1e-6)


def test_phase_flipped_and_joined_sets(tmp_path):
    """The flag goes to the optics; images of two stacks under arbitrary ids keep theirs."""
    particles, _ = make_set(tmp_path)
    (tmp_path / "second").mkdir()
    other, _ = make_set(tmp_path / "second")
    joined = phantom.empty_set(tmp_path / "joined.sqlite")
    joined.setAlignmentProj()
    joined.setIsPhaseFlipped(True)
    for number, source in enumerate((particles, other)):
        for item in source.iterItems():
            item.setObjId(2 * item.getObjId() + number)
            joined.append(item)
    convert.write_particles(joined, str(tmp_path / "p.star"), str(tmp_path))
    (optics,) = table(tmp_path / "p.star", "optics")
    assert int(optics.rlnCtfDataArePhaseFlipped) == 1
    rows = table(tmp_path / "p.star")
    assert len(rows) == 2 * COUNT and len({row.rlnImageName for row in rows}) == 2 * COUNT
    places = {int(row.rlnImageId): row.rlnImageName for row in rows}
    assert all(("second" in name) == bool(i % 2) for i, name in places.items())


def test_fsc_starts_at_one_and_its_resolution_is_interpolated(tmp_path):
    path = tmp_path / "fsc.csv"
    path.write_text("frequency,resolution,unmasked,masked,randomised,corrected\n0,inf,1,1,1,1\n"
                    "0.02,50,0.9,0.9,0,0.9\n0.04,25,0.2,0.5,0,0.4\n0.06,16.67,0.086,0.3,0,0.3\n")
    curves = convert.read_curves(str(path))
    x, y = convert.make_fsc(curves, "unmasked", "raw").getData()
    assert (list(x), list(y)) == ([0, .02, .04, .06], [1, .9, .2, .086])
    assert convert.resolution_a(curves, "unmasked") == pytest.approx(1 / 0.05)
    assert convert.resolution_a(curves, "corrected") == pytest.approx(1 / 0.06)  # never below: the last shell


# ---------------------------------------------------------------- symmetry

GROUPS = [*(f"C{n}" for n in range(1, 9)), *(f"D{n}" for n in range(2, 9)), "T", "O", "I1", "I2", "I3", "I4"]


@pytest.mark.parametrize("name", GROUPS)
def test_scipion_and_the_engine_mean_the_same_axes(name):
    """Scipion's own matrices of the constant are the engine's operators of the name, and the name comes back."""
    from pwem.convert import getSymmetryMatrices

    from swiftres_plugin.engine.maths.geometry import rotation_angle
    from swiftres_plugin.engine.maths.symmetry import symmetry_operators
    constant, order = convert.scipion_symmetry(name)
    theirs = getSymmetryMatrices(constant, n=order)[:, :3, :3]
    ours = symmetry_operators(name)
    assert len(theirs) == len(ours)
    assert rotation_angle(theirs[:, None], ours[None]).min(axis=1).max() < 1e-5
    assert convert.relion_symmetry(constant, order) == name


def test_groups_of_other_axes_have_no_name():
    from pwem import constants
    assert convert.scipion_symmetry("i") == convert.scipion_symmetry("I2")
    for constant in (constants.SYM_DIHEDRAL_Y, constants.SYM_TETRAHEDRAL, constants.SYM_I2n3, constants.SYM_HELICAL):
        with pytest.raises(ValueError, match="other axes"):
            convert.relion_symmetry(constant, 2)
    with pytest.raises(ValueError, match="no point group"):
        convert.scipion_symmetry("Q4")
