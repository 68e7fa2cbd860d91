"""Autoscalers that know the instance, the forecast or the day, on cases computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from baselines import (
    Corr,
    DynamoSla,
    ForecastHeadroom,
    Rate,
    TimeOfDay,
    VariantAutoscaler,
    make_fitted_policy,
    make_policy,
)
from baselines.instance_speed import InstanceSpeed, SloTargets, slo_targets
from baselines.simple import daily_schedule
from baselines.variant_autoscaler import ReplicaModel, replica_model
from preserve_gym import (
    ClusterConfig,
    InputError,
    InstanceConfig,
    LatencyLaw,
    SloConfig,
    Trace,
    Workload,
    WorkloadConfig,
)
from tests.baseline_observations import CLUSTER, PROFILE, forecast, observe

LAW = LatencyLaw(base_s=0.02, per_token_s=0.001, per_context_token_s=0.0, per_quad_s=0.0)
PLAIN = ClusterConfig(
    instance=InstanceConfig(LAW, num_gpu_blocks=1001, max_num_seqs=40, max_num_batched_tokens=1000),
    slo=SloConfig(ttft_s=2.0, tpot_s=0.05),
    max_instances=16,
)
"""An iteration of n tokens takes 20 + n ms, whatever the context; 40 requests and 16,000 tokens fit."""


class TestInstanceSpeed:
    def test_prefill_in_chunks(self) -> None:
        speed = InstanceSpeed(PLAIN)
        assert speed.prefill_s(100) == pytest.approx(0.12)
        assert speed.prefill_s(1500) == pytest.approx(1.02 + 0.52)

    def test_attention_of_a_chunk_counts_what_was_read_before(self) -> None:
        law = replace(LAW, per_quad_s=1e-6)
        speed = InstanceSpeed(replace(PLAIN, instance=replace(PLAIN.instance, latency=law)))
        # All pairs of 1,500 tokens: 1,500²/2, however they are cut.
        assert speed.prefill_s(1500) == pytest.approx(1.54 + 1e-6 * 1500**2 / 2)

    def test_batch_is_what_fits(self) -> None:
        speed = InstanceSpeed(PLAIN)
        assert speed.largest_batch(100) == 40
        assert speed.largest_batch(1000) == 16
        assert speed.largest_batch(1e6) == 1

    def test_throughput_of_the_largest_batch_in_time(self) -> None:
        speed = InstanceSpeed(PLAIN)
        assert speed.decode_throughput(0.05, 100) == pytest.approx(30 / 0.05)
        assert speed.decode_throughput(1.0, 100) == pytest.approx(40 / 0.06)
        assert speed.decode_throughput(0.001, 100) == pytest.approx(1 / 0.021)

    def test_targets(self) -> None:
        assert slo_targets(PLAIN, 100, 10) == SloTargets(2.0, 0.05)
        slo = SloConfig(ttft_s=1.0, ttft_per_prompt_token_s=0.01, tpot_s=None, normalized_latency_s=0.25)
        assert slo_targets(replace(PLAIN, slo=slo), 100, 10) == SloTargets(2.0, 0.25)
        only = SloConfig(ttft_s=None, tpot_s=None, normalized_latency_s=0.25)
        assert slo_targets(replace(PLAIN, slo=only), 100, 10) == SloTargets(2.5, 0.25)


class TestDynamoSla:
    # 10 requests of 100 and 50 tokens a second: prefill 1,000 * 0.12/100 = 1.2 instances.
    LOOK: dict[str, Any] = {  # noqa: RUF012
        "ready": 2,
        "running": [10, 10],
        "arrived": 1800.0,
        "prompt_tokens": 180_000.0,
        "predicted_tokens": 90_000.0,
        "mean_ttft_s": 0.12,
        "mean_tpot_s": 0.03,
    }

    @pytest.mark.parametrize(
        ("measured", "wanted"),
        [
            ({}, 3),  # decode 500/600 = 0.83
            ({"mean_ttft_s": 0.06}, 2),  # half the prefill: 0.6 + 0.83
            ({"mean_ttft_s": 60.0}, 3),  # never more
            ({"mean_tpot_s": 0.06}, 4),  # ITL twice that of a batch of 10: aims at 25 ms, 500/200 = 2.5
            ({"mean_tpot_s": 0.3}, 12),  # aims at 5 ms: a batch of 1, 500/47.6 = 10.5
            ({"mean_tpot_s": 0.0}, 3),
            ({"running": [40, 40], "mean_tpot_s": 0.06}, 3),  # as expected of a batch of 40
        ],
    )
    def test_law(self, measured: dict[str, float], wanted: int) -> None:
        policy = DynamoSla(PLAIN, PROFILE, load_predictor="constant")
        assert policy.decide(observe(**self.LOOK | measured), None) == wanted

    def test_headroom_is_on_both(self) -> None:
        policy = DynamoSla(PLAIN, PROFILE, load_predictor="constant", headroom=1.5)
        assert policy.decide(observe(**self.LOOK), None) == 4  # 3.05

    def test_load_of_the_forecast(self) -> None:
        policy = DynamoSla(PLAIN, PROFILE)
        # Twice the load in the next window, which the interval reaches from 420 s on.
        tokens = {
            "forecast_prompt_tokens": 600e3 * np.array([1, 2, 9]),
            "forecast_output_tokens": np.zeros(3),
        }
        assert policy.decide(observe(**self.LOOK, **tokens, time_s=600.0 + 419.0), None) == 2
        assert policy.decide(observe(**self.LOOK, **tokens, time_s=600.0 + 420.0), None) == 3

    def test_no_request_asks_for_the_minimum(self) -> None:
        assert DynamoSla(PLAIN, PROFILE).decide(observe(ready=3, **forecast(2, 2, 2)), None) == 1

    def test_unknown_predictor(self) -> None:
        with pytest.raises(
            InputError, match=r"^DynamoSla.load_predictor: expected one of forecast, constant, got"
        ):
            DynamoSla(PLAIN, PROFILE, load_predictor="prophet")  # type: ignore[arg-type]


class TestReplicaModel:
    def test_one_at_a_time_is_m_m_1_k(self) -> None:
        model = ReplicaModel(alpha_s=0.1, beta_s=0.0, gamma_s=0.5, delta_s=0.0, decoded=5.0, batch=1)
        assert model.fastest == 1.0
        chances = [0.5**n for n in range(12)]
        total = sum(chances)
        waiting = sum((n - 1) * p for n, p in enumerate(chances) if n) / total
        accepted = 0.5 * (1.0 - chances[-1] / total)
        assert model.latencies(0.5).ttft_s == pytest.approx(waiting / accepted + 0.5)
        assert model.latencies(0.5).itl_s == pytest.approx(0.1)

    def test_service_that_a_batch_does_not_slow_is_m_m_c(self) -> None:
        model = ReplicaModel(alpha_s=1.0, beta_s=0.0, gamma_s=0.0, delta_s=0.0, decoded=1.0, batch=4)
        # Erlang C of 4 servers under a load of 2 is 0.17391; its queue here has room for 40.
        assert model.latencies(2.0).ttft_s == pytest.approx(0.17391 / 2.0, rel=1e-4)

    def test_batch_slows_its_tokens(self) -> None:
        model = ReplicaModel(alpha_s=0.02, beta_s=0.001, gamma_s=0.0, delta_s=0.0, decoded=10.0, batch=40)
        nearly_none, full = model.latencies(1e-6), model.latencies(0.999 * model.fastest)
        assert nearly_none.itl_s == pytest.approx(0.021, rel=1e-3)
        assert 0.055 < full.itl_s <= 0.06
        assert full.ttft_s > nearly_none.ttft_s

    def test_highest_rate_is_where_a_target_is_just_met(self) -> None:
        model = ReplicaModel(alpha_s=0.02, beta_s=0.001, gamma_s=0.02, delta_s=0.1, decoded=49.0, batch=40)
        for targets in (SloTargets(2.0, 0.03), SloTargets(1.0, 1.0)):
            rate = model.highest_rate(targets)
            met, missed = model.latencies(rate), model.latencies(1.001 * rate)
            assert met.ttft_s <= targets.ttft_s
            assert met.itl_s <= targets.itl_s
            assert missed.ttft_s > targets.ttft_s or missed.itl_s > targets.itl_s
        assert model.highest_rate(SloTargets(0.05, 1.0)) == 0.0
        assert model.highest_rate(SloTargets(math.inf, math.inf)) == pytest.approx(0.999 * model.fastest)

    def test_lines_of_the_law(self) -> None:
        model = replica_model(PLAIN, 100.0, 50.0)
        assert (model.alpha_s, model.beta_s) == pytest.approx((0.02, 0.001))
        assert (model.gamma_s, model.delta_s) == pytest.approx((0.02, 0.1))
        assert (model.decoded, model.batch) == (49.0, 40)


class TestVariantAutoscaler:
    def look(self, rate: float, **more: Any) -> dict[str, Any]:
        rates = {"prompt_token_rate": 100.0 * rate, "output_token_rate": 50.0 * rate}
        return {"ready": 2, "request_rate": rate, **rates, **more}

    def test_fewest_replicas_within_the_slo(self) -> None:
        policy = VariantAutoscaler(PLAIN, PROFILE)
        highest = replica_model(PLAIN, 100.0, 50.0).highest_rate(SloTargets(2.0, 0.05))
        for share, wanted in ((4.99, 5), (5.01, 6)):
            look = observe(**self.look(share * highest))
            assert policy.decide(look, policy.initial_state()) == wanted

    def test_down_after_300_s(self) -> None:
        policy = VariantAutoscaler(PLAIN, PROFILE)
        state = policy.initial_state()
        looks = [observe(**self.look(0.01), time_s=60.0 * k) for k in range(6)]
        assert [policy.decide(look, state) for look in looks] == [2] * 5 + [1]

    def test_targets_that_no_rate_meets_ask_for_all(self) -> None:
        policy = VariantAutoscaler(PLAIN, PROFILE, slo_share=0.05)
        assert policy.decide(observe(**self.look(1.0)), policy.initial_state()) == 16

    def test_a_stricter_share_asks_for_more(self) -> None:
        wanted = []
        for share in (1.0, 0.7, 0.5):
            policy = VariantAutoscaler(PLAIN, PROFILE, slo_share=share)
            wanted.append(policy.decide(observe(**self.look(20.0)), policy.initial_state()))
        assert wanted == sorted(wanted)
        assert wanted[0] < wanted[-1]


def measured(*instances: float) -> dict[str, Any]:
    """Rates over 10, 30, 60, 120 and 300 s that need so many instances, by their output tokens."""
    return {"output_token_rate": np.array(instances) * PROFILE.output_tokens_per_s}


class TestSimple:
    def test_forecast_over_the_cold_start(self) -> None:
        policy = ForecastHeadroom(CLUSTER, PROFILE)
        # 60 s of cold start reach the next window from 540 s on.
        early, late = (observe(time_s=600.0 + s, **forecast(2, 4, 6)) for s in (539.0, 540.0))
        assert (policy.decide(early, None), policy.decide(late, None)) == (3, 5)  # 2.4 and 4.8

    def test_forecast_that_ends_before_the_cold_start(self) -> None:
        policy = ForecastHeadroom(replace(CLUSTER, cold_start_s=3600.0), PROFILE, headroom=1.0)
        assert policy.decide(observe(**forecast(2, 4, 6)), None) == 6

    def test_schedule_a_cold_start_ahead(self) -> None:
        policy = TimeOfDay(CLUSTER, PROFILE, headroom=1.0, schedule=(1.0, 2.0, 3.0, 4.0))
        wanted = {0.0: 1, 21_539.0: 1, 21_540.0: 2, 21_600.0: 2, 86_340.0: 4, 86_399.0: 4, 64_740.0: 4}
        for time_s, instances in wanted.items():
            assert policy.decide(observe(time_s=time_s), None) == instances, time_s
        night = TimeOfDay(CLUSTER, PROFILE, headroom=1.0, schedule=(5.0, 2.0, 3.0, 4.0))
        assert night.decide(observe(time_s=86_340.0), None) == 5, "the next day begins"

    def test_rate_down_to_the_highest_of_180_s(self) -> None:
        policy = Rate(CLUSTER, PROFILE)
        state = policy.initial_state()
        needs = [2.0] * 3 + [1.0] * 30
        wanted = [
            policy.decide(observe(time_s=10.0 * k, **measured(9, 9, need, 9, 9)), state)
            for k, need in enumerate(needs)
        ]
        assert wanted == [3] * 20 + [2] * 13  # 2.4 until 200 s, then 1.2

    @pytest.mark.parametrize(
        ("recent", "needs", "elapsed_s", "wanted"),
        [
            (2.0, (2, 2, 2), 0.0, 2),
            (4.0, (2, 2, 2), 0.0, 4),  # 2 * 2^0.7 = 3.25
            (1.0, (2, 2, 2), 0.0, 2),  # 2 * 0.5^0.7 = 1.23
            (2.0, (2, 5, 2), 540.0, 5),  # what comes counts
            (4.0, (2, 5, 2), 540.0, 9),  # 5 * 2^0.7 = 8.12
            (3.0, (0, 5, 2), 0.0, 3),
            (0.0, (2, 2, 2), 0.0, 1),
        ],
    )
    def test_corr(self, recent: float, needs: tuple[float, ...], elapsed_s: float, wanted: int) -> None:
        policy = Corr(CLUSTER, PROFILE, headroom=1.0)
        look = observe(time_s=600.0 + elapsed_s, **forecast(*needs), **measured(9, 9, 9, recent, 9))
        assert policy.decide(look, policy.initial_state()) == wanted

    def test_corr_down_to_the_highest_of_60_s(self) -> None:
        policy = Corr(CLUSTER, PROFILE, headroom=1.0)
        state = policy.initial_state()
        looks = [
            observe(time_s=600.0 + 10 * k, **forecast(2, 2, 2), **measured(*[4.0 if k < 1 else 2.0] * 5))
            for k in range(8)
        ]
        assert [policy.decide(look, state) for look in looks] == [4] * 6 + [2] * 2

    @pytest.mark.parametrize("schedule", [(), (1.0, -1.0), [1.0], 3])
    def test_schedule_that_is_none(self, schedule: Any) -> None:
        with pytest.raises(InputError, match=r"^TimeOfDay.schedule: expected a tuple of numbers >= 0"):
            TimeOfDay(CLUSTER, PROFILE, schedule=schedule)
        with pytest.raises(InputError, match=r"^time-of-day.schedule: expected"):
            make_policy("time-of-day", CLUSTER, PROFILE)


class TestSchedule:
    def test_mean_of_the_days_by_time_of_day(self) -> None:
        # Six-hour windows from 18:00 on; the first and the fifth are the same time of day.
        schedule = daily_schedule(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 21_600.0, 64_800.0)
        assert schedule == (2.0, 3.0, 4.0, 3.0)

    def test_times_without_a_window_have_the_mean(self) -> None:
        assert daily_schedule(np.array([1.0, 3.0]), 21_600.0, 0.0) == (1.0, 3.0, 2.0, 2.0)

    def test_is_fitted_to_the_training_part(self) -> None:
        # A request a second in the first hour, ten a second in the second.
        arrival_s = np.concatenate([np.arange(0.0, 3600.0), np.arange(3600.0, 7200.0, 0.1)])
        tokens = np.full(len(arrival_s), 100, np.int32)
        trace = Trace(arrival_s=arrival_s, prompt_tokens=tokens, output_tokens=tokens, span_s=7200.0)
        config = WorkloadConfig(split="test", split_s=(3600.0, 4800.0), split_gap_s=60.0, horizon_s=600.0)
        policy = make_fitted_policy("time-of-day", CLUSTER, Workload(config, trace))
        assert isinstance(policy, TimeOfDay)
        assert len(policy.schedule) == 144
        # Nothing of the second hour, and no window of zeros behind the training part.
        assert set(policy.schedule) == {round(float(policy.profile.need(100.0, 100.0)), 4)}
