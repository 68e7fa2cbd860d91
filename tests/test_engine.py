"""The fast engine against the slow reference, and against queueing theory."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import gymnasium as gym
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from preserve_gym import (
    Cluster,
    ClusterConfig,
    InputError,
    InstanceConfig,
    LatencyLaw,
    SloConfig,
    Trace,
    router,
)
from preserve_gym.sim import uniform
from preserve_gym.sim.state import ANTICIPATORS
from tests.reference import OFF, ROUTERS, ReferenceCluster, anticipated
from tests.reference_metrics import FIGURES, histogram

OUTCOMES = ("first_scheduled_s", "first_token_s", "completed_s", "violated_s")


@st.composite
def laws(draw: st.DrawFn) -> LatencyLaw:
    """Dyadic coefficients make equal times likely, decimal ones make rounding visible.

    The knee is where the decoding requests come and go.
    """
    old = draw(
        st.sampled_from(
            [
                LatencyLaw(1.0, 0.0, 0.0, 0.0),
                LatencyLaw(0.25, 0.0625, 0.0, 0.0),
                LatencyLaw(0.0065, 4e-5, 1.5e-5, 2.5e-5),
                LatencyLaw(0.1, 0.013, 0.0017, 0.0003),
            ]
        )
    )
    return dataclasses.replace(
        old,
        knee_tokens=draw(st.integers(0, 6)),
        per_token_beyond_knee_s=draw(st.sampled_from([0.0, 0.125, 0.0031])),
        per_mixed_context_token_s=draw(st.sampled_from([0.0, 0.03125, 0.0007])),
    )


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """A small cluster under pressure: tiny pools and budgets, simultaneous arrivals, scaling."""
    integers, booleans = st.integers, st.booleans()
    block_size = draw(st.sampled_from([1, 2, 4, 16]))
    scheduler = draw(st.sampled_from(["vllm", "vllm", "vllm_v0", "sarathi"]))
    chunked = draw(booleans)
    budget = draw(integers(4, 40))
    whole_prompts = scheduler == "vllm_v0" or not chunked
    max_model_len = draw(integers(2, budget)) if whole_prompts else draw(integers(4, 60))
    cold_start_s = draw(st.sampled_from([0.0, 0.5, 2.0, 7.3, (0.0, 0.3, 1.0, 5.0)]))
    instance = InstanceConfig(
        draw(laws()),
        num_gpu_blocks=1 + max(3, draw(integers(10, 120)) // block_size),
        block_size=block_size,
        max_num_seqs=draw(integers(1, min(8, budget))),
        max_num_batched_tokens=budget,
        max_model_len=max_model_len,
        enable_chunked_prefill=chunked,
        async_scheduling=draw(booleans) and scheduler == "vllm",
        scheduler=scheduler,
        watermark=draw(st.sampled_from([0.0, 0.1, 0.3])),
        scheduler_reserve_full_isl=draw(booleans),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 3, 10])),
        gpus=draw(integers(1, 4)),
    )
    minimum = draw(integers(1, 3))
    maximum = draw(integers(minimum, 5))
    slo = draw(
        st.sampled_from(
            [
                SloConfig(2.0, 0.0, 0.25),
                SloConfig(0.5, 0.125, 0.1),
                SloConfig(1.0, 0.0, None),
                SloConfig(None, 0.0, None, 0.5),
                SloConfig(3.0, 0.0, 1.0, 0.3),
            ]
        )
    )
    n = draw(integers(0, 40))
    gap = st.sampled_from([0.0, 0.0, 0.0625, 0.25, 0.3, 1.0, 5.0])
    arrival_s = np.cumsum([draw(gap) for _ in range(n)])
    # Up to a bit more than half of what fits, so that few are rejected and several compete.
    lengths = integers(1, max(1, instance.max_request_tokens // 2 + 1))
    steps = draw(
        st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.37, 1.0, 4.0]), integers(0, 6)), max_size=12)
    )
    return {
        "config": ClusterConfig(
            instance=instance,
            slo=slo,
            min_instances=minimum,
            max_instances=maximum,
            cold_start_s=cold_start_s,
            too_long=draw(st.sampled_from(["reject", "clip_prompt"])),
        ),
        "arrival_s": arrival_s,
        "prompt": np.array([draw(lengths) for _ in range(n)], np.int32),
        "output": np.array([draw(lengths) for _ in range(n)], np.int32),
        "predicted": np.array([draw(lengths) for _ in range(n)], np.int32),
        "initial": draw(integers(minimum, maximum)),
        "classes": np.array([draw(st.sampled_from([0, 0, 3, 7])) for _ in range(n)], np.int32),
        "router": draw(st.sampled_from(sorted(ROUTERS))),
        "weights": draw(st.lists(st.sampled_from([0.0, 0.3, 1.0, 7.0]), min_size=7, max_size=7).filter(any)),
        "anticipator": draw(st.sampled_from(["paper", "artifact"])),
        "seed": draw(st.sampled_from([0, 5, 2**40 + 1])),
        "steps": steps,
    }


def build(scenario: dict[str, Any]) -> tuple[Cluster, ReferenceCluster]:
    config = scenario["config"]
    trace = Trace(scenario["arrival_s"], scenario["prompt"], scenario["output"], scenario["classes"])
    fast = Cluster(
        config,
        trace,
        scenario["router"].replace("_", "-"),
        predicted_tokens=scenario["predicted"],
        initial_instances=scenario["initial"],
        look_ahead=12,
        anticipator=scenario["anticipator"],
        router_weights=scenario["weights"],
        seed=scenario["seed"],
    )
    # The reference takes predictions as they are; the cluster clips them to what the model can generate.
    predicted = fast._state.requests["predicted_tokens"]
    slow = ReferenceCluster(
        config,
        list(map(float, trace.arrival_s)),
        list(map(int, trace.prompt_tokens)),
        list(map(int, trace.output_tokens)),
        list(map(int, predicted)),
        ROUTERS[scenario["router"]],
        scenario["initial"],
        look_ahead=12,
        anticipator=scenario["anticipator"],
        router_weights=scenario["weights"],
        seed=scenario["seed"],
        request_class=list(map(int, scenario["classes"])),
    )
    return fast, slow


def assert_same_outcome(fast: Cluster, slow: ReferenceCluster) -> None:
    results = fast.results()
    arrived = slow.requests[: len(results)]
    for name in OUTCOMES:
        attribute = "violated_at_s" if name == "violated_s" else name
        expected = np.array([getattr(r, attribute) for r in arrived], float)
        np.testing.assert_array_equal(results[name], expected, err_msg=name)
    np.testing.assert_array_equal(results["preemptions"], [r.preemptions for r in arrived])
    np.testing.assert_array_equal(results["rejected"], [r.rejected for r in arrived])
    np.testing.assert_array_equal(results["prompt_tokens"], [r.prompt_tokens for r in arrived])
    instances = [-1 if r.instance is None else r.instance for r in arrived]
    np.testing.assert_array_equal(results["instance"], instances)


def scenario_anticipator(fast: Cluster) -> str:
    return ANTICIPATORS[int(fast._state.params["anticipator"][0])]


def assert_same_cluster(fast: Cluster, slow: ReferenceCluster) -> None:
    """Everything that a policy or the metrics can see."""
    snapshot, instances = fast.snapshot(), slow.instances
    np.testing.assert_array_equal(snapshot.state, [i.state for i in instances])
    np.testing.assert_array_equal(snapshot.running, [len(i.running) for i in instances])
    np.testing.assert_array_equal(snapshot.waiting, [len(i.waiting) for i in instances])
    np.testing.assert_array_equal(
        snapshot.queued_prefill_tokens, [i.queued_prefill_tokens for i in instances]
    )
    np.testing.assert_array_equal(snapshot.expected_tokens, [i.expected_tokens for i in instances])
    blocks = fast.config.instance.kv_blocks
    np.testing.assert_array_equal(snapshot.kv_use, [i.kv_blocks_used / blocks for i in instances])
    for k, instance in enumerate(instances):
        if instance.state == OFF:
            assert snapshot.anticipated_peak[k] == snapshot.anticipated_overload[k] == 0
            continue
        expected = anticipated(instance, 12, scenario_anticipator(fast))
        np.testing.assert_array_equal(fast.look_ahead(k) / fast.config.instance.kv_tokens, expected)
        assert snapshot.anticipated_peak[k] == max(expected)
        assert snapshot.anticipated_overload[k] == sum(u > 0.95 for u in expected) / 12
    totals = snapshot.totals
    gpus = fast.config.instance.gpus
    np.testing.assert_allclose(totals["instance_s"] * gpus, slow.gpu_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(totals["busy_s"], slow.busy_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(totals["prefill_busy_s"], slow.prefill_busy_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(totals["kv_use_s"] * blocks, slow.kv_block_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(totals["in_flight_s"], slow.requests_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(totals["waiting_s"], slow.waiting_s, rtol=1e-9, atol=1e-9)
    assert totals["generated_tokens"] == slow.generated_tokens
    assert totals["compliant_output_tokens"] == slow.compliant_output_tokens
    assert totals["iterations"] == sum(i.iterations - len(i.batches) for i in instances)
    assert (totals["scale_ups"], totals["scale_downs"]) == (slow.scale_ups, slow.scale_downs)
    # Conservation: what arrived is finished, running, waiting or rejected.
    in_flight = snapshot.running.sum() + snapshot.waiting.sum()
    assert totals["arrived"] == totals["completed"] + in_flight + totals["rejected"]
    results = fast.results()
    assert totals["violations"] == results["violated_s"].notna().sum()
    assert totals["first_tokens"] == results["first_token_s"].notna().sum()
    done = results["completed_s"].notna()
    assert totals["output_tokens"] == results["output_tokens"][done].sum()
    late = results["violated_s"][done].notna() & (results["violated_s"][done] < results["completed_s"][done])
    assert totals["compliant"] == done.sum() - late.sum()


def assert_same_histograms(fast: Cluster, slow: ReferenceCluster) -> None:
    """All classes together, and each one."""
    arrived = slow.requests[: len(fast.results())]
    for name, figure in FIGURES.items():
        metric = "itl_s" if name == "inter_token_latency_s" else name
        values = [value for request in arrived for value in figure(request)]
        assert fast.histogram(metric).counts.tolist() == histogram(values), name
        if metric == "itl_s":
            continue
        for k in fast.classes:
            values = [value for request in arrived if request.request_class == k for value in figure(request)]
            assert fast.histogram(metric, k).counts.tolist() == histogram(values), (name, k)
    totals, of_classes = fast.totals(), fast.class_totals()
    for name in of_classes:
        assert of_classes[name].sum() == pytest.approx(totals[name], rel=1e-12)
    violated = dict.fromkeys(fast.classes, 0)
    for request in arrived:
        violated[request.request_class] += request.violated_at_s is not None
    if arrived:
        assert of_classes["violations"].to_dict() == violated


@settings(max_examples=250)
@given(scenarios())
def test_the_engine_equals_the_reference(scenario: dict[str, Any]) -> None:
    assert_engine_equals_reference(scenario)


@pytest.mark.slow
@settings(max_examples=1000)
@given(scenarios())
def test_the_engine_equals_the_reference_in_many_cases(scenario: dict[str, Any]) -> None:
    assert_engine_equals_reference(scenario)


def assert_engine_equals_reference(scenario: dict[str, Any]) -> None:
    fast, slow = build(scenario)
    now = 0.0
    for step_s, target in scenario["steps"]:
        now += step_s
        fast.run_until(now)
        slow.run_until(now)
        assert_same_cluster(fast, slow)
        fast.scale_to(target)
        slow.scale_to(target)
        assert_same_cluster(fast, slow)
        assert_same_histograms(fast, slow)
    fast.settle()
    slow.run_until(1e15)
    assert_same_outcome(fast, slow)
    assert_same_histograms(fast, slow)


@settings(max_examples=100)
@given(scenarios(), st.lists(st.sampled_from([0.01, 0.25, 0.5, 1.0, 3.0]), max_size=60))
def test_looking_changes_nothing(scenario: dict[str, Any], looks_s: list[float]) -> None:
    undisturbed, _ = build(scenario)
    undisturbed.settle()
    watched, _ = build(scenario)
    for step_s in looks_s:
        watched.run_until(watched.time_s + step_s)
        watched.snapshot()
    watched.settle()
    pd.testing.assert_frame_equal(watched.results(), undisturbed.results(), check_exact=True)


UNIT = LatencyLaw(1.0, 0.0, 0.0, 0.0)
"""Every iteration takes a second."""


@pytest.mark.parametrize(
    ("instance", "lengths"),
    [
        # Memory lacks in the fourth iteration, which is scheduled when the third one starts.
        (InstanceConfig(UNIT, num_gpu_blocks=7, block_size=1), [(1, 6), (1, 6)]),
        # The same, while the last token of the third request is on its way.
        (InstanceConfig(UNIT, num_gpu_blocks=10, block_size=1), [(1, 6), (1, 6), (1, 3)]),
        # Memory is just enough for the last token of the third request, but not for what comes behind it.
        (InstanceConfig(UNIT, num_gpu_blocks=13, block_size=1), [(1, 8), (1, 8), (1, 4)]),
        # The third prompt gets in when the last token of the second request is on its way.
        (
            InstanceConfig(
                UNIT, 100, max_num_seqs=8, max_num_batched_tokens=40, max_model_len=40,
                enable_chunked_prefill=False,
            ),
            [(1, 20), (1, 4), (39, 1)],
        ),
    ],
)  # fmt: skip
def test_routers_see_what_asynchronous_scheduling_did(
    instance: InstanceConfig, lengths: list[tuple[int, int]]
) -> None:
    # All go to the first instance; one to the second lets the first one be advanced.
    # Then one goes where the number that waits at the first instance says.
    @router
    def probe(view: Any, request: Any) -> int:
        if request.predicted_tokens == 3:
            return view.waiting[0]
        return 1 if request.predicted_tokens == 2 else 0

    def slow_probe(view: Any, request: Any) -> int:
        if request.predicted_tokens == 3:
            return len(view.ready[0].waiting)
        return 1 if request.predicted_tokens == 2 else 0

    config = ClusterConfig(instance, min_instances=2, max_instances=2)
    for probe_s in (2.0, 2.5, 3.0, 3.5, 4.5):
        arrival_s = [*(0.5 * (prompt > 1) for prompt, _ in lengths), 1.5, probe_s]
        prompt, output = zip(*lengths, (1, 1), (1, 1), strict=True)
        predicted = [*(1 for _ in lengths), 2, 3]
        fast = Cluster(config, Trace(arrival_s, prompt, output), probe, predicted_tokens=np.array(predicted))
        fast.settle()
        slow = ReferenceCluster(config, arrival_s, prompt, output, predicted, slow_probe, 2)
        slow.run_until(1e15)
        assert_same_outcome(fast, slow)


def test_a_prompt_evicted_while_it_is_computed_was_prefilled() -> None:
    # From 2 to 5 the second request has 9 of its 12 tokens computed, in the last of these it is evicted, as
    # the first one grows. That one ends at 12; then all 12 are computed, 4 at a time.
    instance = InstanceConfig(
        UNIT, num_gpu_blocks=21, block_size=1, max_num_seqs=4, max_num_batched_tokens=4, max_model_len=64
    )
    config = ClusterConfig(instance, max_instances=1)
    fast = Cluster(config, Trace([0.0, 0.5], [4, 12], [12, 2]))
    slow = ReferenceCluster(config, [0.0, 0.5], [4, 12], [12, 2], [7, 7], ROUTERS["least_requests"], 1)
    for now, prefilled_s in ((0.25, 0.25), (2.0, 1.0), (4.5, 3.5), (11.0, 4.0), (13.25, 5.25), (20.0, 7.0)):
        fast.run_until(now)
        slow.run_until(now)
        totals = fast.totals()
        assert totals["prefill_busy_s"] == slow.prefill_busy_s == prefilled_s <= totals["busy_s"]
    assert fast.results()["preemptions"].tolist() == [0, 1]
    assert totals["busy_s"] == 16.0


def test_a_new_replica_knows_no_ghosts() -> None:
    # The second instance completes a request early, is switched off, and started again.
    instance = InstanceConfig(UNIT, 100, block_size=1, async_scheduling=False)
    config = ClusterConfig(instance, max_instances=2, cold_start_s=0.0)
    arrival_s, prompt = [0.0, 0.0, 3.5, 4.0], [9, 2, 4, 1]
    output, predicted = [1, 2, 9, 1], [30, 9, 9, 5]
    fast = Cluster(
        config,
        Trace(arrival_s, prompt, output),
        "preserve-look-ahead",
        predicted_tokens=np.array(predicted),
        initial_instances=2,
        anticipator="artifact",
        look_ahead=12,
    )
    slow = ReferenceCluster(
        config, arrival_s, prompt, output, predicted, ROUTERS["preserve_look_ahead"], 2,
        look_ahead=12, anticipator="artifact",
    )  # fmt: skip
    for now, target in ((2.25, 2), (3.6, 1), (3.9, 2)):
        fast.run_until(now)
        slow.run_until(now)
        fast.scale_to(target)
        slow.scale_to(target)
    fast.settle()
    slow.run_until(1e15)
    assert_same_outcome(fast, slow)


def test_what_is_due_at_once_is_missed() -> None:
    cluster = Cluster(ClusterConfig(slo=SloConfig(0.0, 0.0, None)), Trace([1.0, 1.0, 2.0], [9] * 3, [9] * 3))
    for now in (0.5, 1.0, 1.0, 1.5, 2.0, 2.0, 3.0):
        cluster.run_until(now)
        missed = cluster.results()["violated_s"].notna().sum()
        assert cluster.totals()["violations"] == cluster.totals()["ttft_misses"] == missed
    assert cluster.totals()["violations"] == 3


def chat(n: int, rate_rps: float, seed: int = 0) -> Trace:
    rng = np.random.default_rng(seed)
    return Trace(
        np.cumsum(rng.exponential(1.0 / rate_rps, n)),
        rng.integers(1, 2000, n),
        rng.integers(1, 500, n),
    )


def test_littles_law_holds_exactly_on_a_run_drained_to_empty() -> None:
    trace = chat(2000, 4.0)
    cluster = Cluster(ClusterConfig(), trace, initial_instances=4)
    cluster.settle()
    results = cluster.results()
    # Requests in the system, integrated event by event, against the sum of their latencies.
    events = np.concatenate([results["arrival_s"], results["completed_s"]])
    change = np.repeat([1, -1], len(results))
    order = np.argsort(events, kind="stable")
    in_system = np.cumsum(change[order])[:-1]
    integral = float((in_system * np.diff(events[order])).sum())
    assert in_system[-1] == 1
    assert integral == pytest.approx(float((results["completed_s"] - results["arrival_s"]).sum()), rel=1e-9)


def mean_wait_s(output_tokens: Any, rate_rps: float, servers: int, iteration_s: float) -> tuple[float, float]:
    """Mean time in the queue of one instance with ``servers`` places, and three standard errors of it.

    An iteration takes ``iteration_s`` whatever is in it, so a request takes as many as it has tokens.
    """
    instance = InstanceConfig(
        LatencyLaw(iteration_s, 0.0, 0.0, 0.0),
        num_gpu_blocks=10**6,
        max_num_seqs=servers,
        max_model_len=10**5,
        async_scheduling=False,
    )
    n = len(output_tokens)
    arrival_s = np.cumsum(np.random.default_rng(1).exponential(1.0 / rate_rps, n))
    cluster = Cluster(
        ClusterConfig(instance=instance, max_instances=1), Trace(arrival_s, np.ones(n), output_tokens)
    )
    cluster.settle()
    results = cluster.results()
    waits_s = (results["first_scheduled_s"] - results["arrival_s"]).to_numpy()
    # Means of 40 batches, each long against the correlation time of the queue.
    means = waits_s.reshape(40, -1).mean(axis=1)
    return float(means.mean()), 3.0 * float(means.std(ddof=1)) / np.sqrt(len(means))


def test_constant_outputs_one_at_a_time_are_an_md1_queue() -> None:
    wait_s, error_s = mean_wait_s(np.ones(200_000), rate_rps=0.7, servers=1, iteration_s=1.0)
    assert error_s < 0.1
    assert wait_s == pytest.approx(0.7 / (2 * 0.3), abs=error_s)


@pytest.mark.parametrize("servers", [1, 2, 8])
def test_geometric_outputs_are_an_mmc_queue(servers: int) -> None:
    # A geometric number of short iterations is an exponential time of 1 s in the mean.
    output_tokens = np.random.default_rng(2).geometric(1 / 500, 400_000)
    load = 0.7 * servers
    wait_s, error_s = mean_wait_s(output_tokens, load, servers, iteration_s=1 / 500)
    # Erlang C: the probability of having to wait.
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) / (1 - 0.7)
    expected_s = last / (sum(terms) + last) / (servers - load)
    assert error_s < 0.1 * expected_s
    # An arrival also waits for the end of the iteration, where one is under way.
    assert wait_s == pytest.approx(expected_s, abs=error_s + 1 / 500)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda cluster: pickle.loads(pickle.dumps(cluster))])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {
            "router": "linear",
            "router_weights": (1.0, 0.5, 0.0, 1.0, 1.0, 2.0, 0.5),
            "anticipator": "artifact",
        },
        {"router": "aibrix-throughput"},
    ],
)
def test_a_copy_goes_its_own_way(copy_of: Any, arguments: dict[str, Any]) -> None:
    cluster = Cluster(ClusterConfig(), chat(500, 8.0), initial_instances=3, **arguments)
    cluster.run_until(20.0)
    twin = copy_of(cluster)
    cluster.scale_to(1)
    cluster.settle()
    unscaled = Cluster(ClusterConfig(), chat(500, 8.0), initial_instances=3, **arguments)
    unscaled.settle()
    assert twin.time_s == 20.0
    twin.settle()
    pd.testing.assert_frame_equal(twin.results(), unscaled.results(), check_exact=True)
    assert not twin.results()["completed_s"].equals(cluster.results()["completed_s"])


@pytest.mark.parametrize("name", ["preserve-look-ahead", "llm-d", "linear"])
@pytest.mark.parametrize(
    "scheduler",
    [
        {},
        {"long_prefill_token_threshold": 500},
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 32768},
        {"scheduler": "sarathi", "async_scheduling": False},
        {"scheduler": "vllm_v0", "async_scheduling": False, "max_num_batched_tokens": 32768},
    ],
)
def test_a_router_sees_what_it_would_if_all_were_brought_up_to_date(
    scheduler: dict[str, Any], name: str
) -> None:
    # In an overload, with preemptions: the states of 8 instances at 8,000 arrivals.
    config = ClusterConfig(InstanceConfig.from_preset("llama-3.1-8b", "rtx-4090", **scheduler))
    trace, weights = chat(8000, 30.0), (1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5)
    lazy = Cluster(config, trace, name, initial_instances=8, router_weights=weights)
    lazy.run_until(300.0)
    eager = Cluster(config, trace, name, initial_instances=8, router_weights=weights)
    for arrival_s in trace.arrival_s[trace.arrival_s < 300.0]:
        eager.run_until(arrival_s)
    eager.run_until(300.0)
    assert lazy.totals()["preemptions"] > 100
    pd.testing.assert_frame_equal(lazy.results(), eager.results(), check_exact=True)


def test_an_overload_of_hours_neither_loses_nor_hangs() -> None:
    trace = chat(50_000, 40.0)
    cluster = Cluster(ClusterConfig(), trace, initial_instances=1)
    cluster.run_until(3600.0)
    assert cluster.snapshot().waiting.sum() > 30_000
    cluster.settle()
    results = cluster.results()
    assert results["completed_s"].notna().all()
    assert (results["completed_s"] >= results["first_token_s"]).all()


def test_random_numbers_are_uniform_and_independent_of_each_other() -> None:
    draws = np.array([uniform(7, k) for k in range(20_000)])
    assert ((draws >= 0) & (draws < 1)).all()
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    # Chi-square with 19 degrees of freedom: above 43.8 once in a thousand.
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(draws, [uniform(8, k) for k in range(20_000)])[0, 1]) < 0.03


def test_the_seed_of_the_cluster_is_that_of_the_router() -> None:
    def instances(seed: int) -> list[int]:
        cluster = Cluster(ClusterConfig(), chat(50, 1.0), "random", initial_instances=8, seed=seed)
        cluster.settle()
        return cluster.results()["instance"].tolist()

    assert instances(1) == instances(1) != instances(2)
    assert len(set(instances(1))) == 8


def test_a_router_that_names_no_ready_instance_is_refused() -> None:
    @router
    def broken(view: Any, request: Any) -> int:
        return 3

    cluster = Cluster(ClusterConfig(max_instances=2), chat(10, 1.0), broken)
    with pytest.raises(ValueError, match="not ready"):
        cluster.run_until(100.0)


def test_a_router_of_ones_own() -> None:
    @router
    def last(view: Any, request: Any) -> int:
        return view.ready[view.n_ready - 1]

    cluster = Cluster(ClusterConfig(), chat(10, 1.0), last, initial_instances=3)
    cluster.settle()
    assert set(cluster.results()["instance"]) == {2}


def test_a_router_that_reads_what_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="reads: expected any of kv, anticipated, throughput, got 'output'"):
        router(reads="output")


def test_weights_steer_the_linear_router() -> None:
    def instances(**arguments: Any) -> list[int]:
        cluster = Cluster(ClusterConfig(), chat(300, 3.0), initial_instances=4, **arguments)
        cluster.settle()
        return cluster.results()["instance"].tolist()

    assert instances(router="linear", router_weights=(2.0, 0.0, 1.0)) == instances(router="preserve")
    by_requests = instances(router="linear", router_weights=(0.0, 0.0, 0.0, 1.0))
    assert by_requests == instances(router="least-requests")
    cluster = Cluster(ClusterConfig(), chat(300, 3.0), "linear", initial_instances=4, router_weights=(1,))
    cluster.set_router_weights((0.0, 0.0, 0.0, 1.0))
    cluster.settle()
    assert cluster.results()["instance"].tolist() == by_requests


def test_a_router_of_ones_own_may_have_many_weights() -> None:
    @router
    def weighed(view: Any, request: Any) -> int:
        best, least = view.ready[0], 0.0
        for k in range(view.n_ready):
            i = view.ready[k]
            score = view.weights[40] * view.in_flight[i] + view.weights[500]
            if k == 0 or score < least:
                best, least = i, score
        return best

    def instances(**arguments: Any) -> list[int]:
        cluster = Cluster(ClusterConfig(), chat(300, 3.0), initial_instances=4, **arguments)
        cluster.settle()
        return cluster.results()["instance"].tolist()

    many = [0.0] * 41
    many[40] = 1.0
    assert instances(router=weighed, router_weights=many) == instances(router="least-requests")
    many[40] = -1.0  # the most requests
    assert len(set(instances(router=weighed, router_weights=many))) == 1
    # Those that were given before do not stay.
    cluster = Cluster(
        ClusterConfig(), chat(300, 3.0), weighed, initial_instances=4, router_weights=[0.0] * 500 + [7.0]
    )
    cluster.set_router_weights(many)
    assert cluster._state.weights[500] == 0.0


def test_many_weights_pass_through_an_environment() -> None:
    @router
    def weighed(view: Any, request: Any) -> int:
        best, least = view.ready[0], 0.0
        for k in range(view.n_ready):
            i = view.ready[k]
            score = view.weights[40] * view.in_flight[i]
            if k == 0 or score < least:
                best, least = i, score
        return best

    options: dict[str, Any] = {
        "cluster": {"max_instances": 4, "min_instances": 4},
        "workload": {"trace": "synthetic-chat", "start_s": 36_000.0, "horizon_s": 120.0},
    }
    rewards = []
    many = [0.0] * 40 + [1.0]
    for routing in ({"router": weighed, "router_weights": many}, {"router": "least-requests"}):
        env = gym.make("preserve/Autoscale-v0", **options, **routing)
        env.reset(seed=0)
        rewards.append([env.step(2)[1] for _ in range(12)])
    assert rewards[0] == rewards[1]


def test_the_map_of_a_slot_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"slot: expected an integer in \[0, 15\], got 16"):
        Cluster(ClusterConfig(), chat(10, 1.0)).look_ahead(16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"router": "fastest"}, "router: expected one of round-robin"),
        ({"router": lambda view, request: 0}, "router: expected a name or a function made by @router"),
        ({"initial_instances": 0}, "initial_instances: expected an integer in [1, 16], got 0"),
        ({"initial_instances": 17}, "initial_instances: expected an integer in [1, 16], got 17"),
        ({"look_ahead": 0}, "look_ahead: expected at least 1 iteration"),
        ({"anticipator": "oracle"}, "anticipator: expected one of paper, artifact, got 'oracle'"),
        (
            {"router": "linear", "router_weights": [1.0] * 8},
            "router_weights: expected at most 7 finite numbers >= 0",
        ),
        (
            {"router": "linear", "router_weights": [-1.0]},
            "router_weights: expected at most 7 finite numbers >= 0",
        ),
        ({"router_weights": [1.0] * 513}, "router_weights: expected at most 512 finite numbers, got"),
        ({"router_weights": [float("nan")]}, "router_weights: expected at most 512 finite numbers, got"),
        ({"router": "linear"}, "router_weights: linear needs one above 0, got ()"),
        ({"start_s": 1e6}, "start_s: 1000000.0 is after the first arrival"),
        ({"start_s": -1.0}, "start_s: expected a number in [0, 1e+11], got -1.0"),
        ({"start_s": float("nan")}, "start_s: expected a number in [0, 1e+11], got nan"),
        ({"seed": 2**63}, "seed: expected an integer in [0, 2**63), got"),
        ({"seed": -1}, "seed: expected an integer in [0, 2**63), got -1"),
        ({"predicted_tokens": np.zeros(10, int)}, "predicted_tokens: expected 10 integers >= 1"),
        ({"predicted_tokens": np.ones(9, int)}, "predicted_tokens: expected 10 integers >= 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Cluster(ClusterConfig(), chat(10, 1.0), **arguments)
    assert str(error.value).startswith(message)


def test_a_clock_in_milliseconds_is_refused() -> None:
    trace = Trace([1.7e12, 1.7e12 + 60], [9, 9], [9, 9])
    with pytest.raises(InputError, match=r"trace: expected arrivals up to 1e\+11 s, got 1700000000060.0"):
        Cluster(ClusterConfig(), trace)


def test_ticks_of_a_long_silence_cost_nothing() -> None:
    # Since 1970: 170 million ticks of the throughput before the first arrival.
    trace = Trace(1.7e9 + np.array([0.0, 1.0, 1e6]), [9, 9, 9], [9, 9, 9])
    cluster = Cluster(ClusterConfig(), trace, "aibrix-throughput", initial_instances=2)
    cluster.settle()
    assert cluster.results()["instance"].tolist() == [0, 0, 0]


def test_blocks_that_wait_may_be_more_than_32_bits_tell() -> None:
    instance = InstanceConfig(
        LatencyLaw(1.0, 0.0, 0.0, 0.0), num_gpu_blocks=2**28 + 1, block_size=1, max_model_len=2**28
    )
    trace = Trace(np.zeros(41), [10**8] * 40 + [1], [1] * 41)
    cluster = Cluster(ClusterConfig(instance, max_instances=2), trace, "llumnix")
    cluster.run_until(0.5)
    assert cluster._state.waiting_blocks[0] == 39 * 10**8 + 1


def test_the_clock_does_not_run_backwards() -> None:
    cluster = Cluster(ClusterConfig(), chat(10, 1.0))
    cluster.run_until(5.0)
    for time_s in (4.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="time_s: expected a finite time"):
            cluster.run_until(time_s)
