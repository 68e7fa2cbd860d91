"""Workloads: episodes on the trace's clock, and nothing in them that depends on the choice of episode."""

from __future__ import annotations

import numpy as np
import pytest

from preserve_gym import ClusterConfig, InputError, SloConfig, Trace, Workload, WorkloadConfig
from preserve_gym.sim.profile import profile_instance
from preserve_gym.traces import synthetic_trace


@pytest.fixture(scope="module")
def trace() -> Trace:
    return synthetic_trace("chat", duration_s=7200.0, mean_rate_rps=4.0)


def test_an_episode_is_the_stretch_that_was_asked_for(trace: Trace) -> None:
    config = WorkloadConfig(start_s=1000.0, warmup_s=100.0, horizon_s=500.0)
    workload = Workload(config, trace)
    episode = workload.episode(np.random.default_rng(0))
    rows = trace.row_range(900.0, 1500.0)
    np.testing.assert_array_equal(episode.trace.arrival_s, trace.arrival_s[rows])
    np.testing.assert_array_equal(episode.predicted_tokens, workload.predicted_tokens[rows])
    assert (episode.start_s, episode.warmup_s, episode.horizon_s) == (1000.0, 100.0, 500.0)


def test_an_episode_keeps_the_classes_of_its_requests(trace: Trace) -> None:
    classes = np.arange(len(trace)) % 3
    classed = Trace(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, classes)
    config = WorkloadConfig(start_s=1000.0, warmup_s=100.0, horizon_s=500.0)
    episode = Workload(config, classed).episode(np.random.default_rng(0))
    np.testing.assert_array_equal(episode.trace.request_class, classes[trace.row_range(900.0, 1500.0)])
    assert Workload(config, trace).episode(np.random.default_rng(0)).trace.request_class is None


def test_without_a_horizon_it_goes_to_the_end(trace: Trace) -> None:
    workload = Workload(WorkloadConfig(start_s=1000.0, horizon_s=None), trace)
    episode = workload.episode(np.random.default_rng(0))
    assert episode.start_s + episode.horizon_s == trace.span_s


@pytest.mark.parametrize("start_s", [300.0, 300.3, 1 / 3 + 400.0])
@pytest.mark.parametrize("last_s", [3000.0, 3599.9, 2e7 + 0.7])
def test_without_a_horizon_the_last_request_belongs_to_it(start_s: float, last_s: float) -> None:
    trace = Trace([1000.0, last_s, last_s], [1] * 3, [1] * 3)
    workload = Workload(WorkloadConfig(start_s=start_s, horizon_s=None, forecaster="naive"), trace)
    episode = workload.episode(np.random.default_rng(0))
    assert episode.start_s == start_s
    assert last_s < start_s + episode.horizon_s < last_s + 1e-6
    assert len(episode.trace) == 3


def test_starts_are_drawn_over_the_whole_trace(trace: Trace) -> None:
    workload = Workload(WorkloadConfig(horizon_s=600.0), trace)
    rng = np.random.default_rng(0)
    starts = np.array([workload.episode(rng).start_s for _ in range(2000)])
    assert (starts >= 300.0).all()
    assert (starts + 600.0 <= trace.span_s).all()
    assert np.quantile(starts, [0.01, 0.5, 0.99]) == pytest.approx([363, 3450, 6537], abs=150)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (WorkloadConfig(horizon_s=7000.0), "at least warmup_s 300 plus horizon_s 7000$"),
        (WorkloadConfig(start_s=7000.0, horizon_s=600.0), "plus horizon_s 600 with .* from start_s 7000 on"),
        (WorkloadConfig(warmup_s=7200.0, horizon_s=None), "more than warmup_s 7200$"),
        (WorkloadConfig(warmup_s=7200.0, start_s=7200.0, horizon_s=None), "more than warmup_s 7200$"),
    ],
)
def test_a_trace_that_is_too_short_is_refused(trace: Trace, config: WorkloadConfig, expected: str) -> None:
    with pytest.raises(InputError, match=f"has 7200 s and .* requests, expected .*{expected}"):
        Workload(config, trace)


def test_arrivals_are_counted_in_half_open_spans() -> None:
    trace = Trace([0.0, 1.0, 1.0, 2.0, 700.0], [1, 10, 100, 1000, 1], [2, 20, 200, 2000, 1])
    workload = Workload(WorkloadConfig(warmup_s=0.0, horizon_s=5.0, predictor="oracle"), trace)
    counted = workload.arrived(2.0, np.array([1.0, 2.0, 10.0]))
    np.testing.assert_array_equal(counted, [[2, 3, 3], [110, 111, 111], [220, 222, 222]])
    # Output tokens are predicted ones: the true ones nobody knows yet.
    workload = Workload(WorkloadConfig(warmup_s=0.0, horizon_s=5.0), trace)
    assert workload.arrived(2.0, np.array([10.0]))[2] == workload.predicted_tokens[:3].sum() != 222


def test_forecast_windows_lie_on_the_clock_of_the_trace(trace: Trace) -> None:
    workload = Workload(WorkloadConfig(forecaster="oracle", horizon_s=600.0), trace)
    prompt, output = trace.window_tokens(600.0)
    for time_s, window, elapsed in ((0.0, 0, 0.0), (599.0, 0, 599 / 600), (600.0, 1, 0.0), (1500.0, 2, 0.5)):
        forecast_prompt, forecast_output, share = workload.forecast_at(time_s)
        np.testing.assert_array_equal(forecast_prompt, prompt[window : window + 3])
        np.testing.assert_array_equal(forecast_output, output[window : window + 3])
        assert share == pytest.approx(elapsed, abs=1e-9)


def test_a_profile_is_the_load_that_one_instance_just_serves(trace: Trace) -> None:
    cluster = ClusterConfig()
    profile = profile_instance(cluster, trace.prompt_tokens, trace.output_tokens)
    assert profile.unloaded_attainment == 1.0
    mean_prompt = profile.prompt_tokens_per_s / profile.requests_per_s
    assert mean_prompt == pytest.approx(trace.prompt_tokens.mean(), rel=0.1)
    assert profile.total_tokens_per_s == profile.prompt_tokens_per_s + profile.output_tokens_per_s
    assert float(profile.need(profile.prompt_tokens_per_s, 0.0)) == pytest.approx(1.0)
    # A stricter SLO and a stricter attainment both leave less.
    stricter = profile_instance(
        ClusterConfig(slo=SloConfig(0.5, 0.0, 0.1)), trace.prompt_tokens, trace.output_tokens
    )
    surer = profile_instance(cluster, trace.prompt_tokens, trace.output_tokens, attainment=0.999)
    assert stricter.requests_per_s < profile.requests_per_s
    assert surer.requests_per_s < profile.requests_per_s
    again = profile_instance(cluster, trace.prompt_tokens, trace.output_tokens)
    assert again == profile


def test_a_profile_where_some_can_never_be_in_time() -> None:
    # A tenth of the prompts takes longer than the deadline even alone.
    rng = np.random.default_rng(0)
    prompt = np.where(rng.random(5000) < 0.1, 30_000, 100)
    profile = profile_instance(ClusterConfig(), prompt, np.full(5000, 10))
    assert profile.unloaded_attainment == pytest.approx(0.9, abs=0.03)
    assert 0.01 < profile.requests_per_s < 1.0


def test_a_profile_clips_what_the_cluster_clips() -> None:
    rng = np.random.default_rng(0)
    prompt = np.where(rng.random(5000) < 0.3, 100_000, 100)
    output = np.full(5000, 10)
    clips = ClusterConfig(too_long="clip_prompt", slo=SloConfig(20.0, 0.0, 0.5))
    profile = profile_instance(clips, prompt, output)
    longest = clips.instance.max_request_tokens - 10
    assert profile == profile_instance(clips, np.minimum(prompt, longest), output)
    leaves_out = profile_instance(ClusterConfig(slo=clips.slo), prompt, output)
    assert leaves_out.requests_per_s > 3 * profile.requests_per_s


def test_a_profile_needs_requests_that_fit() -> None:
    with pytest.raises(InputError, match="no request of the workload fits"):
        profile_instance(ClusterConfig(), np.array([100_000]), np.array([10]))


def test_other_predictions_of_the_same_traffic(trace: Trace) -> None:
    workload = Workload(WorkloadConfig(horizon_s=600.0), trace)
    other = workload.with_predictions("oracle", "mean")
    expected = Workload(WorkloadConfig(horizon_s=600.0, forecaster="oracle", predictor="mean"), trace)
    assert other.config == expected.config
    assert other.trace is workload.trace
    np.testing.assert_array_equal(other.predicted_tokens, expected.predicted_tokens)
    np.testing.assert_array_equal(other.forecast.output_tokens, expected.forecast.output_tokens)
    for name, column in expected.columns().items():
        np.testing.assert_array_equal(other.columns()[name], column)
    assert (workload.predicted_tokens != other.predicted_tokens).any(), "the first one is as it was"
    assert workload.config.forecaster == "profile-ar"
    assert workload.with_predictions() is workload
    with pytest.raises(InputError, match="length predictor: expected one of"):
        workload.with_predictions(predictor="psychic")


@pytest.mark.parametrize(
    ("slo", "message"),
    [
        (SloConfig(1e-3, 0.0, None), "cannot serve the workload within the SLO at any rate"),
        (SloConfig(1e6, 0.0, None), "serves the workload within the SLO at any rate"),
    ],
)
def test_a_profile_needs_deadlines_that_load_makes_it_miss(slo: SloConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        profile_instance(ClusterConfig(slo=slo), np.array([500]), np.array([10]), requests=200)
