"""Scipion finds what the plugin offers, quickly, and the form says what the settings say."""
import argparse
import dataclasses
import importlib
import json
import subprocess
import sys

import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

import pyworkflow as pw  # noqa: E402
from pwem.objects import Volume  # noqa: E402
from pyworkflow.protocol import LEVEL_ADVANCED, LEVEL_NORMAL  # noqa: E402
from pyworkflow.utils import parseBibTex  # noqa: E402

import swiftres_plugin  # noqa: E402
from swiftres_plugin import (
    protocols,  # noqa: E402
    settings,  # noqa: E402
)
from swiftres_plugin.plugin import PACKAGE_FOLDER, Plugin  # noqa: E402
from swiftres_plugin.protocols import ProtSwiftres  # noqa: E402
from swiftres_plugin.protocols import form as settings_form  # noqa: E402

SLOW_TO_IMPORT = ("torch", "faiss", "pandas", "swiftres_plugin.engine")
COMMANDS = {"ProtSwiftres": "refine", "ProtSwiftresAlign": "align", "ProtSwiftresReconstruct": "reconstruct",
            "ProtSwiftresSimulate": "simulate", "ProtSwiftresPostprocess": "postprocess",
            "ProtSwiftresCompare": "compare", "ProtSwiftresInitialModel": "initial-model",
            "ProtSwiftresClassify2D": "classify2d", "ProtSwiftresSubtract": "subtract",
            "ProtSwiftresRelax": "relax", "ProtSwiftresExpand": "expand", "ProtSwiftresClassify": "classify"}
# Where parameters that are no settings go.
FILES = {"inputParticles": "particles", "inputVolumes": "reference", "mask": "mask", "useGpu": "device", "gpuList": "device",
         "numberOfThreads": "threads"}
FILES_OF = {"ProtSwiftresSimulate": {"inputVolume": "map", "inputStructure": "model", "source": "demo_model"},
            "ProtSwiftresCompare": {"inputParticles": "found", "otherParticles": "true"},
            "ProtSwiftresPostprocess": {"inputVolume": "half1"},
            "ProtSwiftresRelax": {"inputVolume": "reference"},
            "ProtSwiftresSubtract": {"inputVolume": "maps", "useHalfMaps": "maps"}}
SCIPIONS_OWN = {"runName", "runMode", "hostName", "hostFullName", "numberOfMpi"}
EVERY_PROTOCOL = [getattr(protocols, name) for name in protocols.__all__]


@pytest.fixture(scope="module")
def domain():
    found = pw.Config.getDomain()
    found.registerPlugin("swiftres_plugin")  # also where the package is not installed but lies on the path
    return found


@pytest.fixture
def protocol():
    return ProtSwiftres()


def test_scipion_finds_protocol_viewers_and_wizards(domain):
    for protocol in EVERY_PROTOCOL:
        assert domain.getProtocols()[protocol.__name__] is protocol
        assert protocol._package is swiftres_plugin
    assert ProtSwiftres.getClassLabel() == "swiftres - 3D refinement"
    assert {protocol.getClassLabel(False) for protocol in EVERY_PROTOCOL} >= {
        "3D refinement", "align particles", "reconstruct", "simulate particles", "compare alignments", "post-process",
        "initial model", "2D classification", "subtract", "symmetry relaxation", "symmetry expansion",
        "classify without alignment"}
    for target, viewer in ((ProtSwiftres(), "SwiftresViewer"), (Volume(), "SwiftresVolumeViewer")):
        assert viewer in {found.__name__ for found in domain.findViewers(target, pw.viewer.DESKTOP_TKINTER)}


def test_wizards_stand_beside_their_fields(domain, protocol):
    wizards = domain.findWizards(protocol, pw.wizard.DESKTOP_TKINTER)
    assert {name: wizard.__name__ for name, wizard in wizards.items()} == {
        "symmetry": "SwiftresSymmetryWizard", "diameter": "SwiftresDiameterWizard",
        "initialResolution": "SwiftresResolutionWizard"}
    wizards = domain.findWizards(protocols.ProtSwiftresAlign(), pw.wizard.DESKTOP_TKINTER)
    assert set(wizards) == {"symmetry", "diameter", "resolution"}
    for kind, fields in ((protocols.ProtSwiftresInitialModel, {"symmetry", "diameter"}),
                         (protocols.ProtSwiftresClassify, {"symmetry", "diameter", "resolution"}),
                         (protocols.ProtSwiftresRelax, {"symmetry", "diameter", "resolution"}),
                         (protocols.ProtSwiftresExpand, {"symmetry"}),
                         (protocols.ProtSwiftresPostprocess, {"symmetry"}), (protocols.ProtSwiftresSimulate, {"symmetry"})):
        assert set(domain.findWizards(kind(), pw.wizard.DESKTOP_TKINTER)) == fields


def test_the_tree_of_protocols_has_an_entry():
    """The file is JSON inside an ini value; a slip in it hides the protocol from the project window."""
    with open(f"{PACKAGE_FOLDER}/protocols.conf") as file:
        view, tree = file.read().split("[PROTOCOLS]")[1].split("=", 1)
    assert view.strip() == "Protocols SPA"
    found = {}
    for section in json.loads(tree):
        for path, names in walked(section, ()):
            found.setdefault(path, []).extend(names)
    assert found == {
        ("2D", "Classify"): ["ProtSwiftresClassify2D"],
        ("3D", "Refine"): ["ProtSwiftres", "ProtSwiftresAlign"], ("3D", "Classify"): ["ProtSwiftres", "ProtSwiftresClassify"],
        ("3D", "Initial volume"): ["ProtSwiftresInitialModel"], ("3D", "Postprocess"): ["ProtSwiftresPostprocess"],
        ("3D", "Analysis", "Heterogeneity"): ["ProtSwiftresSubtract", "ProtSwiftresRelax", "ProtSwiftresExpand"],
        ("3D", "Analysis", "Validation"): ["ProtSwiftresCompare"], ("3D", "Reconstruct"): ["ProtSwiftresReconstruct"],
        ("Tools", "Simulate"): ["ProtSwiftresSimulate"]}


def walked(node, above):
    """(path in the tree, names of the protocols there) of every node that holds protocols."""
    path = (*above, node["text"])
    names = [child["value"] for child in node["children"] if child["tag"] == "protocol"]
    if names:
        yield path, names
    for child in node["children"]:
        if child["tag"] != "protocol":
            yield from walked(child, path)


def test_plugin_knows_its_place_and_version():
    plugin = Plugin()
    assert plugin.getName() == "swiftres_plugin"
    assert plugin.getPath() == PACKAGE_FOLDER
    assert Plugin.getActiveVersion() == swiftres_plugin.__version__
    assert Plugin.validateInstallation() == []


def test_command_line_is_quoted_and_another_environment_can_be_named(monkeypatch):
    program, line = Plugin.getEngineCommand(["refine", "--particles", "with space.star"])
    assert (program, line) == (sys.executable, "-m swiftres_plugin.engine refine --particles 'with space.star'")
    monkeypatch.setitem(Plugin._vars, "SWIFTRES_ENV_ACTIVATION", "source /opt/env/bin/activate")
    assert Plugin.getEngineCommand([])[0] == "source /opt/env/bin/activate && python"
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert "PYTHONPATH" not in Plugin.getEnviron()


def test_missing_engine_is_named(monkeypatch):
    monkeypatch.setattr("swiftres_plugin.plugin.ENGINE_MODULES", ("torch_that_is_not_there",))
    assert "torch_that_is_not_there" in Plugin.validateInstallation()[0]


def test_discovery_imports_nothing_heavy():
    """Every run of any protocol of any plugin imports this: torch alone would add four seconds to each."""
    code = ("import sys, pyworkflow as pw; domain = pw.Config.getDomain(); domain.registerPlugin('swiftres_plugin'); "
            "domain.getProtocols(); domain.getViewers(); domain.getWizards(); "
            "assert 'swiftres_plugin.protocols.protocol_refine' in sys.modules; print('\\n'.join(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & set(SLOW_TO_IMPORT)


def test_protocols_import_no_plotting():
    """What a run of any protocol imports of every plugin, beside what pwem's own protocols import."""
    code = ("import sys, pyworkflow as pw; pw.Config.getDomain(); import pwem.protocols; before = set(sys.modules); "
            "import swiftres_plugin.protocols; print(*set(sys.modules) - before)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "swiftres_plugin.protocols.protocol_refine" in loaded and not loaded & {*SLOW_TO_IMPORT, "matplotlib"}


@pytest.mark.parametrize("name", ["constants", "convert", "protocols", "wizards", "viewers", "tests"])
def test_the_modules_that_scipion_inspect_asks_for_are_there(name):
    importlib.import_module(f"swiftres_plugin.{name}")


def test_engine_imports_without_scipion():
    code = "import sys, swiftres_plugin.engine; assert not {'pwem', 'pyworkflow', 'tkinter'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def options_of(kind):
    """{name: option} of the command that a protocol runs."""
    from swiftres_plugin.engine.cli.main import build_parser

    (commands,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return {action.dest: action for action in commands.choices[COMMANDS[kind.__name__]]._actions}


@pytest.mark.parametrize("kind", EVERY_PROTOCOL, ids=lambda kind: kind.__name__)
def test_every_parameter_of_a_form_is_an_option_of_its_command(kind):
    """A setting under its own name, an input as the file that it is written to."""
    form, options = kind(), options_of(kind)
    own = {settings_form.parameter_name(leaf.name) for _, leaf in settings_form.form_leaves(kind._tree, kind._choices)}
    asked = {name for name, _ in form.iterDefinitionAttributes() if form.getParam(name) is not None} - SCIPIONS_OWN
    assert own <= asked
    for name in asked - own:
        assert {**FILES, **FILES_OF.get(kind.__name__, {})}[name] in options, name


@pytest.mark.parametrize("kind", EVERY_PROTOCOL, ids=lambda kind: kind.__name__)
def test_form_and_command_line_say_what_the_settings_say(kind):
    """Name, default, unit, level and help of every setting, in the form and in the command that the protocol runs."""
    form, options = kind(), options_of(kind)
    leaves = [leaf for _, leaf in settings_form.form_leaves(kind._tree, kind._choices)]
    assert len(leaves) >= 2
    for leaf in leaves:
        says, option = leaf.metadata["choice"], options[leaf.name]
        parameter = form.getParam(settings_form.parameter_name(leaf.name))
        assert parameter.help.get().startswith(says.help), leaf.name
        assert option.help.replace("%%", "%").startswith(says.help), leaf.name
        assert f"--{leaf.name.replace('_', '-')}" in option.option_strings
        assert option.default in (leaf.default, argparse.SUPPRESS), leaf.name
        assert parameter.expertLevel.get() == (LEVEL_ADVANCED if says.advanced else LEVEL_NORMAL), leaf.name
        assert not says.unit or parameter.label.get().endswith(f"({says.unit})"), leaf.name
    assert settings_form.chosen(form, kind._tree, kind._choices) == {leaf.name: leaf.default for leaf in leaves}


@pytest.mark.parametrize("kind", EVERY_PROTOCOL, ids=lambda kind: kind.__name__)
def test_every_parameter_has_help_and_few_are_seen_first(kind):
    form = kind()
    params = dict(form.iterDefinitionAttributes())
    assert all(form.getParam(name).help.get() for name in params if not name.startswith("_") and form.getParam(name))
    own = [settings_form.parameter_name(leaf.name) for _, leaf in settings_form.form_leaves(kind._tree, kind._choices)]
    assert sum(form.getParam(name).expertLevel.get() == LEVEL_NORMAL for name in own) <= 8
    assert len(kind.__doc__) > 500  # what *Help* shows


@pytest.mark.parametrize("kind", EVERY_PROTOCOL, ids=lambda kind: kind.__name__)
def test_no_page_is_empty_before_the_advanced_level(kind):
    form = kind()
    for section in form.iterDefinitionSections():
        seen = [name for name, param in section.iterParams() if param.expertLevel.get() == LEVEL_NORMAL]
        assert seen, section.getLabel()


def test_every_setting_can_be_chosen_in_the_form(protocol):
    asked = {leaf.name for _, leaf in settings_form.form_leaves()}
    of_the_command_line = {"device", "threads", "follow", "follow_idle", "follow_until"}
    assert asked == {leaf.name for _, leaf in settings.leaves()} - of_the_command_line
    assert settings_form.chosen(protocol).keys() == asked


@pytest.mark.parametrize("name", ["iterations", "nprobe", "initialResolution"])
def test_form_keeps_the_limits(protocol, name):
    parameter = protocol.getParam(name)
    assert parameter.validate(-1) and not parameter.validate(100)


def test_options_of_the_command_line_reproduce_the_choice(protocol):
    """Form -> options -> the command line's own parser -> the same settings."""
    from swiftres_plugin.engine.cli.arguments import add_settings, settings_from

    protocol.iterations.set(7)
    protocol.initialResolution.set(35.5)
    protocol.alignment.set(1)
    protocol.autoMask.set(False)
    protocol.invertContrast.set(True)
    protocol.recipe.set("IVF64,Flat")
    parser = argparse.ArgumentParser()
    add_settings(parser)
    chosen = settings_form.chosen(protocol)
    parsed = settings_from(parser.parse_args(settings_form.as_options(chosen)))
    assert parsed == settings.from_flat(chosen)
    assert parsed != settings.RefineSettings()
    assert dataclasses.asdict(parsed.schedule)["initial_resolution"] == 35.5


@pytest.mark.parametrize("listed, device", [("0", "cuda:0"), ("0 1", "cuda:0,1"), ("1,3", "cuda:1,3"), ("0-2", "cuda:0,1,2")])
def test_every_gpu_of_the_form_is_used(protocol, monkeypatch, listed, device):
    monkeypatch.setattr(Plugin, "hasGpu", classmethod(lambda cls: True))
    protocol.gpuList.set(listed)
    assert protocol._device() == device


def test_citations_can_be_read(domain):
    import swiftres_plugin.bibtex as bibtex

    known = set(parseBibTex(bibtex.__doc__))
    assert known == set(ProtSwiftres._citations(None)) >= set(swiftres_plugin._references)
    assert all(set(kind._citations(None)) <= known for kind in EVERY_PROTOCOL)
