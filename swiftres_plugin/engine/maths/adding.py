"""Sums of many values at few places that come out the same in every run, whatever order a device adds them in."""
from __future__ import annotations

from collections.abc import Iterable

import torch

WHOLE_BITS = 61  # of a 64-bit integer: so far sums stay below its limit
LEAST = 1e-20  # largest value that is told from nothing

Part = tuple[torch.Tensor, torch.Tensor]


def add_at(sums: torch.Tensor, dim: int, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`sums.index_add_(dim, index, values)` of real values, in place and repeatable."""
    return add_parts(sums, dim, [(index, values)], values, len(index))


def add_parts(sums: torch.Tensor, dim: int, parts: Iterable[Part], bound: torch.Tensor, most: int) -> torch.Tensor:
    """The same of several indices and values; none is larger than the largest of `bound`, and no place gets over `most`.

    A processor adds in the order of the index. Threads of other devices add as they come, and floating point sums depend on
    that; so they add integers.
    """
    if sums.device.type != "cpu":
        return add_whole(sums, dim, parts, bound, most)
    for index, values in parts:
        sums.index_add_(dim, index, values)
    return sums


def add_whole(sums: torch.Tensor, dim: int, parts: Iterable[Part], bound: torch.Tensor, most: int) -> torch.Tensor:
    """The same by integers, on any device, in units in which `most` of the largest values stay below their limit.

    Where a value is larger than its bound all sums become no numbers: integers that overflow would look like some.
    """
    if bound.numel() == 0:
        return sums
    largest = bound.abs().amax().clamp(min=LEAST)
    unit = torch.exp2(largest.log2().ceil() + (max(most, 1) - 1).bit_length() - WHOLE_BITS)
    whole, within = torch.zeros_like(sums, dtype=torch.int64), torch.ones_like(largest, dtype=torch.bool)
    for index, values in parts:
        if values.numel():
            whole.index_add_(dim, index, (values / unit).round().to(torch.int64))
            within &= values.abs().amax() <= 1.5 * largest
    return sums.add_((whole * torch.where(within, unit, torch.nan)).to(sums.dtype))
