"""What protocols gave, as values that can be compared."""
from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
from pwem.objects import FSC, SetOfClasses3D, SetOfFSCs, SetOfParticles, SetOfVolumes


def contents(protocol) -> dict[str, list]:
    """{name of the output: its numbers}; two runs that did the same have equal contents."""
    return {name: _numbers(output) for name, output in protocol.iterOutputAttributes()}


def assert_same(ours: dict[str, list], theirs: dict[str, list]) -> None:
    """Equal to the last bit: one thread and one seed leave nothing to chance."""
    assert ours.keys() == theirs.keys()
    for name, numbers in ours.items():
        assert len(numbers) == len(theirs[name]), name
        for one, other in zip(numbers, theirs[name]):
            np.testing.assert_array_equal(one, other, err_msg=name)


def _numbers(output) -> list:
    if isinstance(output, SetOfParticles):
        return [_of_particles(output)]
    if isinstance(output, SetOfClasses3D):
        return [[one.getObjId(), one.getSize()] for one in output.iterItems()]
    if isinstance(output, SetOfVolumes):
        return [voxels for volume in output.iterItems() for voxels in _maps(volume)]
    if isinstance(output, SetOfFSCs):
        return [_curve(curve) for curve in output.iterItems()]
    return [_curve(output)] if isinstance(output, FSC) else _maps(output)


def _of_particles(particles: SetOfParticles) -> np.ndarray:
    """(N, 20): id, class, half set, place in the stack, pose."""
    rows = []
    for item in particles.iterItems():
        pose = item.getTransform().getMatrix().ravel() if item.hasTransform() else np.zeros(16)
        labels = [item.getObjId(), item.getClassId() or 0, item.getAttributeValue("_rlnRandomSubset", 0), item.getIndex()]
        rows.append([*labels, *pose])
    return np.array(rows)


def _curve(curve: FSC) -> np.ndarray:
    return np.array([list(map(float, column)) for column in curve.getData()])


def _maps(volume) -> list[np.ndarray]:
    """The map and its halves."""
    halves = volume.getHalfMaps() if hasattr(volume, "getHalfMaps") else None
    found = []
    for path in (volume.getFileName(), *(halves.split(",") if halves else ())):
        assert not Path(path).is_absolute()
        with mrcfile.open(path) as mrc:
            found.append(mrc.data.copy())
    return found
