"""Autoscalers from files of the user's own."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path

from baselines.base import Autoscaler
from preserve_gym.errors import InputError


@functools.cache
def load_own(name: str) -> type[Autoscaler]:
    """The class that ``file.py:Class`` names; the file is run once.

    Raises:
        InputError: if there is no such file or class, it is no ``Autoscaler``, or the file raises.
    """
    file, _, class_name = name.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"policy {name!r}: no such Python file: {file!r}")
    # The same wherever the file lies, as what is compiled in it is kept beside it under this name.
    module_name = f"own_{path.stem}"
    other = sys.modules.get(module_name)
    if other is not None and Path(str(other.__file__)).resolve() != path.resolve():
        raise InputError(f"policy {name!r}: there is another file of that name: {other.__file__}")
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise InputError(f"policy {name!r}: {path} raised {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Autoscaler)):
        raise InputError(
            f"policy {name!r}: expected a class {class_name!r} in {path} that is an Autoscaler "
            "(a router plays as the field `router` of one)"
        )
    return found
