"""Do policies fare on generated traffic as on the traffic that it was generated from?

Run as ``python -m tests.resemblance [SEEDS]`` with the data folder in ``PRESERVE_GYM_DATA``: prints the
tables of ``docs/generated-workloads.md``.

*Windows*: of each 2023 hour six windows are cut. Pattern and lengths are fitted to every other window; the
hour is generated from the counts and mean lengths of its windows; policies play the real hour and the
generated ones, and only the windows that were *not* fitted are looked at. Then the other way round, and the
two are put together. So no figure compares the generator with requests that it has seen.
*Synthetic*: the embedded services know neither counts nor lengths of the windows; whole hours are compared.

The policies get the same profile for both, that of the real hour.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from baselines import Autoscaler, make_policy
from preserve_gym import ClusterConfig, Trace, Workload, WorkloadConfig
from preserve_gym.config import InstanceConfig, SloConfig
from preserve_gym.sim.profile import profile_instance
from tests import fit_synthetic, fit_windows
from tests.window_statistics import statistics

WINDOWS = 6
WARMUP_S = 120.0
SEEDS = 20
# Of the variance of the pattern, to see how much depends on it.
FACTORS = (1 / 8, 8)
RANKED = ("GPU-hours", "TTFT P99, s", "E2E P99, s", "norm. latency P99, s")


@dataclass(frozen=True)
class Case:
    """A service of 2023, the cluster that serves it and the policies that are compared.

    Attributes:
        kind: ``chat`` or ``code``.
        window_s: a sixth of the hour, in whole bins.
        slowdown: factor on the iteration times of an RTX 4090 with Llama-3.1-8B. The chat hour needs two of
            these; of instances a third as fast it needs six, and one more or less is no third of the fleet.
        initial_instances: of the policies that are free; what the first forecast asks for is rounded up, and
            would decide by a hair.
        policies: by name.
    """

    kind: str
    window_s: float
    slowdown: float
    initial_instances: int
    policies: tuple[str, ...]

    @property
    def cluster(self) -> ClusterConfig:
        instance = InstanceConfig.from_preset("llama-3.1-8b", gpu="rtx-4090")
        law = instance.latency
        slower = {
            f.name: getattr(law, f.name) * self.slowdown for f in fields(law) if f.name != "knee_tokens"
        }
        return ClusterConfig(
            instance=replace(instance, latency=replace(law, **slower)),
            slo=SloConfig(ttft_s=5.0, tpot_s=0.2),
            max_instances=60,
            cold_start_s=30.0,
        )

    def hour(self, traces: Path) -> Trace:
        hour = fit_windows.hour_of_2023(self.kind, traces).slice(0.0, WINDOWS * self.window_s)
        return hour.take(slice(None), name=self.kind)


CASES = (
    Case("chat", 580.0, 3.0, 8, ("static-10", "reactive", "hpa", "preserve-up-only")),
    Case("code", 570.0, 1.0, 8, ("static-8", "static-12", "hpa")),
)


@dataclass(frozen=True)
class Played:
    """Requests and control intervals of an episode."""

    requests: pd.DataFrame
    intervals: pd.DataFrame

    def of_windows(self, window_s: float, parity: int) -> Played:
        """What lies in the windows of even (0) or odd (1) number."""
        return Played(
            self.requests[self.requests["arrival_s"] // window_s % 2 == parity],
            self.intervals[self.intervals["time_s"] // window_s % 2 == parity],
        )

    def measures(self) -> dict[str, float]:
        r = self.requests
        e2e_s, ttft_s = r["completed_s"] - r["arrival_s"], r["first_token_s"] - r["arrival_s"]
        return {
            "GPU-hours": float(self.intervals["instance_s"].sum()) / 3600,
            "TTFT P99, s": float(np.nanpercentile(ttft_s, 99)),
            "E2E P99, s": float(np.nanpercentile(e2e_s, 99)),
            "norm. latency P99, s": float(np.nanpercentile(e2e_s / r["output_tokens"], 99)),
            "SLO, %": 100 * float(1 - (r["violated_s"].notna() | r["rejected"]).mean()),
        }


def together(parts: Sequence[Played]) -> Played:
    return Played(pd.concat([p.requests for p in parts]), pd.concat([p.intervals for p in parts]))


def workload_of(trace: Trace) -> Workload:
    """The trace from the end of the warm-up to its own; shared by the policies, which saves time."""
    config = WorkloadConfig(warmup_s=WARMUP_S, start_s=WARMUP_S, horizon_s=None, forecaster="noisy")
    return Workload(config, trace=trace)


def play(workload: Workload, case: Case, policy: Autoscaler) -> Played:
    env: Any = gym.make(
        "preserve/Autoscale-v0",
        disable_env_checker=True,
        workload=workload,
        **policy.env_options(),
        initial_instances=getattr(policy, "instances", case.initial_instances),
    ).unwrapped
    observation, _ = env.reset(seed=0)
    state, truncated, rows = None, False, []
    while not truncated:
        start_s = float(observation["time_s"][0])
        action, state = policy.predict(observation, state)
        observation, _, _, truncated, info = env.step(action)
        rows.append((start_s, info["instance_s"]))
    return Played(env.results(), pd.DataFrame(rows, columns=["time_s", "instance_s"]))


def folds(case: Case, hour: Trace, seeds: int, users: float = 1.0) -> list[tuple[int, list[Trace]]]:
    """For each parity of window numbers, hours generated from a fit to the windows of the other one.

    The variance of the pattern is divided by ``users``.
    """
    counts = fit_windows.window_counts(hour, case.window_s)
    cut = [hour.slice(k * case.window_s, (k + 1) * case.window_s) for k in range(WINDOWS)]
    made = []
    for parity in (0, 1):
        pattern, lengths = fit_windows.fit_service(cut[1 - parity :: 2], silent=case.kind == "code")
        made.append(
            (parity, [counts.generate(pattern.averaged(users), lengths, seed=seed) for seed in range(seeds)])
        )
    return made


def held_out_hours(case: Case, hour: Trace, seeds: int) -> list[Trace]:
    """Hours put together from the windows of the two folds that were not fitted."""
    (_, even), (_, odd) = folds(case, hour, seeds)
    hours = []
    for of_parity in zip(even, odd, strict=True):
        is_in = [t.arrival_s // case.window_s % 2 == parity for parity, t in enumerate(of_parity)]
        arrival_s, prompt_tokens, output_tokens = (
            np.concatenate([getattr(t, name)[kept] for t, kept in zip(of_parity, is_in, strict=True)])
            for name in ("arrival_s", "prompt_tokens", "output_tokens")
        )
        order = np.argsort(arrival_s)
        hours.append(Trace(arrival_s[order], prompt_tokens[order], output_tokens[order], span_s=hour.span_s))
    return hours


@dataclass(frozen=True)
class Comparison:
    """Figures of the real hour and of each generated one.

    Attributes:
        real: by policy and measure, or by statistic.
        generated: the same as columns, a row for each seed.
    """

    real: pd.Series
    generated: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """A row for each figure: real, median of the generated, their difference, 5 % and 95 %."""
        low, middle, high = (self.generated.quantile(level) for level in (0.05, 0.5, 0.95))
        return pd.DataFrame(
            {
                "real": self.real,
                "generated": middle,
                "difference": middle / self.real - 1,
                "p5": low,
                "p95": high,
            }
        )

    def rankings(self) -> pd.DataFrame:
        """A row for each of ``RANKED``, with policies from least to most.

        Columns real, generated (by medians), alike (share of generated hours with the ranking of the real
        one) and apart_alike (of the pairs of policies that lie 10 % apart on the real hour, the share over
        all generated hours that stand in the same order).
        """
        rows = {}
        for measure in RANKED:
            real, each = self.real.xs(measure, level=1), self.generated.xs(measure, axis=1, level=1)
            order = _ranking(real)
            pairs = [(a, b) for a, b in combinations(order, 2) if real[b] >= 1.1 * real[a]]
            rows[measure] = {
                "real": order,
                "generated": _ranking(each.median()),
                "alike": float(np.mean([_ranking(row) == order for _, row in each.iterrows()])),
                "apart_alike": float(np.mean([(each[a] < each[b]).mean() for a, b in pairs])),
            }
        return pd.DataFrame.from_dict(rows, orient="index")


def _ranking(by_policy: pd.Series) -> tuple[str, ...]:
    return tuple(str(policy) for policy in by_policy.sort_values().index)


def compare_windows(case: Case, traces: Path, seeds: int, users: float = 1.0) -> Comparison:
    """Real windows against windows generated from their counts, by policy and measure."""
    hour = case.hour(traces)
    made = [(parity, list(map(workload_of, t))) for parity, t in folds(case, hour, seeds, users)]

    def held_out(policy: Autoscaler, seed: int) -> Played:
        """The windows of each of the two hours to which it was not fitted."""
        return together(
            [play(hours[seed], case, policy).of_windows(case.window_s, parity) for parity, hours in made]
        )

    return _compare(case, hour, held_out, seeds)


def compare_synthetic(case: Case, traces: Path, seeds: int) -> Comparison:
    """The real hour against synthetic hours of the same time of day and mean rate."""
    hour = case.hour(traces)
    hours = list(map(workload_of, fit_synthetic.generated_hours(case.kind, hour, seeds)))
    return _compare(case, hour, lambda policy, seed: play(hours[seed], case, policy), seeds)


def _compare(case: Case, hour: Trace, played: Callable[[Autoscaler, int], Played], seeds: int) -> Comparison:
    profile = profile_instance(case.cluster, hour.prompt_tokens, hour.output_tokens)
    real, generated, real_hour = {}, [], workload_of(hour)
    policies = {name: make_policy(name, case.cluster, profile) for name in case.policies}
    for name, policy in policies.items():
        real |= {
            (name, measure): value for measure, value in play(real_hour, case, policy).measures().items()
        }
    for seed in range(seeds):
        generated.append(
            {
                (name, measure): value
                for name, policy in policies.items()
                for measure, value in played(policy, seed).measures().items()
            }
        )
    columns = pd.MultiIndex.from_tuples(real)
    return Comparison(
        pd.Series(real, columns), pd.DataFrame([list(row.values()) for row in generated], columns=columns)
    )


def compare_statistics(case: Case, traces: Path, seeds: int) -> tuple[Comparison, Comparison]:
    """What was not fitted, of windows generated from their counts and of synthetic hours."""
    hour = case.hour(traces)
    real = pd.Series(statistics(hour, case.window_s))
    sides = (held_out_hours(case, hour, seeds), fit_synthetic.generated_hours(case.kind, hour, seeds))
    from_windows, synthetic = (
        Comparison(real, pd.DataFrame([statistics(made, case.window_s) for made in hours])) for hours in sides
    )
    return from_windows, synthetic


def compare(seeds: int) -> dict[str, Comparison]:
    """Every comparison, by name."""
    traces = Path(os.environ["PRESERVE_GYM_DATA"]) / "traces"
    made: dict[str, Comparison] = {}
    for case in CASES:
        made[f"{case.kind}: windows"] = compare_windows(case, traces, seeds)
        made[f"{case.kind}: synthetic"] = compare_synthetic(case, traces, seeds)
        made[f"{case.kind}: statistics"], made[f"{case.kind}: statistics, synthetic"] = compare_statistics(
            case, traces, seeds
        )
    for factor in FACTORS:
        made[f"chat: variance x {factor:g}"] = compare_windows(CASES[0], traces, seeds // 5, 1 / factor)
    return made


def tables(made: dict[str, Comparison]) -> dict[str, list[list[str]]]:
    """Cells of the tables of the page, by heading."""
    cells: dict[str, list[list[str]]] = {}
    for kind in (case.kind for case in CASES):
        cells[f"{kind}: windows"] = _of_policies(made[f"{kind}: windows"])
        cells[f"{kind}: ranking"] = [
            [str(measure), *map(" < ".join, (row.real, row.generated)), *_percent(row.alike, row.apart_alike)]
            for measure, row in made[f"{kind}: windows"].rankings().iterrows()
        ]
        cells[f"{kind}: synthetic"] = _of_policies(made[f"{kind}: synthetic"])
        synthetic = made[f"{kind}: statistics, synthetic"].table()
        cells[f"{kind}: not fitted"] = [
            [str(name), f"{row.real:.4g}", *_band(row), *_band(synthetic.loc[name])]
            for name, row in made[f"{kind}: statistics"].table().iterrows()
        ]
    cells["chat: variance"] = _of_variances(made)
    return cells


def _percent(*shares: float) -> list[str]:
    return [f"{100 * share:.0f}" for share in shares]


def _of_policies(comparison: Comparison) -> list[list[str]]:
    return [
        [
            policy,
            measure,
            f"{row.real:.4g}",
            f"{row.generated:.4g}",
            f"{100 * row.difference:+.0f} %",
            _range(row),
        ]
        for (policy, measure), row in comparison.table().iterrows()
    ]


def _of_variances(made: dict[str, Comparison]) -> list[list[str]]:
    less, more = (made[f"chat: variance x {factor:g}"] for factor in FACTORS)
    once = made["chat: windows"]
    return [
        [
            *(policy, measure, f"{once.real[policy, measure]:.4g}"),
            *(f"{each.generated[policy, measure].median():.4g}" for each in (less, once, more)),
        ]
        for policy, measure in once.real.index
        if measure in RANKED
    ]


def _band(row: Any) -> list[str]:
    return [f"{row.generated:.4g}", _range(row)]


def _range(row: Any) -> str:
    return f"{row.p5:.4g} to {row.p95:.4g}"


HEADS = {
    "windows": ["policy", "measure", "real", "generated", "difference", "5 % to 95 %"],
    "ranking": [
        "measure",
        "real hour",
        "medians of the generated",
        "hours ranked alike, %",
        "pairs 10 % apart alike, %",
    ],
    "variance": ["policy", "measure", "real", "variance / 8", "as fitted", "variance x 8"],
    "synthetic": ["policy", "measure", "real", "generated", "difference", "5 % to 95 %"],
    "not fitted": ["statistic", "real", "from its windows", "5 % to 95 %", "synthetic", "5 % to 95 %"],
}


def main() -> None:
    for heading, rows in tables(compare(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)).items():
        head = HEADS[heading.split(": ")[1]]
        print(f"\n{heading}\n")
        for row in (head, ["---"] * len(head), *rows):
            print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
