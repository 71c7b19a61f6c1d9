"""Scipion's own windows, used with a mouse: form, wizards, a refinement, and the pictures of its results."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

from pwem.protocols import ProtImportParticles, ProtImportVolumes  # noqa: E402
from pyworkflow.project import Manager  # noqa: E402

from . import desktop, phantom  # noqa: E402

MISSING = desktop.missing_programs()
pytestmark = [pytest.mark.gui, pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed")]

PROJECT = "gui"
COUNT = 150
RUN_S = 300  # the refinement takes ten seconds of an idle processor
FORM, VIEWER = "Protocol Run", "Protocol Viewer"
RUN_NAME = "swiftres - 3D refinement"
# By the tab of the viewer: its buttons, the title of the window that each opens, and the fewest colours of what it shows.
PICTURES = {
    "Maps and resolution": {"Slices and projections": ("refined map", 200), "Surface": ("refined map", 50),
                            "Fourier shell correlation, all": ("Fourier shell correlation (last)", 20),
                            "Fourier shell correlation of": ("Fourier shell correlation, corrected", 20),
                            "Course of the refinement": ("Course", 20)},
    "Particles and report": {"Angular distribution": ("Views", 50), "Scores and posterior widths": ("Scores", 20)}}
LEAST_INK = 0.02  # share of a picture's pixels that are not background


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with particles and a starting volume that has half maps, as imports leave it."""
    folder = tmp_path_factory.mktemp("gui")
    _, sqlite = phantom.write_data(folder, COUNT)
    random, volume = np.random.default_rng(1), phantom.volume()
    for half in (1, 2):
        phantom.write_mrc(folder / f"half{half}.mrc", volume + random.normal(0, 0.3 * volume.std(), volume.shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = Manager().createProject(PROJECT)
        patch.chdir(made.path)
        imports = (made.newProtocol(
            ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_SCIPION, sqliteFile=str(sqlite),
            samplingRate=phantom.PIXEL_SIZE_A, magnification=50000, objLabel="import particles"), made.newProtocol(
            ProtImportVolumes, filesPath=str(folder / "reference.mrc"), samplingRate=phantom.PIXEL_SIZE_A, setHalfMaps=True,
            half1map=str(folder / "half1.mrc"), half2map=str(folder / "half2.mrc")))
        for protocol in imports:
            made.launchProtocol(protocol, wait=True)
            assert protocol.isFinished(), protocol.getErrorMessage()
        yield made


@pytest.fixture(scope="module")
def screen(project, tmp_path_factory):
    with desktop.open_desktop(PROJECT, tmp_path_factory.mktemp("screen")) as opened:
        yield opened


@pytest.fixture(scope="module")
def form(screen):
    """The protocol's form, from the tree of protocols, with its inputs chosen."""
    screen.click("Refine", kind="Treeview", times=2)
    screen.click(RUN_NAME, kind="Treeview", times=2)
    for label, output in (("Particles", "outputParticles"), ("Starting volume", "outputVolume")):
        screen.click_beside(label, "Button", "Select", FORM)
        choose(screen, output, "Select object")
    return screen


def choose(screen, words, window):
    """Take a row of a list in its own window."""
    screen.click(words, window, "Treeview")
    screen.click("Select", window, "Button")
    screen.wait_for(f"the end of {window}", lambda: not screen.places(window=window))


def field(screen, label):
    """What stands in a field of the form."""
    return screen.beside(label, "Entry", "", FORM)["text"]


def test_each_wizard_fills_its_field(form):
    form.click_beside("Initial resolution", "Button", "Wizard", FORM)
    choose(form, "3 times FSC 0.143", "Resolution")
    form.wait_for("the resolution", lambda: 40 < float(field(form, "Initial resolution")) < 70
                  and float(field(form, "Initial resolution")) != 60)  # which is the default

    form.click_beside("Symmetry", "Button", "Wizard", FORM)
    choose(form, "C2", "Symmetry")
    form.wait_for("the symmetry", lambda: field(form, "Symmetry") == "C2")

    form.click_beside("Diameter", "Button", "Wizard", FORM)
    picture = form.find("Central slice", "Wizard")["box"]
    form.xdotool("mousemove", str(picture[0] + picture[2] // 2), str(picture[1] - 60))  # the particle stands above its caption
    form.xdotool("click", "--repeat", "3", "--delay", "150", "4")  # the wheel makes the circle larger
    form.click("Select", "Wizard", "Button")
    first = 0.7 * phantom.BOX_PX * phantom.PIXEL_SIZE_A
    form.wait_for("the diameter", lambda: first + 10 < float(field(form, "Diameter")) < phantom.BOX_PX * phantom.PIXEL_SIZE_A)


def test_a_wrong_symmetry_is_refused(form):
    form.click_beside("Symmetry", "Entry", "", FORM)
    form.type("X7")
    form.click("Execute", FORM, "Button")
    form.find("OK", "Info", "Button")
    form.click("OK", "Info", "Button")
    form.wait_for("the form", lambda: not form.places(window="Info"))


@pytest.fixture(scope="module")
def viewer(form):
    """The form of the pictures of a refinement that was executed with the mouse and watched to its end."""
    form.click_beside("Symmetry", "Entry", "", FORM)
    form.type("C1")
    form.click_beside("GPU IDs", "Radiobutton", "No", FORM)
    form.click_beside("Threads", "Entry", "4", FORM)
    form.type("1")
    form.click("Refinement", FORM, "Notebook")
    form.click_beside("Iterations", "Entry", "", FORM)
    form.type("2")
    form.click("Execute", FORM, "Button")
    form.wait_for("the end of the refinement", lambda: form.places(f"{RUN_NAME}\nfinished", kind="Canvas"), RUN_S)
    form.click(RUN_NAME, kind="Canvas")
    form.click("Analyze results", kind="Button")
    return form


def test_every_button_opens_a_window_with_a_picture(viewer):
    def drawn(title, colours):
        found, ink = desktop.ink(viewer.picture(title))
        return found >= colours and ink > LEAST_INK

    for tab, buttons in PICTURES.items():
        viewer.click(tab, VIEWER, "Notebook")
        for button, (title, colours) in buttons.items():
            viewer.click_beside(button, "Button", "Visualize", VIEWER)
            viewer.wait_for(f"the picture of {button}", lambda t=title, c=colours: drawn(t, c))
            viewer.close(title)


def test_the_surface_turns_under_the_mouse(viewer):
    viewer.click("Maps and resolution", VIEWER, "Notebook")
    viewer.click_beside("Surface", "Button", "Visualize", VIEWER)
    viewer.wait_for("the surface", lambda: desktop.ink(viewer.picture("refined map"))[1] > LEAST_INK)
    before = np.asarray(viewer.picture("refined map"))
    left, top, width, height = viewer.geometry(viewer.windows()["refined map (last)"])
    viewer.drag((left + width // 2, top + height // 2), (80, 0))
    viewer.wait_for("another view", lambda: (np.asarray(viewer.picture("refined map")) != before).any(axis=-1).mean() > 0.01)
    viewer.close("refined map")


def test_all_pictures_are_saved(viewer, project):
    viewer.click("Particles and report", VIEWER, "Notebook")
    viewer.click_beside("Save every picture", "Button", "Visualize", VIEWER)
    viewer.wait_for("what was saved", lambda: viewer.places("OK", "Pictures saved", "Button"), RUN_S)
    viewer.click("OK", "Pictures saved", "Button")
    (folder,) = Path(project.path).glob("Runs/*_ProtSwiftres/extra/pictures")
    assert len(list(folder.glob("*.png"))) == len(list(folder.glob("*.pdf"))) == 10
    assert "Traceback" not in viewer.log.read_text()
