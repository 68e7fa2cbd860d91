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
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from baselines import Autoscaler, make_policy
from preserve_gym import ClusterConfig, Trace, Workload, WorkloadConfig
from preserve_gym.config import InstanceConfig, SloConfig
from preserve_gym.sim.profile import InstanceProfile, profile_instance
from tests import fit_synthetic, fit_windows

FloatArray = NDArray[np.float64]
WINDOWS = 6
WARMUP_S = 120.0
BINS_S = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0)


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


def play(trace: Trace, case: Case, policy: Autoscaler) -> Played:
    """Play a trace from the end of the warm-up to its own."""
    workload = Workload(WorkloadConfig(warmup_s=WARMUP_S, start_s=WARMUP_S, horizon_s=None), trace=trace)
    env: Any = gym.make(
        "preserve/Autoscale-v0",
        disable_env_checker=True,
        cluster=case.cluster,
        workload=workload,
        router=policy.router,
        interval_s=policy.interval_s,
        obs_mode="dict",
        action_mode="target",
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


def profile_of(case: Case, hour: Trace) -> InstanceProfile:
    return profile_instance(case.cluster, hour.prompt_tokens, hour.output_tokens)


def folds(case: Case, hour: Trace, seeds: int) -> list[tuple[int, list[Trace]]]:
    """For each parity of window numbers, hours generated from a fit to the windows of the other one."""
    counts = fit_windows.window_counts(hour, case.window_s)
    cut = [hour.slice(k * case.window_s, (k + 1) * case.window_s) for k in range(WINDOWS)]
    made = []
    for parity in (0, 1):
        pattern, lengths = fit_windows.fit_service(cut[1 - parity :: 2], silent=case.kind == "code")
        made.append((parity, [counts.generate(pattern, lengths, seed=seed) for seed in range(seeds)]))
    return made


def table(real: dict[str, float], generated: list[dict[str, float]], policy: str) -> list[dict[str, Any]]:
    """A row for each measure: real, median of the generated, their ratio, 5th and 95th percentile."""
    rows = []
    for measure, value in real.items():
        values = np.array([g[measure] for g in generated])
        low, middle, high = np.percentile(values, [5, 50, 95])
        rows.append(
            {
                "policy": policy,
                "measure": measure,
                "real": value,
                "generated": middle,
                "difference": middle / value - 1,
                "p5": low,
                "p95": high,
            }
        )
    return rows


def compare_windows(case: Case, traces: Path, seeds: int) -> pd.DataFrame:
    """Real windows against windows generated from their counts, by policy and measure."""
    hour = case.hour(traces)
    profile = profile_of(case, hour)
    made = folds(case, hour, seeds)
    rows = []
    for name in case.policies:
        policy = make_policy(name, case.cluster, profile)
        real = play(hour, case, policy)
        generated = [
            together(
                [play(hours[seed], case, policy).of_windows(case.window_s, parity) for parity, hours in made]
            ).measures()
            for seed in range(seeds)
        ]
        rows += table(real.measures(), generated, name)
    return pd.DataFrame(rows)


def compare_synthetic(case: Case, traces: Path, seeds: int) -> pd.DataFrame:
    """The real hour against synthetic hours of the same time of day and mean rate."""
    hour = case.hour(traces)
    profile = profile_of(case, hour)
    hours = fit_synthetic.generated_hours(case.kind, hour, seeds)
    rows = []
    for name in case.policies:
        policy = make_policy(name, case.cluster, profile)
        real = play(hour, case, policy).measures()
        generated = [play(t, case, policy).measures() for t in hours]
        rows += table(real, generated, name)
    return pd.DataFrame(rows)


def statistics(case: Case, traces: Path, seeds: int) -> pd.DataFrame:
    """What was not fitted: dispersion and autocorrelation inside windows, and the lengths."""
    hour = case.hour(traces)
    made = folds(case, hour, seeds)

    def of(pick: Callable[[int], Trace]) -> dict[str, float]:
        """Over windows, each from the trace that ``pick`` gives for its number."""
        cut = [pick(k).slice(k * case.window_s, (k + 1) * case.window_s) for k in range(WINDOWS)]
        return window_statistics(cut)

    real = of(lambda k: hour)
    generated = []
    for seed in range(seeds):
        by_parity = {parity: hours[seed] for parity, hours in made}
        generated.append(of(lambda k, by_parity=by_parity: by_parity[k % 2]))  # type: ignore[misc]
    return pd.DataFrame(table(real, generated, ""))


def window_statistics(windows: Sequence[Trace]) -> dict[str, float]:
    """Means over windows, but the lengths, which are those of all requests."""
    figures: dict[str, list[float]] = {}
    for window in windows:
        gap = np.diff(window.arrival_s)
        figures.setdefault("CV of gaps", []).append(float(gap.std() / gap.mean()))
        for bin_s in BINS_S:
            count = np.bincount((window.arrival_s // bin_s).astype(int))[: int(window.span_s // bin_s)]
            figures.setdefault(f"index of dispersion, {bin_s:g} s", []).append(
                float(count.var(ddof=1) / count.mean())
            )
        count = np.bincount((window.arrival_s // 10).astype(int), minlength=int(window.span_s // 10))
        for lag in (1, 3, 6):
            figures.setdefault(f"autocorrelation of 10 s counts, {10 * lag} s", []).append(
                float(np.corrcoef(count[:-lag], count[lag:])[0, 1])
            )
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    prompt, output = (
        np.concatenate([getattr(w, name) for w in windows]) for name in ("prompt_tokens", "output_tokens")
    )
    ranks = [pd.Series(tokens).rank() for tokens in (prompt, output)]
    means["rank correlation of prompt and output"] = float(np.corrcoef(ranks)[0, 1])
    for name, tokens in (("prompt", prompt), ("output", output)):
        for level in (50, 90, 99):
            means[f"{name} tokens P{level}"] = float(np.percentile(tokens, level))
    return means


def show(name: str, frame: pd.DataFrame) -> None:
    print(f"\n{name}\n")
    print("| " + " | ".join(["policy", "measure", "real", "generated", "difference", "5 % to 95 %"]) + " |")
    print("|---|---|---|---|---|---|")
    for row in frame.itertuples(index=False):
        print(
            f"| {row.policy} | {row.measure} | {row.real:.4g} | {row.generated:.4g} | "
            f"{100 * row.difference:+.0f} % | {row.p5:.4g} to {row.p95:.4g} |"
        )


def main() -> None:
    traces = Path(os.environ["PRESERVE_GYM_DATA"]) / "traces"
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for case in CASES:
        show(f"{case.kind}: windows", compare_windows(case, traces, seeds))
        show(f"{case.kind}: statistics", statistics(case, traces, 2 * seeds))
        show(f"{case.kind}: synthetic", compare_synthetic(case, traces, seeds))


if __name__ == "__main__":
    main()
