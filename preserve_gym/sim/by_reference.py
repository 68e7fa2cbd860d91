"""An object of NumPy arrays that compiled functions take by reference.

Numba passes a tuple of arrays by value, seven words an array, at every call that is not inlined: tens of
nanoseconds for a state as large as ours. Here one word is passed, the address of a table that holds the
address and the length of each array, and ``s.requests`` looks the array up.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import NativeValue, infer_getattr, models, register_model, typeof_impl, unbox
from numba.np.arrayobj import make_array, populate_array


class ByReference:
    """Base of classes whose attributes named in ``ARRAYS`` are one-dimensional arrays.

    In a compiled function they are looked up by name; they must not be replaced after construction.
    ``SCALARS`` gives names to fields of the first record of an array.
    """

    ARRAYS: ClassVar[dict[str, types.Array]]
    SCALARS: ClassVar[dict[str, tuple[str, str]]] = {}

    def __init__(self, **arrays: np.ndarray[Any, Any]) -> None:
        table = []
        for name in self.ARRAYS:
            array = arrays[name]
            setattr(self, name, array)
            table += [array.ctypes.data, len(array)]
        self._table = np.array(table, np.int64)
        self._address = self._table.ctypes.data

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not an attribute: the same names as in compiled functions.
        if name not in self.SCALARS:
            raise AttributeError(name)
        array, field = self.SCALARS[name]
        return getattr(self, array)[field][0]

    def __getstate__(self) -> dict[str, np.ndarray[Any, Any]]:
        # Addresses mean nothing in a copy.
        return {name: getattr(self, name) for name in self.ARRAYS}

    def __setstate__(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        ByReference.__init__(self, **arrays)


class ByReferenceType(types.Type):
    """Numba's type of a subclass of ``ByReference``."""

    def __init__(self, cls: type[ByReference]) -> None:
        self.arrays = cls.ARRAYS
        self.scalars = cls.SCALARS
        arrays = ", ".join(f"{name}: {kind}" for name, kind in cls.ARRAYS.items())
        super().__init__(f"{cls.__name__}({arrays})")


@typeof_impl.register(ByReference)
def _typeof(value: ByReference, context: Any) -> ByReferenceType:
    return ByReferenceType(type(value))


@register_model(ByReferenceType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: ByReferenceType) -> None:
        super().__init__(manager, fe_type, ir.IntType(64))  # type: ignore[no-untyped-call]


@unbox(ByReferenceType)
def _unbox(kind: ByReferenceType, value: Any, c: Any) -> NativeValue:
    address = c.pyapi.object_getattr_string(value, "_address")
    native = c.pyapi.long_as_longlong(address)
    c.pyapi.decref(address)
    return NativeValue(native, is_error=cgutils.is_not_null(c.builder, c.pyapi.err_occurred()))


@infer_getattr
class _Attributes(AttributeTemplate):
    key = ByReferenceType

    def generic_resolve(self, kind: Any, name: str) -> Any:  # type: ignore[override]
        if name in kind.scalars:
            array, field = kind.scalars[name]
            return kind.arrays[array].dtype.typeof(field)
        return kind.arrays.get(name)


@lower_getattr_generic(ByReferenceType)
def _lower(context: Any, builder: Any, kind: ByReferenceType, address: Any, name: str) -> Any:
    if name in kind.scalars:
        return _load_scalar(context, builder, kind, address, *kind.scalars[name])
    index = 2 * list(kind.arrays).index(name)
    array_type = kind.arrays[name]
    word = ir.IntType(64)
    table = builder.inttoptr(address, word.as_pointer())

    def entry(k: int) -> Any:
        return _entry(builder, table, k)

    array = make_array(array_type)(context, builder)
    item = context.get_abi_sizeof(context.get_data_type(array_type.dtype))
    size = context.get_constant(types.intp, item)
    populate_array(
        array,
        data=builder.inttoptr(entry(index), array.data.type),
        shape=[entry(index + 1)],
        strides=[size],
        itemsize=size,
        meminfo=None,
    )
    return array._getvalue()


def _entry(builder: Any, table: Any, k: int) -> Any:
    loaded = builder.load(cgutils.gep_inbounds(builder, table, k))
    # The table never changes, so its entries need not be loaded again after every store.
    loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded


def _load_scalar(context: Any, builder: Any, kind: ByReferenceType, address: Any, array: str, field: str) -> Any:
    record = kind.arrays[array].dtype
    table = builder.inttoptr(address, ir.IntType(64).as_pointer())
    data = _entry(builder, table, 2 * list(kind.arrays).index(array))
    place = builder.add(data, ir.Constant(ir.IntType(64), record.offset(field)))
    pointer = builder.inttoptr(place, context.get_data_type(record.typeof(field)).as_pointer())
    return context.unpack_value(builder, record.typeof(field), pointer)
