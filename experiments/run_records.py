"""What a run's folder holds, read back: its episodes, latencies and time lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.latency_histogram import Histogram
from preserve_gym.errors import InputError

LatencyHistograms = dict[tuple[str, int, int], dict[str, Histogram]]
"""By policy, seed and window: the histogram of each latency."""


@dataclass(frozen=True)
class RunRecords:
    """The records of a run.

    Attributes:
        folder: of the run.
    """

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the run was told to do, and by which versions it was done."""
        try:
            config = yaml.safe_load(self._text("config.yaml"))
        except yaml.YAMLError:
            config = None
        if not isinstance(config, dict):
            raise InputError(f"{self.folder / 'config.yaml'}: expected the configuration of a run")
        return config

    @cached_property
    def episodes(self) -> pd.DataFrame:
        """One row per scenario, policy, seed and window: the figures of ``experiments.metrics.summarize``."""
        path = self.folder / "episodes.csv"
        columns = ("scenario", "policy", "seed", "window", "arrived", "violations", "gpu_hours")
        try:
            episodes = pd.read_csv(path, float_precision="round_trip")
        except pd.errors.EmptyDataError:  # every cell failed
            return pd.DataFrame(columns=list(columns))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        missing = set(columns) - set(episodes)
        if missing:
            raise InputError(f"{path}: expected a column {min(missing)!r}")
        return episodes

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per scenario and policy, as ``experiments.summary.summary`` gives it."""
        path = self.folder / "summary.csv"
        try:
            return pd.read_csv(path, float_precision="round_trip")
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None

    @cached_property
    def scenarios(self) -> list[str]:
        """Their names, in order of appearance."""
        return [str(name) for name in dict.fromkeys(self.episodes["scenario"])]

    def policies(self, scenario: str) -> list[str]:
        """Labels of those that played a scenario, in order of appearance."""
        rows = self.episodes[self.episodes["scenario"] == scenario]
        return [str(name) for name in dict.fromkeys(rows["policy"])]

    def histograms(self, scenario: str) -> LatencyHistograms:
        """Latencies of a scenario's cells.

        Raises:
            InputError: if the file of a cell is missing or broken.
        """
        found: LatencyHistograms = {}
        rows = self.episodes[self.episodes["scenario"] == scenario]
        for policy, seed in dict.fromkeys(zip(rows["policy"], rows["seed"], strict=True)):
            path = f"cells/{scenario}/{policy}/seed{seed}.json"
            text = self._text(path)
            try:
                for window in json.loads(text)["windows"]:
                    latencies = {k: Histogram.from_mapping(v) for k, v in window["latency"].items()}
                    found[str(policy), int(seed), int(window["window"])] = latencies
            except (KeyError, TypeError, ValueError, InputError):
                raise InputError(f"{self.folder / path}: expected the record of a cell") from None
        return found

    def timeline(self, scenario: str, policy: str) -> pd.DataFrame | None:
        """Means over short stretches of the first seed's windows; None if none were kept.

        Columns as ``experiments.evaluate.INTERVAL_COLUMNS``, and ``window``.
        """
        paths = sorted(
            (self.folder / "timelines" / scenario / policy).glob("seed*.parquet"),
            key=lambda path: int(path.stem.removeprefix("seed")),
        )
        try:
            return pd.read_parquet(paths[0]) if paths else None
        except (OSError, ValueError) as error:
            raise InputError(f"{paths[0]}: cannot be read ({error})") from None

    def _text(self, name: str) -> str:
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise InputError(f"{path}: expected a file of a run, it cannot be read") from None
