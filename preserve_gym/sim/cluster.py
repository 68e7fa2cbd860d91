"""The simulated cluster in plain Python, for people who don't want Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.anticipator import look_ahead_all
from preserve_gym.sim.engine import run_until
from preserve_gym.sim.lifecycle import scale_to
from preserve_gym.sim.routers import get_router
from preserve_gym.sim.state import OFF, READY, REJECTED, STARTING, make_state
from preserve_gym.sim.state import TOTALS as TOTALS_RECORD
from preserve_gym.traces.trace import Trace

_LONG_AFTER_S = 1e15
_RESULTS = (
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "predicted_tokens",
    "instance",
    "first_scheduled_s",
    "first_token_s",
    "completed_s",
    "preemptions",
    "violated_s",
)


@dataclass(frozen=True)
class Snapshot:
    """A cluster at one moment. Arrays have shape (max_instances,), by slot; totals run from the start.

    Attributes:
        time_s: the moment, s.
        state: 0 off, 1 starting, 2 ready, 3 draining; int8.
        ready_in_s: time until a starting instance is ready, 0 for the others; float64.
        running, waiting: requests in the batch and in the queue; int64.
        queued_prefill_tokens: prompt tokens of requests there without a first token; int64.
        expected_tokens: prompt plus predicted output tokens of requests there; int64.
        kv_use: share of the KV cache in use, 0 to 1; float64.
        anticipated_peak: PreServe's look-ahead map, its maximum over the look-ahead window, as a share of
            the KV cache (may exceed 1); float64.
        anticipated_overload: share of that window in which the map exceeds ``overload_use``; float64.
        target: instances starting or ready.
        totals: cumulative counts and sums, see ``TOTALS``.
    """

    time_s: float
    state: NDArray[np.int8]
    ready_in_s: NDArray[np.float64]
    running: NDArray[np.int64]
    waiting: NDArray[np.int64]
    queued_prefill_tokens: NDArray[np.int64]
    expected_tokens: NDArray[np.int64]
    kv_use: NDArray[np.float64]
    anticipated_peak: NDArray[np.float64]
    anticipated_overload: NDArray[np.float64]
    target: int
    totals: Mapping[str, float]


TOTALS: dict[str, str] = {
    "arrived": "requests that arrived, rejected ones included",
    "rejected": "requests that can never fit and were rejected",
    "prompt_tokens": "prompt tokens of the requests that arrived",
    "predicted_tokens": "predicted output tokens of the requests that arrived",
    "first_tokens": "requests that got their first token",
    "completed": "requests that completed",
    "compliant": "requests that completed within all deadlines",
    "output_tokens": "output tokens of the requests that completed",
    "violations": "SLO violations (need the true output length: for reward and metrics, not for policies)",
    "ttft_misses": "first tokens that were not there when due",
    "preemptions": "preemptions",
    "scale_ups": "instances started or taken back",
    "scale_downs": "instances cancelled or drained",
    "ttft_sum_s": "sum of TTFT over first_tokens, s",
    "decode_sum_s": "sum of the time from first token to completion over completed, s",
    "instance_s": "instance-seconds billed",
    "busy_s": "time in executed iterations, summed over the instances, s",
    "kv_use_s": "KV use (0 to 1) integrated over time, summed over the instances, s",
}
_RECORD_NAMES = TOTALS_RECORD.names or ()
_COUNTED = tuple(name for name in TOTALS if name in _RECORD_NAMES)


class Cluster:
    """A cluster that serves a trace: run it, look at it, scale it.

    Args:
        config: the cluster.
        trace: the requests; ``arrival_s`` is the simulation's clock.
        router: name of a built-in router, or a function made by ``@router``.
        predicted_tokens: predicted output tokens, int, shape (len(trace),), each >= 1. Default: the
            mean output of the trace for every request, that is, no prediction. None exceeds what the
            model could still generate after the prompt.
        initial_instances: instances ready at ``start_s``; default ``min_instances``.
        start_s: the clock at the start; no request may arrive before.
        look_ahead: length of the look-ahead window in iterations.
        overload_use: KV use above which the look-ahead map counts as overload.
        seed: of routers that draw at random, in [0, 2**63).

    Raises:
        InputError: on arguments that do not fit each other.

    Example:
        >>> import numpy as np
        >>> from preserve_gym import Cluster, ClusterConfig, Trace
        >>> trace = Trace(arrival_s=np.array([0.0, 1.0]), prompt_tokens=np.array([100, 200]),
        ...               output_tokens=np.array([10, 20]))
        >>> cluster = Cluster(ClusterConfig(), trace)
        >>> cluster.run_until(60.0)
        >>> int(cluster.results()["completed_s"].notna().sum())
        2
    """

    def __init__(
        self,
        config: ClusterConfig,
        trace: Trace,
        router: Any = "least-requests",
        *,
        predicted_tokens: NDArray[np.integer[Any]] | None = None,
        initial_instances: int | None = None,
        start_s: float = 0.0,
        look_ahead: int = 100,
        overload_use: float = 0.95,
        seed: int = 0,
    ) -> None:
        initial = config.min_instances if initial_instances is None else initial_instances
        if (
            not isinstance(initial, int | np.integer)
            or not config.min_instances <= initial <= config.max_instances
        ):
            raise InputError(
                f"initial_instances: expected an integer in [{config.min_instances}, "
                f"{config.max_instances}], got {initial_instances!r}"
            )
        if look_ahead < 1:
            raise InputError(f"look_ahead: expected at least 1 iteration, got {look_ahead!r}")
        n = len(trace)
        if n and trace.arrival_s[0] < start_s:
            raise InputError(f"start_s: {start_s} is after the first arrival at {trace.arrival_s[0]}")
        self.config = config
        self._overload_use = float(overload_use)
        prompt, rejected = fit_requests(config, trace.prompt_tokens, trace.output_tokens)
        if predicted_tokens is None:
            mean = max(1, round(float(trace.output_tokens.mean()))) if n else 1
            predicted_tokens = np.full(n, mean, np.int32)
        elif np.shape(predicted_tokens) != (n,) or (n and np.min(predicted_tokens) < 1):
            raise InputError(f"predicted_tokens: expected {n} integers >= 1, one per request")
        longest = np.maximum(config.instance.max_model_len - prompt, 1)
        self._state = state = make_state(
            config, trace.arrival_s, prompt, trace.output_tokens, np.minimum(predicted_tokens, longest)
        )
        state.params["seed"] = seed
        state.requests["status"][rejected] = REJECTED
        state.instances["state"][:initial] = READY
        state.instances["started_s"] = start_s
        state.instances["blocks_since_s"] = start_s
        state.totals["now_s"] = start_s
        self._use = np.zeros(look_ahead)
        self._ends = np.zeros(look_ahead)
        self._router = router
        self._prepare()

    def _prepare(self) -> None:
        """What does not survive pickling: compiled functions, and views of the state."""
        self._route = get_router(self._router)
        self._run = run_until()
        # Plain arrays: reading fields of a recarray costs microseconds.
        self._instances = self._state.instances.view(np.ndarray)
        self._batches = self._state.batches.view(np.ndarray)
        self._record = self._state.totals.view(np.ndarray)

    def __getstate__(self) -> dict[str, Any]:
        made = ("_route", "_run", "_instances", "_batches", "_record")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @property
    def time_s(self) -> float:
        """The clock, s."""
        return float(self._record["now_s"][0])

    def run_until(self, time_s: float) -> None:
        """Serve until ``time_s``: everything that happens up to then, arrivals at ``time_s`` excluded.

        Raises:
            InputError: if ``time_s`` is before the clock.
            ValueError: if the router returned an instance that is not ready.
        """
        if not self.time_s <= time_s < np.inf:
            raise InputError(f"time_s: expected a finite time from {self.time_s} on, got {time_s!r}")
        self._run(self._state, float(time_s), self._route, self._route.reads_kv)

    def scale_to(self, instances: int) -> None:
        """Ask for that many instances starting or ready, clipped to the bounds of the cluster.

        New instances are ready after the cold start; surplus ones are cancelled while starting, or
        drain.
        """
        scale_to(self._state, int(instances), self.time_s)

    def settle(self) -> None:
        """Serve all that is left of the trace and its queues, without any further scaling.

        The clock and the totals that depend on it lose their meaning: read them before.
        """
        self._run(self._state, _LONG_AFTER_S, self._route, self._route.reads_kv)

    def snapshot(self) -> Snapshot:
        """The cluster now. Looking changes nothing."""
        instances, now = self._instances, self.time_s
        peak, overload = np.empty(len(instances)), np.empty(len(instances))
        look_ahead_all(self._state, self._overload_use, self._use, self._ends, peak, overload)
        state = instances["state"].astype(np.int8)
        return Snapshot(
            time_s=now,
            state=state,
            ready_in_s=np.where(state == STARTING, instances["ready_at_s"] - now, 0.0),
            running=instances["n_running"].copy(),
            waiting=instances["n_waiting"].copy(),
            queued_prefill_tokens=instances["queued_prefill_tokens"].copy(),
            expected_tokens=instances["expected_tokens"].copy(),
            kv_use=instances["blocks_used"] / self.config.instance.kv_blocks,
            anticipated_peak=peak,
            anticipated_overload=overload,
            target=int(np.count_nonzero((state == STARTING) | (state == READY))),
            totals=self.totals(),
        )

    def totals(self) -> dict[str, float]:
        """Cumulative counts and sums since the start; ``TOTALS`` says what they are."""
        instances, now = self._instances, self.time_s
        values = dict(zip(_RECORD_NAMES, self._record[0].item(), strict=True))
        totals: dict[str, float] = {name: values[name] for name in _COUNTED}
        on = instances["state"] != OFF
        totals["instance_s"] = float(instances["instance_s"].sum() + (now - instances["started_s"])[on].sum())
        # The part of an executing iteration that has passed counts as busy.
        end_s = instances["iteration_end_s"]
        executing = np.isfinite(end_s)
        batch = 2 * np.arange(len(instances)) + instances["executing"]
        passed_s = now - (end_s - self._batches["duration_s"][batch])
        totals["busy_s"] = float(instances["busy_s"].sum() + passed_s[executing].sum())
        block_s = instances["block_s"] + instances["blocks_used"] * (now - instances["blocks_since_s"])
        totals["kv_use_s"] = float(block_s.sum() / self.config.instance.kv_blocks)
        return totals

    def results(self) -> pd.DataFrame:
        """One row per request that has arrived, in order of arrival.

        Columns: ``arrival_s``, ``prompt_tokens``, ``output_tokens``, ``predicted_tokens``, ``instance``
        (-1: rejected), ``first_scheduled_s``, ``first_token_s``, ``completed_s`` (NaN: not yet),
        ``preemptions``, ``violated_s`` (when the first missed deadline passed; NaN: none), ``rejected``.
        Times are on the simulation's clock.
        """
        requests = self._state.requests[: int(self._record["arrived"][0])]
        columns = {name: requests[name].copy() for name in _RESULTS}
        columns["rejected"] = requests["status"] == REJECTED
        return pd.DataFrame(columns)


def fit_requests(
    config: ClusterConfig, prompt_tokens: NDArray[np.integer[Any]], output_tokens: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
    """What ``too_long`` makes of requests.

    Returns:
        Their prompt tokens, clipped if it says so, and which of them can never fit; both of shape (n,).
    """
    room = config.instance.max_request_tokens - output_tokens.astype(np.int64)
    if config.too_long == "clip_prompt":
        prompt_tokens = np.minimum(prompt_tokens, np.maximum(room, 1)).astype(np.int32)
    return prompt_tokens, prompt_tokens > room
