"""``python -m experiments.routers``: every router, at the loads of PreServe's routing experiment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agents.shared_router import router_names
from baselines.router_name import check_router_name, router_label, router_options
from experiments.leaderboard_page import table as markdown
from experiments.paper_calibration import CALIBRATIONS, figures
from experiments.paper_routing import predict
from experiments.replacing import replacing
from experiments.statistics import change
from experiments.tables import plain_console, show
from preserve_gym import simulate
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError
from preserve_gym.sim.routers import ROUTERS

PROGRAM = "python -m experiments.routers"
REFERENCE = "least-requests"
"""Changes are over this router, on the same arrivals."""
LENGTHS = "regression"
"""The predictor: its mean absolute error is that of PreServe's."""
TAIL = "normalized_latency_p99_s"
RESULTS = Path(__file__).parents[1] / "results" / "routers" / "runs.csv"
"""Of the run that the page on ``preserve/Route-v0`` shows."""


@dataclass(frozen=True)
class Options:
    """All routers: four instances of Llama-2-7B, lengths of ShareGPT, Poisson arrivals.

    The cluster, lengths and loads are those of python -m experiments.paper_routing; routers that read
    predicted lengths get those of a regression as good as PreServe's.
    """

    rates: tuple[float, ...] = (7.5, 8.5, 9.5, 10.2, 10.8)
    """Requests per second."""
    routers: tuple[str, ...] = ()
    """By name, the file of a learned one, or file.py:function; default: all, and those of agents/routers."""
    seeds: int = 20
    """Runs of each; the same arrivals for every router."""
    first_seed: int = 0
    """Of the runs."""
    requests: int = 3000
    """Arrivals of a run."""
    out: Path | None = None
    """CSV file for every run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    _check(options)
    given = options.routers or (*ROUTERS, *router_names())
    routers = tuple(dict.fromkeys((REFERENCE, *given)))
    console = plain_console()
    rows: list[dict[str, Any]] = []
    with console.status("") as status:
        for rate in options.rates:
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                status.update(f"{rate:g} requests/s, seed {seed}")
                rows += run_rows(rate, options.requests, seed, routers)
    runs = pd.DataFrame(rows)
    if options.out is not None:
        with replacing(options.out) as partial:
            runs.to_csv(partial, index=False, float_format="%.7g", lineterminator="\n")
    show("means over seeds, and the change of the tail over least-requests in %", compare(runs), console)
    return 0


def _check(options: Options) -> None:
    for name in options.routers:
        check_router_name(name, "--routers")
    labels = [router_label(name) for name in options.routers]
    for name, label in zip(options.routers, labels, strict=True):
        if labels.count(label) > 1:
            raise InputError(
                f"--routers: {name}: expected names that differ, {label!r} is given more than once"
            )
    if not options.rates or not all(0.01 <= rate <= 1000.0 for rate in options.rates):
        raise InputError(f"--rates: expected numbers in [0.01, 1000], at least one, got {options.rates}")
    for name, least, most in (("seeds", 2, 10_000), ("first_seed", 0, 10**6), ("requests", 100, 10**6)):
        value = getattr(options, name)
        if not least <= value <= most:
            option = name.replace("_", "-")
            raise InputError(f"--{option}: expected an integer in [{least}, {most}], got {value}")


def run_rows(rate_rps: float, requests: int, seed: int, routers: Sequence[str]) -> list[dict[str, Any]]:
    """The figures of every router on the arrivals of one seed, a row each."""
    calibration = CALIBRATIONS["gpu-and-prompts"]
    cluster, trace = calibration.cluster(), calibration.trace(rate_rps, requests, seed)
    predicted = predict(LENGTHS, trace, seed)
    rows = []
    for name in routers:
        served = simulate(trace, cluster, **router_options(name), predicted_tokens=predicted, progress=False)
        found = figures(served.requests)
        rows.append({"rate_rps": rate_rps, "router": router_label(name), "seed": seed, **found})
    return rows


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each rate and router: means over seeds, and the change of ``TAIL`` over ``REFERENCE``.

    The change is the geometric mean over seeds in %, with its paired 95 % interval (``change_low``,
    ``change_high``).
    """
    rows = []
    logs = runs.pivot(index="seed", columns=["rate_rps", "router"], values=TAIL).transform(np.log)
    for (rate, router), part in runs.groupby(["rate_rps", "router"], sort=False):
        row: dict[str, Any] = {"rate_rps": rate, "router": router}
        measures = ("ttft_p99_s", "tpot_p99_s", "normalized_latency_mean_s", TAIL, "preemptions")
        row |= {name: float(part[name].mean()) for name in measures}
        changed = change((logs[rate, router] - logs[rate, REFERENCE]).to_numpy())
        rows.append(row | dict(zip(("change", "change_low", "change_high"), changed, strict=True)))
    return pd.DataFrame(rows)


def page_table(runs: pd.DataFrame, rate_rps: float) -> str:
    """The routers at one rate in Markdown, the one with the lowest tail first."""
    compared = compare(runs)
    compared = compared[compared["rate_rps"] == rate_rps].sort_values(TAIL)
    heads = (
        *("router", "TTFT P99, s", "TPOT P99, ms", "normalised latency, ms", "P99"),
        *(f"to `{REFERENCE}`, %", "preemptions"),
    )
    cells = []
    for row in compared.to_dict("records"):
        paired = f"{row['change']:+.0f} ({row['change_low']:+.0f} to {row['change_high']:+.0f})"
        per_token = (1000.0 * row[name] for name in ("tpot_p99_s", "normalized_latency_mean_s", TAIL))
        cells.append(
            (
                f"`{row['router']}`",
                f"{row['ttft_p99_s']:.2f}",
                *(f"{value:.0f}" for value in per_token),
                "" if row["router"] == REFERENCE else paired,
                f"{row['preemptions']:.1f}",
            )
        )
    return markdown(heads, cells)


if __name__ == "__main__":
    sys.exit(main())
