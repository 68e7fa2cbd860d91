"""The simulated cluster in plain Python, for people who don't want Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.anticipator import copy_map, look_ahead_all
from preserve_gym.sim.engine import run_until
from preserve_gym.sim.histograms import METRICS, Histogram
from preserve_gym.sim.lifecycle import scale_to
from preserve_gym.sim.routers import check_weights, get_router
from preserve_gym.sim.routing import RouterView, view_of
from preserve_gym.sim.state import (
    ANTICIPATORS,
    COUNTS,
    FINISHED,
    HISTOGRAM_BINS,
    READY,
    REJECTED,
    STARTING,
    State,
    make_state,
)
from preserve_gym.sim.totals import TOTALS, named_totals, sum_totals
from preserve_gym.streams import check_seed
from preserve_gym.traces.trace import Trace

_LONG_AFTER_S = 1e15
_LATEST_S = 1e11
"""Beyond, a clock in float64 is too coarse: it advances by 15 us or more."""


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


_COUNT_NAMES = COUNTS.names or ()


class Cluster:
    """A cluster that serves a trace: run it, look at it, scale it.

    Args:
        config: the cluster.
        trace: the requests; ``arrival_s`` is the simulation's clock. Totals and histograms are also kept
            for each class of its ``request_class``.
        router: name of a built-in router, or a function made by ``@router``.
        predicted_tokens: predicted output tokens, int, shape (len(trace),), each >= 1. Default: the
            mean output of the trace for every request, that is, no prediction. None exceeds what the
            model could still generate after the prompt.
        initial_instances: instances ready at ``start_s``; default ``min_instances``.
        start_s: the clock at the start, >= 0; no request may arrive before.
        look_ahead: length of the look-ahead window in iterations.
        overload_use: KV use above which the look-ahead map counts as overload.
        anticipator: which look-ahead map, PreServe's ``paper`` or its ``artifact``.
        router_weights: what a router finds in ``view.weights``, up to 512 numbers; of ``linear`` up to 7,
            all >= 0.
        seed: of routers and cold starts that are drawn at random, in [0, 2**63).

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
        anticipator: str = "paper",
        router_weights: Sequence[float] = (),
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
        if anticipator not in ANTICIPATORS:
            raise InputError(f"anticipator: expected one of {', '.join(ANTICIPATORS)}, got {anticipator!r}")
        check_seed(seed)
        if not 0.0 <= start_s <= _LATEST_S:
            raise InputError(f"start_s: expected a number in [0, {_LATEST_S:g}], got {start_s!r}")
        n = len(trace)
        if n and trace.arrival_s[-1] > _LATEST_S:
            raise InputError(f"trace: expected arrivals up to {_LATEST_S:g} s, got {trace.arrival_s[-1]}")
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
        predicted_tokens = np.minimum(predicted_tokens, longest).astype(np.int32)
        del longest
        self._has_classes = trace.request_class is not None
        self.classes, class_index = _number_classes(trace)
        self._state = state = make_state(
            config,
            trace.arrival_s,
            prompt,
            trace.output_tokens,
            predicted_tokens,
            class_index,
            start_s=start_s,
            look_ahead=look_ahead,
            anticipator=anticipator,
            seed=seed,
        )
        state.requests["status"][rejected] = REJECTED
        state.instances["state"][:initial] = READY
        self._router = router
        self._prepare()
        self.set_router_weights(router_weights)

    def _prepare(self) -> None:
        """What does not survive pickling: compiled functions, and views of the state."""
        self._route = get_router(self._router)
        self._run = run_until()
        self._view = view_of(self._state)
        # Plain arrays: reading fields of a recarray costs microseconds.
        self._instances = self._state.instances.view(np.ndarray)
        self._record = self._state.totals.view(np.ndarray)
        self._counts = self._state.counts.view(np.ndarray)
        self._requests = self._state.requests.view(np.ndarray)

    def __getstate__(self) -> dict[str, Any]:
        made = ("_route", "_run", "_view", "_instances", "_record", "_counts", "_requests")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def compiled(self) -> tuple[State, RouterView]:
        """What compiled functions take for this cluster; valid as long as it lives."""
        return self._state, self._view

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
        self._play(float(time_s))

    def _play(self, until_s: float) -> None:
        self._run(self._state, self._view, until_s, self._route, self._route.reads)

    @property
    def target(self) -> int:
        """Instances starting or ready."""
        state = self._instances["state"]
        return int(np.count_nonzero((state == STARTING) | (state == READY)))

    def set_router_weights(self, weights: Sequence[float]) -> None:
        """From now on the router finds ``weights`` in ``view.weights``; those not given are 0.

        Raises:
            InputError: unless they are at most 7 finite numbers >= 0; for ``linear``, if all are 0.
        """
        checked = check_weights(self._route, weights)
        self._state.weights[:] = 0.0
        self._state.weights[: len(checked)] = checked

    def scale_to(self, instances: int) -> None:
        """Ask for that many instances starting or ready, clipped to the bounds of the cluster.

        New instances are ready after the cold start; surplus ones are cancelled while starting, or
        drain.
        """
        scale_to(self._state, int(instances), self.time_s)

    def settle(self, *, arrivals: bool = True) -> None:
        """Serve all that is left of the trace and its queues, without any further scaling.

        The clock and the totals that depend on it lose their meaning: read them before.

        Args:
            arrivals: whether requests still arrive; otherwise only the queues are served.
        """
        if not arrivals:
            self._requests["arrival_s"][int(self._record["next_request"][0]) :] = np.inf
        self._play(_LONG_AFTER_S)

    def snapshot(self) -> Snapshot:
        """The cluster now. Looking changes nothing."""
        cluster, instances, now = self._state, self._instances, self.time_s
        peak, overload = np.empty(len(instances)), np.empty(len(instances))
        look_ahead_all(cluster, self._overload_use, peak, overload)
        state = instances["state"].astype(np.int8)
        return Snapshot(
            time_s=now,
            state=state,
            ready_in_s=np.where(state == STARTING, instances["ready_at_s"] - now, 0.0),
            running=(cluster.in_flight - cluster.waiting).astype(np.int64),
            waiting=cluster.waiting.astype(np.int64),
            queued_prefill_tokens=cluster.queued_prefill_tokens.copy(),
            expected_tokens=cluster.expected_tokens.copy(),
            kv_use=cluster.blocks_used / self.config.instance.kv_blocks,
            anticipated_peak=peak,
            anticipated_overload=overload,
            target=int(np.count_nonzero((state == STARTING) | (state == READY))),
            totals=self.totals(),
        )

    def look_ahead(self, slot: int) -> NDArray[np.int64]:
        """PreServe's look-ahead map of an instance: tokens that it is predicted to hold.

        Returns:
            int64 of shape (look_ahead,): in each of its next iterations, the current one first.

        Raises:
            InputError: if there is no such slot.
        """
        if not 0 <= slot < len(self._instances):
            raise InputError(f"slot: expected an integer in [0, {len(self._instances) - 1}], got {slot!r}")
        tokens = np.empty(len(self._state.map_tokens) - 1, np.int64)
        copy_map(self._state, slot, tokens)
        return tokens

    def totals(self) -> dict[str, float]:
        """Cumulative counts and sums since the start; ``TOTALS`` says what they are."""
        sums = np.empty(len(TOTALS))
        sum_totals(self._state, sums)
        return named_totals(sums)

    def class_totals(self) -> pd.DataFrame:
        """Those of ``TOTALS`` that belong to requests, one row per class of requests, indexed by class."""
        index = pd.Index(self.classes, name="request_class")
        return pd.DataFrame({name: self._counts[name].copy() for name in _COUNT_NAMES}, index=index)

    def histogram(self, metric: str, request_class: int | None = None) -> Histogram:
        """How often each time has occurred since the start.

        Args:
            metric: ``ttft_s``; ``itl_s`` (inter-token latency); of completed requests ``e2e_s``,
                ``normalized_latency_s`` (E2E per output token) and ``tpot_s`` (of more than one token).
            request_class: of one class only; not for ``itl_s``.

        Raises:
            InputError: if there is no such metric or class.
        """
        bins = self._state.histograms.reshape(-1, HISTOGRAM_BINS)
        if metric == "itl_s" and request_class is None:
            return Histogram(bins[-1].copy())
        if metric not in METRICS:
            names = ", ".join((*METRICS, "itl_s (of all classes only)"))
            raise InputError(f"metric: expected one of {names}, got {metric!r}")
        by_class = bins[METRICS.index(metric) : -1 : len(METRICS)]
        if request_class is None:
            return Histogram(by_class.sum(axis=0))
        if request_class not in self.classes:
            known = ", ".join(map(str, self.classes))
            raise InputError(f"request_class: expected one of {known}, got {request_class!r}")
        return Histogram(by_class[self.classes.index(request_class)].copy())

    def results(self) -> pd.DataFrame:
        """One row per request that has arrived, in order of arrival.

        Columns: ``arrival_s``, ``prompt_tokens``, ``output_tokens``, ``predicted_tokens``, ``instance``
        (-1: rejected), ``first_scheduled_s``, ``first_token_s``, ``completed_s`` (NaN: not yet),
        ``preemptions``, ``violated_s`` (when the first missed deadline passed; NaN: none), ``rejected``,
        and ``request_class`` if the trace has classes. Times are on the simulation's clock.
        """
        cluster, n = self._state, int(self._record["next_request"][0])
        requests = self._requests[:n]
        rejected = requests["status"] == REJECTED
        first_token_s = requests["first_token_s"].copy()
        completed_s = np.where(requests["status"] == FINISHED, requests["token_s"], np.nan)
        columns = {
            "arrival_s": requests["arrival_s"].copy(),
            "prompt_tokens": requests["prompt_tokens"].copy(),
            "output_tokens": requests["output_tokens"].copy(),
            "predicted_tokens": requests["predicted_tokens"].copy(),
            "instance": cluster.instance_of[:n].copy(),
            "first_scheduled_s": cluster.first_scheduled_s[:n].copy(),
            "first_token_s": first_token_s,
            "completed_s": completed_s,
            "preemptions": cluster.preemptions[:n].copy(),
            "violated_s": self._violated_s(requests, rejected, first_token_s, completed_s),
            "rejected": rejected,
        }
        if self._has_classes:
            columns["request_class"] = np.array(self.classes)[requests["request_class"]]
        return pd.DataFrame(columns)

    def violations(self, since_s: float) -> tuple[int, int]:
        """How many requests have arrived from ``since_s`` on, and how many of them have violated the SLO.

        As the rows of ``results`` say, but without these.
        """
        requests = self._requests[: int(self._record["next_request"][0])]
        requests = requests[np.searchsorted(requests["arrival_s"], since_s) :]
        completed_s = np.where(requests["status"] == FINISHED, requests["token_s"], np.nan)
        rejected = requests["status"] == REJECTED
        violated_s = self._violated_s(requests, rejected, requests["first_token_s"], completed_s)
        return len(requests), int(np.count_nonzero(~np.isnan(violated_s)))

    def _violated_s(
        self,
        requests: NDArray[np.void],
        rejected: NDArray[np.bool_],
        first_token_s: NDArray[np.float64],
        completed_s: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """When the first missed deadline of each request passed, NaN if none has; float64 of shape (n,)."""
        slo = self.config.slo
        arrival_s = requests["arrival_s"]
        extra_tokens = requests["output_tokens"] - 1
        violated_s = np.where(rejected, arrival_s, np.inf)

        def miss(deadline_s: NDArray[np.float64], done_s: NDArray[np.float64]) -> None:
            missed = ~rejected & (deadline_s <= self.time_s) & ~(done_s <= deadline_s)
            violated_s[missed] = np.minimum(violated_s, deadline_s)[missed]

        if slo.ttft_s is not None:
            per_token_s = slo.ttft_per_prompt_token_s * requests["prompt_tokens"]
            first_token_deadline_s = arrival_s + slo.ttft_s + per_token_s
            miss(first_token_deadline_s, first_token_s)
            if slo.tpot_s is not None:
                miss(first_token_deadline_s + slo.tpot_s * extra_tokens, completed_s)
        if slo.normalized_latency_s is not None:
            miss(arrival_s + slo.normalized_latency_s * requests["output_tokens"], completed_s)
        violated_s[np.isinf(violated_s)] = np.nan
        return violated_s


def _number_classes(trace: Trace) -> tuple[list[int], NDArray[np.int32] | None]:
    """The classes of ``trace`` in ascending order, and for each request which of them it has."""
    if trace.request_class is None or len(trace) == 0:
        return [0], None
    classes, index = np.unique(trace.request_class, return_inverse=True)
    return [int(k) for k in classes], index.astype(np.int32)


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
