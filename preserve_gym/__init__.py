"""A GPU cluster that serves a large language model, as Gymnasium environments."""

__version__ = "0.1.0"

from preserve_gym.supported import refuse_unsupported

refuse_unsupported()

from preserve_gym.config import (
    AnticipatorConfig,
    ClusterConfig,
    InstanceConfig,
    PowerConfig,
    RewardConfig,
    RouteRewardConfig,
    SloConfig,
    WorkloadConfig,
)
from preserve_gym.envs import register
from preserve_gym.errors import InputError
from preserve_gym.latency import LatencyLaw
from preserve_gym.sim import Cluster, Simulation, router, simulate
from preserve_gym.traces import Trace, load_trace
from preserve_gym.workload import Workload

__all__ = [
    "AnticipatorConfig",
    "Cluster",
    "ClusterConfig",
    "InputError",
    "InstanceConfig",
    "LatencyLaw",
    "PowerConfig",
    "RewardConfig",
    "RouteRewardConfig",
    "Simulation",
    "SloConfig",
    "Trace",
    "Workload",
    "WorkloadConfig",
    "load_trace",
    "register",
    "router",
    "simulate",
]

register()
