"""The settings of `swiftres_plugin.settings` as form parameters, and back as options of the command line."""
from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pyworkflow.protocol import LEVEL_ADVANCED, LEVEL_NORMAL, params

from swiftres_plugin import settings

# The form's own header asks for these two.
ASKED_ELSEWHERE = ("device", "threads")
COMMAND_LINE_ONLY = ("stream",)  # branches: no particles are added to the file that a protocol writes at its start
INPUT = ("initial_resolution", "symmetry", "diameter", "alignment")
SECTIONS = {"Refinement": ("schedule", "preprocess", "classes", "mask", "postprocess"),
            "Search and computing": ("search", "polish", "reconstruct", "compute", "cluster")}
# What a branch is called over its parameters.
GROUPS = {"schedule": "Course", "preprocess": "Images", "mask": "Solvent", "postprocess": "Finished map",
          "search": "Global search", "polish": "Local refinement", "reconstruct": "Reconstruction", "compute": "Computing",
          "cluster": "Other machines", "difference": "Matching", "subtraction": "Images", "classification": "Classes",
          "expansion": "Half sets"}
# Parameters that mean something only after another choice.
CONDITIONS = {"wiener": "metric != 0", "guard_resolution": "overfittingGuard", "align_symmetry_axes": "symmetry != 'C1'"}


def parameter_name(name: str) -> str:
    """`initial_resolution` is `initialResolution` on the form."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def form_leaves(tree: type = settings.RefineSettings,
                choices: Collection[str] | None = None) -> Iterator[tuple[str, dataclasses.Field]]:
    """(branch, field) of every setting of `tree` (those of `choices`) that is a parameter of the form."""
    return ((branch, leaf) for branch, leaf in settings.leaves(tree)
            if branch not in COMMAND_LINE_ONLY and leaf.name not in ASKED_ELSEWHERE
            and (choices is None or leaf.name in choices))


def add_input_settings(form: params.Form) -> None:
    """The settings that every refinement should think about, for the first page."""
    add_settings(form, settings.RefineSettings, INPUT)


def add_other_sections(form: params.Form) -> None:
    """All remaining settings of a refinement, a page for each group of branches."""
    for title, branches in SECTIONS.items():
        form.addSection(title)
        _add_grouped(form, [(branch, leaf) for branch, leaf in form_leaves() if branch in branches and leaf.name not in INPUT])


def add_settings(form: params.Form, tree: type, names: Collection[str], **shown: Any) -> None:
    """The settings of `tree` with these names, in this order; `shown` may hold a condition."""
    fields = {leaf.name: leaf for _, leaf in settings.leaves(tree)}
    for name in names:
        add_setting(form, fields[name], **shown)


def add_remaining(form: params.Form, title: str, tree: type, choices: Collection[str] | None = None) -> None:
    """The settings of `tree` (those of `choices`) that the form does not have yet.

    They stand on a page called `title`, and on the last page there is where that one were empty without advanced settings.
    """
    leaves = [(branch, leaf) for branch, leaf in form_leaves(tree, choices)
              if form.getParam(parameter_name(leaf.name)) is None]
    if any(_level(leaf) == LEVEL_NORMAL for _, leaf in leaves):
        form.addSection(title)
    _add_grouped(form, leaves)


def _add_grouped(form: params.Form, leaves: Sequence[tuple[str, dataclasses.Field]]) -> None:
    """Settings in a frame for each branch; a frame of advanced ones alone is not seen before they are."""
    for branch, grouped in itertools.groupby(leaves, key=operator.itemgetter(0)):
        fields = [leaf for _, leaf in grouped]
        level = min(_level(leaf) for leaf in fields)
        group = form.addGroup(GROUPS.get(branch, branch.capitalize()), expertLevel=level)
        for leaf in fields:
            add_setting(group, leaf)


def _level(leaf: dataclasses.Field) -> int:
    return LEVEL_ADVANCED if leaf.metadata["choice"].advanced else LEVEL_NORMAL


def add_setting(form: params.ElementGroup | params.Form, leaf: dataclasses.Field, **shown: Any) -> None:
    """One setting as a parameter with the same default, limits and help."""
    says: settings.Choice = leaf.metadata["choice"]
    label = (says.label or leaf.name.replace("_", " ").capitalize()) + (f" ({says.unit})" if says.unit else "")
    if leaf.name in CONDITIONS:
        shown = {"condition": CONDITIONS[leaf.name], **shown}
    form.addParam(
        parameter_name(leaf.name), _parameter_class(leaf), label=label, help=says.help,
        expertLevel=_level(leaf), **_default_and_limits(leaf), **shown)


def _parameter_class(leaf: dataclasses.Field) -> type[params.Param]:
    if leaf.metadata["choice"].options:
        return params.EnumParam
    kinds = {bool: params.BooleanParam, int: params.IntParam, float: params.FloatParam}
    return kinds.get(type(leaf.default), params.StringParam)


def _default_and_limits(leaf: dataclasses.Field) -> dict[str, Any]:
    says: settings.Choice = leaf.metadata["choice"]
    if says.options:  # Scipion stores the position
        return {"default": says.options.index(leaf.default), "choices": list(says.options)}
    limits = []
    if says.minimum is not None:
        limits.append(params.GE(says.minimum, error=f"expected at least {says.minimum:g} {says.unit}".rstrip()))
    if says.maximum is not None:
        limits.append(params.LE(says.maximum, error=f"expected at most {says.maximum:g} {says.unit}".rstrip()))
    numeric = isinstance(leaf.default, (int, float)) and not isinstance(leaf.default, bool)
    return {"default": leaf.default, **({"validators": limits} if numeric else {"allowsNull": True})}


def chosen(protocol: Any, tree: type = settings.RefineSettings,
           choices: Collection[str] | None = None) -> dict[str, Any]:
    """{setting name: value} of what the form says."""
    values = {}
    for _, leaf in form_leaves(tree, choices):
        value = protocol.getAttributeValue(parameter_name(leaf.name))
        options = leaf.metadata["choice"].options
        if options:
            value = options[value]
        elif isinstance(leaf.default, str):
            value = (value or "").strip()
        values[leaf.name] = value
    return values


def as_options(values: dict[str, Any], always: Collection[str] = (), tree: type = settings.RefineSettings) -> list[str]:
    """The settings of `tree` that differ from their default, and those of `always`, as command line options."""
    defaults = {leaf.name: leaf.default for _, leaf in settings.leaves(tree)}
    options: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if value == defaults[name] and name not in always:
            continue
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            options += [f"--{flag}", f"{value:.10g}" if isinstance(value, float) else str(value)]
    return options
