"""The benchmark's pages, in Markdown, made of its summary and episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from baselines import POLICIES
from baselines.tuned import SUFFIX
from experiments.equal_attainment import Elasticities, log_gpu_hours
from experiments.forecast_worth import mean_ratio
from experiments.rank_flips import Duel, duels
from experiments.sanity import against_bounds
from experiments.suites import FEASIBLE
from experiments.summary import TARGET
from preserve_gym.config import WorkloadConfig
from preserve_gym.errors import missing_extra

ORACLES = frozenset(
    name + suffix for name, entry in POLICIES.items() if entry.oracle for suffix in ("", SUFFIX)
)
"""Policies that know more than a controller can: in tables, not in rankings."""
BASELINE = f"preserve{SUFFIX}"
OWN = WorkloadConfig.forecaster  # of the scenarios
_LEAST_ROOM = 0.1  # that a schedule saves of a constant fleet, for there to be a score
_SHOWN = 8  # policies of the short table, and in duels
_ALWAYS = ("preserve", "preserve-up-only", "hpa", "static")  # also in the short table
_COLUMNS = (
    "#",
    "policy",
    "SLO met, %",
    "GPU-hours",
    "at the target",
    f"as they fall, to `{BASELINE}`, %",
    "TTFT P50, s",
    "P99",
    "TPOT P50, ms",
    "P99",
    "normalised latency P50, ms",
    "P99",
    "USD",
    "kWh",
    "times scaled",
    "score",
)


def page(
    summary: pd.DataFrame,
    episodes: pd.DataFrame,
    config: Mapping[str, Any],
    bounds: Path,
    elasticities: Elasticities,
    worth: pd.DataFrame,
) -> str:
    """The whole page.

    Args:
        summary: as ``at_target`` gives it of a run of the suite ``benchmark``, compared with ``BASELINE``.
        episodes: of the same.
        config: of the run.
        bounds: folder of bounds.
        elasticities: by scenario and policy.
        worth: what forecasts are worth, as ``read_worth`` gives it.

    Raises:
        InputError: if the extra ``report`` is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise missing_extra("leaderboard", str(error.name), "report") from None
    rows = _standings(summary)
    names = [row["policy"] for row in rows]
    found = duels(episodes, elasticities, names[:_SHOWN], TARGET)
    environment = Environment(loader=PackageLoader("experiments", "report_assets"), undefined=StrictUndefined)
    return environment.get_template("benchmark.md").render(
        policies=summary["policy"].str.removesuffix(SUFFIX).nunique(),
        seeds=int(summary["seeds"].max()),
        cells=int(summary["seeds"].sum()),
        standings=_standings_table(rows, summary),
        ranks=_matrix(summary, names, lambda row: f"{row['rank']:.0f}" + "*" * (not row["meets_target"])),
        duels=_duels(found, names[:_SHOWN]),
        flips=sum(duel.flips for duel in found),
        pairs=len(found),
        sanity=_sanity(against_bounds(episodes, bounds, str(config["split"]), ORACLES)),
        gaps=_gaps(summary),
        worth=_worth(worth),
        scenarios={str(name): _scenario(part) for name, part in summary.groupby("scenario", sort=False)},
    )


def short_table(summary: pd.DataFrame) -> str:
    """The best of the standings, and those that everybody knows."""
    wanted = {f"{name}{SUFFIX}" for name in _ALWAYS}
    rows = _standings(summary)
    return _standings_table([r for r in rows if r["place"] <= _SHOWN or r["policy"] in wanted], summary)


def score_table(summary: pd.DataFrame) -> str:
    """Every tuned policy's score in each scenario."""
    names = [row["policy"] for row in _standings(summary)]
    return _matrix(summary, names, lambda row: _score(row["score_at_target"]))


def at_target(summary: pd.DataFrame, elasticities: Elasticities, bounds: pd.DataFrame) -> pd.DataFrame:
    """A summary with what policies would cost at the target attainment.

    Args:
        summary: as ``experiments.summary.summary`` gives it.
        elasticities: by scenario and policy.
        bounds: ``static_gpu_hours`` and ``hindsight_gpu_hours`` by scenario.

    Returns:
        With columns ``gpu_hours_at_target``, NaN where it is not known; ``score_at_target``, NaN without
        bounds or where these lie close together; ``rank``, of tuned policies that are no oracles, is that
        among these by the former.
    """
    totals = summary[["violations", "arrived", "gpu_hours"]].to_numpy(np.float64)
    keys = zip(summary["scenario"], summary["policy"], strict=True)
    own = np.array([elasticities.get(key, np.nan) for key in keys])
    hours = pd.Series(np.exp(log_gpu_hours(totals, own, TARGET)), summary.index)
    ends = bounds.reindex(summary["scenario"]).set_index(summary.index)
    room = ends["static_gpu_hours"] - ends["hindsight_gpu_hours"]
    room = room.where(room >= _LEAST_ROOM * ends["static_gpu_hours"])
    ranked = _ranked(summary)
    rank = hours.where(ranked).groupby(summary["scenario"]).rank(method="min")
    return summary.assign(
        gpu_hours_at_target=hours,
        score_at_target=((ends["static_gpu_hours"] - hours) / room)
        .where(hours.notna(), 0.0)
        .where(room.notna()),
        rank=rank,
    )


def _standings(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Of tuned policies, the best first."""
    base = summary[summary["policy"] == BASELINE].set_index("scenario")["gpu_hours_at_target"]
    met = summary.groupby("policy")["meets_target"].sum()
    rows: list[dict[str, Any]] = []
    for policy, part in summary[_ranked(summary)].groupby("policy", sort=False):
        ratio = part["gpu_hours_at_target"] / base.reindex(part["scenario"]).to_numpy()
        rows.append(
            {
                "policy": str(policy),
                "score": float(part["score_at_target"].clip(lower=0.0).mean()),
                "change": float(np.exp(np.log(ratio).mean()) - 1.0),
                "known": int(part["gpu_hours_at_target"].notna().sum()),
                "met": int(met[policy]),
                "default": met.get(str(policy).removesuffix(SUFFIX)),
            }
        )
    rows.sort(key=lambda row: (-np.nan_to_num(row["score"]), np.nan_to_num(row["change"])))
    return [row | {"place": k} for k, row in enumerate(rows, start=1)]


def _ranked(summary: pd.DataFrame) -> pd.Series:
    """Rows of tuned policies that are no oracles."""
    return summary["policy"].str.endswith(SUFFIX) & ~summary["policy"].isin(ORACLES)


def _standings_table(rows: Sequence[Mapping[str, Any]], summary: pd.DataFrame) -> str:
    played = summary["scenario"].nunique()
    heads = (
        "#",
        "policy",
        "score",
        f"GPU-hours to `{BASELINE}`, %",
        f"known in, of {played}",
        "target met",
        "with its defaults",
    )
    cells = [
        (
            str(row["place"]),
            _code(row["policy"]),
            _score(row["score"]),
            "-" if np.isnan(row["change"]) else f"{100 * row['change']:+.1f}",
            str(row["known"]),
            str(row["met"]),
            "" if row["default"] is None else str(row["default"]),
        )
        for row in rows
    ]
    return table(heads, cells)


def _matrix(summary: pd.DataFrame, names: Sequence[str], text: Callable[[Any], str]) -> str:
    scenarios = [str(name) for name in dict.fromkeys(summary["scenario"])]
    of = {(row["policy"], row["scenario"]): row for row in summary.to_dict("records")}

    def cell(name: str, scenario: str) -> str:
        row = of.get((name, scenario))
        return "" if row is None else "-" if np.isnan(row["gpu_hours_at_target"]) else text(row)

    cells = [(_code(name), *(cell(name, scenario) for scenario in scenarios)) for name in names]
    return table(("policy", *(f"`{name}`" for name in scenarios)), cells)


def _code(policy: str) -> str:
    return f"`{policy.removesuffix(SUFFIX)}`"


def _score(value: Any) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.2f}"


def _duels(found: Sequence[Duel], names: Sequence[str]) -> str:
    counts = {(duel.first, duel.second): (len(duel.won), len(duel.lost)) for duel in found}
    counts |= {(second, first): (lost, won) for (first, second), (won, lost) in counts.items()}
    cells = []
    for first in names:
        row = [" : ".join(map(str, counts[first, second])) if first != second else "" for second in names]
        cells.append((_code(first), *row))
    return table(("fewer : more", *map(_code, names)), cells)


def _sanity(frame: pd.DataFrame) -> str:
    cells = []
    for row in frame.to_dict("records"):
        hours, hindsight, lower = row["gpu_hours"], row["hindsight_gpu_hours"], row["lower_gpu_hours"]
        cells.append(
            (
                f"`{row['scenario']}`",
                f"`{row['policy']}`" if isinstance(row["policy"], str) else "none meets the target",
                *(f"{value:.2f}" if np.isfinite(value) else "-" for value in (hours, hindsight)),
                f"beaten by {100 * (1 - hours / hindsight):.1f} %" if hours < hindsight else "",
                f"{lower:.2f}",
                "violated" if hours < lower else "",
            )
        )
    return table(("scenario", "policy", "GPU-hours", "hindsight", "", "lower bound", ""), cells)


def _gaps(summary: pd.DataFrame) -> str:
    """How far from tuned PreServe to the feasible bound each scenario's best policy comes."""
    cells = []
    for scenario, rows in summary.groupby("scenario", sort=False):
        known = rows[rows["gpu_hours_at_target"].notna()].to_dict("records")
        hours = {str(row["policy"]): float(row["gpu_hours_at_target"]) for row in known}
        start, bounds = hours.get(BASELINE), [f"{name}{SUFFIX}" for name in FEASIBLE]
        known_bounds = [hours[name] for name in bounds if name in hours]
        if start is None or not known_bounds or start <= min(known_bounds):
            continue
        end = min(known_bounds)
        best = min((name for name in hours if name not in ORACLES), key=hours.__getitem__)
        figures = (f"{start:.1f}", f"{end:.1f}", f"`{best}`", f"{hours[best]:.1f}")
        share = 100 * (start - hours[best]) / (start - end)
        cells.append((f"`{scenario}`", *figures, "over 100" if share > 100.0 else f"{share:.0f}"))
    heads = ("scenario", f"`{BASELINE}`", "feasible bound", "best policy", "GPU-hours", "share, %")
    return table(heads, cells)


def _worth(worth: pd.DataFrame) -> str:
    """Empty where nothing was tuned with other forecasts."""
    if worth.empty:
        return ""
    hours = worth.pivot_table(
        index=["scenario", "policy"], columns="forecaster", values="gpu_hours", dropna=False, sort=False
    )
    names = [name for name in ("oracle", "noisy", OWN, "naive") if name in hours]
    cells = []
    for row in hours.reset_index().to_dict("records"):
        figures = ("-" if np.isnan(row[name]) else f"{row[name]:.1f}" for name in names)
        cells.append((f"`{row['scenario']}`", f"`{row['policy']}`", *figures))
    means = [f"{100 * (mean_ratio(worth, name, OWN) - 1):+.1f} %" for name in names]
    cells.append((f"mean, to `{OWN}`", "", *means))
    return table(("scenario", "policy", *(f"`{name}`" for name in names)), cells)


def _scenario(rows: pd.DataFrame) -> dict[str, str]:
    first = rows.iloc[0]
    about = (
        f"Target {100 * first['target']:g} %, {first['windows']} windows. Intervals: 95 %; of attainment and "
    )
    about += "GPU-hours for other seeds and days, of the ratio for other seeds. * misses the target."
    rows = rows.sort_values(["gpu_hours_at_target", "slo_attainment"], ascending=[True, False])
    cells = [_policy_cells(k, row) for k, row in enumerate(rows.to_dict("records"), start=1)]
    return {"about": about, "table": table(_COLUMNS, cells)}


def _policy_cells(place: int, row: Mapping[Any, Any]) -> tuple[str, ...]:
    low, high = (100.0 * row[f"slo_attainment_days_{end}"] for end in ("low", "high"))
    attainment = f"{100 * row['slo_attainment']:.2f}" + _interval(low, high, ".2f")
    low, high = (row[f"gpu_hours_days_{end}"] for end in ("low", "high"))
    hours = f"{row['gpu_hours']:.2f}" + _interval(low, high, ".1f")
    change = ""
    if row["policy"] != row["baseline"] and not np.isnan(row["gpu_hours_change"]):
        low, high = (100.0 * row[f"gpu_hours_change_{end}"] for end in ("low", "high"))
        change = f"{100 * row['gpu_hours_change']:+.1f}" + _interval(low, high, "+.1f")
    money = (row.get(name, np.nan) for name in ("cost_usd", "energy_kwh"))
    return (
        str(place),
        f"`{row['policy']}`" + "*" * (not row["meets_target"]),
        attainment,
        hours,
        "-" if np.isnan(row["gpu_hours_at_target"]) else f"{row['gpu_hours_at_target']:.2f}",
        change,
        f"{row['ttft_p50_s']:.2f}",
        f"{row['ttft_p99_s']:.2f}",
        *(f"{1000 * row[name]:.0f}" for name in ("tpot_p50_s", "tpot_p99_s")),
        *(f"{1000 * row[f'normalized_latency_{p}_s']:.0f}" for p in ("p50", "p99")),
        *("" if np.isnan(value) else f"{value:.3g}" for value in money),
        f"{row['scaling_actions']:.0f}",
        _score(row["score_at_target"]),
    )


def _interval(low: float, high: float, form: str) -> str:
    return "" if np.isnan(low) or np.isnan(high) else f" ({low:{form}} to {high:{form}})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
