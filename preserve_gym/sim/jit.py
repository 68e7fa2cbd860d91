"""The one decorator for compiled functions."""

from __future__ import annotations

from typing import Any

from numba import njit

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    # Kernels only use arrays that were allocated in Python, so they hold no references of their own.
    # Without this, hidden reference counting costs a factor of three.
    "_nrt": False,
}

kernel: Any = njit(**_OPTIONS)
"""Compile on first call, for the types it is called with."""

inlined: Any = njit(**_OPTIONS, inline="always")
"""Compile into its callers."""


def typed_kernel(signature: Any) -> Any:
    """Compile at once for one ``signature``, so that first-class functions can be passed to it."""
    return njit(signature, **_OPTIONS)
