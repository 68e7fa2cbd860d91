"""Policies by name: PreServe, its rivals, and bounds, and the models of ``agents``; run from the checkout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, NamedTuple

from baselines.aibrix import Aibrix
from baselines.base import HEADROOMS, Autoscaler
from baselines.bounds.hindsight import Hindsight
from baselines.bounds.kept import fitted_best_static, fitted_hindsight
from baselines.dynamo_load import DynamoLoad
from baselines.dynamo_sla import DynamoSla
from baselines.feasible import Feasible, fitted_feasible
from baselines.fitted import fitted_schedule, fitted_static
from baselines.hpa import Hpa
from baselines.hybrid import Hybrid
from baselines.keda import KedaEndpointPicker, KedaQueue
from baselines.knative import Knative
from baselines.llumnix import Llumnix
from baselines.own import load_own
from baselines.policy_name import LEARNED, is_learned, label_of
from baselines.preserve import LEADS_S, TIER_1_HEADROOMS, PreServe
from baselines.preserve_artifact import PreServeArtifact
from baselines.prism import Prism
from baselines.ray_serve import RayServe
from baselines.reactive import Reactive
from baselines.sageserve import SageServeByUse, SageServeImmediate
from baselines.simple import Corr, ForecastHeadroom, Rate, TimeOfDay
from baselines.skyserve import SkyServe
from baselines.static import Static, peak_instances
from baselines.tuned import split_target, split_tuned, tuned_parameters
from baselines.variant_autoscaler import VariantAutoscaler
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.scenarios import scenario_of
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.workload import Workload

__all__ = [
    "ABLATIONS",
    "POLICIES",
    "Aibrix",
    "Autoscaler",
    "Corr",
    "DynamoLoad",
    "DynamoSla",
    "Feasible",
    "ForecastHeadroom",
    "Hpa",
    "Hybrid",
    "KedaEndpointPicker",
    "KedaQueue",
    "Knative",
    "Llumnix",
    "PreServe",
    "PreServeArtifact",
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
    "entry_of",
    "make_fitted_policy",
    "make_policy",
    "peak_instances",
]


class Entry(NamedTuple):
    """A policy of the registry: one line about it, what makes it, and what fits its parameters.

    ``fit`` gives the parameters that it must know in advance, from the training part of a workload with
    splits, else from all of it; None: there are none. An ``oracle`` is given more than a controller can know:
    it is no policy to be compared with but a bound. ``tuning`` is what it is tuned over, if that is other
    than the ``TUNING`` of its class.
    """

    description: str
    make: Callable[..., Autoscaler]
    fit: Callable[[ClusterConfig, Workload], dict[str, Any]] | None = None
    oracle: bool = False
    tuning: Mapping[str, tuple[float, ...]] | None = None

    @property
    def policy(self) -> type[Autoscaler]:
        """The class of the policy."""
        return self.make.func if isinstance(self.make, partial) else self.make  # type: ignore[return-value]

    @property
    def tuned_over(self) -> Mapping[str, tuple[float, ...]]:
        """Parameters to tune, with the values to try; empty: there are none."""
        return self.policy.TUNING if self.tuning is None else self.tuning


_TIER_1 = {"headroom": TIER_1_HEADROOMS, "lead_s": LEADS_S}
"""What the forecast's part of PreServe is tuned over, where Tier 2 removes nothing."""

_VARIANTS: dict[str, Entry] = {
    "preserve": Entry("PreServe as in its paper: forecast, look-ahead map, router", PreServe),
    "preserve-up-only": Entry(
        "PreServe whose look-ahead map only adds instances",
        partial(PreServe, name="preserve-up-only", variant="paper-up-only"),
        tuning=_TIER_1,
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
                make = partial(entry.make, name=name, **parameters)
                made[name] = Entry(f"{variant}: {words}", make, tuning=entry.tuning)
    return made


POLICIES: dict[str, Entry] = {
    "static": Entry("a fixed number of instances, static-N for N of them", Static, fitted_static),
    "reactive": Entry("PreServe's reactive baseline: +1 or -1 on mean KV use", Reactive),
    "proactive": Entry(
        "PreServe's proactive baseline: its Tier 1 alone, fewest requests first",
        partial(PreServe, name="proactive", tier_2=False, router="least-requests"),
        tuning=_TIER_1,
    ),
    "hybrid": Entry("PreServe's hybrid baseline: the mean of reactive and Tier 1", Hybrid),
    "hpa": Entry("Kubernetes HPA on requests in flight per instance", Hpa),
    **_VARIANTS,
    "preserve-look-ahead": Entry(
        "PreServe as in its paper, its router reading the look-ahead map",
        partial(PreServe, name="preserve-look-ahead", router="preserve-look-ahead"),
    ),
    **_ablated(),
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
    "feasible": Entry(
        "oracle: the true rates up to now and what they imply, times one headroom",
        Feasible,
        fitted_feasible,
        oracle=True,
    ),
    "feasible-by-load": Entry(
        "oracle: the same, corrected by the KV cache in use",
        partial(Feasible, name="feasible-by-load", load_weight=0.5, headroom=0.6),
        fitted_feasible,
        oracle=True,
        tuning={"headroom": tuple(round(0.5 * value, 4) for value in HEADROOMS)},
    ),
    "best-static": Entry(
        "oracle: the smallest constant fleet that meets the target",
        partial(Static, name="best-static"),
        fitted_best_static,
        oracle=True,
        tuning={},
    ),
    "hindsight": Entry(
        "oracle: the schedule found by one who knows all arrivals", Hindsight, fitted_hindsight, oracle=True
    ),
}
"""Those that ``make_policy`` and ``make_fitted_policy`` make, by name; ablations and models come beside."""


def entry_of(name: str) -> Entry | None:
    """The entry of a policy by its name: of the registry, of one's own, or learned; None if there is none.

    Raises:
        InputError: on a file of one's own that cannot be loaded.
    """
    if ":" in name:
        return Entry("one's own", load_own(name))
    if name in POLICIES or not is_learned(name):
        return POLICIES.get(name)
    # Here, as agents uses what this package defines.
    from agents.learned_policy import Learned

    return Entry("a trained model", Learned)


def make_policy(
    name: str, cluster: ClusterConfig, profile: InstanceProfile, /, **parameters: Any
) -> Autoscaler:
    """The policy of that name, with its parameters where they differ from the defaults.

    ``static`` needs its ``instances``; ``static-5`` is static with ``instances=5``. ``time-of-day`` needs its
    ``schedule``. ``make_fitted_policy`` finds both. ``file.py:Class`` is an autoscaler of one's own; the
    folder of a trained model, or its name in ``agents/models``, is that model.

    Raises:
        InputError: on an unknown name or parameter, or a parameter outside its meaning.
    """
    sized = re.fullmatch(r"static-(\d{1,9})", name)
    entry = entry_of("static" if sized else name)
    if sized:
        parameters = {"name": name, "instances": int(sized[1]), **parameters}
    elif name not in POLICIES and is_learned(name):
        parameters = {"name": name, "model": name, **parameters}
    if entry is None or name in LEARNED:
        raise InputError(
            f"policy: expected one of {', '.join((*POLICIES, *LEARNED))}, static-N, file.py:Class, "
            f"the folder of a model, got {name!r}"
        )
    known = {f.name: f for f in fields(entry.policy) if f.name not in ("cluster", "profile", "_")}
    for parameter in parameters:
        if parameter not in known:
            raise InputError(
                f"{name}.{parameter}: no such parameter; expected one of {', '.join(sorted(known))}"
            )
    for parameter, known_field in known.items():
        given = parameter in parameters or name in ("static", "time-of-day")
        if not given and known_field.default is known_field.default_factory is MISSING:
            raise InputError(
                f"{name}.{parameter}: expected a value, as there is no default; make_fitted_policy finds it"
            )
    if name == "static" and "instances" not in parameters:
        raise InputError("static.instances: expected how many; give it, or name the policy static-N")
    if name == "time-of-day" and "schedule" not in parameters:
        raise InputError("time-of-day.schedule: expected the usual needs over the day; give them")
    return entry.make(cluster, profile, **parameters)


def make_fitted_policy(
    name: str, cluster: ClusterConfig, workload: Workload, /, **parameters: Any
) -> Autoscaler:
    """The policy of that name for a workload: its profile, and the parameters that are fitted to it.

    A name with ``-tuned`` has the parameters that were tuned on the validation split of the
    scenario that workload and cluster are of. ``@99.5`` after it, or after the name of a learned policy: with
    those, or the violation weight, that attain so much there, in %.

    Args:
        parameters: where they differ from the defaults; these are not fitted.

    Raises:
        InputError: if there is none, or it does not fit the cluster.
    """
    tuned = split_tuned(name)
    if tuned is not None and entry_of(tuned.policy) is not None:
        scenario = scenario_of(cluster, workload.config)
        chosen = tuned_parameters(name, scenario.name if scenario else "")
        name, parameters = tuned.policy, chosen | {"name": name} | parameters
    if name not in POLICIES and is_learned(name):
        return _make_learned(name, cluster, workload, parameters)
    entry = POLICIES.get(name)
    if entry is not None and entry.fit is not None:
        parameters = entry.fit(cluster, workload) | parameters
    return make_policy(name, cluster, workload.profile(cluster), **parameters)


def _make_learned(
    name: str, cluster: ClusterConfig, workload: Workload, parameters: dict[str, Any]
) -> Autoscaler:
    """A trained model for a workload."""
    from agents.learned_policy import model_for

    base, target = split_target(name)
    model = model_for(base, workload.config) if base in LEARNED else base
    forecast_windows = workload.config.forecast_windows
    given = {"name": label_of(name), "forecast_windows": forecast_windows, "target": target, **parameters}
    return make_policy(model, cluster, workload.profile(cluster), **given)
