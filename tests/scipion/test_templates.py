"""Saved workflows: the templates that come with the plugin, and a workflow that is exported, loaded and run again."""
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from pyworkflow.project import Manager  # noqa: E402

from swiftres_plugin.plugin import Plugin  # noqa: E402

NAMES = ("classify_and_refine", "refine_one_structure", "simulate_and_validate")


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


def run_all(project, loaded, **changes):
    for protocol in loaded:
        for name, value in {"useGpu": False, "numberOfThreads": 1, **changes.get(protocol.getObjLabel(), {})}.items():
            if protocol.hasAttribute(name):
                getattr(protocol, name).set(value)
        project.launchProtocol(protocol, wait=True)
        assert protocol.isFinished(), protocol.getErrorMessage()
    return loaded


def final_map(protocols):
    with mrcfile.open(protocols[-1].outputVolume.getFileName()) as mrc:
        return mrc.data.copy()


@pytest.mark.slow
def test_a_workflow_runs_again_from_its_export_with_the_same_outputs(tmp_path, monkeypatch):
    """The template of simulated data, run in one project, exported, loaded in another and run again: the same bits."""
    monkeypatch.chdir(tmp_path)
    first = Manager().createProject("first", location=str(tmp_path))
    monkeypatch.chdir(first.path)
    pw.Config.getDomain().findClass("ProtSwiftres")
    loaded = list(first.loadProtocols(filename=template("simulate_and_validate").createTemplateFile()).values())
    small = {"simulate": {"count": 150, "box": 32, "pixelSize": 8.0, "snr": 0.0}, "refine": {"iterations": 2},
             "compare with the truth": {"maxAngle": 180.0, "maxMove": 1000.0}}
    ran = run_all(first, loaded, **small)
    expected = final_map(ran)
    first.getRunsGraph(refresh=True)
    first.exportProtocols([first.getProtocol(p.getObjId()) for p in ran], str(tmp_path / "workflow.json"))
    monkeypatch.chdir(tmp_path)
    second = Manager().createProject("second", location=str(tmp_path))
    monkeypatch.chdir(second.path)
    again = run_all(second, list(second.loadProtocols(filename=str(tmp_path / "workflow.json")).values()))
    np.testing.assert_array_equal(final_map(again), expected)
    assert again[2].outputParticles.getSize() == 150
