"""Autoscalers and routers from files of the user's own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preserve_gym.errors import InputError

if TYPE_CHECKING:
    from baselines.base import Autoscaler


def load_own(name: str) -> type[Autoscaler]:
    """The class that ``file.py:Class`` names; the file is run once.

    Raises:
        InputError: if there is no such file or class, it is no ``Autoscaler``, or the file raises.
    """
    # Here, as its module uses this one.
    from baselines.base import Autoscaler

    file, _, class_name = name.rpartition(":")
    found = getattr(_module(f"policy {name!r}", file), class_name, None)
    if not (isinstance(found, type) and issubclass(found, Autoscaler)):
        raise InputError(
            f"policy {name!r}: expected a class {class_name!r} in {file} that is an Autoscaler "
            "(a router plays as --router, or as the field `router` of one)"
        )
    return found


def load_own_router(name: str) -> Any:
    """The compiled router that ``file.py:function`` names; the file is run once.

    Raises:
        InputError: if there is no such file or function, it is no router, or the file raises.
    """
    file, _, function = name.rpartition(":")
    found = getattr(_module(f"router {name!r}", file), function, None)
    if not hasattr(found, "reads"):
        raise InputError(f"router {name!r}: expected a function {function!r} in {file} made by @router")
    return found


def _module(what: str, file: str) -> Any:
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"{what}: no such Python file: {file!r}")
    # The same wherever the file lies, as what is compiled in it is kept beside it under this name.
    module_name = f"own_{path.stem}"
    other = sys.modules.get(module_name)
    if other is not None:
        if Path(str(other.__file__)).resolve() != path.resolve():
            raise InputError(f"{what}: there is another file of that name: {other.__file__}")
        return other
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise InputError(f"{what}: {path} raised {type(error).__name__}: {error}") from error
    return module
