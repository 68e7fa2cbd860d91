"""The tables of what is learned."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.learned_page import (
    models_table,
    pairs_table,
    routers_table,
    trained_table,
    transfer_table,
)
from preserve_gym.errors import InputError
from tests.test_agents_learned_policy import save


def test_learned_policies_beside_rivals(tmp_path: Path) -> None:
    row = {
        "scenario": "x",
        "policy": "ppo-x",
        "trainings": 10,
        "attainment": 98.765,
        "gpu_hours": 123.45,
        "at_target": 120.0,
        "p99_s": 0.1,
        "preserve_p99_s": 0.25,
        "best": "corr-tuned",
        "best_p99_s": 0.1234,
        "to_preserve": -12.34,
        "to_preserve_same_days_low": -13.6,
        "to_preserve_same_days_high": -11.1,
        "to_preserve_other_days_low": None,
        "to_preserve_other_days_high": None,
        "to_best": 2.0,
        "to_best_same_days_low": 1.5,
        "to_best_same_days_high": 2.5,
        "to_best_other_days_low": -1.0,
        "to_best_other_days_high": 5.0,
        "gap_share": 61.4,
        "score": 0.678,
    }
    without = row | {"to_preserve": None, "gap_share": None}
    pd.DataFrame([row, without]).to_csv(tmp_path / "trained.csv", index=False)
    *_, shown, unknown = trained_table(tmp_path / "trained.csv").splitlines()
    assert shown == (
        "| `x` | `ppo-x` | 10 | 98.77 | 123.5 | 120.0 | -12.3 (-13.6 to -11.1; -) | `corr-tuned` "
        "| +2.0 (+1.5 to +2.5; -1.0 to +5.0) | 61 | 0.68 | 100, 250, 123 |"
    )
    assert unknown == (
        "| `x` | `ppo-x` | 10 | 98.77 | 123.5 | 120.0 | - | `corr-tuned` "
        "| +2.0 (+1.5 to +2.5; -1.0 to +5.0) | - | 0.68 | 100, 250, 123 |"
    )


def test_models_by_their_cards(tmp_path: Path) -> None:
    path = save(tmp_path / "ppo-x", (0.0,) * 7, 1.0) / "card.yaml"
    card = yaml.safe_load(path.read_text())
    card |= {"wall_s": 123.4, "training": {"seed": 3, "parameters": {"steps": 1_500_000}}}
    path.write_text(yaml.safe_dump(card))
    *_, shown = models_table(tmp_path).splitlines()
    assert shown == "| `ppo-x` | `chat-week` | `margin` | 3 | 1,500,000 | 123 | 3 | 10.0 |"


def test_pairs_are_compared_at_the_target(tmp_path: Path) -> None:
    rows = [
        # 2 % and 0.5 % missed: 1 % lies half way along the logarithm.
        *(("a-tuned", "router-one", seed, 10**6, 20_000, 10.0) for seed in (0, 1)),
        *(("a-tuned@99.5", "router-one", seed, 10**6, 5_000, 40.0) for seed in (0, 1)),
        *(("a-tuned", "router-two", seed, 10**6, 10_000, 15.0) for seed in (0, 1)),
        *(("b", "none", seed, 10**6, 90_000, 1.0) for seed in (0, 1)),
    ]
    table = pd.DataFrame(rows, columns=["policy", "change", "seed", "arrived", "violations", "gpu_hours"])
    table.insert(0, "scenario", "x")
    table.to_csv(tmp_path / "pairs.csv", index=False)
    lines = pairs_table(tmp_path / "pairs.csv", {("x", "a-tuned"): -0.1, ("x", "b"): -0.1}).splitlines()
    assert lines[2:] == [
        "| `x` | `a-tuned` | `two` | 15.0 |",
        "| `x` | `a-tuned` | `one` | 20.0 |",
        "| `x` | `b` | its own | - |",
    ]


def test_a_trained_policy_stands_beside_each_pair(tmp_path: Path) -> None:
    rows = [
        *(("a-tuned", "router-one", seed, 10**9, 10**7, 20.0) for seed in (0, 1)),
        *(("b", "router-one", seed, 10**9, 10**8, 1.0) for seed in (0, 1)),
        *(("new-seed0", "none", seed, 10**9, 10**7, 9.0) for seed in (0, 1)),
        *(("new-seed1", "none", seed, 10**9, 10**7, 16.0) for seed in (0, 1)),
    ]
    table = pd.DataFrame(rows, columns=["policy", "change", "seed", "arrived", "violations", "gpu_hours"])
    table.insert(0, "scenario", "x")
    table.to_csv(tmp_path / "pairs.csv", index=False)
    heads, _, *lines = pairs_table(tmp_path / "pairs.csv", {("x", "a-tuned"): -0.1}).splitlines()
    assert heads == "| scenario | autoscaler | router | GPU-hours at 99 % | `new` to it, % |"
    assert lines[0] == "| `x` | `new` | its own | 12.0 |  |"
    # The geometric mean; two trainings that differ so much leave the interval wide open.
    assert lines[1].startswith("| `x` | `a-tuned` | `one` | 20.0 | -40.0 (-98.")
    assert lines[2] == "| `x` | `b` | `one` | - | - |"
    table.loc[table["policy"] == "new-seed1", "seed"] += 1
    table.to_csv(tmp_path / "pairs.csv", index=False)
    with pytest.raises(
        InputError, match=r"expected the same workload seeds of all, got \[1, 2\] and \[0, 1\]"
    ):
        pairs_table(tmp_path / "pairs.csv", {("x", "a-tuned"): -0.1})


def test_what_was_trained_once_where_things_are_otherwise(tmp_path: Path) -> None:
    """One per cent of the requests may miss; between settings GPU-hours lie on the logarithm of misses."""
    rows = [
        (scenario, change, seed, policy, 10**9, 10**5 * violations, hours)
        for scenario, change, policy, violations, hours in (
            ("x", "none", "new-seed0", 50, 20.0),
            ("x", "none", "new-seed0@98", 200, 5.0),
            ("x", "none", "new-seed1", 100, 10.0),
            ("x", "none", "preserve-tuned", 100, 20.0),
            ("x", "none", "a-tuned", 100, 16.0),
            ("x", "load-x2", "new-seed0", 100, 10.0),
            ("x", "load-x2", "new-seed1", 100, 10.0),
            ("x", "load-x2", "preserve-tuned", 900, 8.0),
            ("x", "load-x2", "a-tuned", 50, 8.0),
        )
        for seed in (0, 1)
    ]
    columns = ["scenario", "change", "seed", "policy", "arrived", "violations", "gpu_hours"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "transfer.csv", index=False)
    elasticities = {("x", "a-tuned"): -0.25, ("x", "preserve-tuned"): -0.25}
    _, _, *lines = transfer_table(tmp_path / "transfer.csv", elasticities).splitlines()
    assert lines[0] == (
        "| `x` |  | 99.25, 15.0 | 10.0 | -50.0 (-50.0 to -50.0) | `a-tuned` | -37.5 (-37.5 to -37.5) |"
    )
    # Who misses more than twice what is allowed is no rival; who does better is taken to the target.
    assert lines[1].startswith("| `x` | load x2 | 99.00, 10.0 | 10.0 | - | `a-tuned` | +48.")


def test_learned_routers_beside_the_best_published_one(tmp_path: Path) -> None:
    tails = {"a": (0.2, 0.4), "b": (0.1, 0.9), "new-seed0": (0.1, 0.2), "new-seed1": (0.05, 0.1)}
    rows = [
        {"rate_rps": 9.5, "router": name, "seed": k, "normalized_latency_p99_s": tail, "ttft_p99_s": 2.0 + k}
        for name, of_seeds in tails.items()
        for k, tail in enumerate(of_seeds)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    *_, shown = routers_table(tmp_path / "runs.csv").splitlines()
    # Half and a quarter of a for all arrivals: evolutions alone are chance, two that differ by log 2.
    half = 12.706204736 * math.log(2.0) / 2.0
    low, high = (100.0 * (math.exp(-1.5 * math.log(2.0) + sign * half) - 1.0) for sign in (-1.0, 1.0))
    change = f"-64.6 ({low:+.1f} to {high:+.1f})"
    assert shown == f"| 9.5 | `new` | 2 | `a` | {change} | 113, 300 | 2.50, 2.50 |"
