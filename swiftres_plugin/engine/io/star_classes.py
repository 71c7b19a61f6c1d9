"""Class averages as a table that RELION knows: data_model_classes, one row a class."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.data.classes import ClassAverages
from swiftres_plugin.engine.io.files import written_atomically
from swiftres_plugin.engine.io.star_tables import format_table

UNKNOWN = 999.0  # RELION's word for a resolution or an accuracy that cannot be told


def write_classes(path: Path | str, averages: ClassAverages) -> None:
    """Name, share, accuracy and resolution of each class, and how many particles it has."""
    share = averages.size / max(averages.size.sum(), 1)
    columns = {
        "rlnReferenceImage": [f"{number:06d}@{layout.CLASSES}" for number in range(1, len(averages) + 1)],
        "rlnClassDistribution": _numbers(share),
        "rlnAccuracyRotations": _numbers(np.rad2deg(averages.rotation_error_rad)),
        "rlnAccuracyTranslationsAngst": _numbers(averages.shift_error_a),
        "rlnEstimatedResolution": _numbers(averages.resolution_a),
        "swiftresParticles": [str(int(size)) for size in averages.size],
    }
    with written_atomically(path) as part:
        part.write_text(format_table("model_classes", columns), encoding="utf-8")


def _numbers(values: np.ndarray) -> list[str]:
    return [f"{min(value, UNKNOWN):.6f}" for value in values.tolist()]
