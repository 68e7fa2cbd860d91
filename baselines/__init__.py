"""Policies that do not learn: PreServe, its rivals, and bounds; run from the checkout."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

from baselines.base import Autoscaler
from baselines.hpa import Hpa
from baselines.hybrid import Hybrid
from baselines.own import load_own
from baselines.preserve import PreServe
from baselines.preserve_artifact import PreServeArtifact
from baselines.reactive import Reactive
from baselines.static import Static, peak_instances
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.profile import InstanceProfile

__all__ = [
    "ABLATIONS",
    "POLICIES",
    "Autoscaler",
    "Hpa",
    "Hybrid",
    "PreServe",
    "PreServeArtifact",
    "Reactive",
    "Static",
    "make_policy",
    "peak_instances",
]


class Entry(NamedTuple):
    """A policy of the registry: one line about it, and what makes it."""

    description: str
    make: Callable[..., Autoscaler]


_VARIANTS: dict[str, Entry] = {
    "preserve": Entry("PreServe as in its paper: forecast, look-ahead map, router", PreServe),
    "preserve-up-only": Entry(
        "PreServe whose look-ahead map only adds instances",
        partial(PreServe, name="preserve-up-only", variant="paper-up-only"),
    ),
    "preserve-artifact": Entry("PreServe as in its authors' artifact", PreServeArtifact),
}
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "without-tier-1": ("the look-ahead map alone scales", {"tier_1": False}),
    "without-tier-2": ("the forecast alone scales", {"tier_2": False}),
    "without-router": ("requests go where the fewest are", {"router": "least-requests"}),
    "oracle": ("forecast and lengths are the truth", {"forecaster": "oracle", "predictor": "oracle"}),
    "no-predictions": (
        "the last window for a forecast, the mean for every length",
        {"forecaster": "naive", "predictor": "mean"},
    ),
}
"""What is changed in PreServe, by the end of a policy's name: in words, and its parameters."""

_NOT_ABLATED = (
    "preserve-up-only-without-tier-1",  # nothing would remove an instance
    "preserve-up-only-without-tier-2",  # is preserve-without-tier-2
)


def _ablated() -> dict[str, Entry]:
    made = {}
    for variant, entry in _VARIANTS.items():
        for ablation, (words, parameters) in ABLATIONS.items():
            name = f"{variant}-{ablation}"
            if name not in _NOT_ABLATED:
                made[name] = Entry(f"{variant}: {words}", partial(entry.make, name=name, **parameters))
    return made


POLICIES: dict[str, Entry] = {
    "static": Entry("a fixed number of instances, static-N for N of them", Static),
    "reactive": Entry("PreServe's reactive baseline: +1 or -1 on mean KV use", Reactive),
    "proactive": Entry(
        "PreServe's proactive baseline: its Tier 1 alone, fewest requests first",
        partial(PreServe, name="proactive", tier_2=False, router="least-requests"),
    ),
    "hybrid": Entry("PreServe's hybrid baseline: the mean of reactive and Tier 1", Hybrid),
    "hpa": Entry("Kubernetes HPA on requests in flight per instance", Hpa),
    **_VARIANTS,
    "preserve-look-ahead": Entry(
        "PreServe as in its paper, its router reading the look-ahead map",
        partial(PreServe, name="preserve-look-ahead", router="preserve-look-ahead"),
    ),
    **_ablated(),
}


def make_policy(name: str, cluster: ClusterConfig, profile: InstanceProfile, **parameters: Any) -> Autoscaler:
    """The policy of that name, with its parameters where they differ from the defaults.

    ``static`` needs its ``instances``; ``static-5`` is static with ``instances=5``. ``file.py:Class`` is an
    autoscaler of one's own.

    Raises:
        InputError: on an unknown name or parameter, or a parameter outside its meaning.
    """
    entry = POLICIES.get(name)
    if ":" in name:
        entry = Entry("one's own", load_own(name))
    if sized := re.fullmatch(r"static-(\d{1,9})", name):
        entry, parameters = POLICIES["static"], {"name": name, "instances": int(sized[1]), **parameters}
    if entry is None:
        raise InputError(
            f"policy: expected one of {', '.join(POLICIES)}, static-N, file.py:Class, got {name!r}"
        )
    made = entry.make.func if isinstance(entry.make, partial) else entry.make
    known = sorted({f.name for f in fields(made)} - {"cluster", "profile", "_"})  # type: ignore[arg-type]
    for parameter in parameters:
        if parameter not in known:
            raise InputError(f"{name}.{parameter}: no such parameter; expected one of {', '.join(known)}")
    if name == "static" and "instances" not in parameters:
        raise InputError("static.instances: expected how many; give it, or name the policy static-N")
    return entry.make(cluster, profile, **parameters)
