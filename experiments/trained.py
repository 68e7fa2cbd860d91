"""``python -m experiments.trained``: learned policies, several trainings of each, beside tuned rivals."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
import yaml
from scipy import stats

from agents.learned_policy import model_folder
from agents.saved_model import load_card
from baselines.bounds.kept import FOLDER as BOUNDS
from baselines.policy_name import label_of
from baselines.tuned import FOLDER as TABLES
from baselines.tuned import SUFFIX, split_target, split_tuned
from experiments.compare import bounds_of
from experiments.equal_attainment import elasticity, log_gpu_hours_along, read_elasticities, with_tuned
from experiments.leaderboard_page import BASELINE, ORACLES
from experiments.run_records import RunRecords
from experiments.statistics import LEVEL, Estimate, FloatArray
from experiments.suites import FEASIBLE
from experiments.summary import TARGET
from experiments.tables import plain_console, show
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError

PROGRAM = "python -m experiments.trained"
_FIGURES = ["violations", "arrived", "gpu_hours"]


@dataclass(frozen=True)
class Options:
    """Compare learned policies of a finished run with tuned rivals, at the same SLO attainment.

    Trainings whose names differ in -seedN only are one policy, and what they differ by is chance. Each
    plays at its own attainment; GPU-hours are carried to the target along its front on validation, as in
    the benchmark. Of a policy that has also played as NAME@98 or NAME@99.5, they are read off between its
    points.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs that trained models and tuned policies have played, on the same arrivals."""
    out: Path | None = None
    """CSV file for the table."""


@dataclass(frozen=True)
class Change:
    """A paired change of GPU-hours at the target, as logarithms of ratios.

    Attributes:
        value: mean over trainings.
        same_days: half of the 95 % interval for other trainings and workload seeds on the same windows.
        other_days: the same, on other windows of the kind; NaN of one window.
    """

    value: float
    same_days: float
    other_days: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot write), 2 (bad input) or 130 (interrupted)."""

    def command() -> int:
        options: Options = parse(Options, arguments, PROGRAM)
        if not options.runs:
            raise InputError("runs: expected the folder of at least one run, got none")
        table = trained_table([RunRecords(folder) for folder in options.runs], TABLES, BOUNDS)
        show(f"GPU-hours at {100 * TARGET:g} % attainment, and changes in %", table, plain_console())
        if options.out is not None:
            table.to_csv(options.out, index=False, float_format="%.6g", lineterminator="\n")
        return 0

    return status_of(command)


@dataclass(frozen=True)
class Played:
    """What a policy did on the windows of a scenario, with one or several settings of its dial.

    Attributes:
        points: violations, arrivals and GPU-hours, float64[settings, seeds, windows, 3]; of its own setting
            first.
        elasticity: of its front on validation.
    """

    points: FloatArray
    elasticity: float

    def log_hours(self, totals: FloatArray) -> float:
        """Logarithm of the GPU-hours at the target, of totals of shape (settings, 3)."""
        return log_gpu_hours_along(totals, self.elasticity, TARGET)

    @property
    def hours(self) -> float:
        """GPU-hours at the target, of all windows together, per seed."""
        totals = self.points.sum(axis=(1, 2))
        return float(np.exp(self.log_hours(totals))) / self.points.shape[1]


def trained_table(runs: Sequence[RunRecords], tables: Path, bounds: Path) -> pd.DataFrame:
    """A row for each scenario and learned policy.

    Columns: ``trainings``; ``attainment`` and ``gpu_hours`` as they fall, means over trainings and seeds;
    ``at_target``; ``p99_s``, P99 of the normalised latency of all requests as it falls, mean over trainings,
    beside ``preserve_p99_s`` and ``best_p99_s``; ``to_preserve`` and ``to_best``, changes in % over tuned
    PreServe and over ``best``, the cheapest tuned rival, each with its intervals (``_same_days_low`` and
    ``_high``, ``_other_days_low`` and ``_high``); ``gap_share``, in % of what lies between tuned PreServe and
    the feasible bound; ``score``.

    Args:
        runs: with the same arrivals; of a policy that has played in several, the first counts.
        tables: folder of ``python -m experiments.tune``.
        bounds: folder of ``python -m experiments.bounds``.

    Raises:
        InputError: if no learned policy has played, or tuned PreServe has not, or arrivals differ.
    """
    elasticities = with_tuned(read_elasticities(tables, TARGET))
    families: dict[str, list[str]] = {}
    for records in runs:
        _add_families(records, families, elasticities)
    learned = {name for members in families.values() for name in members}
    folders = ", ".join(str(records.folder) for records in runs)
    episodes = _joined(runs)
    scenarios = dict.fromkeys(
        episodes["scenario"][[split_target(p)[0] in learned for p in episodes["policy"]]]
    )
    if not scenarios:
        raise InputError(f"{folders}: expected a run that trained models have played, there are none")
    tails = _tails(runs)
    rows = []
    for scenario in map(str, scenarios):
        part = episodes[episodes["scenario"] == scenario]
        played = _played(part, scenario, elasticities)
        missing = sorted(learned & set(part["policy"]) - set(played))
        if missing:
            raise InputError(
                f"{folders}: {scenario}: expected {missing[0]} to have played all seeds and windows that "
                "others have, it has not"
            )
        if BASELINE not in played:
            raise InputError(f"{folders}: expected {BASELINE} to have played {scenario}, it has not")
        holding = next(records for records in runs if scenario in records.scenarios)
        found = bounds_of(holding, scenario, bounds) or {}
        rivals = {
            name: policy.hours
            for name, policy in played.items()
            if split_tuned(name) and name not in ORACLES and name not in learned
        }
        best = min(rivals, key=lambda name: np.nan_to_num(rivals[name], nan=np.inf))
        feasible = [played[n].hours for n in (f"{name}{SUFFIX}" for name in FEASIBLE) if n in played]
        for family, members in families.items():
            names = [name for name in members if name in played]
            if not names:
                continue
            present = [played[name] for name in names]
            at_target = float(np.exp(np.log([policy.hours for policy in present]).mean()))
            totals = np.array([policy.points[0].mean(axis=0).sum(axis=0) for policy in present])
            row: dict[str, Any] = {
                "scenario": scenario,
                "policy": family,
                "trainings": len(present),
                "attainment": 100.0 * float((1.0 - totals[:, 0] / totals[:, 1]).mean()),
                "gpu_hours": float(totals[:, 2].mean()),
                "at_target": at_target,
                "p99_s": float(np.mean([tails[scenario, name] for name in names])),
                "preserve_p99_s": tails[scenario, BASELINE],
                "best": best,
                "best_p99_s": tails[scenario, best],
            }
            for column, rival in (("to_preserve", BASELINE), ("to_best", best)):
                changed = change_of(present, played[rival])
                row[column] = 100.0 * float(np.expm1(changed.value))
                for days, half in (("same", changed.same_days), ("other", changed.other_days)):
                    for end, log_change in (("low", changed.value - half), ("high", changed.value + half)):
                        row[f"{column}_{days}_days_{end}"] = 100.0 * float(np.expm1(log_change))
            room = rivals[BASELINE] - np.nanmin(feasible) if feasible else np.nan
            row["gap_share"] = 100.0 * (rivals[BASELINE] - at_target) / room if room > 0.0 else np.nan
            ends = [found.get(name, np.nan) for name in ("static_gpu_hours", "hindsight_gpu_hours")]
            row["score"] = (ends[0] - at_target) / (ends[0] - ends[1])
            rows.append(row)
    return pd.DataFrame(rows)


def change_of(trainings: Sequence[Played], rival: Played) -> Change:
    """Mean over trainings of the change of GPU-hours at the target over a rival's, on the same arrivals.

    Three sources of chance add up: the training, the workload seed, the window. The first is the spread of
    the trainings' own changes; the others the jackknife of their mean.
    """
    policies = [*trainings, rival]
    every = np.concatenate([np.moveaxis(policy.points, 0, 2) for policy in policies], axis=2)
    ends = np.cumsum([len(policy.points) for policy in policies])[:-1]

    def changes(totals: FloatArray) -> FloatArray:
        parts = np.split(totals.reshape(-1, 3), ends)
        logs = [policy.log_hours(part) for policy, part in zip(policies, parts, strict=True)]
        return np.array(logs[:-1]) - logs[-1]

    seeds, windows = every.shape[:2]
    estimate = Estimate.of(every[:, :, None], lambda totals: changes(totals).mean(keepdims=True))
    n = len(trainings)
    between = float(np.var(changes(every.sum(axis=(0, 1))), ddof=1)) / n if n > 1 else 0.0
    parts = [(between, n - 1), (float(estimate.seed_error[0]) ** 2, seeds - 1)]
    days = (float(estimate.day_error[0]) ** 2, windows - 1)
    same = _half(parts)
    # Days that differ little add degrees of freedom; nothing is more certain for other days.
    return Change(
        float(estimate.value[0]), same, float(np.maximum(np.nan_to_num(same), _half([*parts, days])))
    )


def _half(parts: Sequence[tuple[float, int]]) -> float:
    """Half of an interval from independent variances and their degrees of freedom (Satterthwaite)."""
    variance = sum(part for part, freedom in parts if freedom > 0)
    if not variance > 0.0 or parts[-1][1] < 1:
        return float("nan")
    degrees = variance**2 / sum(part**2 / freedom for part, freedom in parts if freedom > 0)
    return float(stats.t.ppf(0.5 + 0.5 * LEVEL, degrees)) * variance**0.5


def _joined(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """The episodes of all runs, each once."""
    key = ["scenario", "policy", "seed", "window"]
    episodes = pd.concat([records.episodes[[*key, *_FIGURES]] for records in runs], ignore_index=True)
    episodes = episodes.drop_duplicates(key)
    arrived = episodes.groupby(["scenario", "seed", "window"])["arrived"].nunique()
    if (arrived > 1).any():
        scenario, seed, _ = arrived[arrived > 1].index[0]
        raise InputError(f"runs: expected the same arrivals in each, those of {scenario}, seed {seed} differ")
    return episodes


def _tails(runs: Sequence[RunRecords]) -> dict[tuple[str, str], float]:
    """P99 of the normalised latency in s by scenario and policy; of the first run that has it."""
    summaries = pd.concat([records.summary for records in runs], ignore_index=True)
    first = summaries.drop_duplicates(["scenario", "policy"])
    keys = zip(first["scenario"], first["policy"], strict=True)
    return dict(zip(keys, first["normalized_latency_p99_s"].tolist(), strict=True))


def _add_families(
    records: RunRecords, families: dict[str, list[str]], elasticities: dict[tuple[str, str], float]
) -> None:
    """Learned policies of a run, their names without @PERCENT by family; the slopes of their fronts, too."""
    for name in _given(records):
        parts, label = split_tuned(name), label_of(name)
        plain = parts.policy if parts else split_target(name)[0]
        own = model_folder(plain)
        played = [
            model_folder(scenario["models"][label]["model"])
            for scenario in records.config["scenarios"].values()
            if label in scenario.get("models", {})
        ]
        folders = [folder for folder in ([own] if own else played) if folder is not None]
        if not folders:
            continue
        label, _ = split_target(label)
        family = families.setdefault(re.sub(r"-seed\d+", "", label), [])
        if label not in family:
            family.append(label)
        for folder in folders:
            for scenario, front in load_card(folder)["validation"]["fronts"].items():
                points = [np.array([point[key] for point in front]) for key in ("attainment", "gpu_hours")]
                elasticities.setdefault((scenario, label), elasticity(points[0], points[1], TARGET))


def _given(records: RunRecords) -> list[str]:
    """The policies as they were asked for; none of a run whose suite says which."""
    path = records.folder / "options.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [str(name) for name in values.get("policies") or ()]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, AttributeError):
        raise InputError(f"{path}: expected the options of a run") from None


def _played(
    episodes: pd.DataFrame, scenario: str, elasticities: Mapping[tuple[str, str], float]
) -> dict[str, Played]:
    """The policies that have played all of a scenario, by name; ``NAME@PERCENT`` are settings of NAME."""
    seeds, windows = episodes["seed"].nunique(), episodes["window"].nunique()
    points: dict[str, list[FloatArray]] = {}
    for policy in sorted(episodes["policy"].unique()):  # NAME comes before NAME@PERCENT
        rows = episodes[episodes["policy"] == policy].sort_values(["seed", "window"])
        name, target = split_target(str(policy))
        if len(rows) == seeds * windows and (target is None or name in points):
            cells = rows[_FIGURES].to_numpy(np.float64).reshape(seeds, windows, 3)
            points.setdefault(name, []).append(cells)
    return {
        name: Played(np.stack(of_it), elasticities.get((scenario, name), np.nan))
        for name, of_it in points.items()
    }


if __name__ == "__main__":
    sys.exit(main())
