"""Bounds of autoscalers: constant fleet, hindsight schedule and lower bound, on small cases."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baselines import Hpa, Reactive
from baselines.bounds import Problem, as_policy, best_static, find_hindsight, lower_bound, play
from baselines.bounds.improve import Change, Place, accept
from baselines.bounds.problem import Outcome
from baselines.bounds.work import works
from preserve_gym import (
    Cluster,
    ClusterConfig,
    InputError,
    InstanceConfig,
    SloConfig,
    Trace,
    Workload,
    WorkloadConfig,
)
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.sim.profile import InstanceProfile

# A prompt of 1,000 tokens takes about a second.
SLOW = InstanceConfig(
    latency=LatencyLaw(base_s=0.01, per_token_s=1e-3, per_context_token_s=1e-7, per_quad_s=0.0),
    num_gpu_blocks=1000,
    cold_start_s=20.0,
)
CLUSTER = ClusterConfig(instance=SLOW, slo=SloConfig(ttft_s=3.0, tpot_s=0.1), max_instances=3)

# By hand: half a request a second.
PROFILE = InstanceProfile(
    requests_per_s=0.5,
    prompt_tokens_per_s=500.0,
    output_tokens_per_s=50.0,
    total_tokens_per_s=550.0,
    in_flight=1.0,
    unloaded_attainment=1.0,
    unloaded_e2e_s=1.0,
)


def workload_of(
    arrival_s: Any, prompt: Any = 1000, output: Any = 5, cluster: ClusterConfig = CLUSTER, **config: Any
) -> tuple[Problem, Workload]:
    """A window of 60 s, or as ``config`` says, after a warm-up of 10 s."""
    arrival_s = np.sort(np.asarray(arrival_s, np.float64))
    target, router = config.pop("target", 1.0), config.pop("router", "least-requests")
    trace = Trace(
        arrival_s,
        np.broadcast_to(np.asarray(prompt, np.int32), arrival_s.shape).copy(),
        np.broadcast_to(np.asarray(output, np.int32), arrival_s.shape).copy(),
        span_s=max(71.0, float(arrival_s[-1]) + 1.0),
    )
    values = {"warmup_s": 10.0, "horizon_s": 60.0, "start_s": 10.0, "window_s": 30.0, "forecaster": "oracle"}
    workload = Workload(WorkloadConfig(**(values | config)), trace)
    episodes = (workload.episode_at(float(workload.evaluation_windows[0])),)
    return Problem(cluster, episodes, target, router), workload


def burst(rng: np.random.Generator) -> tuple[Problem, Workload]:
    """A random burst on a quiet service."""
    quiet = rng.uniform(0.0, 70.0, int(rng.integers(5, 25)))
    onset_s = rng.uniform(15.0, 55.0)
    loud = rng.uniform(onset_s, onset_s + rng.uniform(3.0, 12.0), int(rng.integers(5, 25)))
    arrival_s = np.concatenate((quiet, loud))
    n = len(arrival_s)
    return workload_of(
        arrival_s,
        rng.integers(10, 1500, n),
        rng.integers(1, 60, n),
        target=float(rng.choice([0.8, 0.95, 1.0])),
    )


def cheapest(problem: Problem) -> Outcome | None:
    """Of all schedules of a window, the cheapest that meets the target."""
    best = None
    count = problem.intervals(problem.episodes[0])
    sizes = range(problem.cluster.min_instances, problem.cluster.max_instances + 1)
    for targets in itertools.product(sizes, repeat=count):
        outcome = play(problem, (np.array(targets),))
        if outcome.violations <= problem.allowed and (best is None or outcome.instance_s < best.instance_s):
            best = outcome
    return best


class TestPlay:
    def test_is_what_the_environment_does(self) -> None:
        problem, workload = workload_of(np.arange(100) * 0.7, target=0.9)
        schedule = (np.array([2, 3, 1, 1, 2, 1]),)
        outcome = play(problem, schedule)
        policy = as_policy(problem, PROFILE, schedule)
        env = gym.make(
            "preserve/Autoscale-v0",
            cluster=CLUSTER,
            workload=workload,
            obs_mode="dict",
            action_mode="target",
            initial_instances=policy.initial_instances(10.0),
        )
        observation, _ = env.reset(seed=0)
        state, ended = None, False
        while not ended:
            action, state = policy.predict(observation, state)
            observation, _, _, ended, _ = env.step(action)
        base: Any = env.unwrapped
        assert base.episode_totals()["instance_s"] == pytest.approx(outcome.instance_s)
        missed = base.results()["violated_s"].notna().to_numpy()
        np.testing.assert_array_equal(missed, outcome.violated[0])
        assert 0 < outcome.violations < problem.arrived

    def test_only_the_scored_part_counts(self) -> None:
        problem, _ = workload_of([1.0, 11.0, 69.0, 70.5])
        outcome = play(problem, problem.constant(2))
        assert problem.arrived == len(outcome.violated[0]) == 2
        assert outcome.instance_s == pytest.approx(120.0)
        assert outcome.gpu_hours == pytest.approx(120.0 / 3600.0)


class TestStatic:
    def test_two_requests_at_once_need_two_instances(self) -> None:
        # Three seconds are too short for three prompts of 1.01 s each, one after the other.
        together = np.repeat([12.0, 30.0, 50.0], 3)
        problem, _ = workload_of(together)
        found = best_static(problem, lower_bound(problem))
        assert (found.instances, found.meets) == (2, True)
        assert sorted(found.attainments) == [1, 2]
        assert found.outcome.instance_s == pytest.approx(120.0)

    def test_what_the_largest_fleet_cannot_serve_is_flagged(self) -> None:
        problem, _ = workload_of(np.full(20, 30.0))
        found = best_static(problem, lower_bound(problem))
        assert (found.instances, found.meets) == (3, False)
        assert found.outcome.attainment < 1.0
        with pytest.raises(InputError, match=r"^target: expected one that 3 instances reach, got 1;"):
            find_hindsight(problem, PROFILE, found)


class TestHindsight:
    def test_one_burst_has_a_known_optimum(self) -> None:
        # Three requests at once at 45 s need a second instance, ready by then: asked for at 20 s of the
        # window's clock at the latest, drained at 40 s when the burst is over.
        problem, _ = workload_of([12.0, 20.0, 45.0, 45.0, 45.0, 60.0])
        found = find_hindsight(problem, PROFILE, best_static(problem, lower_bound(problem)), effort=200)
        assert found.violations == 0
        best = cheapest(problem)
        assert best is not None
        assert found.instance_s == pytest.approx(best.instance_s)
        assert best.instance_s < 120.0

    @pytest.mark.parametrize("seed", [0, 2, 3, 4, 5, 6])
    def test_between_the_lower_bound_and_the_constant_fleet(self, seed: int) -> None:
        problem, _ = burst(np.random.default_rng(seed))
        static = best_static(problem, lower_bound(problem))
        assert static.meets
        found = find_hindsight(problem, PROFILE, static, effort=60)
        assert found.violations <= problem.allowed
        again = play(problem, found.schedule)
        assert (again.instance_s, again.violations) == (found.instance_s, found.violations)
        assert lower_bound(problem).instance_s <= found.instance_s <= static.outcome.instance_s

    def test_improving_keeps_the_target(self) -> None:
        problem, _ = workload_of([12.0, 20.0, 30.0], target=0.6)
        current = play(problem, problem.constant(3))
        worse = Outcome(problem.constant(1), (np.array([True, True, False]),), 60.0, 1)
        change = Change(Place(0, 0, 6, 6), 120.0, 0)
        found, plays = accept(problem, current, [change], -1, 1.0, lambda schedule: worse)
        assert (found, plays) == (current, 1)
        better = Outcome(problem.constant(1), (np.array([True, False, False]),), 60.0, 1)
        assert accept(problem, current, [change], -1, 1.0, lambda schedule: better) == (better, 1)

    def test_same_input_same_schedule(self) -> None:
        problem, _ = burst(np.random.default_rng(3))
        static = best_static(problem, lower_bound(problem))
        one, two = (find_hindsight(problem, PROFILE, static, effort=40) for _ in range(2))
        np.testing.assert_array_equal(one.schedule[0], two.schedule[0])

    def test_two_windows_share_the_target(self) -> None:
        rng = np.random.default_rng(5)
        arrival_s = np.concatenate((rng.uniform(0.0, 140.0, 60), np.full(3, 100.0)))
        _, workload = workload_of(arrival_s, start_s=None)
        episodes = tuple(workload.episode_at(start_s) for start_s in (10.0, 70.0))
        problem = Problem(CLUSTER, episodes, 0.9)
        static = best_static(problem, lower_bound(problem))
        found = find_hindsight(problem, PROFILE, static, effort=100)
        assert found.violations <= problem.allowed
        assert lower_bound(problem).instance_s <= found.instance_s <= static.outcome.instance_s
        policy = as_policy(problem, PROFILE, found.schedule)
        assert policy.initial_instances(70.0) == found.schedule[1][0]
        assert policy.decide({"time_s": 90.0}, None) == found.schedule[1][2]
        with pytest.raises(InputError, match=r"^Hindsight.starts_s: expected a window that has begun by 5 s"):
            policy.decide({"time_s": 5.0}, None)


class TestLowerBound:
    @pytest.mark.parametrize("seed", range(6))
    def test_no_schedule_undercuts_it(self, seed: int) -> None:
        problem, _ = burst(np.random.default_rng(100 + seed))
        best = cheapest(problem)
        bound = lower_bound(problem)
        assert bound.instance_s >= 60.0 - 1e-9
        if best is not None:
            assert bound.instance_s <= best.instance_s + 1e-9

    def test_sees_that_one_instance_is_not_enough(self) -> None:
        # 1.5 s of work a second, all the time: two instances, but for the ends of the window.
        problem, _ = workload_of(np.arange(105) / 1.5)
        bound = lower_bound(problem)
        assert 100.0 < bound.instance_s <= 120.0
        best = cheapest(problem)
        assert best is not None
        assert bound.instance_s <= best.instance_s

    def test_a_short_burst_costs_a_cold_start(self) -> None:
        # Four seconds of work at once, in two and a half: another instance, for a moment.
        cluster = replace(CLUSTER, slo=SloConfig(ttft_s=2.4, tpot_s=0.1))
        problem, _ = workload_of([45.0] * 4, cluster=cluster)
        problem = replace(problem, interval_s=1.0)
        targets = np.ones(60, np.int64)
        targets[14:36] = 2
        outcome = play(problem, (targets,))
        assert outcome.violations == 0
        assert 70.0 < lower_bound(problem).instance_s <= outcome.instance_s < 84.0

    def test_dropping_lowers_it(self) -> None:
        bounds = [
            lower_bound(workload_of(np.arange(105) / 1.5, target=target)[0]).instance_s
            for target in (1.0, 0.9, 0.5, 0.0)
        ]
        assert bounds == sorted(bounds, reverse=True)
        assert bounds[0] > bounds[-1] == pytest.approx(60.0)

    def test_infinite_if_no_policy_can_meet_the_target(self) -> None:
        # 5,000 tokens take five seconds, three are allowed.
        problem, _ = workload_of([12.0, 30.0], prompt=[5000, 10], target=0.9)
        assert lower_bound(problem).instance_s == np.inf
        assert not best_static(problem, lower_bound(problem)).meets

    @pytest.mark.parametrize("router", ["least-requests", "random", "preserve"])
    @pytest.mark.parametrize("make", [Hpa, Reactive])
    def test_policies_cost_more(self, router: str, make: Any) -> None:
        rng = np.random.default_rng(1)
        _, workload = workload_of(rng.uniform(0.0, 70.0, 90), rng.integers(10, 1500, 90))
        policy = make(CLUSTER, PROFILE, router=router)
        env = gym.make(
            "preserve/Autoscale-v0",
            cluster=CLUSTER,
            workload=workload,
            router=router,
            interval_s=policy.interval_s,
            obs_mode="dict",
            action_mode="target",
        )
        observation, _ = env.reset(seed=0)
        state, ended = None, False
        while not ended:
            action, state = policy.predict(observation, state)
            observation, _, _, ended, _ = env.step(action)
        base: Any = env.unwrapped
        instance_s = base.episode_totals()["instance_s"]
        attainment = 1.0 - base.results()["violated_s"].notna().mean()
        problem = Problem(CLUSTER, (workload.episode_at(10.0),), attainment)
        assert lower_bound(problem).instance_s <= instance_s


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": 1.2}, r"^target: expected a share in \[0, 1\], got 1.2$"),
        ({"target": float("nan")}, "^target: expected a share"),
        ({"interval_s": 0.0}, "^interval_s: expected a finite number > 0, got 0.0$"),
    ],
)
def test_bad_problems(values: dict[str, Any], message: str) -> None:
    _, workload = workload_of([12.0])
    with pytest.raises(InputError, match=message):
        Problem(CLUSTER, (workload.episode_at(10.0),), **values)


def test_windows_without_requests() -> None:
    _, workload = workload_of([1.0, 11.0])
    quiet = replace(workload.episode_at(10.0), trace=workload.trace.take(slice(0, 1)))
    with pytest.raises(InputError, match=r"^episodes: expected at least one request in their scored parts"):
        Problem(CLUSTER, (quiet,))


class TestWork:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("kind", ["seats", "memory", "deadline"])
    def test_instances_are_busy_for_longer(self, kind: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        law = LatencyLaw(0.02, 1e-5, 2e-6, 1e-9, knee_tokens=64, per_token_beyond_knee_s=1e-4)
        limits: dict[str, Any] = {
            # Each rule where it says most.
            "seats": {"max_num_seqs": 4, "num_gpu_blocks": 5000},
            "memory": {"num_gpu_blocks": 130, "max_model_len": 2000},
            "deadline": {"num_gpu_blocks": 5000},
        }[kind]
        instance = InstanceConfig(latency=law, cold_start_s=20.0, **limits)
        slo = SloConfig(ttft_s=5.0, tpot_s=0.06 if kind == "deadline" else 0.2)
        cluster = ClusterConfig(instance=instance, slo=slo, max_instances=3)
        n = int(rng.integers(50, 400))
        _, workload = workload_of(
            rng.uniform(10.0, 69.0, n), rng.integers(1, 600, n), rng.integers(1, 200, n), cluster
        )
        episode = workload.episode_at(10.0)
        served = Cluster(cluster, episode.trace, initial_instances=2)
        # Long after, so that all is done.
        served.run_until(10_000.0)
        results = served.results()
        assert results["completed_s"].notna().all()
        complied = results.loc[results["violated_s"].isna(), "arrival_s"].to_numpy()
        assert len(complied) > 10
        busy_s = served.totals()["busy_s"]
        shares = []
        for work in works(cluster, episode):
            of_complied = np.isin(work.arrival_s, complied)
            # Whoever has complied could.
            assert of_complied.sum() == len(complied)
            shares.append(float(work.total_s[of_complied].sum()) / busy_s)
        assert 0.05 < max(shares) <= 1.0

    def test_is_all_there_is_where_a_rule_fits(self) -> None:
        law = LatencyLaw(0.02, 1e-5, 1e-9, 0.0)
        loose = SloConfig(ttft_s=1000.0, tpot_s=None)
        # Forty alike at once: four at a time; as many as fit into the memory; all, just in time.
        for limits, output in (
            ({"max_num_seqs": 4, "num_gpu_blocks": 5000}, 101),
            ({"num_gpu_blocks": 1 + 40, "max_model_len": 200}, 17),
            ({"num_gpu_blocks": 5000}, 101),
        ):
            instance = InstanceConfig(latency=law, cold_start_s=20.0, **limits)
            cluster = ClusterConfig(instance=instance, slo=loose, max_instances=1)
            problem, _ = workload_of(np.full(40, 20.0), 1 if output > 17 else 144, output, cluster)
            served = Cluster(cluster, problem.episodes[0].trace)
            served.run_until(10_000.0)
            slowest_s = float((served.results()["completed_s"] - 20.0).max())
            slo = SloConfig(None, tpot_s=None, normalized_latency_s=slowest_s / output + 1e-9)
            episode = problem.episodes[0]
            found = [work.total_s.sum() for work in works(replace(cluster, slo=slo), episode)]
            assert 0.85 < max(found) / served.totals()["busy_s"] <= 1.0 + 1e-6
