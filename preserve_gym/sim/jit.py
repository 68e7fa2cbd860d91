"""How functions are compiled: one set of options, and an on-disk cache that notices every change."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import IndexDataCacheFile

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    # Kernels only use arrays that were allocated in Python, so they hold no references of their own.
    "_nrt": False,
}


@functools.cache
def _hash_sources(*folders: Path) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(function: Any) -> str:
    """Hash of the sources that a function may be compiled from: the engine's, and its neighbours."""
    engine = Path(__file__).parent
    own = Path(function.__code__.co_filename).parent
    neighbours = own != engine and engine.parent in own.parents
    return _hash_sources(engine, own) if neighbours else _hash_sources(engine)


def _cached(dispatcher: Any) -> Any:
    """Cache on disk, under a name that changes with every source that it may have been made of.

    Numba checks the file of the function itself only, so it would go on using a compiled event loop
    whose callees, in other files, have changed, or stumble over an index that names a type of old.
    """
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # a function without a file, as typed at a prompt, has no place for a cache
        return dispatcher
    cache = dispatcher._cache
    cache._cache_file = IndexDataCacheFile(
        cache_path=cache._cache_path,
        filename_base=f"{cache._impl.filename_base}-{_sources(dispatcher.py_func)[:16]}",
        source_stamp=cache._impl.locator.get_source_stamp(),
    )
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for other compiled functions, without what Python would need to call it: faster."""
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry(function: Callable[..., Any]) -> Any:
    """Compile on first call, for the types it is called with, also from Python."""
    return _compiled(function)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = njit(function, **_OPTIONS, **options)
    return _cached(dispatcher) if hasattr(dispatcher, "enable_caching") else dispatcher


def _has_cache(dispatcher: Any) -> bool:
    cache_file = getattr(dispatcher._cache, "_cache_file", None)
    return cache_file is not None and Path(cache_file._index_path).exists()


def entry_point(typed: Any) -> Any:
    """What a function made by ``typed_kernel`` calls when it knows the types of its arguments.

    It takes arguments of just these types, and saves the 20 microseconds in which they are looked at.
    """
    if not hasattr(typed, "overloads"):
        return typed
    (compiled,) = typed.overloads.values()
    return compiled.entry_point


def inlined(function: Callable[..., Any]) -> Any:
    """Insert into its callers before they are compiled.

    For a function that is called once and calls most of the engine: LLVM optimizes what a function calls
    once more with that function, so each level of calls would add seconds to the first run.
    """
    return njit(function, inline="always", **_OPTIONS)


def typed_kernel(signature: Any, notice: str = "") -> Callable[[Callable[..., Any]], Any]:
    """Compile for one ``signature`` now, so that functions can be passed to it, or it to functions.

    Where it has to be compiled, and somebody watches, ``notice`` is shown.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = entry(function)
        if hasattr(dispatcher, "compile"):
            if notice and not _has_cache(dispatcher) and sys.stderr.isatty():
                print(notice, file=sys.stderr)
            dispatcher.compile(signature)
            dispatcher.disable_compile()
        return dispatcher

    return decorate
