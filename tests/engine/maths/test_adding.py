"""Sums by integers: those of index_add_ to the last digits that count, and the same bits in any order."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from other_device import OTHER, other_device

from swiftres_plugin.engine.maths.adding import LEAST, add_at, add_whole
from swiftres_plugin.engine.maths.geometry import random_rotations
from swiftres_plugin.engine.maths.slices import empty_sums, insert_plainly, insert_slices

PLACES, COUNT = 50, 20_000


def values_of(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Places, and values there of which some are a million times larger than others."""
    random = torch.Generator().manual_seed(1)
    index = torch.randint(0, PLACES, (COUNT,), generator=random)
    size = 10.0 ** (6 * torch.rand((3, COUNT), generator=random) - 3)
    return index, (size * torch.randn((3, COUNT), generator=random)).to(dtype)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_whole_numbers_give_the_sums(dtype, tolerance):
    """Beside sums in double precision: to the precision of the result, of the largest."""
    index, values = values_of(dtype)
    exact = torch.zeros((3, PLACES), dtype=torch.float64).index_add_(1, index, values.double())
    found = add_whole(torch.zeros((3, PLACES), dtype=dtype), 1, [(index, values)], values, COUNT)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=tolerance * float(exact.abs().max()))


def test_the_order_does_not_matter_on_another_device():
    """To the last bit, where sums in single precision differ."""
    index, values = values_of(torch.float32)
    turned = torch.arange(COUNT).flip(0)
    with other_device():
        there = [add_at(torch.zeros((3, PLACES), device=OTHER), 1, index[order].to(OTHER), values[:, order].to(OTHER)).cpu()
                 for order in (torch.arange(COUNT), turned)]
    here = [add_at(torch.zeros(3, PLACES), 1, index[order], values[:, order]) for order in (torch.arange(COUNT), turned)]
    assert torch.equal(*there) and not torch.equal(*here)
    torch.testing.assert_close(there[0], here[0], rtol=1e-4, atol=1e-2)


def test_every_value_at_one_place_stays_below_the_limit():
    values = torch.full((1 << 16,), 3.0)
    index = torch.zeros(len(values), dtype=torch.int64)
    assert float(add_whole(torch.zeros(2), 0, [(index, values)], values, len(values))[0]) == 3.0 * len(values)


@pytest.mark.parametrize("values", [torch.zeros(4), torch.zeros(0), torch.full((4,), LEAST / 1e6)])
def test_nothing_adds_nothing(values):
    sums = torch.ones(3)
    add_whole(sums, 0, [(torch.zeros(len(values), dtype=torch.int64), values)], values, 4)
    assert sums.tolist() == [1.0, 1.0, 1.0]


def test_a_value_beyond_its_bound_is_seen():
    """It could overflow, and look like any other number."""
    values = torch.tensor([1.0, 2.0, 30.0])
    assert add_whole(torch.zeros(3), 0, [(torch.arange(3), values)], values[:2], 1).isnan().all()


def test_what_is_no_number_is_seen():
    values = torch.tensor([1.0, torch.nan])
    assert add_whole(torch.zeros(2), 0, [(torch.arange(2), values)], values, 1).isnan().any()


def test_slices_come_into_the_grid_in_any_order():
    """On another device the same bits, whichever slice comes first; as the processor's to rounding."""
    random = torch.Generator().manual_seed(2)
    wave = torch.cartesian_prod(torch.arange(0, 7), torch.arange(-6, 7)).float()
    wave = wave[wave.norm(dim=1) <= 6]
    values = torch.complex(*torch.randn((2, 40, len(wave)), generator=random))
    weights = torch.rand((40, len(wave)), generator=random)
    turns = torch.from_numpy(random_rotations(40, np.random.default_rng(3))).float()

    def inserted(device: torch.device, order: torch.Tensor) -> torch.Tensor:
        sums = empty_sums(6, device)
        insert_slices(sums, *(one[order].to(device) for one in (values, weights, turns)), wave.to(device))
        return sums.cpu()

    forward = torch.arange(40)
    with other_device():
        first, second = inserted(OTHER, forward), inserted(OTHER, forward.flip(0))
    plain = empty_sums(6)
    insert_plainly(plain, values, weights, turns, wave)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))
