"""The simulation engine. Knows nothing of Gymnasium."""

from preserve_gym.sim.cluster import TOTALS, Cluster, Snapshot
from preserve_gym.sim.routers import ROUTERS, RequestView, RouterView, router, uniform
from preserve_gym.sim.simulate import Simulation, simulate

__all__ = [
    "ROUTERS",
    "TOTALS",
    "Cluster",
    "RequestView",
    "RouterView",
    "Simulation",
    "Snapshot",
    "router",
    "simulate",
    "uniform",
]
