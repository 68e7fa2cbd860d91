"""``python -m experiments.paper_scaling``: PreServe's scaling experiment, and two flaws of it measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from baselines import Autoscaler, Static, make_policy
from experiments.metrics import normalized_latency_s, percentile, ttft_s, violated
from experiments.paper_scaling_tables import draw, flaw_table, forecast_table, policy_table
from experiments.paper_week import FORECASTS, LEARNED, PROFILES, SLOTS, WINDOW_S, Service, Week
from experiments.pool import run_tasks
from experiments.tables import plain_console, show
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError, did_you_mean

PROGRAM = "python -m experiments.paper_scaling"
START_INSTANCES = 4
STATIC = tuple(f"static-{instances}" for instances in range(3, SLOTS + 1))
FORECASTING = ("proactive", "hybrid", "preserve", "preserve-up-only", "preserve-artifact")
KNOWLEDGE: dict[str, tuple[str, str]] = {
    "oracle": ("oracle", "oracle"),
    "predicted": ("noisy", "noisy"),
    "profile-ar": ("profile-ar", "noisy"),
    "lstm": ("lstm", "noisy"),
    "lstm-overlap": ("lstm-overlap", "noisy"),
    "none": ("naive", "mean"),
}
"""What policies are told: names of the forecaster of ``Week`` and of the predictor of lengths."""
SERVED = "predicted"
"""What is known where predicted lengths are served as true."""


@dataclass(frozen=True)
class Options:
    """PreServe's scaling experiment: up to eight instances of Llama-2-7B, Azure's weeks of 2024 squeezed.

    Three parts: each policy with what it is told, the errors of the forecasts, and how much of the gain is
    left without two flaws: predicted lengths served as true, and forecasters trained on what is played.
    """

    services: tuple[str, ...] = ("code", "conv")
    """Which weeks: code, conv."""
    seeds: int = 10
    """Runs of each cell; the same requests for every policy."""
    horizon_s: float = 7200.0
    """How much is played, s on the squeezed clock."""
    profile: str = "artifact"
    """What an instance is believed to serve, and so how thin the traffic is: artifact or measured."""
    learned: bool = True
    """Also forecasters that learn; they take two thirds of the time."""
    jobs: int = 2
    """Processes."""
    out: Path | None = None
    """Folder for the tables (CSV), every run and the plot."""


@dataclass(frozen=True)
class Contest:
    """A policy and what it is told.

    Attributes:
        label: for tables.
        policy: its name.
        knowledge: one of ``KNOWLEDGE``; "" where it reads none.
        served_as_true: the predicted length is what is generated, as in the artifact.
        router: in place of its own; "": its own.
        lead: instances for a window are started a cold start before it.
    """

    label: str
    policy: str
    knowledge: str
    served_as_true: bool = False
    router: str = ""
    lead: bool = False


@dataclass(frozen=True)
class Task:
    """Every contest on one week; ``learned``: those with forecasters that learn, too."""

    service: Service
    seed: int
    horizon_s: float
    learned: bool


@dataclass(frozen=True)
class WeekRuns:
    """What came of a ``Task``: rows of runs and of forecast errors."""

    runs: list[dict[str, Any]]
    errors: list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    _check(options)
    services = PROFILES[options.profile]
    tasks = [
        Task(services[name], seed, options.horizon_s, options.learned)
        for seed in range(options.seeds)
        for name in options.services
    ]
    console = plain_console()
    with console.status(f"0 of {len(tasks)} weeks") as status:
        done = run_tasks(
            week_runs,
            tasks,
            jobs=options.jobs,
            on_done=lambda count: status.update(f"{count} of {len(tasks)} weeks"),
        )
    runs = pd.DataFrame([row for week in done for row in week.runs])
    errors = pd.DataFrame([row for week in done for row in week.errors])
    tables = {"policies": policy_table(runs), "forecasts": forecast_table(errors), "flaws": flaw_table(runs)}
    show("policies: means over seeds; changes in %, of instances in instances", tables["policies"], console)
    show("forecasts: mean absolute percentage error of the window that begins", tables["forecasts"], console)
    show("flaws: gain in % over a baseline with the flaw and without", tables["flaws"], console)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, table in (tables | {"runs": runs}).items():
            table.to_csv(options.out / f"{name}.csv", index=False, float_format="%.7g")
        draw(tables["policies"], options.out / "scaling.png")
    return 0


def _check(options: Options) -> None:
    if options.profile not in PROFILES:
        hint = did_you_mean(options.profile, PROFILES)
        raise InputError(f"--profile: expected one of {', '.join(PROFILES)}, got {options.profile!r}{hint}")
    known = PROFILES[options.profile]
    for name in options.services:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(f"--services: expected some of {', '.join(known)}, got {name!r}{hint}")
    if not options.services or len(set(options.services)) != len(options.services):
        raise InputError(f"--services: expected different services, at least one, got {options.services}")
    for name, least, most in (("seeds", 2, 10_000), ("jobs", 1, 1000)):
        if not least <= getattr(options, name) <= most:
            raise InputError(
                f"--{name}: expected an integer in [{least}, {most}], got {getattr(options, name)}"
            )
    windows = options.horizon_s / WINDOW_S
    if not (20 <= windows <= 504 and windows.is_integer()):
        raise InputError(
            f"--horizon-s: expected a multiple of {WINDOW_S:g} in [500, 12600], got {options.horizon_s:g}"
        )


def contests(learned: bool = True) -> Iterator[Contest]:
    """All that are compared on each week; ``learned``: those with forecasters that learn, too."""
    for name in (*STATIC, "reactive"):
        yield Contest(name, name, "")
    yield Contest("reactive, preserve's router", "reactive", "predicted", router="preserve")
    for name in FORECASTING:
        for knowledge, (forecaster, _) in KNOWLEDGE.items():
            if learned or forecaster not in LEARNED:
                yield Contest(name, name, knowledge)
    for knowledge in ("oracle", "predicted"):
        yield Contest("preserve-up-only, lead", "preserve-up-only", knowledge, lead=True)
    for name in ("reactive", *FORECASTING):
        yield Contest(name, name, SERVED, served_as_true=True)


def week_runs(task: Task) -> WeekRuns:
    """The figures of every contest on one week, and the errors of the forecasts there."""
    service = task.service
    week = Week(service, task.seed, task.horizon_s)
    # What the artifact makes of it: no answer is longer than the model has room for.
    room = service.cluster().instance.max_model_len - week.trace.prompt_tokens
    served = Week(service, task.seed, task.horizon_s, np.minimum(week.predicted_tokens, room))
    cell = {"service": service.name, "seed": task.seed}
    runs = []
    for contest in contests(task.learned):
        figures = play(served if contest.served_as_true else week, contest)
        labels = {name: getattr(contest, name) for name in ("label", "knowledge", "served_as_true")}
        runs.append(cell | labels | figures)
    forecasts = [name for name in FORECASTS if task.learned or name not in LEARNED]
    errors = [
        cell | {"forecast": name, "prompt": prompt, "output": output}
        for name, (prompt, output) in week.forecast_errors(forecasts).items()
    ]
    return WeekRuns(runs, errors)


def play(week: Week, contest: Contest) -> dict[str, float]:
    """The figures of a contest on a week, starting with four instances (a static fleet: with its own)."""
    policy = _policy(week.service, contest)
    # In the served form the lengths that are predicted are the true ones.
    forecaster, predictor = KNOWLEDGE[contest.knowledge or "none"]
    workload = week.with_predictions(forecaster, "oracle" if contest.served_as_true else predictor)
    env = gym.make(
        "preserve/Autoscale-v0",
        disable_env_checker=True,
        workload=workload,
        **policy.env_options(),
        initial_instances=policy.instances if isinstance(policy, Static) else START_INSTANCES,
    )
    try:
        observation, _ = env.reset(seed=week.config.seed)
        state, truncated = None, False
        while not truncated:
            action, state = policy.predict(observation, state)
            observation, _, _, truncated, _ = env.step(action)
        base: Any = env.unwrapped
        requests, totals = base.results(), base.episode_totals()
    finally:
        env.close()
    normalized, ttft = normalized_latency_s(requests), ttft_s(requests)
    instances = float(totals["instance_s"]) / float(week.config.horizon_s or np.nan)
    return {
        "requests": len(requests),
        "mean_need": float(week.need().mean()),
        "p99_s": percentile(normalized, 99.0),
        "mean_s": float(np.nanmean(normalized)),
        "attainment": 100.0 * (1.0 - float(violated(requests).mean())),
        "ttft_p99_s": percentile(ttft, 99.0),
        "instances": instances,
        "resources": 100.0 * (SLOTS - instances) / SLOTS,
        "scale_ups": int(totals["scale_ups"]),
        "scale_downs": int(totals["scale_downs"]),
    }


def _policy(service: Service, contest: Contest) -> Autoscaler:
    parameters: dict[str, Any] = {}
    if contest.policy in ("reactive", "hybrid"):
        parameters = {"high_kv_use": service.high_kv_use, "low_kv_use": service.low_kv_use}
    elif contest.policy == "preserve-artifact":
        parameters = {"low_use": service.low_use}
    if contest.router:
        parameters["router"] = contest.router
    if contest.lead:
        parameters["lead_s"] = service.cold_start_s
    return make_policy(contest.policy, service.cluster(), service.profile, **parameters)


if __name__ == "__main__":
    sys.exit(main())
