"""The command ``python -m experiments.run``, from beginning to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments import suites
from experiments.evaluate import INTERVAL_COLUMNS
from experiments.latency_histogram import Histogram
from experiments.options import Options, parse
from experiments.run import main
from experiments.run_plan import make_plan
from experiments.suites import SUITES, Suite
from preserve_gym import InputError
from preserve_gym.config import default_instance
from preserve_gym.sim import TOTALS
from preserve_gym.traces import DATASETS
from preserve_gym.traces.generated import GENERATED

ROOT = Path(__file__).parents[1]
POLICIES = ("static", "preserve")


def write_trace(path: Path, *, requests: int = 1500, span_s: float = 900.0, prompt: int = 400) -> Path:
    rng = np.random.default_rng(1)
    arrival_s = np.sort(rng.uniform(0.0, span_s, requests))
    arrival_s[-1] = span_s
    frame = pd.DataFrame(
        {
            "arrival_s": arrival_s.round(3),
            "prompt_tokens": rng.integers(prompt // 2, prompt, requests),
            "output_tokens": rng.integers(1, 200, requests),
        }
    )
    frame.to_csv(path, index=False)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """All that is compared: not how long it took."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "timings.csv"
    }


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trace(tmp_path_factory.mktemp("trace") / "tiny.csv")


@pytest.fixture(scope="module")
def run_folder(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "new" / "run"
    arguments = ["--trace", str(trace), "--policies", *POLICIES, "--save", "requests", "--out", str(out)]
    assert main([*arguments, "--jobs", "1"]) == 0
    return out


def test_the_run_folder_is_complete(run_folder: Path) -> None:
    kinds = ("requests", "intervals", "timelines")
    names = {f"{kind}/tiny/{policy}/seed0.parquet" for kind in kinds for policy in POLICIES}
    names |= {f"cells/tiny/{policy}/seed0.json" for policy in POLICIES}
    figures = ("front", "time", "latencies", "instances", "forecasts")
    names |= {f"figures/tiny-{figure}.svg" for figure in figures}
    tables = {"episodes.csv", "summary.csv", "table.txt", "report.html"}
    assert set(files(run_folder)) == names | tables | {"config.yaml", "options.yaml"}
    assert [p.name for p in run_folder.parent.iterdir()] == ["run"]
    timings = pd.read_csv(run_folder / "timings.csv")
    assert timings["policy"].tolist() == list(POLICIES)
    assert (timings["seconds"] > 0.0).all()


def test_no_request_is_lost_and_the_tables_agree(run_folder: Path, trace: Path) -> None:
    arrivals = pd.read_csv(trace)
    arrivals = arrivals[arrivals["arrival_s"] >= 300.0]
    episodes = pd.read_csv(run_folder / "episodes.csv").set_index("policy")
    summary = pd.read_csv(run_folder / "summary.csv").set_index("policy")
    for policy in POLICIES:
        requests, intervals, timeline = (
            pd.read_parquet(run_folder / kind / "tiny" / policy / "seed0.parquet")
            for kind in ("requests", "intervals", "timelines")
        )
        row = episodes.loc[policy]
        assert list(intervals.columns) == list(timeline.columns) == ["window", *INTERVAL_COLUMNS]
        # To the last: the recording ends with an arrival.
        np.testing.assert_array_equal(requests["arrival_s"], arrivals["arrival_s"])
        assert row["arrived"] == row["completed"] + row["rejected"] == len(requests)
        assert intervals["arrived"].sum() == timeline["arrived"].sum() == len(requests)
        assert intervals["violations"].sum() == row["violations"]
        assert intervals["prompt_tokens"].sum() == row["prompt_tokens"]
        assert intervals["instance_s"].sum() / 3600.0 == pytest.approx(row["gpu_hours"])
        instance = default_instance()
        assert instance.power is not None
        assert row["cost_usd"] == pytest.approx(instance.usd_per_gpu_hour * row["gpu_hours"])
        power_w = (instance.power.idle_w, instance.power.prefill_w)
        idle_kwh, most_kwh = (row["gpu_hours"] * w / 1000.0 for w in power_w)
        assert idle_kwh < row["energy_kwh"] < most_kwh
        ready = intervals[["ready", "starting"]].sum(axis=1)
        assert (ready == intervals["target"]).all()
        assert row["slo_attainment"] == 1.0 - row["violations"] / row["arrived"]
        assert summary.loc[policy, "gpu_hours"] == pytest.approx(row["gpu_hours"])


def test_a_record_has_the_targets_and_latencies_of_each_window(run_folder: Path) -> None:
    record = json.loads((run_folder / "cells" / "tiny" / "preserve" / "seed0.json").read_text())
    assert record["error"] is None
    assert record["router"] == record["parameters"]["router"] == "preserve"
    assert record["profile"]["requests_per_s"] > 0.0
    (window,) = record["windows"]
    assert (window["window"], window["start_s"]) == (0, 300.0)
    changes = window["targets"]
    intervals = pd.read_parquet(run_folder / "intervals" / "tiny" / "preserve" / "seed0.parquet")
    targets = np.repeat(
        [target for _, target in changes], np.diff([k for k, _ in changes] + [len(intervals)])
    )
    np.testing.assert_array_equal(targets, intervals["target"])
    requests = pd.read_parquet(run_folder / "requests" / "tiny" / "preserve" / "seed0.parquet")
    ttft = Histogram.from_mapping(window["latency"]["ttft_s"])
    assert ttft.total == requests["first_token_s"].notna().sum()
    assert ttft.percentile(99.0) == pytest.approx(window["figures"]["ttft_p99_s"], rel=0.02)


def test_little_s_law_holds(run_folder: Path) -> None:
    requests = pd.read_parquet(run_folder / "requests" / "tiny" / "static" / "seed0.parquet")
    intervals = pd.read_parquet(run_folder / "intervals" / "tiny" / "static" / "seed0.parquet")
    in_system = (intervals["running"] + intervals["waiting"]).mean()
    rate = len(requests) / 600.0
    assert in_system == pytest.approx(
        rate * (requests["completed_s"] - requests["arrival_s"]).mean(), rel=0.1
    )


def test_the_configuration_says_what_was_run(run_folder: Path) -> None:
    text = (run_folder / "config.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    scenario = config["scenarios"]["tiny"]
    (source,) = scenario["traces"]
    assert source["name"] == scenario["workload"]["trace"] == "tiny.csv"
    assert len(source["sha256"]) == 64
    assert scenario["plays"] == list(POLICIES)
    assert scenario["cluster"]["max_instances"] >= 16
    assert config["policies"]["tiny"]["static"]["instances"] >= 1
    assert config["profile"]["tiny"]["requests_per_s"] > 0.0
    assert str(run_folder.parent) not in text


def test_a_generated_trace_has_its_size_and_says_what_it_is_made_from(data_dir: Path) -> None:
    # In full size it has more requests than are generated at once.
    name = "servegen-m-small-from-windows"
    plan = make_plan(Options(trace=name, service_scale=0.0002, policies=("static",)))
    assert plan.settings[0].workload.service_scale == 0.0002
    assert plan.config["scenarios"][name]["workload"]["service_scale"] == 0.0002
    assert plan.config["scenarios"][name]["traces"] == [
        {
            "name": name,
            "synthesis": f"{GENERATED[name].about}; drawn anew for each seed",
            "needs": {"servegen-m-small": DATASETS["servegen-m-small"].sha256},
        }
    ]


def test_equal_runs_are_equal_to_the_byte_whatever_the_processes(
    run_folder: Path, trace: Path, tmp_path: Path
) -> None:
    arguments = ["--trace", str(trace), "--policies", *POLICIES, "--save", "requests"]
    result = command(*arguments, "--out", str(tmp_path / "again"), "--jobs", "2")
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "again") == files(run_folder)
    assert "preserve" in result.stdout
    assert "GPU" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_another_seed_differs(run_folder: Path, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "other"
    arguments = ["--trace", str(trace), "--policies", *POLICIES, "--jobs", "1", "--seed", "1"]
    assert main([*arguments, "--out", str(out), "--save", "requests"]) == 0
    for policy in POLICIES:
        first, other = (
            (folder / "requests" / "tiny" / policy / f"seed{seed}.parquet").read_bytes()
            for folder, seed in ((run_folder, 0), (out, 1))
        )
        assert first != other


def test_several_seeds_give_means_and_spreads(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seeds"
    arguments = ["--trace", str(trace), "--policies", "static-3", "--seeds", "2", "--rate-scale", "1.5"]
    assert main([*arguments, "--jobs", "1", "--out", str(out)]) == 0
    episodes = pd.read_csv(out / "episodes.csv")
    assert episodes["seed"].tolist() == [0, 1]
    assert episodes["arrived"].nunique() == 2
    summary = pd.read_csv(out / "summary.csv")
    assert summary["arrived"].tolist() == [episodes["arrived"].mean()]
    # Time lines of the first seed only, and no other tables.
    assert [p.name for p in out.rglob("*.parquet")] == ["seed0.parquet"]
    captured = capsys.readouterr()
    assert "±" in captured.out
    assert "seeds 0 to 1" in captured.out
    assert "[2/2] tiny, static-3, seed 1" in captured.err


def test_any_policy_that_plays_may_be_the_baseline(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--trace", str(trace), "--policies", "static-3", "static-6", "--jobs", "1"]
    assert main([*arguments, "--baseline", "static-3", "--out", str(tmp_path / "out")]) == 0
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("policy")
    assert summary["gpu_hours_change"].to_dict() == pytest.approx({"static-3": 0.0, "static-6": 1.0})
    capsys.readouterr()
    assert main([*arguments, "--baseline", "static-33", "--out", str(tmp_path / "none")]) == 2
    assert "--baseline: expected a policy that plays, got 'static-33'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_folder_in_use_is_not_touched(
    run_folder: Path, trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(run_folder)
    arguments = ["--trace", str(trace), "--policies", "static-2", "--jobs", "1", "--out"]
    assert main([*arguments, str(run_folder)]) == 2
    assert "holds a run" in capsys.readouterr().err
    assert files(run_folder) == before
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert main([*arguments, str(tmp_path)]) == 2
    assert "notes.txt" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*arguments, str(tmp_path / "empty")]) == 0
    assert (tmp_path / "empty" / "summary.csv").is_file()


def test_a_static_fleet_is_there_from_the_start(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--trace", str(trace), "--policies", "static-5", "--jobs", "1", "--out", str(out)]
    assert main(arguments) == 0
    episode = pd.read_csv(out / "episodes.csv").iloc[0]
    assert episode["scaling_actions"] == 0
    assert episode["mean_instances"] == pytest.approx(5.0)


def test_runs_are_numbered(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["--trace", str(trace), "--policies", "static-2", "--jobs", "1"]) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["tiny-1", "tiny-2"]


BAD: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "unknown policy": (["--policies", "static", "presrve"], ("--policies", "'presrve'", "preserve?")),
    "no policy": (["--policies"], ("--policies", "hpa")),
    "policy twice": (["--policies", "hpa", "hpa"], ("--policies", "'hpa' twice")),
    "static fleet above the cluster": (["--policies", "static-99"], ("instances", "99")),
    "static fleet of none": (["--policies", "static-0"], ("instances", "0")),
    "zero instances": (["--max-instances", "0"], ("max_instances", "0")),
    "unknown trace": (["--trace", "azure-2023-con"], ("azure-2023-con", "azure-2023-conv?")),
    "missing file": (["--trace", "nowhere.csv"], ("nowhere.csv", "no such file")),
    "rate scale zero": (["--rate-scale", "0"], ("--rate-scale", "> 0")),
    "rate scale not a number": (["--rate-scale", "nan"], ("--rate-scale", "nan")),
    "rate scale a word": (["--rate-scale", "fast"], ("--rate-scale", "fast")),
    "service scale zero": (["--service-scale", "0"], ("--service-scale", "> 0")),
    "size of a recording": (["--service-scale", "2"], ("service_scale", "expected 1", "tiny.csv")),
    "unknown option": (["--polices", "hpa"], ("--polices", "did you mean --policies?")),
    "no seeds": (["--seeds", "0"], ("--seeds", "[1, 10000]")),
    "negative seed": (["--seed", "-1"], ("--seed", "[0, ")),
    "no processes": (["--jobs", "0"], ("--jobs", "[1, ")),
    "unknown forecaster": (["--forecaster", "crystal"], ("forecast", "crystal", "oracle")),
    "unknown predictor": (["--predictor", "crystal"], ("predict", "crystal", "oracle")),
    "unknown router": (["--router", "least-request"], ("--router", "least-requests?")),
    "unknown suite": (["--suite", "weak"], ("--suite", "benchmark", "week?")),
    "unknown table": (["--save", "request"], ("--save", "requests?")),
    "unknown scenario": (["--scenario", "chatt"], ("'chatt'", "chat?")),
    "no scenario": (["--scenario"], ("--scenario", "at least one")),
    "scenario twice": (["--scenario", "flash-crowd", "flash-crowd"], ("'flash-crowd' twice",)),
    "unknown split": (["--scenario", "step", "--split", "train"], ("--split", "validation, test")),
    "no such window": (["--scenario", "step", "--windows", "0", "2"], ("--windows", "[0, 1]", "got 2")),
    "window twice": (["--scenario", "step", "--windows", "1", "1"], ("--windows", "[1, 1]")),
    "scenario and trace": (["--scenario", "step", "--trace", "x.csv"], ("--scenario and --trace",)),
    "suite and scenario": (["--suite", "week", "--scenario", "step"], ("--suite and --scenario",)),
    "GPU of a scenario": (["--scenario", "step", "--gpu", "h100"], ("--gpu", "--trace")),
    "GPU of a suite": (["--suite", "benchmark", "--max-instances", "9"], ("--max-instances", "--trace")),
    "split of a trace": (["--split", "test"], ("--split", "--scenario")),
    "window of a trace": (["--windows", "0"], ("--windows", "--scenario")),
    "policies of a paper": (["--suite", "paper-routing", "--jobs", "2"], ("paper-routing", "--jobs")),
    "fleet above a scenario's": (["--scenario", "step", "--policies", "static-99"], ("static-99", "'step'")),
    "forecaster of a scenario": (["--scenario", "step", "--forecaster", "crystal"], ("crystal", "oracle")),
    "predictor of a scenario": (["--scenario", "step", "--predictor", "crystal"], ("crystal", "oracle")),
    "not tuned": (["--policies", "hpa-tuned"], ("hpa-tuned", "no tuned parameters")),
    "missing YAML file": (["--config", "nowhere.yaml"], ("nowhere.yaml",)),
    "resume and more": (["--config", "x", "--resume", "nowhere"], ("--resume", "--config")),
    "unknown hardware": (["--gpu", "abacus"], ("abacus", "rtx-4090")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_give_one_line_and_write_nothing(
    case: str,
    trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, said = BAD[case]
    if not {"--trace", "--scenario", "--suite", "--config"} & set(arguments):
        arguments = [*arguments, "--trace", str(trace)]
    check_refused(arguments, said, tmp_path, monkeypatch, capsys)


BAD_TRACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("", ("empty",)),
    "header only": ("arrival_s,prompt_tokens,output_tokens\n", ("at least one row",)),
    "wrong columns": ("time,in,out\n1,2,3\n", ("row 1", "time,in,out")),
    "NaN": ("arrival_s,prompt_tokens,output_tokens\n0,1,1\nnan,1,1\n", ("row 3", "arrival_s", "nan")),
    "zero tokens": ("arrival_s,prompt_tokens,output_tokens\n0,0,1\n", ("row 2", "prompt_tokens", "'0'")),
    "negative tokens": ("arrival_s,prompt_tokens,output_tokens\n0,1,-4\n", ("row 2", "output_tokens", "-4")),
    "unsorted": ("arrival_s,prompt_tokens,output_tokens\n5,1,1\n4,1,1\n", ("row 3", "arrival_s", "'4'")),
    "Unix time": (
        "arrival_s,prompt_tokens,output_tokens\n1700158546,1,1\n",
        ("row 2", "arrival_s", "since the start of the recording", "'1700158546'"),
    ),
    "too short": ("arrival_s,prompt_tokens,output_tokens\n0,1,1\n9,1,1\n", ("9 s", "warmup_s 300")),
    "too long for the KV cache": (
        "arrival_s,prompt_tokens,output_tokens\n0,100,10\n1,50000,10\n900,60000,10\n",
        ("row 3", "prompt_tokens", "at most 32768", "50010", "KV cache", "2 of 3"),
    ),
}


@pytest.mark.parametrize("case", BAD_TRACES)
def test_bad_traces_give_one_line_and_write_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, said = BAD_TRACES[case]
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    check_refused(["--trace", str(path)], (*said, "bad"), tmp_path, monkeypatch, capsys)


def check_refused(
    arguments: list[str],
    said: tuple[str, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for words in said:
        assert words in captured.err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("where", ["a file", "a folder of something else", "below a file"])
def test_a_place_that_cannot_be_used_is_refused_before_any_work(
    where: str,
    trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "config.yaml").write_text("chapters: 7\n", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    out = {"a file": "file", "a folder of something else": "thesis", "below a file": "file/run"}[where]
    arguments = ["--trace", str(trace), "--policies", "static-2", "--out", str(tmp_path / out)]
    check_refused(arguments, ("--out",), tmp_path, monkeypatch, capsys)


def test_the_program_itself_exits_with_status_2(tmp_path: Path) -> None:
    result = command("--trace", "nowhere.csv", "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert result.stderr == "error: nowhere.csv: no such file\n"
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "--rate-scale" in shown
    assert "--service-scale" in shown
    assert "--resume" in shown


def test_options_may_come_from_a_file_and_the_command_line_wins(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(f"trace: {trace}\npolicies: [hpa, static-3]\nrate-scale: 2\nseeds: 4\n")
    options = parse(["--config", str(path), "--seeds", "2", "--policies", "reactive"])
    assert options == Options(trace=str(trace), policies=("reactive",), rate_scale=2.0, seeds=2, config=path)
    for text, said in (
        ("polices: hpa\n", "polices: no such option (did you mean policies?)"),
        ("seeds: many\n", "many"),
        ("policies: {hpa: 1}\n", "policies: expected a value or a list of values"),
        ("- hpa\n", "expected options by name"),
        ("resume: runs/x\n", "resume: no such option"),
        ("trace: a: b\n", "expected a YAML file of options"),
    ):
        path.write_text(text)
        assert main(["--config", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}: ")
        assert error.count("\n") == 1
        assert said in error


def test_a_run_s_options_repeat_it(run_folder: Path, trace: Path, tmp_path: Path) -> None:
    options = run_folder / "options.yaml"
    assert main(["--config", str(options), "--jobs", "1", "--out", str(tmp_path / "again")]) == 0
    assert files(tmp_path / "again") == files(run_folder)


@pytest.mark.parametrize("suite", ["paper-routing", "paper-scaling"])
def test_a_paper_s_suite_hands_over(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    module = f"experiments.{suite.replace('-', '_')}.main"
    monkeypatch.setattr(module, lambda arguments: called.append(arguments) or 0)
    assert main(["--suite", suite, "--seeds", "3", "--out", "there"]) == 0
    assert called == [["--seeds", "3", "--out", "there"]]


def test_a_few_requests_that_do_not_fit_are_served_around(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "some.csv", requests=300)
    frame = pd.read_csv(path)
    frame.loc[200:220, "prompt_tokens"] = 50_000
    frame.to_csv(path, index=False)
    out = tmp_path / "out"
    assert main(["--trace", str(path), "--policies", "static-2", "--jobs", "1", "--out", str(out)]) == 0
    summary = pd.read_csv(out / "episodes.csv").iloc[0]
    assert summary["rejected"] == 21
    assert summary["violations"] >= 21
    assert summary["completed"] == summary["arrived"] - 21


def test_the_default_fleet_has_room_above_the_busiest_window(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "busy.csv", requests=60_000)
    plan = make_plan(Options(trace=str(path), rate_scale=3.0))
    assert plan.settings[0].cluster.max_instances > 16
    with pytest.raises(InputError, match="--rate-scale"):
        make_plan(Options(trace=str(path), rate_scale=-1.0))


def test_the_real_trace_can_be_replayed(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "azure"
    arguments = ["--trace", "azure-2023-conv", "--policies", "static", "--jobs", "1", "--out", str(out)]
    assert main(arguments) == 0
    summary = pd.read_csv(out / "episodes.csv").iloc[0]
    assert summary["arrived"] == summary["completed"] > 17_000
    assert summary["slo_attainment"] > 0.9


def test_totals_used_in_the_summary_exist() -> None:
    assert {"instance_s", "busy_s", "prefill_busy_s", "scale_ups", "scale_downs"} <= set(TOTALS)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "experiments.run", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_defaults_play_fewer_seeds_where_tuned_ones_play(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = Suite(("code",), ("corr", "hpa", "preserve"), seeds=3, tuned=True, default_seeds=1)
    monkeypatch.setitem(SUITES, "benchmark", suite)
    monkeypatch.setattr(suites, "is_tuned", lambda name, scenario: (name, scenario) == ("corr", "code"))
    plan = make_plan(Options(suite="benchmark"))
    played = {
        policy: [cell.seed for cell in plan.cells if cell.policy == policy]
        for policy in plan.policies["code"]
    }
    assert played == {"corr": [0], "hpa": [0, 1, 2], "preserve": [0, 1, 2], "corr-tuned": [0, 1, 2]}
    assert sorted(cell.policy for piece in plan.pieces(plan.cells, 1) for cell in piece.cells) == sorted(
        cell.policy for cell in plan.cells
    )
    named = make_plan(Options(suite="benchmark", policies=("corr", "corr-tuned")))
    assert len(named.cells) == 6
