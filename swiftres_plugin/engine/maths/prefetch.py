"""A hint to the processor that memory will be read soon, for code that Numba compiles."""
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

READ, KEEP, DATA = 0, 3, 1  # what is meant, how long it should stay in the cache, and which cache


@intrinsic
def prefetch(typing_context: Any, array: Any, first: Any, second: Any, third: Any) -> Any:
    """Fetch array[first, second, third, 0] into the cache. Any address may be named: one that is not there is left alone."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, *index_kinds = signature.args
        index = [context.cast(builder, value, given, types.intp) for value, given in zip(arguments[1:], index_kinds)]
        held = arrayobj.make_array(kind)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, kind, held, [*index, context.get_constant(types.intp, 0)],
                                         wraparound=False, boundscheck=False)
        address, word = builder.bitcast(place, ir.IntType(8).as_pointer()), ir.IntType(32)
        hint = builder.module.declare_intrinsic("llvm.prefetch", [address.type],
                                                ir.FunctionType(ir.VoidType(), [address.type, word, word, word]))
        builder.call(hint, [address, *(ir.Constant(word, value) for value in (READ, KEEP, DATA))])
        return context.get_dummy_value()

    return types.void(array, first, second, third), generate
