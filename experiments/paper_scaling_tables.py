"""The tables of PreServe's scaling experiment, and its plot, from the rows of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.statistics import change, interval, share

REFERENCES = ("reactive", "hybrid")
"""Gains are over these, on the same requests; over the hybrid one with the same knowledge."""
MEASURES = (
    "p99_s",
    "mean_s",
    "attainment",
    "ttft_p99_s",
    "instances",
    "resources",
    "scale_ups",
    "scale_downs",
)
_CELL = ["label", "knowledge", "served_as_true"]
_COLOURS = {
    "reactive": "#b5482f",
    "proactive": "#d08a2e",
    "hybrid": "#8a6fae",
    "preserve": "#1f5a8c",
    "preserve-up-only": "#4f9bd0",
    "preserve-artifact": "#3d8f5f",
}
_MARKERS = {"": "o", "oracle": "*", "predicted": "o", "profile-ar": "s", "lstm": "D", "none": "x"}


def by_seed(runs: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure of one service: a row per seed, a column per (label, knowledge, served as true)."""
    return runs.pivot(index="seed", columns=_CELL, values=measure)


def policy_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each service, policy and what it is told, true lengths served.

    Columns: means of ``MEASURES``; over each of ``REFERENCES`` (``_low``, ``_high``: paired 95 % intervals)
    the geometric mean change of P99 normalised latency in % (``tail_over_<reference>``), of attainment in
    points and of mean instances; ``tail_over_static``: the same of the tail over a static fleet of as many
    instances, by interpolating between the fleets' logarithms, NaN outside them.
    """
    rows = []
    for service, part in runs[~runs["served_as_true"]].groupby("service", sort=False):
        tails, instances, met = (by_seed(part, name) for name in ("p99_s", "instances", "attainment"))
        static = _static_tails(tails, instances)
        for cell in part[_CELL].drop_duplicates().itertuples(index=False, name=None):
            label, knowledge, _ = cell
            chosen = part[(part["label"] == label) & (part["knowledge"] == knowledge)]
            row: dict[str, Any] = {"service": service, "policy": label, "knowledge": knowledge}
            row |= {name: float(chosen[name].mean()) for name in MEASURES}
            for reference in REFERENCES:
                other = reference_cell(reference, knowledge)
                log_ratio = np.log(tails[cell] / tails[other]).to_numpy()
                row |= _named(f"tail_over_{reference}", change(log_ratio))
                row |= _named(f"attainment_over_{reference}", interval((met[cell] - met[other]).to_numpy()))
                difference = (instances[cell] - instances[other]).to_numpy()
                row |= _named(f"instances_over_{reference}", interval(difference))
            row |= _named("tail_over_static", change(np.log(tails[cell].to_numpy()) - static[cell]))
            rows.append(row)
    return pd.DataFrame(rows)


def reference_cell(reference: str, knowledge: str, served: bool = False) -> tuple[str, str, bool]:
    """The runs that those with this knowledge are held against."""
    if reference == "reactive":
        return (reference, "predicted" if served else "", served)
    return (reference, knowledge or "predicted", served)


def _named(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _static_tails(tails: pd.DataFrame, instances: pd.DataFrame) -> dict[Any, NDArray[np.float64]]:
    """Logarithms of the P99 of a static fleet as large as each run's in the mean, float64[seeds]."""
    fleets = [cell for cell in tails.columns if cell[0].startswith("static-")]
    sizes = np.array([float(cell[0].removeprefix("static-")) for cell in fleets])
    logs = np.log(tails[fleets].to_numpy())
    order = np.argsort(sizes)

    def at(wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array(
            [
                np.interp(size, sizes[order], row[order], left=np.nan, right=np.nan)
                for size, row in zip(np.round(wanted, 9), logs, strict=True)
            ]
        )

    return {cell: at(instances[cell].to_numpy()) for cell in tails.columns}


def forecast_table(errors: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute percentage errors of both kinds of tokens, by service and forecast, mean over seeds."""
    means = errors.groupby(["service", "forecast"], sort=False)[["prompt", "output"]].mean()
    return means.reset_index()


def flaw_table(runs: pd.DataFrame) -> pd.DataFrame:
    """How much of the gain in P99 normalised latency is left without a flaw.

    A row for each service, policy, flaw and reference. Gains are in %, geometric means, with 95 % intervals;
    ``flawed`` with the flaw, ``honest`` without, ``difference`` the honest tail over the flawed one in %
    (negative: the flaw makes the tail longer). Flaws:

    * ``served``: predicted lengths are generated, for the reference as well;
    * ``overlap``: the forecaster is trained on what is played as well. A reference that forecasts has the
      same flaw.

    ``survives``: log gain of the honest form over that of the flawed one; NaN where that isn't above 0.
    ``instances_flawed``, ``instances_honest``: mean instances.
    """
    rows = []
    for service, part in runs.groupby("service", sort=False):
        tails, instances = by_seed(part, "p99_s").transform(np.log), by_seed(part, "instances")
        for policy, flaw, reference, flawed, honest in _flaws(list(tails.columns)):
            gains = {}
            for form, cell in (("flawed", flawed), ("honest", honest)):
                other = reference_cell(reference, cell[1], cell[2])
                gains[form] = (tails[other] - tails[cell]).to_numpy()
            row: dict[str, Any] = {"service": service, "policy": policy, "flaw": flaw, "over": reference}
            for form, gain in gains.items():
                mean, low, high = change(-gain)
                row |= {f"gain_{form}": -mean, f"{form}_low": -high, f"{form}_high": -low}
            row |= _named("difference", change((tails[honest] - tails[flawed]).to_numpy()))
            left = (np.nan,) * 3
            if row["flawed_low"] > 0.0:
                left = share(gains["honest"], gains["flawed"])
            row |= _named("survives", left)
            row |= {
                "instances_flawed": float(instances[flawed].mean()),
                "instances_honest": float(instances[honest].mean()),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _flaws(cells: Sequence[Any]) -> list[tuple[str, str, str, Any, Any]]:
    """Policy, flaw, reference, and the cells with the flaw and without."""
    found = []
    for flawed in cells:
        label, knowledge, served = flawed
        flaw = "served" if served else "overlap" if knowledge == "lstm-overlap" else ""
        if not flaw or label == "reactive":
            continue
        honest = (label, "predicted" if served else "lstm", False)
        for reference in REFERENCES:
            if label != reference:
                found.append((label, flaw, reference, flawed, honest))
    return sorted(found, key=lambda row: row[:3])


def draw(policies: pd.DataFrame, path: Path) -> None:
    """P99 normalised latency over mean instances, a panel a service, a point a policy and knowledge."""
    services = list(policies["service"].unique())
    figure, axes = plt.subplots(
        1, len(services), figsize=(5.2 * len(services), 4.4), layout="constrained", squeeze=False
    )
    for axis, service in zip(axes[0], services, strict=True):
        part = policies[policies["service"] == service]
        static = part[part["policy"].str.startswith("static-")].sort_values("instances")
        axis.plot(static["instances"], static["p99_s"], "-", color="#9a9a9a", marker=".", label="static")
        for policy, colour in _COLOURS.items():
            for knowledge, marker in _MARKERS.items():
                chosen = part[(part["policy"] == policy) & (part["knowledge"] == knowledge)]
                axis.plot(
                    chosen["instances"], chosen["p99_s"], marker, color=colour, ms=9 if marker == "*" else 6
                )
            axis.plot([], [], "o", color=colour, label=policy)
        for knowledge, marker in _MARKERS.items():
            if knowledge:
                axis.plot([], [], marker, color="#444444", label=knowledge)
        axis.set(title=service, xlabel="mean instances", yscale="log")
    axes[0][0].set_ylabel("P99 normalised latency, s/token")
    axes[0][-1].legend(fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
