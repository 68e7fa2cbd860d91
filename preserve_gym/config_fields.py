"""Building configuration dataclasses from mappings, and checking their fields."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

from preserve_gym.errors import InputError

T = TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the config dataclass ``cls`` from a (nested) mapping, as read from YAML or JSON.

    Raises:
        InputError: on a field that ``cls`` does not have, or a value that it refuses.
    """
    where = where or cls.__name__
    expand = getattr(cls, "expand", None)
    if expand is not None:
        values = expand(values, where)
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{where}.{name}: no such field; expected one of {', '.join(sorted(known))}")
        if isinstance(value, Mapping):
            nested = _dataclass_in(hints[name])
            if nested is None:
                raise InputError(f"{where}.{name}: expected {hints[name]}, got a mapping")
            value = from_mapping(nested, value, f"{where}.{name}")
        arguments[name] = value
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = f.default is f.default_factory is dataclasses.MISSING
        if required and f.name not in arguments:
            raise InputError(f"{where}.{f.name}: expected a value, as it has no default")
    return cls(**arguments)


def changed(config: T, values: Mapping[str, Any]) -> T:
    """The config with the fields that a (nested) mapping names changed, and all others as they are.

    Raises:
        InputError: on a field that it does not have, or a value that it refuses.
    """
    merged = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name, value in values.items():
        present = merged.get(name)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(present) and "preset" not in value:
            value = changed(present, value)
        merged[name] = value
    return from_mapping(type(config), merged)


def _dataclass_in(hint: Any) -> type | None:
    candidates = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((c for c in candidates if dataclasses.is_dataclass(c)), None)  # type: ignore[return-value]


def check(config: object, name: str, low: float, high: float = math.inf, *, integer: bool = False) -> None:
    """Refuse a value out of range; store NumPy's numbers as Python's."""
    value: Any = getattr(config, name)
    kind = "an integer" if integer else "a number"
    allowed: Any = Integral if integer else Real
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        bound = f"in [{low:.15g}, {high:.15g}]" if high < math.inf else f">= {low:.15g}"
        raise InputError(f"{type(config).__name__}.{name}: expected {kind} {bound}, got {value!r}")
    object.__setattr__(config, name, int(value) if isinstance(value, Integral) else float(value))


def check_numbers(config: object, name: str, most: int) -> None:
    """Refuse all but a finite number >= 0 or up to ``most`` of them; store a float or a tuple of floats."""
    value: Any = getattr(config, name)
    allowed: Any = Real
    where = f"{type(config).__name__}.{name}"
    if isinstance(value, np.ndarray):
        value = value.tolist()
    several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if several and not 1 <= len(value) <= most:
        raise InputError(f"{where}: expected 1 to {most:,} numbers, got {len(value):,}")
    for k, number in enumerate(value if several else [value]):
        if isinstance(number, bool) or not isinstance(number, allowed) or not 0.0 <= number < math.inf:
            entry = f"{where}[{k}]" if several else where
            kind = "a finite number >= 0" if several else "a finite number >= 0, or a sequence of them"
            raise InputError(f"{entry}: expected {kind}, got {number!r}")
    object.__setattr__(config, name, tuple(map(float, value)) if several else float(value))


def check_bool(config: object, name: str) -> None:
    """Refuse what is neither true nor false."""
    value = getattr(config, name)
    if not isinstance(value, bool):
        raise InputError(f"{type(config).__name__}.{name}: expected true or false, got {value!r}")


def nest(config: object, name: str, cls: type[Any]) -> None:
    """Turn a mapping into the config dataclass ``cls``; refuse anything else that is not one."""
    value = getattr(config, name)
    if isinstance(value, Mapping):
        object.__setattr__(config, name, from_mapping(cls, value))
    elif not isinstance(value, cls):
        where = f"{type(config).__name__}.{name}"
        raise InputError(f"{where}: expected a {cls.__name__} or a mapping of its fields, got {value!r}")


def check_choice(config: object, name: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of the choices."""
    value = getattr(config, name)
    if value not in choices:
        raise InputError(
            f"{type(config).__name__}.{name}: expected one of {', '.join(choices)}, got {value!r}"
        )
