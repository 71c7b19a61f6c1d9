"""More devices for machines that have none: the processor under other names, strict about what they are mixed with.

Tensors made on `OTHER` or `THIRD`, or moved there, carry a processor tensor inside. (They are torch's "meta" device, which
holds no data by itself and is always there, without a number and with one.) Within `other_device()` every operation runs
on what its tensors carry, after the check that a GPU makes: all tensors of one operation lie on one device, but for single
numbers from the processor and for the index tensors of `a[index]`. Without a copy to the processor first, numpy cannot
read them.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from swiftres_plugin.engine import compute

OTHER = torch.device("meta")
THIRD = torch.device("meta", 1)
CPU = torch.device("cpu")
CROSSING = ("aten._to_copy", "aten.copy_")
INDEXING = ("aten.index.", "aten.index_put", "aten._index_put_impl")


class DeviceMix(AssertionError):
    """An operation that a GPU refuses."""


@contextmanager
def other_device() -> Iterator[set[str]]:
    """Where `OTHER` and `THIRD` can be computed on; gives the names of the operations that ran on `OTHER`."""
    with other_devices() as operations:
        yield operations[OTHER]


@contextmanager
def other_devices() -> Iterator[dict[torch.device, set[str]]]:
    """The same, with the names of the operations that ran on each; also in the threads that drive them."""
    operations: dict[torch.device, set[str]] = {OTHER: set(), THIRD: set()}
    with mock.patch.object(compute, "current", lambda device: _watched(operations)), _watched(operations):
        yield operations


@contextmanager
def _watched(operations: dict[torch.device, set[str]]) -> Iterator[None]:
    """Modes see only their own thread."""
    with _FromNumbers(), _OtherDevice(operations):
        yield


class _Elsewhere(torch.Tensor):
    """A tensor on one of the other devices; `held` is its data."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device) -> _Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=device)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _OtherDevice(TorchDispatchMode):
    """Sees every operation, also those that only name a device."""

    def __init__(self, operations: dict[torch.device, set[str]]) -> None:
        super().__init__()
        self.operations = operations

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = _run(function, args, kwargs or {})
        for place in {r.device for r in tree_flatten(result)[0] if isinstance(r, _Elsewhere)}:
            self.operations[place].add(str(function))
        return result


class _FromNumbers(TorchFunctionMode):
    """Lets tensors made from numbers reach their device by a move, which `_OtherDevice` sees."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.new_tensor:
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(kwargs.get("device", args[0].device))
        if function in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = function(*args, **kwargs)
            return made if device is None else made.to(device)
        return function(*args, **kwargs)


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """`function` of what its tensors carry; its results lie where its tensors lay, or on the device it names."""
    _check(str(function), args, kwargs)
    given = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, _Elsewhere)]
    there = torch.device(kwargs.get("device") or (given[0].device if given else CPU))
    if str(function).startswith("aten.copy_"):
        there = args[0].device
    here = {name: CPU if name == "device" and value is not None else value for name, value in kwargs.items()}
    result = function(*tree_map(_held, args), **tree_map(_held, here))
    known = {id(a.held): a for a in given}  # results that are arguments changed in place
    return result if there == CPU else tree_map(lambda value: _moved(value, known, there), result)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _Elsewhere) else value


def _moved(value: Any, known: dict[int, _Elsewhere], there: torch.device) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return known[id(value)] if id(value) in known else _Elsewhere(value.resolve_conj().resolve_neg(), there)


def _check(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    """Raises `DeviceMix` for tensors of two devices in one operation."""
    if name.startswith(CROSSING):
        return
    index_may_be_anywhere = name.startswith(INDEXING) and isinstance(args[0], _Elsewhere)
    operands = tree_flatten((args[:1], args[2:], kwargs) if index_may_be_anywhere else (args, kwargs))[0]
    tensors = [a for a in operands if isinstance(a, torch.Tensor)]
    bound = {a.device for a in tensors if a.dim() > 0 or isinstance(a, _Elsewhere)}
    if len(bound) > 1:
        found = ", ".join(f"{a.device} {tuple(a.shape)}" for a in tensors)
        raise DeviceMix(f"{name} mixes devices: {found}")
