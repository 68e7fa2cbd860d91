"""``simulate``: the same as a cluster driven by hand, and answers to the keyboard."""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

import preserve_gym
from preserve_gym import (
    Cluster,
    ClusterConfig,
    InputError,
    InstanceConfig,
    LatencyLaw,
    Simulation,
    Trace,
    simulate,
)
from preserve_gym.config import PowerConfig
from preserve_gym.sim import TOTALS, Snapshot, costs
from preserve_gym.sim.simulate import INTERVAL_COLUMNS
from preserve_gym.traces import synthetic_trace

MODULE = sys.modules["preserve_gym.sim.simulate"]  # the package has a function of that name
CONFIG = ClusterConfig(
    InstanceConfig(
        LatencyLaw(0.02, 1e-4, 1e-6, 0.0), num_gpu_blocks=400, max_num_seqs=32, max_model_len=2048, gpus=2
    ),
    max_instances=6,
    cold_start_s=7.5,
)


def busy_trace(n: int = 2000, seed: int = 0) -> Trace:
    """Load that comes and goes, evicts, and holds requests that can never fit."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(np.where(np.arange(n) // 300 % 2, 0.02, 0.2))
    prompt = rng.integers(1, 900, n)
    prompt[::250] = 5000
    return Trace(np.cumsum(gaps), prompt, rng.integers(1, 200, n), name="busy")


def queue_length(now: Snapshot) -> int:
    """Adds at once, removes slowly."""
    wanted = 1 + int(now.running.sum() + now.waiting.sum()) // 20
    return max(wanted, now.target - 1)


def by_hand(
    trace: Trace, autoscaler: Any, interval_s: float, end_s: float, **options: Any
) -> tuple[pd.DataFrame, dict[str, float], list[Snapshot]]:
    """Results, totals at the end, and what the autoscaler saw."""
    cluster = Cluster(CONFIG, trace, **options)
    seen = []
    k = 0
    while k * interval_s < end_s:
        seen.append(cluster.snapshot())
        if autoscaler is not None:
            cluster.scale_to(autoscaler(seen[-1]))
        k += 1
        cluster.run_until(min(k * interval_s, end_s))
    totals = cluster.totals()
    cluster.settle()
    return cluster.results(), totals, seen


@pytest.mark.parametrize("router", ["least-requests", "power-of-two", "preserve"])
@pytest.mark.parametrize("interval_s", [3.7, 10.0])
def test_equals_a_cluster_driven_by_hand(router: str, interval_s: float) -> None:
    trace = busy_trace()
    predicted = trace.output_tokens + 3
    seen: list[Snapshot] = []

    def autoscaler(now: Snapshot) -> int:
        seen.append(now)
        return queue_length(now)

    got = simulate(
        trace,
        CONFIG,
        router,
        autoscaler,
        interval_s=interval_s,
        predicted_tokens=predicted,
        horizon_s=150.0,
        initial_instances=2,
        seed=5,
    )
    rows = trace.arrival_s < 150.0
    served = Trace(trace.arrival_s[rows], trace.prompt_tokens[rows], trace.output_tokens[rows])
    results, totals, snapshots = by_hand(
        served,
        queue_length,
        interval_s,
        150.0,
        router=router,
        predicted_tokens=predicted[rows],
        initial_instances=2,
        seed=5,
    )
    pd.testing.assert_frame_equal(got.requests, results, check_exact=True)
    assert got.totals == totals
    assert len(seen) == len(snapshots)
    for ours, theirs in zip(seen, snapshots, strict=True):
        for name, value in vars(theirs).items():
            np.testing.assert_array_equal(getattr(ours, name), value, err_msg=name)
    assert got.requests["preemptions"].sum() > 0
    assert got.totals["scale_ups"] >= 2
    assert got.totals["scale_downs"] >= 2


def test_the_autoscaler_is_asked_at_every_interval_before_the_horizon() -> None:
    times: list[float] = []

    def autoscaler(now: Snapshot) -> int:
        times.append(now.time_s)
        return 3 + len(times) % 2

    trace = busy_trace()
    simulation = simulate(trace, CONFIG, autoscaler=autoscaler, interval_s=4.0, horizon_s=42.0)
    assert times == [4.0 * k for k in range(11)]
    intervals = simulation.intervals
    assert intervals["time_s"].tolist() == times
    assert intervals["target"].tolist() == [4, 3] * 5 + [4]
    assert (intervals["ready"] + intervals["starting"]).tolist() == intervals["target"].tolist()
    times.clear()
    simulate(trace, CONFIG, autoscaler=autoscaler, interval_s=6.0, horizon_s=42.0)
    assert times == [6.0 * k for k in range(7)]  # not at the horizon itself


def test_intervals_add_up_to_the_totals() -> None:
    simulation = simulate(busy_trace(), CONFIG, autoscaler=queue_length)
    intervals = simulation.intervals
    assert list(intervals.columns) == [*INTERVAL_COLUMNS, *simulation.totals]
    assert set(TOTALS) <= set(intervals.columns)
    for name, total in simulation.totals.items():
        assert intervals[name].sum() == pytest.approx(total, rel=1e-9), name
        assert (intervals[name] >= -1e-9).all(), name
    counts = [name for name, total in simulation.totals.items() if isinstance(total, int)]
    assert {"arrived", "completed", "violations"} <= set(counts)
    for name in counts:
        assert intervals[name].dtype == np.int64
        assert intervals[name].sum() == simulation.totals[name]
    in_flight = intervals["running"] + intervals["waiting"]
    left = (intervals["arrived"] - intervals["completed"] - intervals["rejected"]).cumsum()
    assert in_flight.tolist() == left.tolist()
    assert intervals["kv_use"].between(0.0, 1.0).all()
    assert intervals["instance_s"].between(9.9, 60.1).iloc[:-1].all()


def test_results_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = busy_trace()
    whole = simulate(trace, CONFIG, autoscaler=queue_length, interval_s=100.0)
    monkeypatch.setattr(MODULE, "_PIECE_ARRIVALS", 7)
    monkeypatch.setattr(MODULE, "_PIECE_ITERATIONS", 100)
    cut = simulate(trace, CONFIG, autoscaler=queue_length, interval_s=100.0)
    pd.testing.assert_frame_equal(cut.requests, whole.requests, check_exact=True)
    pd.testing.assert_frame_equal(cut.intervals, whole.intervals, rtol=1e-9)


@pytest.mark.parametrize("autoscaler", [None, queue_length])
def test_the_fleet_at_the_start(autoscaler: Any) -> None:
    seen = simulate(busy_trace(20), CONFIG, autoscaler=autoscaler, interval_s=1.0).intervals
    assert seen["ready"].iloc[0] == (6 if autoscaler is None else 1)
    fixed = simulate(busy_trace(20), CONFIG, initial_instances=4)
    assert (fixed.intervals["target"] == 4).all()
    assert fixed.totals["instance_s"] == pytest.approx(4 * busy_trace(20).span_s)


def test_the_default_cluster_is_that_of_the_class() -> None:
    trace = busy_trace(50)
    simulation = simulate(trace)
    assert simulation.cluster.config == ClusterConfig()
    cluster = Cluster(ClusterConfig(), trace, initial_instances=16)
    cluster.settle()
    pd.testing.assert_frame_equal(simulation.requests, cluster.results(), check_exact=True)


def test_the_request_at_the_very_end_is_served() -> None:
    trace = Trace([0.0, 10.0, 20.0], [10, 10, 10], [5, 5, 5])
    simulation = simulate(trace, CONFIG)
    assert simulation.requests["completed_s"].notna().tolist() == [True] * 3
    assert simulation.intervals["arrived"].tolist() == [1, 2]
    # A horizon is half-open, as the intervals are.
    assert len(simulate(trace, CONFIG, horizon_s=20.0).requests) == 2
    longer = simulate(trace, CONFIG, horizon_s=35.0)
    assert longer.intervals["time_s"].tolist() == [0.0, 10.0, 20.0, 30.0]
    assert longer.totals["completed"] == 3
    assert longer.totals["instance_s"] == pytest.approx(6 * 35.0)


def test_requests_keep_their_classes_where_a_horizon_cuts_the_trace() -> None:
    trace = busy_trace(50)
    classes = np.arange(50) % 2 * 7
    classed = Trace(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, classes)
    requests = simulate(classed, CONFIG, horizon_s=float(trace.arrival_s[30])).requests
    np.testing.assert_array_equal(requests["request_class"], classes[:30])


def test_queues_are_served_after_the_horizon_with_the_fleet_of_then() -> None:
    trace = Trace(np.zeros(300), np.full(300, 600), np.full(300, 100))
    simulation = simulate(trace, CONFIG, autoscaler=lambda now: 1, horizon_s=5.0)
    assert simulation.totals["completed"] < 300
    assert simulation.totals["instance_s"] == pytest.approx(5.0)
    assert simulation.requests["completed_s"].notna().all()
    assert set(simulation.requests["instance"]) == {0}
    assert simulation.requests["completed_s"].max() > 10.0


@pytest.mark.parametrize("span_s", [0.0, 25.0])
def test_no_requests(span_s: float) -> None:
    none = np.zeros(0, int)
    simulation = simulate(Trace(np.zeros(0), none, none, span_s=span_s), CONFIG)
    assert len(simulation.requests) == 0
    assert len(simulation.intervals) == math.ceil(span_s / 10.0)
    assert list(simulation.intervals.columns) == [*INTERVAL_COLUMNS, *simulation.totals]
    summary = simulation.summary()
    assert summary["arrived"] == 0
    assert math.isnan(summary["slo_attainment"])
    assert summary["gpu_hours"] == pytest.approx(6 * 2 * span_s / 3600.0)


def test_all_at_once() -> None:
    simulation = simulate(Trace([0.0, 0.0], [10, 10], [5, 5]), CONFIG, autoscaler=queue_length)
    assert simulation.requests["completed_s"].notna().all()
    assert len(simulation.intervals) == 1


def test_summary() -> None:
    simulation = simulate(busy_trace(), CONFIG, autoscaler=queue_length)
    requests, summary = simulation.requests, simulation.summary()
    bad = requests["violated_s"].notna() | requests["rejected"]
    ttft = requests["first_token_s"] - requests["arrival_s"]
    assert summary["arrived"] == 2000 == summary["completed"] + summary["rejected"]
    assert summary["rejected"] == 8
    assert summary["violations"] == bad.sum() > 8
    assert summary["slo_attainment"] == pytest.approx(1.0 - bad.mean())
    assert summary["ttft_mean_s"] == pytest.approx(ttft.mean())
    assert summary["ttft_p90_s"] == pytest.approx(ttft.quantile(0.9))
    long = requests[(requests["output_tokens"] > 1) & ~requests["rejected"]]
    tpot = (long["completed_s"] - long["first_token_s"]) / (long["output_tokens"] - 1)
    assert summary["tpot_p50_s"] == pytest.approx(tpot.median())
    e2e = requests["completed_s"] - requests["arrival_s"]
    assert summary["e2e_p99_s"] == pytest.approx(e2e.quantile(0.99))
    assert summary["gpu_hours"] == simulation.totals["instance_s"] * 2 / 3600.0
    assert not {"energy_kwh", "cost_usd"} & set(summary)  # neither power nor price is known
    assert summary["preemptions"] == requests["preemptions"].sum()
    assert all(type(value) in (int, float) for value in summary.values())


def test_costs_by_hand() -> None:
    # Iterations of 1 s: prefill at 0 and four decodes, on the one instance; another starts at 0, is ready at
    # 7 and stays idle to the end at 10.
    instance = InstanceConfig(
        LatencyLaw(1.0, 0.0, 0.0, 0.0),
        num_gpu_blocks=100,
        gpus=4,
        cold_start_s=7.0,
        power=PowerConfig(idle_w=60.0, prefill_w=700.0, decode_w=300.0),
        usd_per_gpu_hour=9.0,
    )
    trace = Trace([0.0], [10], [5])
    simulation = simulate(trace, ClusterConfig(instance), autoscaler=lambda now: 2, horizon_s=10.0)
    totals, summary = simulation.totals, simulation.summary()
    assert (totals["instance_s"], totals["busy_s"], totals["prefill_busy_s"]) == (20.0, 5.0, 1.0)
    assert summary["gpu_hours"] == pytest.approx(4 * 20 / 3600)
    assert summary["energy_kwh"] == pytest.approx(4 * (15 * 60 + 1 * 700 + 4 * 300) / 3.6e6)
    assert summary["cost_usd"] == pytest.approx(9.0 * 80 / 3600)
    # A running iteration counts as far as it has come.
    cluster = Cluster(ClusterConfig(instance), trace)
    for now, prefill_s in ((0.25, 0.25), (1.0, 1.0), (3.5, 1.0)):
        cluster.run_until(now)
        totals = cluster.totals()
        assert (totals["busy_s"], totals["prefill_busy_s"]) == (now, prefill_s)
    assert costs(instance, totals)["energy_kwh"] == pytest.approx(4 * (700 + 2.5 * 300) / 3.6e6)


def test_single_tokens_have_no_time_per_token() -> None:
    summary = simulate(Trace([0.0, 1.0], [10, 10], [1, 1]), CONFIG).summary()
    assert math.isnan(summary["tpot_mean_s"])
    assert math.isnan(summary["tpot_p99_s"])
    assert summary["ttft_mean_s"] > 0.0


@pytest.mark.parametrize("answer", [2.0, np.float64(3.0), "4", None, True, np.array([1])])
def test_an_answer_that_is_not_an_integer(answer: Any) -> None:
    def odd_one(now: Snapshot) -> Any:
        return 2 if now.time_s < 20.0 else answer

    with pytest.raises(InputError, match=r"autoscaler odd_one: expected an integer .* at 20 s"):
        simulate(busy_trace(), CONFIG, autoscaler=odd_one)


@pytest.mark.parametrize("answer", [3, np.int64(3), np.uint8(3)])
def test_any_integer_will_do_and_is_clipped(answer: Any) -> None:
    trace = busy_trace(100)
    assert simulate(trace, CONFIG, autoscaler=lambda now: answer).intervals["target"].iloc[0] == 3
    assert simulate(trace, CONFIG, autoscaler=lambda now: -5).intervals["target"].iloc[0] == 1
    assert simulate(trace, CONFIG, autoscaler=lambda now: 10**9).intervals["target"].iloc[0] == 6


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("interval_s", {"interval_s": 0.0}),
        ("interval_s", {"interval_s": math.nan}),
        ("interval_s", {"interval_s": "10"}),
        ("horizon_s", {"horizon_s": -1.0}),
        ("horizon_s", {"horizon_s": math.inf}),
        ("autoscaler", {"autoscaler": 3}),
        ("progress", {"progress": "yes"}),
        ("progress", {"progress": True}),
        ("predicted_tokens", {"predicted_tokens": np.ones(99, int)}),
        ("predicted_tokens", {"predicted_tokens": np.ones(99, int), "horizon_s": 1.0}),
        ("predicted_tokens", {"predicted_tokens": np.zeros(100, int)}),
        ("initial_instances", {"initial_instances": 7}),
        ("router", {"router": "nearest"}),
    ],
)
def test_bad_arguments_are_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=name):
        simulate(busy_trace(100), CONFIG, **options)


def test_progress_rises_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_PIECE_ITERATIONS", 1000)
    shares: list[float] = []
    # Overload: half of the work is left at the horizon.
    simulate(busy_trace(), CONFIG, initial_instances=1, progress=shares.append)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert max(np.diff(shares)) < 0.1


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for patience_s, stream, shown in (
        (0.0, Terminal(), True),
        (60.0, Terminal(), False),
        (0.0, io.StringIO(), False),
    ):
        monkeypatch.setattr(MODULE, "_PATIENCE_S", patience_s)
        monkeypatch.setattr(sys, "stderr", stream)
        simulate(busy_trace(200), CONFIG)
        assert ("simulate" in stream.getvalue()) == shown
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    simulate(busy_trace(200), CONFIG, progress=False)
    assert terminal.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)  # as in a program without a console
    assert isinstance(simulate(busy_trace(200), CONFIG), Simulation)


@pytest.mark.parametrize("load", [0.1, 10.0])
def test_the_engine_returns_often(load: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an autoscaler, in one long interval, and in the queues that are left at the end."""
    pieces: list[tuple[float, float]] = []
    serve = Cluster.run_until

    def watched(cluster: Cluster, time_s: float) -> None:
        before = cluster.totals()["arrived"]
        started_s = cluster.time_s
        serve(cluster, time_s)
        pieces.append((cluster.totals()["arrived"] - before, time_s - started_s))

    monkeypatch.setattr(Cluster, "run_until", watched)
    n = 100_000
    trace = Trace(np.arange(n) * (0.01 / load), np.full(n, 20), np.full(n, 20))
    simulate(trace, CONFIG, interval_s=1e6)
    arrived, seconds = np.array(pieces).T
    assert arrived.max() <= 20_001
    assert seconds.max() * 6 / 0.0201 <= 1.001e6


def test_ctrl_c_gets_through() -> None:
    hour = synthetic_trace("chat", duration_s=3600.0, start_clock_s=36_000.0, seed=0)
    hours = Trace(
        np.concatenate([hour.arrival_s + 3600.0 * k for k in range(100)]),
        np.tile(hour.prompt_tokens, 100),
        np.tile(hour.output_tokens, 100),
    )
    press = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    shares: list[float] = []

    def progress(share: float) -> None:
        shares.append(share)
        if len(shares) == 2:  # compiled, and on its way
            press.start()

    with pytest.raises(KeyboardInterrupt):
        simulate(hours, interval_s=1e9, progress=progress)
    assert shares[-1] < 0.9


def test_it_is_public() -> None:
    assert preserve_gym.simulate is preserve_gym.sim.simulate is simulate
