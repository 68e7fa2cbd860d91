"""``report.html``: a run's results on one page that needs nothing but a browser."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.run_records import RunRecords
from preserve_gym.errors import missing_extra

_ASSETS = "report_assets"
_OF_SCENARIOS = ("scenarios", "policies", "profile")


def page(records: RunRecords, summary: pd.DataFrame, data: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, HTML with styles, scripts, figures and data in it.

    Args:
        records: of the run.
        summary: as ``experiments.summary.summary`` makes it of them.
        data: of each scenario, as ``experiments.report_data.scenario_data`` gives it.

    Raises:
        InputError: if the extra ``report`` is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise missing_extra("report", str(error.name).partition(".")[0], "report") from None
    environment = Environment(
        loader=PackageLoader("experiments", _ASSETS), autoescape=True, undefined=StrictUndefined
    )
    scenarios = [str(name) for name in dict.fromkeys(summary["scenario"])] if len(summary) else []
    return environment.get_template("report.html").render(
        title=_title(scenarios),
        standings=standings(summary),
        baseline=_baseline(summary),
        scenarios=[_heading(summary, name) for name in scenarios],
        data={name: _packed(data[name]) for name in scenarios},
        config=_provenance(records.config),
        style=_asset("report.css"),
        scripts=[_asset("table.js"), _asset("figures.js"), _asset("page.js")],
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
    )


def standings(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per policy over all scenarios, by mean score, then by mean rank.

    Returns:
        ``policy``, ``met``, ``played`` (numbers of scenarios), ``rank`` (mean), ``score`` (mean over the
        scenarios that have bounds, 0 where the target is missed or a constant fleet is cheaper; None
        without), ``change`` (geometric mean of GPU-hours over the baseline's, minus 1; None without), and
        ``cells`` by scenario.
    """
    if summary.empty:
        return []
    bounded = set(summary.loc[summary["score"].notna(), "scenario"])
    rows = []
    for policy, part in summary.groupby("policy", sort=False):
        scored = part[part["scenario"].isin(bounded)]
        change = part["gpu_hours_change"] if "gpu_hours_change" in part else pd.Series([np.nan])
        rows.append(
            {
                "policy": str(policy),
                "met": int(part["meets_target"].sum()),
                "played": len(part),
                "rank": float(part["rank"].mean()),
                "score": float(scored["score"].fillna(0.0).clip(lower=0.0).mean()) if len(scored) else None,
                "change": float(np.expm1(np.log1p(change).mean())) if change.notna().any() else None,
                "cells": {str(row["scenario"]): row for row in part.to_dict("records")},
            }
        )
    return sorted(rows, key=lambda row: (-(row["score"] or 0.0) if bounded else 0.0, row["rank"]))


def _title(scenarios: Sequence[str]) -> str:
    """Not the folder's name: equal runs have equal reports."""
    return scenarios[0] if len(scenarios) == 1 else f"{len(scenarios)} scenarios"


def _heading(summary: pd.DataFrame, scenario: str) -> dict[str, Any]:
    rows = summary[summary["scenario"] == scenario]
    return {
        "name": scenario,
        "target": float(rows["target"].iloc[0]),
        "windows": int(rows["windows"].iloc[0]),
        "seeds": int(rows["seeds"].max()),
        "policies": len(rows),
        "met": int(rows["meets_target"].sum()),
    }


def _baseline(summary: pd.DataFrame) -> str | None:
    if "baseline" not in summary or summary["baseline"].isna().all():
        return None
    return str(summary["baseline"].dropna().iloc[0])


def _packed(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _provenance(config: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in config.items() if name not in _OF_SCENARIOS}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100)


def _asset(name: str) -> str:
    return (files("experiments") / _ASSETS / name).read_text(encoding="utf-8")
