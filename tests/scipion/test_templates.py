"""Saved workflows: the templates that come with the plugin, and a workflow that is exported, loaded and run again."""
import json
from pathlib import Path

import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import numpy as np  # noqa: E402
import pyworkflow as pw  # noqa: E402
from pwem.objects import SetOfParticles, Transform  # noqa: E402
from pyworkflow.project import Manager  # noqa: E402

from swiftres_plugin.plugin import Plugin  # noqa: E402

from . import outputs, phantom  # noqa: E402

NAMES = ("classify_and_refine", "focus_on_a_part", "refine_one_structure", "simulate_and_validate", "start_from_particles")


def template(name):
    (found,) = [one for one in Plugin().getTemplates() if one.name == name]
    found.replaceEnvVariables()
    found.parseContent()
    return found


def test_scipion_finds_the_templates():
    templates = Plugin().getTemplates()
    assert sorted(one.name for one in templates) == sorted(NAMES)
    assert all(len(one.description) > 40 for one in templates)


@pytest.mark.parametrize("name", NAMES)
def test_templates_load_as_a_workflow(name, project):
    """Every class is known, every parameter exists, and every arrow of the workflow arrives."""
    pw.Config.getDomain().findClass("ProtSwiftres")
    one = template(name)
    file = one.createTemplateFile()
    raw = json.loads(Path(file).read_text())
    loaded = project.loadProtocols(filename=file)
    assert len(loaded) == len(raw) >= 4
    for description, protocol in zip(raw, loaded.values()):
        assert protocol.getClassName() == description["object.className"]
        for name, value in description.items():
            assert name.startswith("object.") or protocol.getParam(name) is not None, name
            if name.startswith("input"):
                given = [value] if isinstance(value, str) else value
                found = [getattr(protocol, name)] if isinstance(value, str) else list(getattr(protocol, name))
                assert [pointer.getExtended() for pointer in found] == [text.split(".")[1] for text in given]
                assert all(pointer.getObjValue() is loaded[text.split(".")[0]] for pointer, text in zip(found, given))


# Values for the gaps of a template by their alias, and what makes its protocols quick.
IMPORTED = {"particles": "particles.sqlite", "sampling": phantom.PIXEL_SIZE_A, "diameter": 150.0, "diameter2": 150.0}
FILLED = {
    "simulate_and_validate": {"count": 150, "box": 32, "sampling": 8.0, "snr": 0.0},
    "refine_one_structure": {**IMPORTED, "volume": "reference.mrc", "volumesampling": phantom.PIXEL_SIZE_A,
                             "resolution": 40.0},
    "classify_and_refine": {**IMPORTED, "volume1": "reference.mrc", "volume2": "mirror.mrc", "resolution": 25.0,
                            "volume1sampling": phantom.PIXEL_SIZE_A, "volume2sampling": phantom.PIXEL_SIZE_A},
    "focus_on_a_part": {
        "particles": "aligned.sqlite", "volume": "reference.mrc", "mask": "part.mrc", "box": 24, "resolution": 20.0,
        "resolution2": 20.0, **{name: phantom.PIXEL_SIZE_A for name in ("sampling", "volumesampling", "masksampling")}},
    "start_from_particles": IMPORTED}
QUICK = {"refine": {"iterations": 1}, "classify": {"iterations": 1}, "compare with the truth": {"maxAngle": 180.0},
         "classify the part": {"starts": 1}, "refine the part": {"iterations": 1},
         "find a starting volume": {"steps": 5, "batch": 50, "starts": 1, "finestResolution": 34.0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    truth, _ = phantom.write_data(folder, 120)
    write_aligned(folder, truth)
    distance_px = np.linalg.norm(np.indices((phantom.BOX_PX,) * 3) - 20, axis=0)
    phantom.write_mrc(folder / "part.mrc", np.clip((9 - distance_px) / 2, 0, 1))
    phantom.write_mrc(folder / "mirror.mrc", phantom.volume()[:, :, ::-1].copy())
    return folder


def write_aligned(folder, truth):
    """`aligned.sqlite`: the particles of `particles.sqlite` at their true poses."""
    given = SetOfParticles(filename=str(folder / "particles.sqlite"))
    aligned = phantom.empty_set(folder / "aligned.sqlite")
    aligned.setAlignmentProj()
    for i, item in enumerate(given.iterItems()):
        item.setTransform(Transform(matrix=phantom.scipion_matrix(truth, i)))
        aligned.append(item)
    aligned.write()
    aligned.close()


def filled(name, data):
    """The workflow file of a template whose gaps are filled; files are those of `data`."""
    one = template(name)
    for alias, value in FILLED[name].items():
        one.setParamValue(alias, str(data / value if isinstance(value, str) else value))  # as a form gives them
    return one.createTemplateFile()


def run_all(project, loaded, **changes):
    """Run the protocols one after another; what each gave."""
    found = []
    for protocol in loaded:
        for name, value in {"useGpu": False, "numberOfThreads": 1, **changes.get(protocol.getObjLabel(), {})}.items():
            if protocol.hasAttribute(name):
                getattr(protocol, name).set(value)
        project.launchProtocol(protocol, wait=True)
        assert protocol.isFinished(), protocol.getErrorMessage()
        found.append(outputs.contents(protocol))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_template_runs_again_from_its_export_with_the_same_outputs(name, data, tmp_path, monkeypatch):
    """Run in one project, exported, loaded in another and run again: the same bits, in every output of every protocol."""
    monkeypatch.chdir(tmp_path)
    first = Manager().createProject("first", location=str(tmp_path))
    monkeypatch.chdir(first.path)
    pw.Config.getDomain().findClass("ProtSwiftres")
    loaded = list(first.loadProtocols(filename=filled(name, data)).values())
    expected = run_all(first, loaded, **QUICK)
    first.getRunsGraph(refresh=True)
    first.exportProtocols([first.getProtocol(p.getObjId()) for p in loaded], str(tmp_path / "workflow.json"))
    monkeypatch.chdir(tmp_path)
    second = Manager().createProject("second", location=str(tmp_path))
    monkeypatch.chdir(second.path)
    again = run_all(second, list(second.loadProtocols(filename=str(tmp_path / "workflow.json")).values()))
    assert len(again) == len(expected) >= 4 and all(expected)
    for ours, theirs in zip(again, expected):
        outputs.assert_same(ours, theirs)
