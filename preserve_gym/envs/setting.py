"""What an environment plays: a workload, and the cluster that serves it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from preserve_gym.config import AnticipatorConfig, ClusterConfig, WorkloadConfig
from preserve_gym.config_fields import changed
from preserve_gym.errors import InputError
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.workload import Workload

Split = Literal["train", "validation", "test"]

_workloads: weakref.WeakValueDictionary[Any, Workload] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class Setting:
    """What an environment plays.

    Attributes:
        cluster: the cluster.
        workload: the traffic, shared with every other environment of this process that plays the same.
        profile: what one instance of the cluster serves of it.
        anticipator: the look-ahead map that is observed and routed by.
    """

    cluster: ClusterConfig
    workload: Workload
    profile: InstanceProfile
    anticipator: AnticipatorConfig


def make_setting(
    cluster: ClusterConfig | Mapping[str, Any] | None,
    workload: WorkloadConfig | Mapping[str, Any] | Workload | None,
    scenario: str | Path | Scenario | None,
    split: Split | None,
    anticipator: AnticipatorConfig | Mapping[str, Any] | None,
) -> Setting:
    """What the options of an environment's constructor say.

    Raises:
        InputError: on options that do not fit.
    """
    if not isinstance(scenario, Scenario):
        unnamed = Scenario("", "", WorkloadConfig(), ClusterConfig())
        scenario = unnamed if scenario is None else load_scenario(scenario)
    cluster_config: ClusterConfig = config_of("cluster", scenario.cluster, cluster)
    if not isinstance(workload, Workload):
        made = replace(scenario, workload=config_of("workload", scenario.workload, workload))
        if split is not None and made.workload.split not in (None, split):
            raise InputError(f"split: expected {made.workload.split!r} as in workload, got {split!r}")
        workload = _shared_workload(made, split)
    elif split is not None:
        raise InputError(f"split: expected None with a Workload, which has its own, got {split!r}")
    look_ahead: AnticipatorConfig = config_of("anticipator", AnticipatorConfig(), anticipator)
    return Setting(cluster_config, workload, workload.profile(cluster_config), look_ahead)


def config_of(name: str, default: Any, value: Any) -> Any:
    """The configuration that was given as argument ``name``; a mapping changes fields of the default."""
    cls = type(default)
    if value is None:
        return default
    if isinstance(value, cls):
        return value
    if isinstance(value, Mapping):
        return changed(default, value)
    raise InputError(f"{name}: expected a {cls.__name__} or a mapping of its fields, got {value!r}")


def _shared_workload(scenario: Scenario, split: Split | None) -> Workload:
    """The workload of a scenario; the one that is there already while anybody plays it."""
    path = Path(scenario.workload.trace)
    file = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    # All of the scenario, as evaluation windows are fixed for a named one only as it stands in its file.
    key = (repr(scenario), split, file)
    workload = _workloads.get(key)
    if workload is None:
        _workloads[key] = workload = scenario.make_workload(split)
    return workload
