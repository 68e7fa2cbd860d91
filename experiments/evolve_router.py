"""``python -m experiments.evolve_router``: learn a router by evolution, in PreServe's routing experiment."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from agents.hyperparameters import as_yaml
from agents.shared_router import EVOLVED, ROUTERS, LearnedRouter, shared_score, start_weights
from experiments.backend import Pool, opened
from experiments.metrics import normalized_latency_s, ttft_s
from experiments.paper_calibration import CALIBRATIONS
from experiments.paper_routing import predict
from experiments.replacing import replacing
from experiments.routers import LENGTHS
from preserve_gym import Trace, simulate
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError, missing_extra

PROGRAM = "python -m experiments.evolve_router"
STATE, TABLE = "state.pickle", "generations.csv"
WORST = 0.03
"""Share of the requests whose mean latency is brought down; P99 itself is noisier."""
LATENCIES = {"normalized": normalized_latency_s, "ttft": ttft_s}
TRAIN_SEED, VALIDATION_SEED = 10_000, 20_000
"""First seeds of the arrivals; the routers are compared on those from 0 on."""
CALIBRATION = "gpu-and-prompts"


@dataclass(frozen=True)
class Options:
    """Evolve the weights of a router that scores every instance alike, with CMA-ES.

    It begins as PreServe's router. What falls is the mean latency of the worst 3 % of the requests, over runs
    of Poisson arrivals that are the same for all candidates of a generation; the distribution's mean is tried
    on other arrivals, and the best there is kept. The same command goes on from --out.
    """

    latencies: tuple[Literal["normalized", "ttft"], ...] = ("normalized",)
    """Those that fall; of both, their geometric mean."""

    rates: tuple[float, ...] = (9.5,)
    """Requests per second."""
    generations: int = 40
    """In all."""
    population: int = 16
    """Candidates of a generation."""
    runs: int = 32
    """Of each candidate and rate."""
    requests: int = 3000
    """Arrivals of a run."""
    seed: int = 0
    """Of the evolution."""
    every: int = 4
    """Generations between two validations."""
    jobs: int = 1
    """Processes."""
    out: Path = Path("runs/evolve-router")
    """Folder."""
    save_as: str | None = None
    """Keep the router in agents/routers under this name."""


@dataclass(frozen=True)
class Task:
    """A candidate on the arrivals of one rate, of ``runs`` seeds from ``first_seed`` on."""

    weights: tuple[float, ...]
    latencies: tuple[str, ...]
    rate_rps: float
    first_seed: int
    runs: int
    requests: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments), "interrupted; the same command goes on from there")


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    _check(options)
    try:
        from cmaes import CMA
    except ModuleNotFoundError:
        raise missing_extra(PROGRAM, "cmaes", "search") from None
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    state = _load(options)
    if state is None:
        start = start_weights(CALIBRATIONS[CALIBRATION].cluster().instance.kv_tokens)
        optimizer = CMA(mean=start, sigma=0.3, seed=options.seed, population_size=options.population)
        state = {"of": _settings(options), "optimizer": optimizer, "rows": [], "best": None, "spent_s": 0.0}
    started_s = time.monotonic() - state["spent_s"]
    with opened("local", None, options.jobs) as pool:
        if state["best"] is None:
            value = float(_costs(pool, [state["optimizer"].mean], options, VALIDATION_SEED)[0])
            state["best"] = (value, state["optimizer"].mean.tolist())
            state["start"] = value
        while state["optimizer"].generation < options.generations:
            optimizer = state["optimizer"]
            first_seed = TRAIN_SEED + optimizer.generation * options.runs
            # The generator does not survive pickling.
            optimizer.reseed_rng(options.seed + 100_003 * optimizer.generation)
            candidates = [optimizer.ask() for _ in range(optimizer.population_size)]
            costs = _costs(pool, candidates, options, first_seed)
            optimizer.tell(list(zip(candidates, costs.tolist(), strict=True)))
            row: dict[str, Any] = {"generation": optimizer.generation, "training": float(costs.mean())}
            if optimizer.generation % options.every == 0 or optimizer.generation == options.generations:
                row["validation"] = float(_costs(pool, [optimizer.mean], options, VALIDATION_SEED)[0])
                state["best"] = min(state["best"], (row["validation"], optimizer.mean.tolist()))
                change = 100.0 * np.expm1(row["validation"] - state["start"])
                console.print(
                    f"generation {optimizer.generation}: {change:+.2f} % on validation, to what it began as; "
                    f"{time.monotonic() - started_s:.0f} s",
                    highlight=False,
                )
            state["rows"].append(row)
            state["spent_s"] = time.monotonic() - started_s
            _save(options, state)
    learned = _result(options, state)
    learned.save(options.out / EVOLVED)
    if options.save_as is not None:
        learned.save(ROUTERS / f"{options.save_as}.yaml")
    console.print(f"{options.out / EVOLVED}: {learned.card['validation']}", highlight=False)
    return 0


def _check(options: Options) -> None:
    if not options.latencies:
        raise InputError(f"--latencies: expected some of {', '.join(LATENCIES)}, got none")
    if not options.rates or not all(0.01 <= rate <= 1000.0 for rate in options.rates):
        raise InputError(f"--rates: expected numbers in [0.01, 1000], at least one, got {options.rates}")
    bounds = (("generations", 1, 10_000), ("population", 4, 1000), ("runs", 2, 200), ("requests", 100, 10**6))
    for name, least, most in (*bounds, ("every", 1, 10_000), ("jobs", 1, 256), ("seed", 0, 10**9)):
        value = getattr(options, name)
        if not least <= value <= most:
            raise InputError(f"--{name}: expected an integer in [{least}, {most}], got {value}")
    if options.generations * options.runs > VALIDATION_SEED - TRAIN_SEED:
        most = (VALIDATION_SEED - TRAIN_SEED) // options.runs
        raise InputError(
            f"--generations: expected at most {most} of {options.runs} runs each, after which arrivals are "
            f"those of validation, got {options.generations}"
        )


def _costs(
    pool: Pool, candidates: Sequence[NDArray[np.float64]], options: Options, first_seed: int
) -> NDArray[np.float64]:
    """Of each candidate: the mean over rates, runs and latencies of the logarithm of ``tail_s``."""
    tasks = [
        Task(tuple(candidate.tolist()), options.latencies, rate, first_seed, options.runs, options.requests)
        for candidate in candidates
        for rate in options.rates
    ]
    found = pool.run_tasks(cost, tasks, jobs=pool.jobs or 1, on_done=_nothing, on_result=_nothing)
    return np.reshape(found, (len(candidates), len(options.rates))).mean(axis=1)


def _nothing(*_: Any) -> None:
    """What is told of progress is told once a generation."""


def cost(task: Task) -> float:
    """Mean over runs and latencies of the logarithm of the worst requests' latency."""
    cluster = CALIBRATIONS[CALIBRATION].cluster()
    logs = []
    for seed in range(task.first_seed, task.first_seed + task.runs):
        trace, predicted = _arrivals(task.rate_rps, task.requests, seed)
        served = simulate(
            trace,
            cluster,
            shared_score,
            router_weights=task.weights,
            predicted_tokens=predicted,
            progress=False,
        )
        logs += [np.log(tail_s(LATENCIES[name](served.requests))) for name in task.latencies]
    return float(np.mean(logs))


def tail_s(latencies: NDArray[np.float64]) -> float:
    """Mean of the worst ``WORST`` of them, those that are no number left out."""
    known = np.sort(latencies[~np.isnan(latencies)])
    return float(known[-max(round(WORST * len(known)), 1) :].mean())


@lru_cache(maxsize=1024)
def _arrivals(rate_rps: float, requests: int, seed: int) -> tuple[Trace, NDArray[np.int32]]:
    trace = CALIBRATIONS[CALIBRATION].trace(rate_rps, requests, seed)
    return trace, predict(LENGTHS, trace, seed)


def _settings(options: Options) -> dict[str, Any]:
    """What must not change when an evolution goes on."""
    names = ("latencies", "rates", "population", "runs", "requests", "seed")
    return {name: value for name, value in asdict(options).items() if name in names}


def _load(options: Options) -> dict[str, Any] | None:
    path = options.out / STATE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = pickle.loads(path.read_bytes())  # our own, of this machine
        of = state["of"]
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError):
        raise InputError(f"--out: {path}: expected the state of an evolution") from None
    if of != _settings(options):
        raise InputError(f"--out: {options.out} holds an evolution with other settings: {of}")
    return state


def _save(options: Options, state: dict[str, Any]) -> None:
    with replacing(options.out / STATE) as partial:
        partial.write_bytes(pickle.dumps(state))
    pd.DataFrame(state["rows"]).to_csv(options.out / TABLE, index=False, lineterminator="\n")


def _result(options: Options, state: dict[str, Any]) -> LearnedRouter:
    value, weights = state["best"]
    card = {
        "learned_by": "CMA-ES, experiments.evolve_router",
        "settings": as_yaml(_settings(options)) | {"generations": options.generations},
        "lengths": LENGTHS,
        "validation": {
            "worst_mean_s": round(float(np.exp(value)), 5),
            "as_it_began_s": round(float(np.exp(state["start"])), 5),
            "first_seed": VALIDATION_SEED,
        },
        "wall_s": round(state["spent_s"], 1),
    }
    return LearnedRouter(options.out.name, tuple(round(w, 5) for w in weights), card)


if __name__ == "__main__":
    sys.exit(main())
