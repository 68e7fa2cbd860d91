"""Scenarios: by name and from files, with evaluation windows that were fixed before."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from preserve_gym import ClusterConfig, InputError, InstanceConfig, Trace, WorkloadConfig
from preserve_gym.scenarios import (
    Scenario,
    frozen_windows,
    load_scenario,
    scenario,
    scenario_names,
    scenario_of,
    trace_digest,
)
from preserve_gym.scenarios.frozen import FILE
from preserve_gym.traces import synthetic_trace, trace_names
from tests.freeze_windows import as_json, freeze


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Half an hour of a small service, and a scenario of it."""
    trace = synthetic_trace("chat", duration_s=1800.0, mean_rate_rps=2.0)
    rows = zip(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, strict=True)
    lines = ["arrival_s,prompt_tokens,output_tokens", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "half-hour.csv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "mine.yaml"
    path.write_text(
        "description: >\n  Half an hour\n  of mine.\n"
        f"workload:\n  trace: {tmp_path / 'half-hour.csv'}\n  split_s: [700, 1200]\n  split_gap_s: 0\n"
        "  warmup_s: 30\n  horizon_s: 60\n  transforms:\n    - {kind: step, at_s: 900, factor: 2}\n"
        "cluster:\n  max_instances: 3\n  instance:\n    preset: {model: llama-2-7b, gpu: a100}\n"
        "    num_gpu_blocks: 2307\n"
    )
    return path


SHORT = ("chat", "code", "long-prompt", "sharegpt-poisson")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SHORT else pytest.mark.slow) for name in scenario_names()],
)
def test_the_fixed_windows_are_what_freezing_gives(name: str, request: pytest.FixtureRequest) -> None:
    scenario = load_scenario(name)
    if not scenario.workload.trace.startswith("synthetic-"):
        request.getfixturevalue("data_dir")
    frozen = freeze(scenario)
    assert frozen_windows()[name] == frozen
    for split in ("train", "validation", "test"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            workload = scenario.make_workload(split)  # type: ignore[arg-type]
        if split != "train":
            assert workload.evaluation_windows.tolist() == list(getattr(frozen, split))


def test_the_file_is_as_it_would_be_written() -> None:
    assert FILE.read_text(encoding="utf-8") == as_json(frozen_windows())
    assert tuple(json.loads(FILE.read_text(encoding="utf-8"))) == scenario_names()


def test_every_scenario_says_what_it_is() -> None:
    for name in scenario_names():
        made = load_scenario(name)
        assert made.name == name
        assert len(made.description) > 40
        assert made.workload.trace in trace_names()
        assert pickle.loads(pickle.dumps(made)) == made


def test_the_small_cache_is_that_of_preserve() -> None:
    assert load_scenario("kv-bound").cluster.instance.kv_tokens == 36_896


def test_a_file_of_ones_own(own: Path) -> None:
    made = load_scenario(own)
    assert (made.name, made.description) == ("mine", "Half an hour of mine.")
    assert made.cluster.max_instances == 3
    assert made.cluster.instance == InstanceConfig.from_preset("llama-2-7b", "a100", num_gpu_blocks=2307)
    assert load_scenario(str(own)) == made
    workload = made.make_workload("validation")
    assert workload.config.split == "validation"
    assert workload.evaluation_windows.tolist() == [730.0 + 60.0 * k for k in range(7)]
    assert made.make_workload().config.split is None
    assert made.make_workload(seed=5).config.seed == 5
    assert replace(made, workload=workload.config).make_workload().config.split == "validation"


def test_a_file_may_leave_everything_out(tmp_path: Path) -> None:
    path = tmp_path / "bare.yaml"
    path.write_text("description: bare\nworkload:\n")
    assert load_scenario(path) == Scenario("bare", "bare", WorkloadConfig(), ClusterConfig())


def test_named_scenarios_use_their_fixed_windows(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = replace(frozen_windows()["chat"], test=(2300.0, 2850.0))
    monkeypatch.setattr(scenario, "frozen_windows", lambda: {"chat": frozen})
    named = load_scenario("chat")
    assert named.make_workload("test").evaluation_windows.tolist() == [2300.0, 2850.0]
    assert named.make_workload("test", seed=1).evaluation_windows.tolist() == [2300.0, 2850.0]
    # One that was changed, or another of the same name, has windows of its own.
    changed = replace(named, workload=replace(named.workload, evaluation_horizon_s=500.0))
    assert changed.make_workload("test").evaluation_windows.tolist() == [2220.0, 2720.0]


def test_another_trace_than_the_one_of_the_windows_is_told(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = replace(frozen_windows()["chat"], trace_sha256="0" * 64)
    monkeypatch.setattr(scenario, "frozen_windows", lambda: {"chat": frozen})
    with pytest.warns(UserWarning, match=r"scenario 'chat': the trace differs .* \(SHA-256 000000000000\."):
        load_scenario("chat").make_workload("train")
    # Of another seed nobody expects the same trace, and without a split there are no windows.
    load_scenario("chat").make_workload("train", seed=1)
    load_scenario("chat").make_workload()


def test_the_digest_is_that_of_every_column() -> None:
    trace = Trace([0.0, 1.5], [1, 2], [3, 4], [0, 1], name="a", span_s=9.0)
    digest = trace_digest(trace)
    assert digest == hashlib.sha256(struct.pack("<8q", 0, 1_500_000, 1, 2, 3, 4, 0, 1)).hexdigest()
    assert trace_digest(replace(trace, name="b")) == digest
    assert trace_digest(Trace([0.0, 1.5 + 1e-9], [1, 2], [3, 4], [0, 1])) == digest
    others = [
        Trace([0.0, 1.500001], [1, 2], [3, 4], [0, 1]),
        Trace([0.0, 1.5], [1, 3], [3, 4], [0, 1]),
        Trace([0.0, 1.5], [1, 2], [3, 5], [0, 1]),
        Trace([0.0, 1.5], [1, 2], [3, 4], [0, 0]),
        Trace([0.0, 1.5], [1, 2], [3, 4]),
    ]
    assert len({digest, *map(trace_digest, others)}) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "bad.yaml: expected YAML: while parsing a flow"),
        ("", "bad.yaml: expected description, workload, cluster, got None"),
        ("- a", "bad.yaml: expected description, workload, cluster, got ['a']"),
        ("workloads: {}", "bad.yaml: workloads: no such field; expected description, workload, cluster"),
        ("description: 5", "bad.yaml: description: expected text, got 5"),
        ("workload: chat", "bad.yaml: workload: expected a mapping of its fields, got 'chat'"),
        ("workload: {rate: 2}", "bad.yaml: WorkloadConfig.rate: no such field; expected one of "),
        ("workload: {seed: -1}", "bad.yaml: WorkloadConfig.seed: expected an integer in [0, "),
        ("workload: {transforms: [{kind: x}]}", "bad.yaml: WorkloadConfig.transforms[0]: transform: kind: "),
        ("cluster: {slo: {ttft: 1}}", "bad.yaml: ClusterConfig.slo.ttft: no such field"),
        (
            "cluster: {instance: {preset: a}}",
            "ClusterConfig.instance.preset: expected model, gpu and, if it is not 1",
        ),
        ("cluster: {instance: {preset: {model: a}}}", "tp, got {'model': 'a'}"),
        (
            "cluster: {instance: {preset: {model: a, gpu: b, x: 1}}}",
            "bad.yaml: ClusterConfig.instance.preset: expect",
        ),
        (
            "cluster: {instance: {preset: {model: 1, gpu: b}}}",
            "ClusterConfig.instance.preset.model: expected a name",
        ),
        (
            "cluster: {instance: {preset: {model: a, gpu: b}}}",
            "bad.yaml: preset: nothing measured for model 'a'",
        ),
        (
            "cluster: {instance: {preset: {model: llama-2-7b, gpu: a100}, blocks: 1}}",
            "bad.yaml: ClusterConfig.instance.blocks: no such field",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_scenario(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"scenario 'flash-crowds': expected .*\(did you mean flash-crowd\?\)"
    ):
        load_scenario("flash-crowds")
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        load_scenario(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"scenario: expected a YAML file or one of .* got 5"):
        load_scenario(5)  # type: ignore[arg-type]
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected YAML"):
        load_scenario(tmp_path / "binary.yaml")


def test_an_environment_of_a_scenario(own: Path) -> None:
    made = load_scenario(own)
    env: Any = gym.make("preserve/Autoscale-v0", scenario=str(own), split="test")
    core = env.unwrapped
    assert core.cluster_config == made.cluster
    assert core.workload.config == replace(made.workload, split="test")
    seen = []
    for start_s in core.workload.evaluation_windows:
        _, info = env.reset(options={"start_s": start_s})
        seen.append(info["time_s"])
    assert seen == [1230.0 + 60.0 * k for k in range(len(seen))]
    assert len(seen) == 9
    _, info = env.reset(seed=1)
    assert info["time_s"] in seen


def test_what_is_given_besides_a_scenario_comes_first(own: Path) -> None:
    made = load_scenario(own)
    options: dict[str, Any] = {"cluster": {"max_instances": 2}, "workload": {"forecaster": "naive"}}
    core: Any = gym.make("preserve/Autoscale-v0", scenario=made, **options).unwrapped
    assert core.cluster_config == replace(made.cluster, max_instances=2)
    assert core.workload.config == replace(made.workload, forecaster="naive")
    whole = {"cluster": ClusterConfig(max_instances=2), "workload": replace(made.workload, seed=2)}
    core = gym.make("preserve/Autoscale-v0", scenario=made, **whole).unwrapped  # type: ignore[arg-type]
    assert core.cluster_config == ClusterConfig(max_instances=2)
    assert core.workload.config.seed == 2


def test_environments_refuse_what_does_not_fit(own: Path) -> None:
    made = load_scenario(own)
    workload = made.make_workload("train")
    for options, message in (
        ({"workload": workload, "split": "test"}, "split: expected None with a Workload, which has its own"),
        ({"scenario": own, "split": "all"}, "WorkloadConfig.split: expected one of train, validation, test"),
        ({"scenario": "chats"}, "scenario 'chats': expected a YAML file or one of"),
        ({"scenario": own, "cluster": {"size": 3}}, "ClusterConfig.size: no such field"),
        ({"scenario": own, "workload": 3}, "expected a WorkloadConfig or a mapping of its fields, got 3"),
    ):
        with pytest.raises(InputError) as error:
            gym.make("preserve/Autoscale-v0", **options)  # type: ignore[arg-type]
        assert message in str(error.value)
    env = gym.make("preserve/Autoscale-v0", scenario=made, workload=workload)
    for options, message in (
        ({"start": 100.0}, "options: expected start_s, violation_weight or none, got 'start'"),
        (
            {"start_s": 650.0},
            "start_s: expected a number in [30, 640], as split 'train' of trace 'half-hour'",
        ),
    ):
        with pytest.raises(InputError) as error:
            env.reset(options=options)
        assert message in str(error.value)
    env.reset(options={})
    env.reset(options={"start_s": None})


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_episode_can_be_played_up_to_the_end_of_its_split(own: Path, split: str) -> None:
    workload = load_scenario(own).make_workload(split)  # type: ignore[arg-type]
    assert workload.bounds is not None
    end_s = workload.bounds[split][1]
    env: Any = gym.make("preserve/Autoscale-v0", scenario=own, workload=workload)
    observation, _ = env.reset(options={"start_s": end_s - 60.0})
    ended = False
    while not ended:
        assert env.observation_space.contains(observation)
        observation, _, _, ended, info = env.step(2)
    assert info["time_s"] == pytest.approx(end_s)
    assert env.unwrapped.results()["arrival_s"].between(end_s - 60.0, end_s).all()


def test_a_nested_mapping_changes_the_fields_that_it_names(data_dir: Path) -> None:
    env = gym.make(
        "preserve/Autoscale-v0",
        scenario="long-prompt",
        split="train",
        cluster={"slo": {"ttft_s": 5.0}, "instance": {"max_num_seqs": 64}},
    )
    config = env.unwrapped.cluster_config  # type: ignore[attr-defined]
    named = load_scenario("long-prompt").cluster
    assert config.slo == replace(named.slo, ttft_s=5.0)
    assert config.instance == replace(named.instance, max_num_seqs=64)
    other = gym.make(
        "preserve/Autoscale-v0",
        scenario="long-prompt",
        split="train",
        cluster={"instance": {"preset": {"model": "llama-3.1-8b", "gpu": "l40s"}}},
    )
    instance = other.unwrapped.cluster_config.instance  # type: ignore[attr-defined]
    assert instance == InstanceConfig.from_preset("llama-3.1-8b", "l40s")


def test_two_splits_are_refused(data_dir: Path) -> None:
    with pytest.raises(InputError, match="split: expected 'train' as in workload, got 'test'"):
        gym.make("preserve/Autoscale-v0", scenario="chat", split="test", workload={"split": "train"})


def test_a_workload_and_its_cluster_tell_their_scenario() -> None:
    for name in scenario_names():
        scenario = load_scenario(name)
        played = replace(
            scenario.workload, split="validation", seed=3, forecaster="naive", predictor="oracle"
        )
        found = scenario_of(scenario.cluster, played)
        assert found is not None
        assert found.name == name
        assert scenario_of(replace(scenario.cluster, max_instances=31), played) is None
        assert scenario_of(scenario.cluster, replace(played, rate_scale=0.5)) is None
