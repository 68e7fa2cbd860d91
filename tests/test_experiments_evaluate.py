"""A cell of an experiment: the environment and the predictions that a policy asks for."""

from __future__ import annotations

from experiments.evaluate import Cell, Setting, run_cell
from preserve_gym import ClusterConfig, Workload, WorkloadConfig


def test_forecasts_that_fell_back_are_counted() -> None:
    workload = WorkloadConfig(start_s=3600.0, horizon_s=600.0, forecaster="seasonal-naive-week")
    setting = Setting(ClusterConfig(max_instances=4), workload)
    result = run_cell(setting, Cell("preserve", 0))
    assert result.summary["forecast_fallbacks"] == Workload(workload).forecast.fallbacks > 0
    assert run_cell(setting, Cell("preserve-oracle", 0)).summary["forecast_fallbacks"] == 0


def test_a_policy_gets_its_interval_and_its_map() -> None:
    setting = Setting(ClusterConfig(max_instances=4), WorkloadConfig(start_s=3600.0, horizon_s=600.0))
    result = run_cell(setting, Cell("preserve-artifact-no-predictions", 0))
    assert len(result.intervals) == 120
    assert result.parameters["anticipator"] == {
        "variant": "artifact",
        "look_ahead": 200,
        "overload_use": 0.95,
    }
    assert (result.parameters["forecaster"], result.parameters["predictor"]) == ("naive", "mean")
    # Before the first decision, too, nothing but the last window is known.
    plain = run_cell(setting, Cell("preserve-artifact", 0))
    assert (result.intervals["forecast_load"] != plain.intervals["forecast_load"]).any()
    assert (result.requests["arrival_s"] == plain.requests["arrival_s"]).all()
