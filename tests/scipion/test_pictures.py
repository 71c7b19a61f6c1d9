"""The viewers' own arithmetic: surfaces, coverage of the sphere, and what their sliders do."""
import time

import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

from matplotlib import pyplot as plt  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

import swiftres_plugin.viewers  # noqa: E402
from swiftres_plugin.viewers import base, coverage, gallery, parts, pictures, surface  # noqa: E402

N = 32
Z, Y, X = np.indices((N, N, N)) - N // 2


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def ball(x=0, y=0, z=0, radius=6.0):
    return np.clip(radius + 0.5 - np.sqrt((X - x) ** 2 + (Y - y) ** 2 + (Z - z) ** 2), 0, 1).astype(np.float32)


def test_a_ball_is_a_disc_lit_from_the_upper_left():
    shade, values = surface.draw(surface.scene(ball()), 0.5, np.eye(3), finer=2)
    seen = np.isfinite(shade)
    assert values is None and seen.sum() == pytest.approx(np.pi * 12 ** 2, rel=0.05)
    assert shade[38, 26] > shade[26, 38] + 0.2  # row 0 is the lowest y
    picture = surface.coloured(shade)
    assert picture.shape == (64, 64, 4) and (picture[~seen, 3] == 0).all()


@pytest.mark.parametrize("right, up, expected", [(0, 0, (8, 0)), (np.pi / 2, 0, (0, 0)), (-np.pi / 2, 0, (0, 0)),
                                                 (np.pi, 0, (-8, 0))])
def test_the_surface_turns_about_the_upright_axis(right, up, expected):
    """A ball at +x comes to the middle, and then to the other side."""
    shade, _ = surface.draw(surface.scene(ball(x=8, radius=4)), 0.5, surface.rotation_of_drag(right, up))
    row, column = np.argwhere(np.isfinite(shade)).mean(axis=0) - N // 2
    assert (column, row) == pytest.approx(expected, abs=0.3)


def test_the_front_follows_the_pointer():
    """A drag to the right carries +z, which faces us, to +x; a drag upwards carries it to +y."""
    assert surface.rotation_of_drag(np.pi / 2, 0) @ (0, 0, 1) == pytest.approx((1, 0, 0), abs=1e-12)
    assert surface.rotation_of_drag(0, np.pi / 2) @ (0, 0, 1) == pytest.approx((0, 1, 0), abs=1e-12)


def test_the_nearer_of_two_balls_is_seen_with_its_colour():
    colouring = np.where(Z > 0, 5.0, 10.0).astype(np.float32)
    both = surface.scene(ball(z=9, radius=4) + ball(z=-9, radius=4), colouring)
    for rotation, expected in ((np.eye(3), 5.0), (np.diag([1.0, -1, -1]), 10.0)):
        shade, values = surface.draw(both, 0.5, rotation)
        assert np.median(values[np.isfinite(shade)]) == expected


def test_even_views_are_efficient_and_a_single_view_is_not():
    even = Rotation.random(5000, random_state=1).as_matrix()[:, :, 2]
    assert coverage.efficiency(even) > 0.97
    cone = even[np.abs(even[:, 2]) > np.cos(0.5)]  # views within 29 degrees of z
    assert 0 <= coverage.efficiency(cone) < 0.6
    side = even[np.abs(even[:, 2]) < 0.05]  # about one axis: every direction is across some view
    assert coverage.efficiency(cone) < coverage.efficiency(side) < 0.9


def test_symmetry_evens_views_out():
    """Views along +z alone, under O, are those along all six axes; a group that Scipion does not know leaves them."""
    mates = coverage.with_mates(np.array([[0.0, 0, 1]]), "O")
    assert len(np.unique(mates.round(6), axis=0)) == 6
    assert len(coverage.with_mates(np.array([[0.0, 0, 1]]), "operators.txt")) == 1


def test_the_density_of_views_is_relative_to_even_ones():
    beams = Rotation.random(40_000, random_state=2).as_matrix()[:, :, 2]
    longitudes, sines, density = coverage.view_density(beams)
    assert density.shape == (len(sines) - 1, len(longitudes) - 1) and density.mean() == pytest.approx(1)
    expected = 1 / np.sqrt(len(beams) / density.size)  # of counts that scatter by their root
    assert density.std() == pytest.approx(expected, rel=0.1)


def test_sliders_move_the_slices_and_their_contrast():
    voxels = ball(x=8) - 0.5 * ball(x=-8)
    figure = pictures.plot_slices(voxels, 2.0, "map").figure
    place, black, white = figure.controls
    along_x = figure.axes[0].images[0]
    place.set_val(16.0)  # 8 px from the centre
    np.testing.assert_array_equal(along_x.get_array(), voxels[:, :, N // 2 + 8])
    black.set_val(0.5)
    white.set_val(0.9)
    assert along_x.get_clim() == pytest.approx((-0.5 + 0.5 * 1.5, -0.5 + 0.9 * 1.5))


def test_dragging_the_surface_turns_it():
    plotter = pictures.plot_surface(ball(x=8, radius=4), "map")
    control = plotter.figure.controls[-1]
    before = control.image.get_array().copy()
    frame = control.frame
    x, y = frame.transAxes.transform((0.5, 0.5))
    control.grab(type("Event", (), {"inaxes": frame, "x": x, "y": y}))
    control.turn(type("Event", (), {"x": x + 157, "y": y}))  # a quarter turn
    control.release(None)
    assert control.rotation @ (0, 0, 1) == pytest.approx((1, 0, 0), abs=0.01)
    assert np.abs(control.image.get_array() - before).max() > 0.2
    seen = control.image.get_array()[..., 3]
    control.level.set_val(2.0)  # above the top of the map: the slider stops there, and nothing is left
    assert control.image.get_array()[..., 3].sum() < seen.sum()


def test_a_gaussian_low_pass_halves_its_resolution():
    """A wave of 8 px keeps half its height under a low pass of 8 px."""
    wave = np.cos(2 * np.pi * np.arange(64) / 8) * np.ones((1, 64, 1))
    passed = gallery.low_passed(wave, 16.0, 2.0)
    assert np.ptp(passed[0, 32, 16:48]) / 2 == pytest.approx(0.5, abs=0.02)
    assert gallery.low_passed(wave, 0, 2.0) is wave


@pytest.mark.parametrize("chimera", [False, True])
def test_every_button_of_every_viewer_does_something(project, monkeypatch, chimera):
    """ChimeraX is offered by the viewers of maps where it is installed, and nowhere else."""
    from pyworkflow.protocol.params import LabelParam
    monkeypatch.setattr(parts, "has_chimera", lambda: chimera)
    kinds = [getattr(swiftres_plugin.viewers, name) for name in swiftres_plugin.viewers.__all__]
    for kind in (one for one in kinds if issubclass(one, base.PictureViewer)):
        viewer = kind(project=project)
        viewer.setProtocol(project.newProtocol(kind._targets[0]))
        buttons = {name for name, param in viewer._definition.iterAllParams() if isinstance(param, LabelParam)}
        assert buttons == set(viewer._getVisualizeDict()), kind
        assert ("showChimera" in buttons) == (chimera and issubclass(kind, parts.MapPart)), kind


def test_chimerax_is_offered_where_it_is_installed_and_given_the_map(monkeypatch, tmp_path):
    """A program of that name in its place stands in for it: the real one cannot be installed everywhere."""
    from pwem.viewers import Chimera, ChimeraView
    monkeypatch.setattr(Chimera, "getHome", classmethod(lambda cls: str(tmp_path / "chimerax")))
    monkeypatch.setattr(Chimera, "_program", None)
    assert not parts.has_chimera()
    program, asked = tmp_path / "chimerax" / "bin" / "ChimeraX", tmp_path / "asked"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{asked}.part" && mv "{asked}.part" "{asked}"\n')
    program.chmod(0o755)
    assert parts.has_chimera()
    shown = tmp_path / "a map.mrc"
    ChimeraView(str(shown)).show()
    end = time.monotonic() + 20  # it is started and not waited for
    while not asked.exists():
        assert time.monotonic() < end, "ChimeraX was not started"
        time.sleep(0.05)
    assert asked.read_text() == f"{shown}\n"


def test_chimerax_opens_files_only(project, monkeypatch, tmp_path):
    from pwem.viewers import ChimeraView
    monkeypatch.setattr(parts, "has_chimera", lambda: True)
    viewer = swiftres_plugin.viewers.SwiftresReconstructViewer(project=project)
    viewer.setProtocol(project.newProtocol(viewer._targets[0]))
    monkeypatch.setattr(viewer, "_mapFile", lambda name: str(tmp_path / "map.mrc"))
    (view,) = viewer._getVisualizeDict()["showChimera"]()
    assert isinstance(view, ChimeraView)
    viewer.shownMap.set(viewer._mapNames.index(parts.DIFFERENCE))
    (view,) = viewer._getVisualizeDict()["showChimera"]()
    assert "no file" in view._msg
