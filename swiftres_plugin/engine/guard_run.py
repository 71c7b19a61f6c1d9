"""The overfitting guard of a run that is finished."""
from __future__ import annotations

from pathlib import Path

from swiftres_plugin import layout
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.io.tables import write_json
from swiftres_plugin.engine.opening import open_engine
from swiftres_plugin.engine.overfitting import Overfitting, Substitution, check_limit, figures, guard, write_overfitting
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.engine.run import open_run
from swiftres_plugin.errors import InputError


def guard_run(run: Path, changes: dict[str, dict[str, object]], how: Substitution, output: Path,
              reporter: Reporter) -> list[Overfitting]:
    """Refine the particles of `run` with noise beyond the limit; tables, pictures and overfitting.json to `output`.

    Raises `InputError` or `StateError` before any work where the run cannot be used or the folder holds results already.
    """
    check_new(output)
    opened, settings, state = open_run(run, changes, reporter)
    if state is None:
        raise InputError("the run has no finished iteration", where=run,
                         remedy=f"Go on with 'swiftres refine --resume {run}'.")
    check_limit(how.limit_a, opened.particles)
    mask = None if opened.mask is None else opened.mask.voxels
    engine = open_engine(opened.source, open_symmetry(settings.schedule.symmetry), settings, reporter, output, mask)
    found = guard(opened.source, opened.references, mask, state, engine, how, Path(settings.compute.scratch or output))
    for number, one in enumerate(found, 1):
        write_overfitting(one, output, number)
    write_json(output / layout.OVERFITTING, {"run": str(run.resolve()), "whole": how.whole,
                                             "classes": [figures(one) for one in found]})
    return found


def check_new(output: Path) -> None:
    """Raises `InputError` when `output` is a file or holds results of a guard."""
    if output.exists() and not output.is_dir():
        raise InputError("the output is a file", where=output, expected="a folder that is new or empty")
    for name in (layout.OVERFITTING, layout.overfitting_name()):
        if (output / name).exists():
            raise InputError("the output folder already holds results", where=output / name, remedy="Name another folder.")
