"""The policies of an experiment by name, and what is recorded of them."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import baselines
from baselines import Autoscaler, make_fitted_policy
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.workload import Workload

TUNED = "-tuned"
"""End of the name of a policy whose parameters were tuned on the validation split of the scenario."""
_TUNED_FILE = Path(baselines.__file__).parent / "tuned.yaml"


def build_policy(
    name: str, cluster: ClusterConfig, workload: Workload, scenario: str = "", router: str | None = None
) -> Autoscaler:
    """The policy of that name, with what it must know in advance fitted, to training if there are splits.

    Args:
        name: of the registry, ``static-N``, ``file.py:Class``, or one of the registry with ``-tuned``.
        scenario: that the workload is of, for tuned parameters.
        router: in place of the policy's own.

    Raises:
        InputError: if there is none, or it does not fit the cluster.
    """
    parameters: dict[str, Any] = {}
    if name.endswith(TUNED) and ":" not in name:
        parameters = tuned_parameters(name.removesuffix(TUNED), scenario) | {"name": name}
        name = name.removesuffix(TUNED)
    if router is not None:
        parameters["router"] = router
    return make_fitted_policy(name, cluster, workload, **parameters)


def tuned_parameters(policy: str, scenario: str) -> dict[str, Any]:
    """The parameters of a policy that were tuned for a scenario.

    Raises:
        InputError: if there are none.
    """
    tuned = _tuned()
    if not is_tuned(policy, scenario):
        known = ", ".join(f"{name}{TUNED}" for name in tuned.get(scenario, {})) or "none"
        where = f"scenario {scenario!r}" if scenario else "a trace without a scenario"
        raise InputError(f"policy {policy + TUNED!r}: no tuned parameters for {where}; there are {known}")
    return dict(tuned[scenario][policy]["parameters"])


def is_tuned(policy: str, scenario: str) -> bool:
    """Whether there are parameters of that policy that were tuned for that scenario."""
    return policy in _tuned().get(scenario, {})


@cache
def _tuned() -> dict[str, dict[str, dict[str, Any]]]:
    if not _TUNED_FILE.is_file():
        return {}
    return yaml.safe_load(_TUNED_FILE.read_text(encoding="utf-8")) or {}


def policy_parameters(policy: Autoscaler) -> dict[str, Any]:
    """The fields of a policy that are its own, as YAML and JSON hold them."""
    values = {f.name: getattr(policy, f.name) for f in fields(policy) if f.name not in ("cluster", "profile")}
    return values | {"router": router_name(policy), "anticipator": asdict(policy.anticipator)}


def router_name(policy: Autoscaler) -> str:
    """The name of the policy's router; of one of the user's own that of its function."""
    router = policy.router
    return router if isinstance(router, str) else str(router.__name__)
