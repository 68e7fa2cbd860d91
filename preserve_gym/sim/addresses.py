"""Objects and functions by address, so that one compiled call can serve many clusters.

Handing a function to compiled code from Python takes 11 microseconds; an address in an array takes none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from preserve_gym.sim.by_reference import ByReferenceType

_DISABLED = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]


def table(items: Sequence[Any], kind: Any) -> Any:
    """What ``taker(kind)`` takes from: addresses in an int64 array (with the JIT off, a list of ``items``).

    The items must be kept alive elsewhere.
    """
    if _DISABLED:
        return list(items)
    return np.array([address(item, kind) for item in items], np.int64)


def address(item: Any, kind: Any) -> int:
    """Where a ``ByReference``, or a function compiled for the signature of ``kind``, lies."""
    if isinstance(kind, ByReferenceType):
        return int(item._address)
    compiled = item.get_compile_result(kind.signature)
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def taker(kind: Any) -> Callable[[Any, int], Any]:
    """A function ``(table, k)`` for compiled code that takes the k-th item of a table.

    Args:
        kind: Numba's type of the items, a ``ByReferenceType`` or a ``FunctionType``.
    """

    @intrinsic
    def item_at(typing_context: Any, place: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if isinstance(kind, ByReferenceType):
                return args[0]
            function = cgutils.create_struct_proxy(kind)(context, builder)
            function.jit_addr = builder.inttoptr(args[0], cgutils.voidptr_t)
            return function._getvalue()

        return kind(types.int64), generate

    def take(items: Any, k: int) -> Any:
        return items[k]

    # The implementation must have the annotations of ``take``, too.
    @overload(take, inline="always")
    def compiled_take(items: Any, k: int) -> Any:
        def implementation(items: Any, k: int) -> Any:
            return item_at(items[k])  # type: ignore[call-arg]

        return implementation

    return take


def take_number(counters: Any, k: int) -> int:
    """Add one to ``counters[k]``, of a column, and return what it was; safe where several threads do it."""
    counters[k] += 1
    return int(counters[k] - 1)


@intrinsic
def _fetch_and_add(typing_context: Any, counters: Any, k: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        column = cgutils.create_struct_proxy(counters)(context, builder, value=args[0])
        place = builder.add(column.data, builder.mul(args[1], ir.IntType(64)(8)))
        pointer = builder.inttoptr(place, ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(counters, types.int64), generate


@overload(take_number)
def _compiled_take_number(counters: Any, k: int) -> Any:
    def implementation(counters: Any, k: int) -> int:
        return _fetch_and_add(counters, k)  # type: ignore[call-arg]

    return implementation
