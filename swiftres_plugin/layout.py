"""Names of everything a run writes. Standard library only; shared by the engine and the Scipion side.

    RUN/
      settings.json            what was asked for
      progress.jsonl           one JSON object a line: stage, done, total, seconds left
      it001/ ... it007/        one folder per finished iteration (also the checkpoint)
        state.json             numbers of the iteration
        arrays.npz             scores and posterior widths of the last two iterations, by particle
        particles.star         poses after the iteration
        class1_map.mrc  class1_half1.mrc  class1_half2.mrc  class1_fsc.csv
      particles.star           final copies
      class1_map.mrc  class1_half1.mrc  class1_half2.mrc  class1_fsc.csv  class1_mask.mrc
      class1_sharpened.mrc     at the end: weighted by its FSC, sharpened, low-passed at its resolution
      class2_...               the same for every further class, in both places
      slices.png               sections and projections of the maps of `swiftres initial-model`
      run.json                 settings, versions, device, resolution, seconds per stage, peak memory
      report.html              all of it as one page for a browser

    RUN/ of `swiftres classify2d`
      classes.mrcs             averages, the largest class first
      classes.star             share, accuracy and resolution of each class
      particles.star           class, in-plane angle, origin and scores of each particle
      classes.png              contact sheet
      settings.json  progress.jsonl  run.json

    Beside NAME.star of `swiftres subtract`
      NAME.mrcs                the images that are left
      NAME_map.mrc  NAME_mask.mrc  what the mask keeps of the map, and the mask, in the box of these images
      NAME.json                figures

    FOLDER/ of `swiftres postprocess`
      postprocess.json         every figure, and what it was made of
      map_sharpened.mrc  local_resolution.mrc  mask.mrc (when none was given)
      fsc.csv  guinier.csv  directional_fsc.csv  directions.csv
      fsc.png  guinier.png  local_resolution.png  directional_fsc.png  orientations.png (with particles)

    FOLDER/ of `swiftres overfitting`, and with --overfitting-guard the top of a RUN
      overfitting.json         the figures and what they mean (in a RUN: in run.json)
      class1_overfitting.csv  class1_overfitting.png
"""
from __future__ import annotations

import re
from pathlib import Path

SETTINGS = "settings.json"
PROGRESS = "progress.jsonl"
RUN = "run.json"
REPORT = "report.html"
STATE = "state.json"
ARRAYS = "arrays.npz"
PARTICLES = "particles.star"
SLICES = "slices.png"
CLASSES = "classes.mrcs"
CLASS_TABLE = "classes.star"
CONTACT_SHEET = "classes.png"
CLUSTER = "cluster"  # folder that is there while other machines work for a run
POSTPROCESS = "postprocess.json"
MAP_SHARPENED = "map_sharpened.mrc"
LOCAL_RESOLUTION = "local_resolution.mrc"
MASK = "mask.mrc"
FSC = "fsc.csv"
GUINIER = "guinier.csv"
DIRECTIONAL_FSC = "directional_fsc.csv"
DIRECTIONS = "directions.csv"
OVERFITTING = "overfitting.json"
LEFT_STACK, LEFT_MAP, LEFT_MASK, LEFT_FIGURES = ".mrcs", "_map.mrc", "_mask.mrc", ".json"  # of `swiftres subtract`
RUNS_DATABASE = "swiftres_runs.sqlite"  # beside the run: one for all runs of a project
RUNS_VARIABLE = "SWIFTRES_DATABASE"  # environment variable that names another one


def iteration_name(number: int) -> str:
    return f"it{number:03d}"


def map_name(class_number: int = 1) -> str:
    return f"class{class_number}_map.mrc"


def half_name(half_number: int, class_number: int = 1) -> str:
    """`half_number` is 1 or 2."""
    return f"class{class_number}_half{half_number}.mrc"


def fsc_name(class_number: int = 1) -> str:
    return f"class{class_number}_fsc.csv"


def mask_name(class_number: int = 1) -> str:
    return f"class{class_number}_mask.mrc"


def sharpened_name(class_number: int = 1) -> str:
    return f"class{class_number}_sharpened.mrc"


def overfitting_name(class_number: int = 1) -> str:
    return f"class{class_number}_overfitting.csv"


def beside(star: Path | str, ending: str) -> str:
    """The file that stands beside NAME.star with this ending: NAME.mrcs, for example."""
    return str(star).removesuffix(".star") + ending


def finished_iterations(run: Path | str) -> list[tuple[int, Path]]:
    """(number, folder) of every complete iteration in `run`, ascending; folders still being written are not listed."""
    folders = Path(run).glob("it[0-9]*")
    found = [(int(m.group(1)), f) for f in folders if (m := re.fullmatch(r"it(\d+)", f.name)) and (f / STATE).exists()]
    return sorted(found)
