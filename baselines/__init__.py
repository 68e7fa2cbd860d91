"""Policies that do not learn: PreServe, its rivals, and bounds; run from the checkout."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

from baselines.base import Autoscaler
from baselines.hpa import Hpa
from baselines.preserve import PreServe
from baselines.reactive import Reactive
from baselines.static import Static, peak_instances
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.profile import InstanceProfile

__all__ = ["POLICIES", "Autoscaler", "Hpa", "PreServe", "Reactive", "Static", "make_policy", "peak_instances"]


class Entry(NamedTuple):
    """A policy of the registry: one line about it, and what makes it."""

    description: str
    make: Callable[..., Autoscaler]


POLICIES: dict[str, Entry] = {
    "static": Entry("a fixed number of instances, static-N for N of them", Static),
    "reactive": Entry("PreServe's reactive baseline: +1 or -1 on mean KV use", Reactive),
    "hpa": Entry("Kubernetes HPA on requests in flight per instance", Hpa),
    "preserve": Entry("PreServe as in its paper: forecast, look-ahead map, router", PreServe),
    "preserve-up-only": Entry(
        "PreServe whose look-ahead map only adds instances",
        partial(PreServe, name="preserve-up-only", variant="paper-up-only"),
    ),
}


def make_policy(name: str, cluster: ClusterConfig, profile: InstanceProfile, **parameters: Any) -> Autoscaler:
    """The policy of that name, with its parameters where they differ from the defaults.

    ``static`` needs its ``instances``; ``static-5`` is static with ``instances=5``.

    Raises:
        InputError: on an unknown name or parameter, or a parameter outside its meaning.
    """
    entry = POLICIES.get(name)
    if sized := re.fullmatch(r"static-(\d{1,9})", name):
        entry, parameters = POLICIES["static"], {"name": name, "instances": int(sized[1]), **parameters}
    if entry is None:
        raise InputError(f"policy: expected one of {', '.join(POLICIES)}, static-N, got {name!r}")
    made = entry.make.func if isinstance(entry.make, partial) else entry.make
    known = sorted({f.name for f in fields(made)} - {"cluster", "profile", "_"})  # type: ignore[arg-type]
    for parameter in parameters:
        if parameter not in known:
            raise InputError(f"{name}.{parameter}: no such parameter; expected one of {', '.join(known)}")
    if name == "static" and "instances" not in parameters:
        raise InputError("static.instances: expected how many; give it, or name the policy static-N")
    return entry.make(cluster, profile, **parameters)
