"""Policies that do not learn: PreServe, its rivals, and bounds; run from the checkout."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

from baselines.aibrix import Aibrix
from baselines.base import Autoscaler
from baselines.dynamo_load import DynamoLoad
from baselines.dynamo_sla import DynamoSla
from baselines.fitted import fitted_schedule, fitted_static
from baselines.hpa import Hpa
from baselines.keda import KedaEndpointPicker, KedaQueue
from baselines.knative import Knative
from baselines.llumnix import Llumnix
from baselines.preserve import PreServe
from baselines.prism import Prism
from baselines.ray_serve import RayServe
from baselines.reactive import Reactive
from baselines.sageserve import SageServeByUse, SageServeImmediate
from baselines.simple import Corr, ForecastHeadroom, Rate, TimeOfDay
from baselines.skyserve import SkyServe
from baselines.static import Static, peak_instances
from baselines.variant_autoscaler import VariantAutoscaler
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.workload import Workload

__all__ = [
    "POLICIES",
    "Aibrix",
    "Autoscaler",
    "Corr",
    "DynamoLoad",
    "DynamoSla",
    "ForecastHeadroom",
    "Hpa",
    "KedaEndpointPicker",
    "KedaQueue",
    "Knative",
    "Llumnix",
    "PreServe",
    "Prism",
    "Rate",
    "RayServe",
    "Reactive",
    "SageServeByUse",
    "SageServeImmediate",
    "SkyServe",
    "Static",
    "TimeOfDay",
    "VariantAutoscaler",
    "make_fitted_policy",
    "make_policy",
    "peak_instances",
]


class Entry(NamedTuple):
    """A policy of the registry: one line about it, what makes it, and what fits its parameters.

    ``fit`` gives the parameters that it must know in advance, from the training part of a workload with
    splits, else from all of it; None: there are none.
    """

    description: str
    make: Callable[..., Autoscaler]
    fit: Callable[[ClusterConfig, Workload], dict[str, Any]] | None = None

    @property
    def policy(self) -> type[Autoscaler]:
        """The class of the policy."""
        return self.make.func if isinstance(self.make, partial) else self.make  # type: ignore[return-value]


POLICIES: dict[str, Entry] = {
    "static": Entry("a fixed number of instances, static-N for N of them", Static, fitted_static),
    "reactive": Entry("PreServe's reactive baseline: +1 or -1 on mean KV use", Reactive),
    "hpa": Entry("Kubernetes HPA on requests in flight per instance", Hpa),
    "preserve": Entry("PreServe as in its paper: forecast, look-ahead map, router", PreServe),
    "preserve-up-only": Entry(
        "PreServe whose look-ahead map only adds instances",
        partial(PreServe, name="preserve-up-only", variant="paper-up-only"),
    ),
    "keda-queue": Entry("KEDA on requests waiting, as the vLLM production stack sets it", KedaQueue),
    "keda-epp": Entry("KEDA on requests in flight, as llm-d recommends", KedaEndpointPicker),
    "knative": Entry("Knative's Pod Autoscaler on concurrency, with its panic mode", Knative),
    "ray-serve": Entry("Ray Serve on ongoing requests", RayServe),
    "skyserve": Entry("SkyServe on the request rate", SkyServe),
    "aibrix": Entry("AIBrix's APA on KV use", Aibrix),
    "llm-d-wva": Entry("llm-d's variant autoscaler: a queueing model within the SLOs", VariantAutoscaler),
    "dynamo-sla": Entry("NVIDIA Dynamo's SLA planner: forecast load over profiled throughput", DynamoSla),
    "dynamo-load": Entry("NVIDIA Dynamo's load planner: +1 or -1 on mean KV use", DynamoLoad),
    "llumnix": Entry("Llumnix on the mean freeness, with its router", Llumnix),
    "sageserve-i": Entry("SageServe's LT-I: the highest forecast plus 10 %, at once", SageServeImmediate),
    "sageserve-u": Entry("SageServe's LT-U: towards that forecast as KV use asks for it", SageServeByUse),
    "prism": Entry("PRISM on the shares of hot and cold instances, with its router", Prism),
    "forecast-headroom": Entry("the forecast over the cold start times one headroom", ForecastHeadroom),
    "time-of-day": Entry("the usual need at that time of day times one headroom", TimeOfDay, fitted_schedule),
    "rate": Entry("the measured need of 60 s times one headroom, stabilised", Rate),
    "corr": Entry("the forecast corrected by the recent rate, times one headroom", Corr),
}


def make_policy(name: str, cluster: ClusterConfig, profile: InstanceProfile, **parameters: Any) -> Autoscaler:
    """The policy of that name, with its parameters where they differ from the defaults.

    ``static`` needs its ``instances``; ``static-5`` is static with ``instances=5``. ``time-of-day`` needs its
    ``schedule``. ``make_fitted_policy`` finds both.

    Raises:
        InputError: on an unknown name or parameter, or a parameter outside its meaning.
    """
    entry = POLICIES.get(name)
    if sized := re.fullmatch(r"static-(\d{1,9})", name):
        entry, parameters = POLICIES["static"], {"name": name, "instances": int(sized[1]), **parameters}
    if entry is None:
        raise InputError(f"policy: expected one of {', '.join(POLICIES)}, static-N, got {name!r}")
    known = {f.name: f for f in fields(entry.policy) if f.name not in ("cluster", "profile", "_")}
    for parameter in parameters:
        if parameter not in known:
            raise InputError(
                f"{name}.{parameter}: no such parameter; expected one of {', '.join(sorted(known))}"
            )
    if name == "static" and "instances" not in parameters:
        raise InputError("static.instances: expected how many; give it, or name the policy static-N")
    if name == "time-of-day" and "schedule" not in parameters:
        raise InputError("time-of-day.schedule: expected the usual needs over the day; give them")
    return entry.make(cluster, profile, **parameters)


def make_fitted_policy(
    name: str, cluster: ClusterConfig, workload: Workload, **parameters: Any
) -> Autoscaler:
    """The policy of that name for a workload: its profile, and the parameters that are fitted to it.

    Args:
        parameters: where they differ from the defaults; these are not fitted.

    Raises:
        InputError: if there is none, or it does not fit the cluster.
    """
    entry = POLICIES.get(name)
    if entry is not None and entry.fit is not None:
        parameters = entry.fit(cluster, workload) | parameters
    return make_policy(name, cluster, workload.profile(cluster), **parameters)
