"""An object of NumPy arrays that compiled functions take by reference.

Numba passes a tuple of arrays by value, seven words an array, at every call that is not inlined: tens of
nanoseconds for a state as large as ours. Here one word is passed, the address of a table that holds the
address and the length of each array, and ``s.requests`` looks the array up.

In a compiled function an array named in ``COLUMNS`` is a *column*: it has a length, and its items are read
and written by an index that is not negative. A NumPy array would carry five words more, and look at each
index twice, as -1 would mean the last item. Those in ``ARRAYS`` are NumPy arrays in full.
"""

from __future__ import annotations

import operator
from typing import Any, ClassVar

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.imputils import lower_builtin, lower_getattr_generic
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_global, signature
from numba.extending import NativeValue, infer_getattr, models, register_model, unbox
from numba.np.arrayobj import make_array, populate_array

_WORD = ir.IntType(64)


class ByReference:
    """Base of classes whose attributes named in ``COLUMNS`` and ``ARRAYS`` are one-dimensional arrays.

    In a compiled function they are looked up by name; they must not be replaced after construction.
    ``SCALARS`` gives names to fields of the first record of an array.
    """

    COLUMNS: ClassVar[dict[str, types.Array]] = {}
    ARRAYS: ClassVar[dict[str, types.Array]] = {}
    SCALARS: ClassVar[dict[str, tuple[str, str]]] = {}
    _numba_type_: ClassVar[types.Type]

    def __init_subclass__(cls) -> None:
        # Where Numba looks first; otherwise each call from Python would take tens of microseconds longer.
        cls._numba_type_ = ByReferenceType(cls)

    def __init__(self, **arrays: np.ndarray[Any, Any]) -> None:
        table = []
        for name in (*self.COLUMNS, *self.ARRAYS):
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
        return {name: getattr(self, name) for name in (*self.COLUMNS, *self.ARRAYS)}

    def __setstate__(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        ByReference.__init__(self, **arrays)


class ByReferenceType(types.Type):
    """Numba's type of a subclass of ``ByReference``."""

    def __init__(self, cls: type[ByReference]) -> None:
        self.columns = cls.COLUMNS
        self.arrays = cls.ARRAYS
        self.scalars = cls.SCALARS
        self.table = (*cls.COLUMNS, *cls.ARRAYS)
        arrays = ", ".join(f"{name}: {kind}" for name, kind in (cls.COLUMNS | cls.ARRAYS).items())
        super().__init__(f"{cls.__name__}({arrays})")


class ColumnType(types.Type):
    """Numba's type of a column: items of type ``dtype``, side by side."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(f"Column({dtype})")


@register_model(ByReferenceType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: ByReferenceType) -> None:
        super().__init__(manager, fe_type, _WORD)  # type: ignore[no-untyped-call]


@register_model(ColumnType)
class _ColumnModel(models.StructModel):
    def __init__(self, manager: Any, fe_type: ColumnType) -> None:
        members = [("data", types.intp), ("size", types.intp)]
        super().__init__(manager, fe_type, members)  # type: ignore[no-untyped-call]


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
        if name in kind.columns:
            return ColumnType(kind.columns[name].dtype)
        if name in kind.scalars:
            array, field = kind.scalars[name]
            return kind.arrays[array].dtype.typeof(field)
        return kind.arrays.get(name)


@lower_getattr_generic(ByReferenceType)
def _lower(context: Any, builder: Any, kind: ByReferenceType, address: Any, name: str) -> Any:
    if name in kind.columns:
        column = cgutils.create_struct_proxy(ColumnType(kind.columns[name].dtype))(context, builder)
        column.data, column.size = _entries(builder, kind, address, name)
        return column._getvalue()
    if name in kind.scalars:
        array, field = kind.scalars[name]
        record: Any = kind.arrays[array].dtype
        place = builder.add(_entries(builder, kind, address, array)[0], _WORD(record.offset(field)))
        return context.unpack_value(
            builder, record.typeof(field), _pointer(context, builder, record.typeof(field), place)
        )
    array_type = kind.arrays[name]
    array = make_array(array_type)(context, builder)
    item = context.get_abi_sizeof(context.get_data_type(array_type.dtype))
    data, size = _entries(builder, kind, address, name)
    populate_array(
        array,
        data=builder.inttoptr(data, array.data.type),
        shape=[size],
        strides=[context.get_constant(types.intp, item)],
        itemsize=context.get_constant(types.intp, item),
        meminfo=None,
    )
    return array._getvalue()


def _entries(builder: Any, kind: ByReferenceType, address: Any, name: str) -> tuple[Any, Any]:
    """Address and length of an array, from the table."""
    table = builder.inttoptr(address, _WORD.as_pointer())
    index = 2 * kind.table.index(name)
    entries = []
    for k in (index, index + 1):
        loaded = builder.load(cgutils.gep_inbounds(builder, table, k))
        # The table never changes, so its entries need not be loaded again after every store.
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        entries.append(loaded)
    return entries[0], entries[1]


def _pointer(context: Any, builder: Any, kind: types.Type, place: Any) -> Any:
    return builder.inttoptr(place, context.get_data_type(kind).as_pointer())


@infer_global(operator.getitem)
class _ColumnGet(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if isinstance(args[0], ColumnType) and isinstance(args[1], types.Integer):
            return signature(args[0].dtype, args[0], args[1])
        return None


@infer_global(operator.setitem)
class _ColumnSet(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if isinstance(args[0], ColumnType) and isinstance(args[1], types.Integer):
            return signature(types.void, args[0], args[1], args[0].dtype)
        return None


@infer_global(len)
class _ColumnLen(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], ColumnType):
            return signature(types.intp, args[0])
        return None


def _item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Pointer to the item that the first two arguments name."""
    kind, index_kind = sig.args[:2]
    column = cgutils.create_struct_proxy(kind)(context, builder, value=args[0])
    index = context.cast(builder, args[1], index_kind, types.intp)
    if config.BOUNDSCHECK:  # type: ignore[attr-defined]
        with cgutils.if_unlikely(builder, builder.icmp_unsigned(">=", index, column.size)):
            context.call_conv.return_user_exc(builder, IndexError, ("index is out of bounds",))
    size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    place = builder.add(column.data, builder.mul(index, _WORD(size)))
    return _pointer(context, builder, kind.dtype, place)


@lower_builtin(operator.getitem, ColumnType, types.Integer)
def _get_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return context.unpack_value(builder, sig.args[0].dtype, _item(context, builder, sig, args))


@lower_builtin(operator.setitem, ColumnType, types.Integer, types.Any)
def _set_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    dtype = sig.args[0].dtype
    value = context.cast(builder, args[2], sig.args[2], dtype)
    context.pack_value(builder, dtype, value, _item(context, builder, sig, args))
    return context.get_dummy_value()


@lower_builtin(len, ColumnType)
def _length(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).size
