"""The tables of what is learned, made of results/ and of the models' cards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agents.saved_model import CARD, load_card
from baselines.tuned import split_target
from experiments.equal_attainment import log_gpu_hours_along
from experiments.leaderboard_page import table
from experiments.routers import TAIL
from experiments.statistics import Estimate
from experiments.summary import TARGET
from experiments.transfer import ROUTER
from preserve_gym.errors import InputError

_RESULTS = Path(__file__).parents[1] / "results"
RESULTS = _RESULTS / "learned" / "trained.csv"
"""The table of ``python -m experiments.trained`` that docs/learned-policies.md shows."""
TRANSFER = _RESULTS / "learned" / "transfer.csv"
"""That of ``python -m experiments.transfer`` on the same page."""
JOINT = _RESULTS / "learned" / "joint.csv"
"""That of the same command on the same page, with pairs of autoscaler and router."""
PAIRS = _RESULTS / "routers" / "pairs.csv"
"""That of ``python -m experiments.transfer`` that the page on ``preserve/Cluster-v0`` shows."""

REFERENCE = "preserve-tuned"
_TOTALS = ["violations", "arrived", "gpu_hours"]
_FAMILY = re.compile(r"-seed\d+$")
"""What tells the trainings of one policy apart."""


def trained_table(path: Path) -> str:
    """Learned policies beside tuned PreServe and the best tuned rival, a row for each scenario.

    Args:
        path: of the table of ``python -m experiments.trained``.
    """
    heads = (
        *("scenario", "policy", "trainings", "attainment, %", "GPU-hours", "at 99 %"),
        *("to `preserve-tuned`, %", "best rival", "to it, %", "share of the room, %", "score"),
        "P99, ms: it, PreServe, best rival",
    )
    cells = [
        (
            *(f"`{row['scenario']}`", f"`{row['policy']}`", f"{row['trainings']}"),
            *(f"{row['attainment']:.2f}", f"{row['gpu_hours']:.1f}", f"{row['at_target']:.1f}"),
            _change(row, "to_preserve"),
            f"`{row['best']}`",
            _change(row, "to_best"),
            "-" if np.isnan(row["gap_share"]) else f"{row['gap_share']:.0f}",
            f"{row['score']:.2f}",
            ", ".join(f"{1000.0 * row[name]:.0f}" for name in ("p99_s", "preserve_p99_s", "best_p99_s")),
        )
        for row in pd.read_csv(path).to_dict("records")
    ]
    return table(heads, cells)


def _change(row: Mapping[Any, Any], column: str) -> str:
    """A change in % with its intervals: for the same days, and for others."""
    if np.isnan(row[column]):
        return "-"
    intervals = []
    for days in ("same_days", "other_days"):
        low, high = row[f"{column}_{days}_low"], row[f"{column}_{days}_high"]
        intervals.append("-" if np.isnan(low) else f"{low:+.1f} to {high:+.1f}")
    return f"{row[column]:+.1f} ({'; '.join(intervals)})"


def models_table(models: Path) -> str:
    """The models of the repository in Markdown: what they were trained on, how long, and what they reach."""
    heads = (
        *("model", "trained on", "control", "seed", "steps", "wall time, s", "violation weight"),
        "GPU-hours at the target on validation",
    )
    cells = []
    for path in sorted(models.glob(f"*/{CARD}")):
        card = load_card(path.parent)
        hours = card["validation"]["gpu_hours"]
        cells.append(
            (
                f"`{path.parent.name}`",
                ", ".join(f"`{name}`" for name in card["scenarios"]),
                f"`{card['layout']['control']}`",
                f"{card['training']['seed']}",
                f"{card['training']['parameters']['steps']:,}",
                f"{card['wall_s']:.0f}",
                f"{card['violation_weight']:g}",
                "-" if hours is None else f"{hours:.1f}",
            )
        )
    return table(heads, cells)


def routers_table(path: Path) -> str:
    """Learned routers beside the best published one at each load, in Markdown.

    The best is the one with the lowest geometric mean of P99. Changes are geometric means, too, over
    evolutions and arrivals, with the 95 % interval for others of both.

    Args:
        path: of a table of ``python -m experiments.routers`` in which the same router has been learned
            several times: NAME-seed0, NAME-seed1.
    """
    runs = pd.read_csv(path)
    families: dict[str, list[str]] = {}
    for name in dict.fromkeys(map(str, runs["router"])):
        family, learned = _FAMILY.subn("", name)
        if learned:
            families.setdefault(family, []).append(name)
    cells = []
    for rate, part in runs.groupby("rate_rps"):
        by_router = {
            column: part.pivot(index="seed", columns="router", values=column)
            for column in (TAIL, "ttft_p99_s")
        }
        logs = by_router[TAIL].transform(np.log)
        published = logs.mean().drop([name for members in families.values() for name in members])
        best = str(published.idxmin())
        for family, members in families.items():
            changed = _changed([logs[name] for name in members], logs[best])
            tails, ttfts = (
                (table[members].to_numpy().mean(), table[best].mean()) for table in by_router.values()
            )
            cells.append(
                (
                    f"{rate:g}",
                    f"`{family}`",
                    f"{len(members)}",
                    f"`{best}`",
                    changed,
                    ", ".join(f"{1000.0 * value:.0f}" for value in tails),
                    ", ".join(f"{value:.2f}" for value in ttfts),
                )
            )
    heads = (
        *("requests/s", "router", "evolutions", "best published", "P99 to it, %"),
        *("P99, ms: it, best", "TTFT P99, s: it, best"),
    )
    return table(heads, cells)


def transfer_table(path: Path, elasticities: Mapping[tuple[str, str], float]) -> str:
    """A policy that was trained once beside tuned rivals, a row for each scenario and change, in Markdown.

    Args:
        path: of a table of ``python -m experiments.transfer`` in which the same policy was trained several
            times, NAME-seed0, NAME-seed1. ``NAME@PERCENT`` are settings of NAME.
        elasticities: of ``experiments.equal_attainment``; what was trained has the median of the scenario's.
    """
    rows = _plays(path)
    cells = []
    for (scenario, change), part in rows.groupby(["scenario", "change"], sort=False):
        logs = {
            str(name): _logs_at_target(own, elasticities) for name, own in part.groupby("name", sort=False)
        }
        learned = [name for name in logs if _FAMILY.search(name)]
        if not learned:
            continue
        trainings = [logs[name] for name in learned]
        known = {name: v.mean() for name, v in logs.items() if name not in learned and not v.isna().any()}
        best = min(known, key=lambda name: known[name]) if known else None
        mean = float(np.mean([of.mean(skipna=False) for of in trainings]))
        as_it_falls = part[part["policy"].isin(learned)]
        attainment = 100.0 * (1.0 - as_it_falls["violations"].sum() / as_it_falls["arrived"].sum())
        cells.append(
            (
                f"`{scenario}`",
                "" if change == "none" else str(change).replace("-", " "),
                f"{attainment:.2f}, {as_it_falls['gpu_hours'].mean():.1f}",
                "-" if np.isnan(mean) else f"{np.exp(mean):.1f}",
                "-" if REFERENCE not in logs else _changed(trainings, logs[REFERENCE]),
                "-" if best is None else f"`{best}`",
                "-" if best is None else _changed(trainings, logs[best]),
            )
        )
    heads = (
        *("scenario", "what is otherwise", "as it falls: attainment, %, and GPU-hours", "at 99 %"),
        *(f"to `{REFERENCE}`, %", "best rival", "to it, %"),
    )
    return table(heads, cells)


def _plays(path: Path) -> pd.DataFrame:
    """A table of ``python -m experiments.transfer``, and the ``name`` of each policy without its setting."""
    rows = pd.read_csv(path)
    return rows.assign(name=[split_target(str(policy))[0] for policy in rows["policy"]])


def _logs_at_target(rows: pd.DataFrame, elasticities: Mapping[tuple[str, str], float]) -> pd.Series:
    """Logarithm of the GPU-hours at the target of one policy in one scenario, by workload seed.

    A policy that has no elasticity of its own has the median of the scenario's.
    """
    scenario, name = rows[["scenario", "name"]].iloc[0]
    of_scenario = [value for (of, _), value in elasticities.items() if of == scenario]
    elasticity = elasticities.get((scenario, name), float(np.median(of_scenario or [np.nan])))
    return pd.Series(
        {
            seed: log_gpu_hours_along(of_seed[_TOTALS].to_numpy(np.float64), elasticity, TARGET)
            for seed, of_seed in rows.groupby("seed")
        }
    )


def _changed(trainings: Sequence[pd.Series], other: pd.Series) -> str:
    """Mean change in %, with the 95 % interval for other trainings and workload seeds; "-" if unknown.

    Raises:
        InputError: if they have played other workload seeds.
    """
    for logs in trainings:
        if list(logs.index) != list(other.index):
            raise InputError(
                f"expected the same workload seeds of all, got {list(logs.index)} and {list(other.index)}"
            )
    ratios = np.stack([logs.to_numpy() - other.to_numpy() for logs in trainings])
    if np.isnan(ratios).any():
        return "-"
    n = ratios.size
    found = Estimate.of(ratios[..., None], lambda total: total / n)
    change, low, high = (100.0 * float(np.expm1(v[0])) for v in (found.value, *found.over_days()))
    return f"{change:+.1f}" if np.isnan(low) else f"{change:+.1f} ({low:+.1f} to {high:+.1f})"


def pairs_table(path: Path, elasticities: Mapping[tuple[str, str], float]) -> str:
    """GPU-hours at the target of every pair of autoscaler and router, in Markdown, the best first.

    Args:
        path: of a table of ``python -m experiments.transfer`` whose changes are routers, or none for policies
            that route themselves. ``NAME@PERCENT`` are settings of NAME; NAME-seed0, NAME-seed1 are trainings
            of one policy, which stands beside each pair.
        elasticities: of ``experiments.equal_attainment``.
    """
    rows = _plays(path)
    # Of each scenario, name and router; of trainings by the name of all.
    found: dict[tuple[str, str, str], list[pd.Series]] = {}
    for key, part in rows.groupby(["scenario", "name", "change"], sort=False):
        scenario, name, change = (str(value) for value in key)
        logs = _logs_at_target(part, elasticities)
        router = f"`{change.removeprefix(ROUTER)}`" if change.startswith(ROUTER) else "its own"
        found.setdefault((scenario, _FAMILY.sub("", name), router), []).append(logs)
    families = dict.fromkeys(_FAMILY.sub("", name) for name in rows["name"] if _FAMILY.search(name))

    def beside(family: str, key: tuple[str, str, str]) -> str:
        own = found.get((key[0], family, "its own"))
        return "" if own is None or key[1] in families else _changed(own, found[key][0])

    means = {
        key: float(np.mean([logs.mean(skipna=False) for logs in several])) for key, several in found.items()
    }
    shown = [
        (
            *(f"`{scenario}`", f"`{name}`", router),
            "-" if np.isnan(mean) else f"{np.exp(mean):.1f}",
            *(beside(family, (scenario, name, router)) for family in families),
        )
        for (scenario, name, router), mean in sorted(
            means.items(), key=lambda item: (item[0][0], np.nan_to_num(item[1], nan=np.inf))
        )
    ]
    heads = ("scenario", "autoscaler", "router", "GPU-hours at 99 %")
    return table((*heads, *(f"`{family}` to it, %" for family in families)), shown)
