"""Command line options made from the declarations of `swiftres_plugin.settings`."""
from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import Choice, RefineSettings, checked, from_flat, leaves


def add_settings(parser: argparse.ArgumentParser, choices: Collection[str] | None = None, given_only: bool = False,
                 tree: type = RefineSettings) -> None:
    """Give `parser` an option for each setting of `tree` named in `choices` (all by default), grouped by branch.

    With `given_only` the namespace holds just the options that were given (those left out still mean their default).
    `max_shift` becomes `--max-shift`; a switch becomes `--auto-mask` and `--no-auto-mask`. Raises `ValueError` when
    `choices` has a name that no setting has.
    """
    known = {leaf.name for _, leaf in leaves(tree)}
    if choices is not None and not set(choices) <= known:
        raise ValueError(f"no such settings: {', '.join(sorted(set(choices) - known))}")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for branch, leaf in leaves(tree):
        if choices is None or leaf.name in choices:
            if branch not in groups:
                groups[branch] = parser.add_argument_group(branch)
            _add_option(groups[branch], leaf, argparse.SUPPRESS if given_only else leaf.default)


def settings_from(args: argparse.Namespace, tree: type = RefineSettings) -> Any:
    """The settings of `tree` that the options say; those not offered by the command keep their default."""
    values = {leaf.name: getattr(args, leaf.name) for _, leaf in leaves(tree) if hasattr(args, leaf.name)}
    try:
        return from_flat(values, tree)
    except ValueError as error:
        raise InputError(f"settings: {error}") from error


def option_name(leaf_name: str) -> str:
    """'max_shift' -> '--max-shift'."""
    return "--" + leaf_name.replace("_", "-")


def _add_option(group: argparse._ArgumentGroup, leaf: dataclasses.Field, default: Any) -> None:
    says: Choice = leaf.metadata["choice"]
    help = _help(leaf.default, says).replace("%", "%%")
    name = option_name(leaf.name)
    if isinstance(leaf.default, bool):
        group.add_argument(
            name, dest=leaf.name, action=argparse.BooleanOptionalAction, default=default, help=help)
        return
    metavar = f"{{{','.join(says.options)}}}" if says.options else says.unit or _KIND[type(leaf.default)]
    group.add_argument(
        name, dest=leaf.name, type=_converter(leaf), default=default, metavar=metavar, help=help)


_KIND = {int: "N", float: "X", str: "TEXT"}


def _help(default: Any, says: Choice) -> str:
    """The help with limits, unit and default at its end."""
    notes = []
    if says.minimum is not None:
        notes.append(f"at least {says.minimum:g}")
    if says.maximum is not None:
        notes.append(f"at most {says.maximum:g}")
    if isinstance(default, bool):
        shown = "yes" if default else "no"
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    unit = "" if says.word == shown else says.unit
    notes.append(f"default: {shown} {unit}".rstrip() if shown else "default: none")
    return f"{says.help} ({'; '.join(notes)})"


def _converter(leaf: dataclasses.Field) -> Callable[[str], Any]:
    """A converter for argparse that says the limits when the text does not fit them."""

    def convert(text: str) -> Any:
        try:
            return checked(leaf, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).partition(": ")[2]) from None

    return convert
