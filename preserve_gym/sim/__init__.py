"""The simulation engine. Knows nothing of Gymnasium."""

from preserve_gym.sim.cluster import Cluster, Snapshot
from preserve_gym.sim.costs import costs
from preserve_gym.sim.draws import uniform
from preserve_gym.sim.histograms import Histogram
from preserve_gym.sim.routers import ROUTERS
from preserve_gym.sim.routing import RequestView, RouterView, router
from preserve_gym.sim.simulate import Simulation, simulate
from preserve_gym.sim.totals import TOTALS

__all__ = [
    "ROUTERS",
    "TOTALS",
    "Cluster",
    "Histogram",
    "RequestView",
    "RouterView",
    "Simulation",
    "Snapshot",
    "costs",
    "router",
    "simulate",
    "uniform",
]
