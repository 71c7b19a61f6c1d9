"""Every setting is an option of the command line, with the same default, help and limits."""
from __future__ import annotations

import argparse

import pytest

from swiftres_plugin.engine.cli.arguments import add_settings, option_name, settings_from
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import RefineSettings, from_flat, leaves

LEAVES = [pytest.param(leaf, id=leaf.name) for _, leaf in leaves()]


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_settings(parser)
    return parser


@pytest.mark.parametrize("leaf", LEAVES)
def test_setting_is_an_option(parser, leaf):
    action = parser._option_string_actions[option_name(leaf.name)]
    assert action.default == leaf.default
    assert leaf.metadata["choice"].help in action.help.replace("%%", "%")


def test_nothing_said_means_the_defaults(parser):
    assert settings_from(parser.parse_args([])) == RefineSettings()


@pytest.mark.parametrize("leaf", LEAVES)
def test_option_sets_its_setting_and_no_other(parser, leaf):
    says = leaf.metadata["choice"]
    if isinstance(leaf.default, bool):
        value = not leaf.default
        argv = [option_name(leaf.name) if value else option_name("no_" + leaf.name)]
    else:
        other = "12.5" if says.word else leaf.default + ("x" if isinstance(leaf.default, str) else 1)
        value = says.options[-1] if says.options else other
        argv = [option_name(leaf.name), str(value)]
    assert settings_from(parser.parse_args(argv)) == from_flat({leaf.name: value})
    assert settings_from(parser.parse_args(argv)) != RefineSettings()


@pytest.mark.parametrize("argv, text", [
    (["--iterations", "0"], "argument --iterations: found 0, expected at least 1"),
    (["--iterations", "2000"], "expected at most 1000"),
    (["--iterations", "ten"], "found 'ten', expected int"),
    (["--initial-resolution", "nan"], "expected at least 2 A"),
    (["--alignment", "sideways"], "found 'sideways', expected one of global, local")])
def test_values_out_of_limits_name_them(parser, argv, text):
    with pytest.raises(argparse.ArgumentError) as caught:
        parser.parse_args(argv)
    assert text in str(caught.value)


def test_a_command_may_offer_some():
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_settings(parser, ("symmetry", "device"))
    assert settings_from(parser.parse_args(["--symmetry", "D2"])) == from_flat({"symmetry": "D2"})
    assert "--iterations" not in parser.format_help()
    with pytest.raises(ValueError, match="simmetry"):
        add_settings(argparse.ArgumentParser(), ("simmetry",))


def test_settings_made_elsewhere_are_checked():
    with pytest.raises(InputError, match="iterations: found 0, expected at least 1"):
        settings_from(argparse.Namespace(iterations=0))
