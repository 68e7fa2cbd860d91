"""A whole run in one call: a trace served from beginning to end, for people who don't want Gym."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.cluster import Cluster, Snapshot
from preserve_gym.sim.costs import costs
from preserve_gym.sim.state import DRAINING, READY, STARTING
from preserve_gym.traces.trace import Trace

Report = Callable[[float], object]

INTERVAL_COLUMNS: dict[str, str] = {
    "time_s": "start of the interval",
    "target": "instances starting or ready, as all that follows at its end",
    "ready": "instances ready",
    "starting": "instances starting",
    "draining": "instances draining",
    "running": "requests in batches",
    "waiting": "requests in queues",
    "kv_use": "KV use of ready instances, mean (NaN: none ready)",
}
"""Columns of ``Simulation.intervals``, before one for each of ``TOTALS``: its change in the interval."""

# Compiled code cannot be interrupted, so the engine is called for a piece of the run at a time, which takes
# a fraction of a second. The pieces do not depend on the speed of the machine, and neither do the results.
_PIECE_ARRIVALS = 20_000
_PIECE_ITERATIONS = 1_000_000

_PATIENCE_S = 1.0  # a bar for a shorter run would only flicker
_LEAST_INTERVAL_S = 1e-6  # a shorter one is rounding, not an interval


@dataclass(frozen=True, eq=False)
class Simulation:
    """What came of a run.

    Attributes:
        requests: one row per request, columns as ``Cluster.results`` has them; the queues were served to
            the end, so every request is decided.
        intervals: one row per control interval: ``INTERVAL_COLUMNS``, then the change of each of
            ``TOTALS`` in the interval.
        totals: each of ``TOTALS`` at the horizon.
        cluster: after that, for its histograms and totals by class of requests.
    """

    requests: pd.DataFrame
    intervals: pd.DataFrame
    totals: Mapping[str, float]
    cluster: Cluster

    def summary(self) -> dict[str, float]:
        """The figures of the run, by name with the unit.

        Of all requests: counts, ``slo_attainment`` (the share that met every deadline; rejected ones
        did not), mean, P50, P90 and P99 of TTFT, TPOT (per output token after the first) and E2E
        (arrival to completion), and preemptions. Billed up to the horizon: ``gpu_hours``, and
        ``energy_kwh`` and ``cost_usd`` where power and price of the instance are known (``costs``). NaN
        where nothing can be said.
        """
        requests, n = self.requests, len(self.requests)
        rejected = requests["rejected"].to_numpy(np.bool_)
        violations = int((rejected | requests["violated_s"].notna().to_numpy()).sum())
        figures: dict[str, float] = {
            "arrived": n,
            "completed": int(requests["completed_s"].notna().sum()),
            "rejected": int(rejected.sum()),
            "violations": violations,
            "slo_attainment": 1.0 - violations / n if n else np.nan,
        }
        arrival_s, first_token_s, completed_s, output_tokens = (
            requests[name].to_numpy(np.float64)
            for name in ("arrival_s", "first_token_s", "completed_s", "output_tokens")
        )
        several = output_tokens > 1.0  # a single token has no time per token after the first
        for name, values in (
            ("ttft", first_token_s - arrival_s),
            ("tpot", (completed_s - first_token_s)[several] / (output_tokens[several] - 1.0)),
            ("e2e", completed_s - arrival_s),
        ):
            present = values[~np.isnan(values)]
            figures[f"{name}_mean_s"] = float(present.mean()) if len(present) else np.nan
            for q in (50, 90, 99):
                figures[f"{name}_p{q}_s"] = float(np.percentile(present, q)) if len(present) else np.nan
        figures |= costs(self.cluster.config.instance, self.totals)
        figures["preemptions"] = int(requests["preemptions"].sum())
        return figures


def simulate(
    trace: Trace,
    config: ClusterConfig | None = None,
    router: Any = "least-requests",
    autoscaler: Callable[[Snapshot], int] | None = None,
    *,
    interval_s: float = 10.0,
    predicted_tokens: NDArray[np.integer[Any]] | None = None,
    initial_instances: int | None = None,
    horizon_s: float | None = None,
    router_weights: Sequence[float] = (),
    seed: int = 0,
    progress: Report | Literal[False] | None = None,
) -> Simulation:
    """Serve a trace from time 0 of its clock to the end.

    At the horizon the arrivals stop and costs are counted; the fleet then stays as it is and serves
    what is left in the queues.

    Args:
        trace: the requests.
        config: the cluster; default ``ClusterConfig()``.
        router: name of a built-in router, or a function made by ``@router``.
        autoscaler: called with the state of the cluster at 0, ``interval_s``, 2 ``interval_s`` ... before
            the horizon, returns the wanted number of instances, starting and ready ones together; it is
            clipped to the bounds of the cluster. None: the fleet stays at ``initial_instances``.
        interval_s: length of a control interval; the last one may be shorter.
        predicted_tokens: predicted output tokens, as for ``Cluster``; shape (len(trace),).
        initial_instances: ready at time 0. Default: ``max_instances`` without an autoscaler,
            ``min_instances`` with one.
        horizon_s: requests that arrive before it are served. Default: the span of the trace, a request
            that arrives at its very end included.
        router_weights: as for ``Cluster``.
        seed: of routers and cold starts that are drawn at random.
        progress: None shows a bar if the run is a long one and stderr is a terminal, False never does; a
            function is called now and then with the share done, rising from 0 to 1.

    Raises:
        InputError: on arguments that do not fit, or an answer of the autoscaler that is not an integer.
        ValueError: if the router returned an instance that is not ready.

    Example:
        >>> import numpy as np
        >>> from preserve_gym import Trace, simulate
        >>> trace = Trace(arrival_s=np.arange(100.0), prompt_tokens=np.full(100, 500),
        ...               output_tokens=np.full(100, 50))
        >>> simulation = simulate(trace, autoscaler=lambda now: 1 + now.waiting.sum() // 10)
        >>> simulation.summary()["completed"]
        100
    """
    config = ClusterConfig() if config is None else config
    _check_positive("interval_s", interval_s)
    if autoscaler is not None and not callable(autoscaler):
        raise InputError(f"autoscaler: expected a function of a Snapshot, or None, got {autoscaler!r}")
    if predicted_tokens is not None and np.shape(predicted_tokens) != (len(trace),):
        raise InputError(f"predicted_tokens: expected {len(trace)} integers >= 1, one per request")
    if horizon_s is None:
        end_s = _end_of(trace)
    else:
        _check_positive("horizon_s", horizon_s)
        end_s = float(horizon_s)
    if initial_instances is None:
        initial_instances = config.max_instances if autoscaler is None else config.min_instances
    served = _until(trace, end_s)
    cluster = Cluster(
        config,
        served,
        router,
        predicted_tokens=None if predicted_tokens is None else predicted_tokens[: len(served)],
        initial_instances=initial_instances,
        router_weights=router_weights,
        seed=seed,
    )
    with _reporting(progress) as report:
        run = _Run(cluster, served, report)
        intervals, totals = _play(run, autoscaler, float(interval_s), end_s)
        run.settle()
    return Simulation(cluster.results(), intervals, totals, cluster)


class _Run:
    """A cluster on its way through a trace, in pieces short enough for Ctrl-C."""

    def __init__(self, cluster: Cluster, trace: Trace, report: Report | None) -> None:
        self.cluster = cluster
        self._arrival_s = trace.arrival_s
        self._report = report
        law = cluster.config.instance.latency
        # No iteration is shorter than one of a single token.
        self._piece_s = _PIECE_ITERATIONS * law.iteration_s(1, 0, 0.0) / cluster.config.max_instances

    def run_until(self, time_s: float) -> None:
        """Serve until then."""
        arrival_s = self._arrival_s
        while self.cluster.time_s < time_s:
            now = self.cluster.time_s
            stop_s = min(now + self._piece_s, time_s)
            # Those that arrive right now belong to the piece, however many they are.
            last = int(np.searchsorted(arrival_s, now, side="right")) + _PIECE_ARRIVALS
            if last < len(arrival_s):
                stop_s = min(stop_s, float(arrival_s[last]))
            self.cluster.run_until(stop_s)
            self._tell()

    def settle(self) -> None:
        """Serve what is left in the queues."""
        while self._decided() < len(self._arrival_s):
            self.cluster.run_until(self.cluster.time_s + self._piece_s)
            self._tell()
        self.cluster.settle()
        if self._report is not None:
            self._report(1.0)

    def _decided(self) -> float:
        totals = self.cluster.totals()
        return totals["completed"] + totals["rejected"]

    def _tell(self) -> None:
        """Half of the work is to take requests in, the other half to complete them."""
        if self._report is not None and len(self._arrival_s):
            totals = self.cluster.totals()
            done = totals["arrived"] + totals["completed"] + totals["rejected"]
            self._report(done / (2 * len(self._arrival_s)))


def _play(
    run: _Run, autoscaler: Callable[[Snapshot], int] | None, interval_s: float, end_s: float
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Serve until the horizon: what ``Simulation`` calls ``intervals`` and ``totals``."""
    cluster = run.cluster
    totals = cluster.totals()
    rows: list[list[float]] = []
    count = max(1, math.ceil((end_s - _LEAST_INTERVAL_S) / interval_s)) if end_s > 0.0 else 0
    now = cluster.snapshot()
    for k in range(count):
        if autoscaler is not None:
            cluster.scale_to(_wanted(autoscaler, now))
        run.run_until(end_s if k == count - 1 else (k + 1) * interval_s)
        now = cluster.snapshot()
        changes = [value - totals[name] for name, value in now.totals.items()]
        rows.append([k * interval_s, *_look(now), *changes])
        totals = dict(now.totals)
    return pd.DataFrame(rows, columns=[*INTERVAL_COLUMNS, *totals]), totals


def _look(now: Snapshot) -> list[float]:
    """The state of the cluster, in the order of ``INTERVAL_COLUMNS``."""
    ready = now.state == READY
    return [
        now.target,
        int(np.count_nonzero(ready)),
        int(np.count_nonzero(now.state == STARTING)),
        int(np.count_nonzero(now.state == DRAINING)),
        int(now.running.sum()),
        int(now.waiting.sum()),
        float(now.kv_use[ready].mean()) if ready.any() else np.nan,
    ]


def _wanted(autoscaler: Callable[[Snapshot], int], now: Snapshot) -> int:
    """The answer of the autoscaler."""
    answer: object = autoscaler(now)
    if isinstance(answer, bool) or not isinstance(answer, Integral):
        name = getattr(autoscaler, "__name__", type(autoscaler).__name__)
        raise InputError(
            f"autoscaler {name}: expected an integer number of instances, got {answer!r} at {now.time_s:g} s"
        )
    return int(answer)


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 < float(value) < math.inf:
        raise InputError(f"{name}: expected a finite number > 0, got {value!r}")


def _end_of(trace: Trace) -> float:
    """The end of the trace, the request that arrives at that very moment included."""
    if len(trace) and trace.arrival_s[-1] == trace.span_s:
        # Intervals are half-open, and most recordings end with their last arrival.
        return math.nextafter(trace.span_s, math.inf)
    return trace.span_s


def _until(trace: Trace, end_s: float) -> Trace:
    """The requests that arrive before ``end_s``."""
    rows = trace.row_range(0.0, end_s)
    if rows.stop == len(trace):
        return trace
    return Trace(
        trace.arrival_s[rows],
        trace.prompt_tokens[rows],
        trace.output_tokens[rows],
        None if trace.request_class is None else trace.request_class[rows],
        name=trace.name,
        clock_s=trace.clock_s,
    )


@contextmanager
def _reporting(progress: Report | Literal[False] | None) -> Iterator[Report | None]:
    """Whom to tell the share done; None: nobody."""
    if progress is None:
        if sys.stderr is not None and sys.stderr.isatty():
            with _bar() as show:
                yield show
        else:
            yield None
    elif progress is False:
        yield None
    elif callable(progress):
        progress(0.0)
        yield progress
    else:
        raise InputError(f"progress: expected a function of the share done, False or None, got {progress!r}")


@contextmanager
def _bar() -> Iterator[Report]:
    """A bar on stderr, once the run has taken a while."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("simulate", total=1.0)
    started, shown = time.monotonic(), False

    def show(done: float) -> None:
        nonlocal shown
        bar.update(task, completed=done)
        if not shown and time.monotonic() - started > _PATIENCE_S:
            bar.start()
            shown = True

    try:
        yield show
    finally:
        if shown:
            bar.stop()
