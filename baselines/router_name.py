"""What the name of a router may be: built in, learned, or of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.shared_router import EVOLVED, load_router, router_names, router_path, shared_score
from baselines.own import load_own_router
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.sim.routers import ROUTERS, USUAL_WEIGHTS


def router_options(router: Any, option: str = "router") -> dict[str, Any]:
    """The options of an environment for a router.

    Args:
        router: a built-in one by name (``linear`` with its usual weights), a learned one by its name in
            ``agents/routers`` or its file, ``file.py:function`` of one's own, or a compiled one.
        option: for the message.

    Raises:
        InputError: if it is none of them, with a suggestion; or what is wrong with a file.
    """
    if router == "linear":
        return {"router": router, "router_weights": USUAL_WEIGHTS}
    if not isinstance(router, str) or router in ROUTERS:
        return {"router": router}
    if ":" in router:
        return {"router": load_own_router(router)}
    learned = router_names()
    if router not in learned and not router.endswith(".yaml"):
        known = (*ROUTERS, *learned)
        others = ", ".join((*known, "FILE.yaml", "file.py:function"))
        raise InputError(f"{option}: expected one of {others}, got {router!r}{did_you_mean(router, known)}")
    return {"router": shared_score, "router_weights": load_router(router).weights}


def check_router_name(name: str, option: str) -> None:
    """Refuse a name that no router has; as ``router_options``."""
    router_options(name, option)


def router_file(name: str) -> Path | None:
    """The file of a learned router or of one's own; None of a built-in one."""
    if name in ROUTERS:
        return None
    return Path(name.rpartition(":")[0]) if ":" in name else router_path(name)


def router_label(name: str) -> str:
    """Of one's own the function; of a learned one's file its name, or that of the folder it evolved in."""
    if ":" in name:
        return name.rpartition(":")[2]
    path = Path(name)
    return path.parent.name if path.name == EVOLVED else path.stem
