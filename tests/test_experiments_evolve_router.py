"""Learned routers: the score, evolution that goes on, files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("cmaes")

from agents.shared_router import TERMS, LearnedRouter, load_router, router_names, shared_score, start_weights
from experiments import routers
from experiments.evolve_router import Task, cost, main, tail_s
from preserve_gym import ClusterConfig, Trace, simulate
from preserve_gym.errors import InputError
from preserve_gym.traces import synthetic_trace

CLUSTER = ClusterConfig(min_instances=4, max_instances=4)


def routed(weights: object, router: object = shared_score, seed: int = 0) -> list[int]:
    trace = synthetic_trace("chat", duration_s=300.0, mean_rate_rps=10.0, seed=seed)
    predicted = np.maximum(1, trace.output_tokens // 2)
    served = simulate(
        trace, CLUSTER, router, router_weights=weights, predicted_tokens=predicted, progress=False
    )
    return served.requests["instance"].tolist()


def test_it_begins_as_the_router_of_preserve() -> None:
    start = start_weights(CLUSTER.instance.kv_tokens)
    assert routed(start) == routed((), "preserve")
    by_requests = np.zeros(len(TERMS))
    by_requests[TERMS.index("in_flight")] = 1.0
    assert routed(by_requests) == routed((), "least-requests")


@pytest.mark.parametrize(
    ("term", "prompt", "predicted", "value"),
    [
        ("expected", 512, 256, 1.0),
        ("expected x short", 512, 64, np.log(4.0)),
        ("expected x long", 512, 1024, np.log(4.0)),
        ("expected x big", 2048, 256, np.log(4.0)),
        ("expected x short", 512, 1024, 0.0),
        ("expected x long", 512, 64, 0.0),
        ("expected x big", 128, 256, 0.0),
    ],
)
def test_terms(term: str, prompt: int, predicted: int, value: float) -> None:
    """Two instances, of which the first has a request of 3,000 expected tokens; the score decides."""
    trace = Trace(
        arrival_s=np.array([0.0, 0.1, 0.2]),
        prompt_tokens=np.array([2000, 1, prompt], np.int32),
        output_tokens=np.array([1000, 1000, 10], np.int32),
    )
    cluster = ClusterConfig(min_instances=2, max_instances=2)
    weights = np.zeros(len(TERMS))
    weights[TERMS.index("in_flight")] = 64.0 * 1e-3  # requests count, a little
    weights[TERMS.index(term)] = 1.0
    told = np.array([1000, 1, predicted], np.int32)
    served = simulate(trace, cluster, shared_score, router_weights=weights, predicted_tokens=told)
    first, second, third = served.requests["instance"]
    assert (first, second) == (0, 1)
    # The third goes where the short one is if the term is there; else to the lower slot.
    assert third == (1 if value > 0.0 else 0)


def test_the_tail_is_the_mean_of_the_worst() -> None:
    latencies = np.append(np.arange(200.0), np.nan)
    assert tail_s(latencies) == pytest.approx(np.arange(194.0, 200.0).mean())
    assert tail_s(np.array([2.0])) == 2.0


def test_a_router_is_saved_and_loaded(tmp_path: Path) -> None:
    weights = tuple(np.arange(len(TERMS)) / 7.0)
    LearnedRouter("mine", weights, {"wall_s": 3.0}).save(tmp_path / "mine.yaml")
    again = load_router(tmp_path / "mine.yaml")
    assert (again.name, again.weights, again.card) == ("mine", weights, {"wall_s": 3.0})
    text = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("queued x short", "queued x tall"))
    with pytest.raises(
        InputError, match=r"weights: expected numbers for queued, .* got queued, queued x tall"
    ):
        load_router(tmp_path / "mine.yaml")
    with pytest.raises(InputError, match="router 'nothing'"):
        load_router("nothing")
    for name in router_names():
        assert len(load_router(name).weights) == len(TERMS)


@pytest.mark.usefixtures("data_dir")
def test_the_cost_is_the_mean_of_the_logarithms() -> None:
    weights = tuple(start_weights(CLUSTER.instance.kv_tokens).tolist())
    of = {names: cost(Task(weights, names, 9.5, 20_000, 2, 200)) for names in [("normalized",), ("ttft",)]}
    both = cost(Task(weights, ("normalized", "ttft"), 9.5, 20_000, 2, 200))
    assert of["normalized",] != of["ttft",]
    assert both == pytest.approx(sum(of.values()) / 2.0)


@pytest.mark.usefixtures("data_dir")
@pytest.mark.slow
def test_an_evolution_goes_on_and_ends_as_if_uninterrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--population", "4", "--runs", "2", "--requests", "200", "--every", "1"]
    assert main([*small, "--generations", "3", "--out", str(tmp_path / "whole")]) == 0
    for generations in ("1", "3"):
        assert main([*small, "--generations", generations, "--out", str(tmp_path / "parts")]) == 0
    whole, parts = (pd.read_csv(tmp_path / name / "generations.csv") for name in ("whole", "parts"))
    pd.testing.assert_frame_equal(whole, parts)
    one, other = (load_router(tmp_path / name / "router.yaml") for name in ("whole", "parts"))
    assert one.weights == other.weights
    # What is kept is the best of validation, and its cost is what the card says.
    best = cost(Task(one.weights, ("normalized",), 9.5, 20_000, 2, 200))
    assert np.exp(best) == pytest.approx(one.card["validation"]["worst_mean_s"], rel=1e-2)
    assert best <= np.log(one.card["validation"]["as_it_began_s"]) + 1e-3
    capsys.readouterr()
    assert main([*small, "--seed", "1", "--out", str(tmp_path / "parts")]) == 2
    assert "holds an evolution with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rates", "0"], "--rates: expected numbers in [0.01, 1000]"),
        (["--population", "2"], "--population: expected an integer in [4, 1000], got 2"),
        (["--latencies"], "--latencies: expected some of normalized, ttft, got none"),
        (["--generations", "400"], "--generations: expected at most 312 of 32 runs each"),
        (["--runs", "1"], "--runs: expected an integer in [2, 200], got 1"),
    ],
)
def test_bad_options_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("data_dir")
def test_evolved_routers_are_called_by_their_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tuple(start_weights(CLUSTER.instance.kv_tokens))
    files = [tmp_path / name / "router.yaml" for name in ("one", "two")]
    for path in files:
        LearnedRouter("router", weights, {}).save(path)
    options = ["--rates", "9.5", "--seeds", "2", "--requests", "100", "--out", str(tmp_path / "runs.csv")]
    assert routers.main([*options, "--routers", *map(str, files)]) == 0
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert dict.fromkeys(runs["router"]) == dict.fromkeys(("least-requests", "one", "two"))
    assert routers.main([*options, "--routers", str(files[0]), str(files[0])]) == 2
    assert "expected names that differ, 'one' is given more than once" in capsys.readouterr().err
