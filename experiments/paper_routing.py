"""``python -m experiments.paper_routing``: PreServe's routing experiment, and a flaw of it measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.paper_calibration import (
    CALIBRATIONS,
    PUBLISHED,
    RATE_RPS,
    REQUESTS,
    Calibration,
    figures,
)
from experiments.statistics import change, share
from experiments.tables import plain_console, show
from preserve_gym import Trace, simulate
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.prediction import predict_lengths
from preserve_gym.streams import normal_at

PROGRAM = "python -m experiments.paper_routing"
BASELINES = ("round-robin", "least-requests", "least-kv")
PRESERVE = ("preserve", "preserve-look-ahead")
REFERENCE = "least-requests"
"""Gains are over this router, on the same arrivals."""
LENGTHS = ("oracle", "regression", "noisy", "empirical", "mean")
"""Predicted outputs: the truth, three predictors, and one figure for all requests."""
PREDICTED = ("regression", "noisy", "empirical")
REGRESSION_SIGMA = 0.42
"""Of what the regression knows: its mean absolute error is then that of PreServe's predictor, 78 tokens."""
TAILS = ("ttft_p99_s", "normalized_latency_p99_s")
MEASURES = ("ttft_mean_s", "ttft_p99_s", "normalized_latency_mean_s", "normalized_latency_p99_s")
_CELL = ["rate_rps", "router", "lengths", "served_as_true"]
_CLASSES = 50  # of the regression: lengths it tells apart


@dataclass(frozen=True)
class Options:
    """PreServe's routing experiment: four instances of Llama-2-7B, lengths of ShareGPT, Poisson arrivals.

    Three parts: the artifact's figures beside ours, the routers at each rate, and how much of the gain is
    left when predicted lengths aren't served as true.
    """

    rates: tuple[float, ...] = (7.5, 8.5, 9.5, 10.2, 10.8)
    """Requests per second."""
    seeds: int = 20
    """Runs of each cell; the same arrivals for every router."""
    requests: int = 3000
    """Arrivals of a run."""
    calibration: str = "gpu-and-prompts"
    """Which fit of what is unknown: gpu or gpu-and-prompts."""
    out: Path | None = None
    """Folder for the tables (CSV), every run and the plot."""


@dataclass(frozen=True)
class Contest:
    """A router and the lengths that it is told.

    Attributes:
        router: its name.
        lengths: one of ``LENGTHS``; "" where the router reads none.
        served_as_true: the predicted length is what is generated, as in the artifact.
    """

    router: str
    lengths: str
    served_as_true: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    _check(options)
    console = plain_console()
    with console.status("") as status:
        status.update("the artifact's figures")
        matched = pd.concat([calibration_table(name, options.seeds) for name in CALIBRATIONS])
        show("calibration: the artifact's single run beside ours", matched, console)
        rows: list[dict[str, Any]] = []
        for rate in options.rates:
            for seed in range(options.seeds):
                status.update(f"{rate:g} requests/s, seed {seed}")
                rows += run_rows(CALIBRATIONS[options.calibration], rate, options.requests, seed)
    runs = pd.DataFrame(rows)
    routing, flaw = routing_table(runs), flaw_table(runs)
    show("routing: means over seeds, and changes over least-requests in %", routing, console)
    show("flaw: gain in % over least-requests, by what is served", flaw, console)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, table in {
            "calibration": matched,
            "routing": routing,
            "flaw": flaw,
            "runs": runs,
        }.items():
            table.to_csv(options.out / f"{name}.csv", index=False, float_format="%.7g")
        draw(runs, options.out / "routing.png")
    return 0


def _check(options: Options) -> None:
    if options.calibration not in CALIBRATIONS:
        hint = did_you_mean(options.calibration, CALIBRATIONS)
        raise InputError(
            f"--calibration: expected one of {', '.join(CALIBRATIONS)}, got {options.calibration!r}{hint}"
        )
    if not options.rates or len(set(options.rates)) != len(options.rates):
        raise InputError(f"--rates: expected different rates, at least one, got {options.rates}")
    for rate in options.rates:
        if not 0.01 <= rate <= 1000.0:
            raise InputError(f"--rates: expected numbers in [0.01, 1000], got {rate}")
    for name, least, most in (("seeds", 2, 10_000), ("requests", 100, 1_000_000)):
        if not least <= getattr(options, name) <= most:
            raise InputError(
                f"--{name}: expected an integer in [{least}, {most}], got {getattr(options, name)}"
            )


def calibration_table(name: str, seeds: int) -> pd.DataFrame:
    """The artifact's figures beside those of a calibration, a row for each router and figure.

    Columns: ``published``; ``mean``, and ``low`` and ``high``, between which 90 % of single runs lie;
    ``share_above``: of runs that reach the published figure; ``fitted``: whether it was used in the fit.
    """
    calibration = CALIBRATIONS[name]
    cluster = calibration.cluster()
    traces = [calibration.trace(RATE_RPS, REQUESTS, seed) for seed in range(seeds)]
    rows = []
    for router, published in PUBLISHED.items():
        runs = pd.DataFrame(
            [figures(simulate(trace, cluster, router, progress=False).requests) for trace in traces]
        )
        for figure, value in published.items():
            ours = runs[figure]
            low, high = np.percentile(ours, [5.0, 95.0])
            rows.append(
                {
                    "calibration": name,
                    "router": router,
                    "figure": figure,
                    "published": value,
                    "mean": float(ours.mean()),
                    "low": float(low),
                    "high": float(high),
                    "share_above": float((ours >= value).mean()),
                    "fitted": router == REFERENCE and figure in calibration.fitted,
                }
            )
    return pd.DataFrame(rows)


def contests() -> Iterator[Contest]:
    """All that are compared at each rate."""
    for router in BASELINES:
        yield Contest(router, "")
    for router in PRESERVE:
        for lengths in LENGTHS:
            yield Contest(router, lengths)
    yield Contest("least-tokens", "mean")  # neither predictions nor the queued prefill
    for lengths in PREDICTED:
        for router in (REFERENCE, *PRESERVE):
            yield Contest(router, lengths, served_as_true=True)


def run_rows(calibration: Calibration, rate_rps: float, requests: int, seed: int) -> list[dict[str, Any]]:
    """The figures of every contest on the arrivals of one seed, a row each."""
    cluster = calibration.cluster()
    trace = calibration.trace(rate_rps, requests, seed)
    predicted = {lengths: predict(lengths, trace, seed) for lengths in LENGTHS}
    rows = []
    for contest in contests():
        served = trace
        if contest.served_as_true:
            # As vLLM does with max_tokens: no longer than the model can generate after the prompt.
            room = cluster.instance.max_model_len - trace.prompt_tokens
            outputs = np.minimum(predicted[contest.lengths], room)
            served = Trace(trace.arrival_s, trace.prompt_tokens, outputs, name=trace.name)
        told = predicted.get(contest.lengths)
        simulation = simulate(served, cluster, contest.router, predicted_tokens=told, progress=False)
        cell = (rate_rps, contest.router, contest.lengths, contest.served_as_true)
        rows.append({**dict(zip(_CELL, cell, strict=True)), "seed": seed, **figures(simulation.requests)})
    return rows


def predict(lengths: str, trace: Trace, seed: int) -> NDArray[np.int32]:
    """Predicted outputs of a trace, int32[n]: ``mean`` knows nothing, ``regression`` is below."""
    if lengths == "mean":
        return np.full(len(trace), round(float(trace.output_tokens.mean())), np.int32)
    if lengths == "regression":
        return regressed_lengths(trace.output_tokens, seed)
    return predict_lengths(lengths, trace, seed=seed)


def regressed_lengths(output_tokens: NDArray[np.int32], seed: int) -> NDArray[np.int32]:
    """What a regression by least squares predicts from a blurred view of the length, int32[n].

    It tells classes of equally many requests apart, by their length times ``exp(REGRESSION_SIGMA * z)``, and
    predicts the mean of a class: so predictions vary less than lengths, as PreServe's must.
    """
    true = output_tokens.astype(np.float64)
    view = np.log(true) + REGRESSION_SIGMA * normal_at(seed, "regression", np.arange(len(true)))
    predicted = np.empty(len(true))
    for members in np.array_split(np.argsort(view, kind="stable"), min(_CLASSES, len(true))):
        predicted[members] = true[members].mean()
    return np.maximum(1, np.rint(predicted)).astype(np.int32)


def log_ratios(runs: pd.DataFrame, measure: str) -> pd.DataFrame:
    """log(measure / that of ``REFERENCE``) of each run, on the same arrivals and the same served lengths.

    Returns:
        One row per seed, one column per (rate, router, lengths, served_as_true).
    """
    values = runs.pivot(index="seed", columns=_CELL, values=measure).transform(np.log)
    ratios = {}
    for cell in pd.MultiIndex.to_list(values.columns):
        rate, _, lengths, served_as_true = cell
        reference = (rate, REFERENCE, lengths if served_as_true else "", served_as_true)
        ratios[cell] = values[cell] - values[reference]
    return pd.DataFrame(ratios)


def routing_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each rate, router and kind of lengths, true lengths served.

    Columns: means of ``MEASURES`` and of preemptions; for each of ``TAILS`` the geometric mean change over
    ``REFERENCE`` in % (``change_<tail>``), with its paired 95 % interval (``_low``, ``_high``).
    """
    honest = runs[~runs["served_as_true"]]
    ratios = {tail: log_ratios(honest, tail) for tail in TAILS}
    rows = []
    for cell, part in honest.groupby(_CELL, sort=False):
        row: dict[str, Any] = dict(zip(_CELL[:3], cell, strict=False))
        row |= {measure: float(part[measure].mean()) for measure in (*MEASURES, "preemptions")}
        for tail in TAILS:
            name = f"change_{tail.removesuffix('_s')}"
            changed = change(ratios[tail][cell].to_numpy())
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), changed, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def flaw_table(runs: pd.DataFrame) -> pd.DataFrame:
    """What is left of the gain when predicted lengths aren't served as true.

    A row for each router, predictor and tail. Changes are in %, geometric means over all rates, each with
    its 95 % interval in ``_low`` and ``_high``; gains are positive. Columns:

    * ``gain_<form>`` over ``REFERENCE``: ``served`` (predicted lengths are generated, the artifact's form),
      ``honest`` (predicted lengths steer, true ones are generated), ``oracle`` and ``none`` (true lengths, or
      no predictions, steer; true ones are generated);
    * ``gain_predicted`` of the honest form over none;
    * ``value_served`` and ``value_honest``: the tail itself, s, mean over rates and seeds;
    * ``survives``: log gain of the honest form over that of the served one; NaN where that isn't above 0.
    """
    rows = []
    for tail in TAILS:
        over_rates = log_ratios(runs, tail).T.groupby(level=[1, 2, 3]).mean().T
        for router in PRESERVE:
            for lengths in PREDICTED:
                forms = {
                    "served": over_rates[(router, lengths, True)],
                    "honest": over_rates[(router, lengths, False)],
                    "oracle": over_rates[(router, "oracle", False)],
                    "none": over_rates[(router, "mean", False)],
                }
                forms["predicted"] = forms["honest"] - forms["none"]
                row: dict[str, Any] = {"router": router, "lengths": lengths, "tail": tail}
                for form, log_ratio in forms.items():
                    mean, low, high = change(log_ratio.to_numpy())
                    row |= {f"gain_{form}": -mean, f"{form}_low": -high, f"{form}_high": -low}
                row |= {f"value_{form}": value for form, value in _values(runs, router, lengths, tail)}
                left = (np.nan,) * 3
                if row["served_low"] > 0.0:
                    left = share(forms["honest"].to_numpy(), forms["served"].to_numpy())
                row |= dict(zip(("survives", "survives_low", "survives_high"), left, strict=True))
                rows.append(row)
    return pd.DataFrame(rows)


def _values(runs: pd.DataFrame, router: str, lengths: str, tail: str) -> Iterator[tuple[str, float]]:
    chosen = runs[(runs["router"] == router) & (runs["lengths"] == lengths)]
    for form, served_as_true in (("served", True), ("honest", False)):
        yield form, float(chosen.loc[chosen["served_as_true"] == served_as_true, tail].mean())


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Tails over the rate, one line a router: means over seeds, log scale."""
    shown = {
        ("round-robin", ""): ("round-robin", "#9a9a9a", "-"),
        ("least-requests", ""): ("least-requests", "#b5482f", "-"),
        ("least-kv", ""): ("least-kv", "#d08a2e", "-"),
        ("preserve", "regression"): ("preserve, predicted", "#1f5a8c", "-"),
        ("preserve", "oracle"): ("preserve, oracle", "#1f5a8c", "--"),
        ("preserve", "mean"): ("preserve, no prediction", "#1f5a8c", ":"),
        ("preserve-look-ahead", "regression"): ("preserve-look-ahead, predicted", "#3d8f5f", "-"),
    }
    honest = runs[~runs["served_as_true"]]
    titles = {"ttft_p99_s": "P99 TTFT, s", "normalized_latency_p99_s": "P99 normalised latency, s/token"}
    figure, axes = plt.subplots(1, 2, figsize=(10.0, 4.0), layout="constrained")
    for axis, (tail, title) in zip(axes, titles.items(), strict=True):
        for (router, lengths), (label, colour, line) in shown.items():
            part = honest[(honest["router"] == router) & (honest["lengths"] == lengths)]
            mean = part.groupby("rate_rps")[tail].mean()
            axis.plot(mean.index, mean, line, color=colour, label=label, marker="o", ms=3)
        axis.set(title=title, xlabel="requests/s", yscale="log")
    axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
