"""Transforms in slabs are those of the whole cube, however thin the slabs."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from swiftres_plugin.engine.maths import padded
from swiftres_plugin.engine.maths.cubes import cube_of, cube_spectrum, mapped, planes_of

BOXES = [20, 27, 32]


def cube(box: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((box,) * 3, dtype=np.float32))


@pytest.fixture(params=["thin", "whole"], autouse=True)
def slab_bytes(request, monkeypatch):
    if request.param == "thin":
        monkeypatch.setattr(padded, "SLAB_BYTES", 3 * 8 * 32 * 17)


@pytest.mark.parametrize("box", BOXES)
def test_there_and_back(box):
    spectrum = cube_spectrum(planes_of(cube(box)), box)
    torch.testing.assert_close(spectrum, torch.fft.rfftn(cube(box)), rtol=0, atol=2e-4)  # sums of thousands of units
    expected = torch.fft.irfftn(spectrum, s=(box,) * 3)  # to the last bit of values of some units
    torch.testing.assert_close(cube_of(spectrum.clone()), expected, rtol=0, atol=2e-6)


def test_arrays_are_made_where_it_is_told():
    made = []

    def empty(shape, dtype):
        made.append(torch.empty(shape, dtype=dtype))
        return made[-1]

    spectrum = cube_spectrum(planes_of(cube(20)), 20, empty)
    found = cube_of(spectrum, empty)
    assert spectrum is made[0] and found is made[1] and len(made) == 2


def test_planes_are_mapped():
    assert torch.equal(mapped(lambda one, other: 2 * one - other, [cube(20), cube(20, 2)]), 2 * cube(20) - cube(20, 2))
