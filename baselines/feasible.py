"""The feasible bound: what could be done by one who knows the rates up to now, and nothing of the future."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.base import Observation
from baselines.fleet import kv_of_ready
from baselines.recent import Recent
from baselines.simple import Rate
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.traces.rate_process import RateProcess
from preserve_gym.workload import Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class Feasible(Rate):
    """``n = ceil(headroom * expected need over the cold start)``, by the true rates: an oracle, a bound.

    It knows what no controller can: the process that a generated workload was drawn from. What can be known
    in advance (the rate at each time of day, the counts of hours, the mix of lengths, a timetable of surges)
    it knows in advance. What moves at random it knows up to now, and expects of it what the process implies;
    a surge that has begun it knows to its end. It sees no arrivals.

    The need is the highest that it expects between now and the time at which an instance started now would be
    ready; down to the highest number of the last 60 s. Every 10 s.

    Where few long requests make up much of the load, rates say too little of what has come of them. So the
    need can be corrected by the KV cache that is held: ``need * (held / expected)^load_weight``, with
    expected what the need of now holds at the profiled load; down to the highest number of the last 300 s.
    ``feasible-by-load`` does that. The bound is the lower one of both.

    Attributes:
        load_weight: power of the correction; 0: none.
        needs: expected need in instances, not rounded, by the bin in which a decision falls, float64[bins].
        needs_now: of that bin itself, float64[bins].
        needs_from_s: start of the first bin on the trace's clock.
        needs_bin_s: width of a bin.
    """

    LOAD_WINDOW_S: ClassVar[float] = 300.0
    """In place of ``scale_down_window_s`` where the need is corrected: what is held moves at random."""

    name: str = "feasible"
    scale_down_window_s: float = 60.0
    load_weight: float = 0.0
    needs: NDArray[np.float64] = field(repr=False)
    needs_now: NDArray[np.float64] = field(repr=False)
    needs_from_s: float = field(repr=False)
    needs_bin_s: float = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("load_weight", "a number in [0, 1]", lambda value: 0 <= value <= 1)

    def initial_state(self) -> Recent:
        """Nothing wanted yet."""
        return Recent(self.LOAD_WINDOW_S if self.load_weight else self.scale_down_window_s)

    def _need(self, obs: Observation) -> float:
        place = int((float(obs["time_s"]) - self.needs_from_s) / self.needs_bin_s + 1e-6)
        if not 0 <= place < len(self.needs):
            end_s = self.needs_from_s + len(self.needs) * self.needs_bin_s
            raise InputError(
                f"Feasible.needs: expected a time from {self.needs_from_s:g} to {end_s:g} s, for which they "
                f"were made, got {float(obs['time_s']):g} s"
            )
        need = float(self.needs[place])
        expected = float(self.needs_now[place]) * self._kv_of_profile
        if not self.load_weight or expected <= 0.0:
            return need
        return need * float(kv_of_ready(obs) / expected) ** self.load_weight

    @property
    def _kv_of_profile(self) -> float:
        """Share of its KV cache that an instance holds at the profiled load: prompts, half of the outputs."""
        profile = self.profile
        tokens = (profile.prompt_tokens_per_s + 0.5 * profile.output_tokens_per_s) / profile.requests_per_s
        return profile.in_flight * tokens / self.cluster.instance.kv_tokens


def fitted_feasible(cluster: ClusterConfig, workload: Workload) -> dict[str, Any]:
    """``feasible``: the needs that can be expected in the split of a workload, or all of it.

    Raises:
        InputError: if its trace has no rates.
    """
    rates = workload.trace.rates
    if rates is None:
        raise InputError(
            f"feasible: trace {workload.trace.name!r}: expected one that is generated from rates, got one "
            "without: a recording, or a service that falls silent"
        )
    start_s, end_s = workload.span_s
    part = rates.part(start_s, end_s)
    profile = workload.profile(cluster)
    return {
        "needs": expected_need(part, profile, cluster.mean_cold_start_s),
        "needs_now": expected_need(part, profile, 0.0),
        "needs_from_s": round(start_s / rates.bin_s) * rates.bin_s,
        "needs_bin_s": rates.bin_s,
    }


def expected_need(rates: RateProcess, profile: InstanceProfile, lead_s: float) -> NDArray[np.float64]:
    """The highest need expected between the start of each bin and ``lead_s`` later, float64[bins]."""
    need = np.zeros(len(rates))
    for ahead in range(int(lead_s / rates.bin_s + 1e-9) + 1):
        _, prompt, output = rates.expected(ahead)
        need = np.maximum(need, profile.need(prompt, output))
    return need
