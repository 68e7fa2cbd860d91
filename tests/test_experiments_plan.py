"""``python -m experiments.plan``: what it finds, on which traffic, and what it says if nothing is enough."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines import make_fitted_policy
from experiments import plan_case, tune_points
from experiments.plan import main
from experiments.plan_case import Case, Traffic, what_prevents
from experiments.totals import play_totals
from preserve_gym import ClusterConfig, InstanceConfig, SloConfig, Trace, simulate
from preserve_gym.scenarios import load_scenario
from preserve_gym.traces import synthetic_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half an hour of a small service."""
    made = synthetic_trace("chat", duration_s=1800.0, mean_rate_rps=12.0)
    columns = {name: getattr(made, name) for name in ("arrival_s", "prompt_tokens", "output_tokens")}
    path = tmp_path_factory.mktemp("trace") / "half-hour.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def plan(folder: Path, *words: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The tables and the text of a plan."""
    assert main([*words, "--out", str(folder)]) == 0
    tables = [pd.read_csv(folder / f"{name}.csv") for name in ("plan", "settings")]
    return tables[0], tables[1], (folder / "plan.txt").read_text(encoding="utf-8")


def test_the_fewest_instances_and_the_cheapest_settings(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--trace", str(trace), "--slo-ttft", "1", "--slo-tpot", "0.05", "--policies", "rate", "corr")
    found, settings, text = plan(tmp_path / "plan", *words, "--hindsight", "0", "--usd-per-gpu-hour", "2.5")
    assert capsys.readouterr().out == f"{text}\nResults: {tmp_path / 'plan'}\n"
    assert found["policy"].tolist() == ["static", "rate", "corr", "hindsight"]
    rows = found.set_index("policy")

    static = settings[settings["policy"] == "static"]
    size = len(static)
    assert static["setting"].tolist() == [f"instances={n}" for n in range(1, size + 1)]
    assert static["attainment"].iloc[-1] >= 0.99 > static["attainment"].iloc[:-1].max()
    assert rows.loc["static", ["instances", "peak_instances"]].tolist() == [size, size]
    # As a policy in the environment, and as a schedule outside of it.
    assert rows.loc["static", "attainment"] == pytest.approx(static["attainment"].iloc[-1], abs=1e-6)
    assert f"rtx-4090: {size} instances as a static fleet meet it ({size - 1} would serve" in text

    for policy in ("rate", "corr"):
        own = settings[settings["policy"] == policy]
        able = own[own["attainment"] >= 0.99].sort_values("gpu_hours")
        assert len(own) == 16
        assert own.loc[own["chosen"], "setting"].tolist() == [able["setting"].iloc[0]]
        assert rows.loc[policy, "gpu_hours"] == pytest.approx(able["gpu_hours"].iloc[0], rel=1e-4)
        assert rows.loc[policy, "attainment"] == pytest.approx(able["attainment"].iloc[0], abs=1e-5)
    assert rows["meets"].all()
    assert rows["gpu_hours"].idxmin() == "hindsight"
    np.testing.assert_allclose(rows["cost_usd"], 2.5 * rows["gpu_hours"], rtol=1e-4)
    np.testing.assert_allclose(
        rows["of_static"], rows["gpu_hours"] / rows.loc["static", "gpu_hours"], rtol=1e-4
    )
    np.testing.assert_allclose(rows["gpus"], rows["gpu_hours"] / rows["hours"], rtol=1e-4)
    best = rows.loc[["rate", "corr"]].sort_values("gpu_hours").iloc[0]
    said = " ".join(text.split())
    assert f"Under {best.name} ({best['setting']}) it takes {best['gpus']:.1f} GPUs on average, " in said
    assert f"{100 * (1.0 - best['of_static']):.0f} % less than the static fleet, if GPUs are" in said
    assert "very traffic that they are measured on, which is optimistic" in said
    assert {path.name for path in (tmp_path / "plan").iterdir()} == {
        *("plan.csv", "settings.csv", "plan.txt", "plan.png", "plan.svg", "config.yaml")
    }
    assert str(trace.parent) not in (tmp_path / "plan" / "config.yaml").read_text()


def test_chosen_on_validation_and_measured_on_test(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        f"workload:\n  trace: {trace}\n  split_s: [700, 1200]\n  split_gap_s: 0\n"
        "  warmup_s: 30\n  horizon_s: 230\ncluster:\n  max_instances: 6\n"
    )
    found, settings, text = plan(tmp_path / "plan", "--scenario", str(path), "--policies", "corr")
    scenario = load_scenario(path)
    chosen = settings[(settings["policy"] == "corr") & settings["chosen"]].iloc[0]
    headroom = float(chosen["setting"].removeprefix("headroom="))
    totals = {}
    for split in ("validation", "test"):
        workload = scenario.make_workload(split)  # type: ignore[arg-type]
        policy = make_fitted_policy("corr", scenario.cluster, workload, headroom=headroom)
        totals[split] = play_totals(workload, policy)
    assert chosen["attainment"] == pytest.approx(totals["validation"].attainment, abs=1e-5)
    corr = found[found["policy"] == "corr"].iloc[0]
    assert corr["chosen_attainment"] == pytest.approx(totals["validation"].attainment, abs=1e-5)
    assert corr["attainment"] == pytest.approx(totals["test"].attainment, abs=1e-5)
    assert corr["gpu_hours"] == pytest.approx(totals["test"].gpu_hours, rel=1e-4)
    assert totals["test"] != totals["validation"]
    static = found[found["policy"] == "static"].iloc[0]
    assert min(static["attainment"], static["chosen_attainment"]) >= 0.99
    assert "chosen on the validation windows, and all is measured on the test windows" in text


def test_a_long_trace_is_chosen_on_its_first_half(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic.of_trace(str(trace), 1.0, 1.0)
    assert not traffic.is_split
    assert traffic.workload(measured=True) is traffic.workload(measured=False)
    monkeypatch.setattr(plan_case, "LONG_S", 1700.0)
    traffic = Traffic.of_trace(str(trace), 1.0, 1.0)
    assert traffic.is_split
    chosen, measured = (traffic.workload(measured=part) for part in (False, True))
    (first,), (second,) = (
        [part.episode_at(float(start_s)) for start_s in part.evaluation_windows]
        for part in (chosen, measured)
    )
    assert first.start_s == 300.0
    assert first.start_s + first.horizon_s == pytest.approx(900.0, abs=1.0)
    assert second.start_s == pytest.approx(1201.0, abs=1.0)
    assert second.start_s - second.warmup_s > first.trace.arrival_s[-1]
    assert second.start_s + second.horizon_s == pytest.approx(chosen.trace.span_s, abs=1e-6)


def case_of(trace: Path, slo: SloConfig) -> Case:
    cluster = ClusterConfig(instance=InstanceConfig.from_preset("llama-3.1-8b", "h100"), slo=slo)
    return Case("h100", Traffic.of_trace(str(trace), 1.0, 1.0), cluster, 0.99)


def test_what_prevents_it(trace: Path) -> None:
    assert what_prevents(case_of(trace, SloConfig(1.0, tpot_s=0.05))) is None
    said = what_prevents(case_of(trace, SloConfig(0.02, tpot_s=0.05)))
    assert said is not None
    figures = re.search(r"only ([\d.]+) % .* first token after ([\d.]+) s, of a prompt of ([\d,]+) tok", said)
    assert figures is not None
    share, first_s, prompt = float(figures[1]), float(figures[2]), int(figures[3].replace(",", ""))
    alone = simulate(Trace([0.0], [prompt], [20]), case_of(trace, SloConfig()).cluster)
    assert first_s == pytest.approx(alone.summary()["ttft_p99_s"], abs=5e-5)
    assert first_s > 0.02
    assert 0.0 < share < 99.0
    said = what_prevents(case_of(trace, SloConfig(1.0, tpot_s=0.004)))
    assert said is not None
    assert re.search(r"the others take [\d.]+ ms per token \(SLO 4 ms\)", said)
    tight = case_of(trace, SloConfig(1.0, tpot_s=0.05))
    small = replace(tight.cluster.instance, max_model_len=200)
    said = what_prevents(replace(tight, cluster=replace(tight.cluster, instance=small)))
    assert said is not None
    assert re.search(r"; [\d,]+ are longer than an instance holds$", said)


def test_what_cannot_be_met_is_said(trace: Path, tmp_path: Path) -> None:
    words = ("--trace", str(trace), "--policies", "rate")
    found, settings, text = plan(tmp_path / "alone", *words, "--gpu", "l40s", "h100", "--slo-ttft", "0.01")
    assert found.empty
    assert settings.empty
    assert text.count("no number of instances meets it: of 2,000 requests") == 2
    found, settings, text = plan(tmp_path / "few", *words, "--slo-tpot", "0.05", "--max-instances", "2")
    assert found.empty
    assert settings["setting"].tolist() == ["instances=1", "instances=2"]
    reached = 100 * settings["attainment"].iloc[1]
    assert f"the largest fleet, 2 instances, serves {reached:.2f} % within the SLO" in text
    assert not (tmp_path / "few" / "plan.png").exists()


def test_gpus_are_compared(trace: Path, tmp_path: Path) -> None:
    words = ("--trace", str(trace), "--policies", "reactive", "--rate-scale", "3")
    found, _, text = plan(
        tmp_path / "plan", *words, "--gpu", "rtx-4090", "h100", "--usd-per-gpu-hour", "1", "9"
    )
    assert found["cluster"].tolist() == ["rtx-4090", "rtx-4090", "h100", "h100"]
    np.testing.assert_allclose(found["cost_usd"] / found["gpu_hours"], [1, 1, 9, 9], rtol=1e-4)
    static = found[found["policy"] == "static"].set_index("cluster")["instances"]
    assert static["h100"] < static["rtx-4090"]
    best = found[found["meets"]].sort_values("cost_usd").iloc[0]
    assert (
        f"Cheapest of all: {best['policy']} on {best['cluster']}, {best['gpu_hours']:.1f} GPU-hours" in text
    )


def test_a_policy_that_fails_is_reported(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(tune_points, "play_totals", fail)
    folder = tmp_path / "plan"
    assert main(["--trace", str(trace), "--policies", "rate", "--out", str(folder)]) == 1
    assert capsys.readouterr().err.endswith("error: rtx-4090, rate: ZeroDivisionError: by nothing\n")
    assert pd.read_csv(folder / "plan.csv")["policy"].tolist() == ["static"]


@pytest.mark.slow
def test_processes_make_no_difference(trace: Path, tmp_path: Path) -> None:
    words = ("--trace", str(trace), "--policies", "rate")
    texts = [plan(tmp_path / jobs, *words, "--jobs", jobs)[2] for jobs in ("1", "2")]
    assert texts[0] == texts[1]
    traffic = Traffic.of_trace(str(trace), 1.0, 1.0)
    assert hash(pickle.loads(pickle.dumps(traffic))) == hash(traffic)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one of --trace and --scenario"),
        (["--trace", "t", "--scenario", "chat"], "expected one of --trace and --scenario"),
        (["--trace", "no-such.csv"], "no-such.csv"),
        (["--scenario", "chatt"], "did you mean chat"),
        (["--trace", "t", "--attainment", "99"], r"--attainment: expected a share in \(0, 1\], got 99"),
        (["--trace", "t", "--slo-ttft", "0"], "--slo-ttft: expected a finite number > 0, got 0.0"),
        (["--trace", "t", "--slo-tpot", "nan"], "--slo-tpot: expected a finite number > 0, got nan"),
        (["--trace", "t", "--rate-scale", "-1"], "--rate-scale: expected a finite number > 0"),
        (["--scenario", "chat", "--rate-scale", "2"], "--rate-scale, --service-scale: expected --trace"),
        (["--trace", "t", "--jobs", "0"], r"--jobs: expected an integer in \[1, 256\], got 0"),
        (["--trace", "t", "--hindsight", "-1"], "--hindsight: expected an integer in"),
        (["--trace", "t", "--instance", "i.yaml", "--gpu", "h100"], "--instance: expected none of --model"),
        (["--trace", "t", "--gpu", "h100", "h100"], "--gpu: expected each once"),
        (["--trace", "synthetic-chat", "--gpu", "h1000"], "h1000"),
        (["--trace", "t", "--gpu", "h100", "--usd-per-gpu-hour", "1", "2"], "expected 1, one for each GPU"),
        (["--trace", "t", "--policies", "preserv"], "--policies: expected some of .*did you mean preserve"),
        (["--trace", "t", "--policies", "static-4"], r"'static-4' \(static fleets are tried in any case\)"),
        (["--trace", "t", "--policies", "hindsight"], "--policies: expected some of .*got 'hindsight'"),
        (["--trace", "t", "--policies", "rate", "rate"], "--policies: expected each once"),
        (["--trace", "t", "--policies", "none.py:Mine"], "none.py"),
    ],
)  # fmt: skip
def test_bad_arguments(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
