"""Every picture is drawn, from a made-up story, and its axes say what they should."""
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.figure import Figure  # noqa: E402

from swiftres_plugin.demo import pictures  # noqa: E402
from swiftres_plugin.demo.judge import Verdict  # noqa: E402
from swiftres_plugin.demo.story import Story, draw_surfaces  # noqa: E402
from swiftres_plugin.engine.data.maps import Fsc  # noqa: E402

BOX, PIXEL_A, PARTICLES = 24, 4.0, 100


def fsc(cutoff_a):
    frequency = np.arange(BOX // 2 + 1) / (BOX * PIXEL_A)
    curve = 1 / (1 + (frequency * cutoff_a) ** 12)
    return Fsc(frequency, curve, curve, 0 * curve, curve)


@pytest.fixture(scope="module")
def story():
    random = np.random.default_rng(3)
    axis = np.arange(BOX) - BOX // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis ** 2)
    ball, inside = np.clip(8 - radius, 0, 3), radius < 9
    images = random.normal(size=(3, BOX, BOX))
    rows = [{"number": n, "resolution_a": at, "max_frequency": 1 / 30} for n, at in ((1, 40.0), (2, None), (3, 12.0))]
    verdict = Verdict(Path("run"), {"iterations": rows}, fsc(11.0), fsc(10.0), random.gamma(2, 1, PARTICLES),
                      random.gamma(2, 0.4, PARTICLES))
    return Story(PIXEL_A, ball, ball + random.normal(size=ball.shape), 0.1 * random.normal(size=ball.shape), ball,
                 draw_surfaces([("start", ball), ("end", ball)], ball, inside), images, images, images, 50.0, verdict)


def test_all_pictures_are_drawn(story, tmp_path):
    paths = pictures.draw_all(story, tmp_path, "A title")
    assert [path.name for path in paths] == ["overview.png", *(f"{name}.png" for name in pictures.SINGLE)]
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in paths)


def axes_of(panel, story):
    figure = Figure()
    panel(story, figure.add_subfigure(figure.add_gridspec(1, 1)[0]))
    return figure.axes


def test_fsc_says_both_resolutions(story):
    (frame,) = axes_of(pictures.panel_fsc, story)
    texts = " ".join(text.get_text() for text in frame.get_legend().get_texts())
    assert f"0.143 at {story.verdict.half_fsc.resolution_a():.2f} Å" in texts
    assert f"0.5 at {story.verdict.truth_fsc.resolution_a(0.5, 'masked'):.2f} Å" in texts


def test_course_leaves_out_iterations_without_resolution(story):
    (frame,) = axes_of(pictures.panel_course, story)
    reached = frame.get_lines()[0]
    np.testing.assert_allclose(reached.get_xdata(), [0, 1, 3])
    np.testing.assert_allclose(reached.get_ydata(), [1 / 50, 1 / 40, 1 / 12])


def test_histogram_counts_the_particles(story):
    (frame,) = axes_of(pictures.panel_angles, story)
    within = (story.verdict.angles_deg <= pictures.WIDEST_ANGLE_DEG).sum()
    assert sum(bar.get_height() for bar in frame.patches) == within


@pytest.mark.parametrize("highest", [1 / 20, 1 / 6, 1 / 2.2])
def test_ticks_do_not_touch(highest):
    ticks = pictures.resolution_ticks(highest)
    assert len(ticks) >= 2 and max(1 / np.array(ticks)) <= highest
    assert np.diff(1 / np.array(ticks)).min() >= 0.075 * highest
