"""Checks of the fields of transforms, patterns, lengths and counts."""

from __future__ import annotations

from numbers import Real
from typing import Any

from preserve_gym.errors import InputError


def field_error(owner: object, name: str, expected: str, value: object) -> InputError:
    """The error for a field of ``owner`` that is not what was expected."""
    return InputError(f"{type(owner).__name__}.{name}: expected {expected}, got {value!r}")


def check_number(owner: object, name: str, low: float, high: float, *, above: bool = False) -> None:
    """Refuse all but a number in [low, high], or (low, high] with ``above``; store a Python float."""
    value: Any = getattr(owner, name)
    number: Any = Real
    is_number = isinstance(value, number) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (above and value == low):
        bound = f"{'(' if above else '['}{low:.15g}, {high:.15g}]"
        raise field_error(owner, name, f"a number in {bound}", value)
    object.__setattr__(owner, name, float(value))
