"""The policies of an experiment by name, and what is recorded of them."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from baselines import Autoscaler, make_fitted_policy
from baselines.tuned import split_tuned, tuned_parameters
from preserve_gym.config import ClusterConfig
from preserve_gym.workload import Workload


def build_policy(
    name: str, cluster: ClusterConfig, workload: Workload, scenario: str = "", router: str | None = None
) -> Autoscaler:
    """The policy of that name, with what it must know in advance fitted, to training if there are splits.

    Args:
        name: of the registry, ``static-N``, ``file.py:Class``, or one of the registry with ``-tuned`` or
            ``-tuned@PERCENT``.
        scenario: that the workload is of, for tuned parameters.
        router: in place of the policy's own.

    Raises:
        InputError: if there is none, or it does not fit the cluster.
    """
    parameters: dict[str, Any] = {}
    tuned = split_tuned(name)
    if tuned is not None:
        parameters = tuned_parameters(name, scenario) | {"name": name}
        name = tuned.policy
    if router is not None:
        parameters["router"] = router
    return make_fitted_policy(name, cluster, workload, **parameters)


def policy_parameters(policy: Autoscaler) -> dict[str, Any]:
    """The fields of a policy that are its own, as YAML and JSON hold them."""
    # What is not shown is data.
    own = [f.name for f in fields(policy) if f.repr and f.name not in ("cluster", "profile")]
    values = {name: getattr(policy, name) for name in own}
    return values | {"router": router_name(policy), "anticipator": asdict(policy.anticipator)}


def router_name(policy: Autoscaler) -> str:
    """The name of the policy's router; of one of the user's own that of its function.

    ``linear`` for one that weighs for itself what a router reads.
    """
    router = "linear" if policy.router is None else policy.router
    return router if isinstance(router, str) else str(router.__name__)
