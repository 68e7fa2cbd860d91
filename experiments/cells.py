"""Playing cells that share a workload, and what is recorded of each."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from baselines.bounds.kept import run_lengths
from experiments.evaluate import Cell, Setting, WindowResult, each_window
from experiments.latency_histogram import Histogram
from experiments.metrics import normalized_latency_s, tpot_s, ttft_s
from experiments.policies import build_policy, policy_parameters, router_name
from experiments.timeline import timeline
from preserve_gym.envs.scale_action import MAX_DELTA, target_to_action
from preserve_gym.workload import Workload

LATENCIES = {"ttft_s": ttft_s, "tpot_s": tpot_s, "normalized_latency_s": normalized_latency_s}
"""Latencies of which a cell keeps histograms."""

OnShare = Callable[[Cell, float], None]


@dataclass(frozen=True)
class Decisions:
    """What a policy decided in a window, as its record holds it.

    Attributes:
        targets: rows ``[interval, target]`` where the target changes, as ``run_lengths`` gives them.
        weights: rows ``[interval, w0, ..., w6]`` where the weights of the router do, as ``changes_of`` gives
            them; None: the policy does not set them.
    """

    targets: NDArray[np.int64]
    weights: NDArray[np.float64] | None


@dataclass(frozen=True)
class Piece:
    """Cells that one process plays one after another, as they share a workload.

    Attributes:
        setting: what they play.
        cells: which, all of one seed.
        router: in place of the policies' own; None: their own.
        windows: numbers of those that are played; None: all.
        tables: what is kept of each beside its record: ``timelines``, ``intervals``, ``requests``.
        recorded: what to play in place of each policy's decisions, by cell and start of the window.
    """

    setting: Setting
    cells: tuple[Cell, ...]
    router: str | None = None
    windows: tuple[int, ...] | None = None
    tables: tuple[str, ...] = ()
    recorded: Mapping[Cell, Mapping[float, Decisions]] | None = None


@dataclass(frozen=True)
class PlayedCell:
    """What came of a cell.

    Attributes:
        cell: which.
        record: its record, as JSON holds it.
        tables: those that are kept, by kind, with a column ``window``.
        seconds: that it took.
    """

    cell: Cell
    record: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    seconds: float


def play_piece(piece: Piece, on_share: OnShare) -> Iterator[PlayedCell]:
    """Play one cell after another; what a policy raises is in the record of its cell.

    Args:
        on_share: called now and then with a cell and the share of it that is done.
    """
    seed = piece.cells[0].seed
    try:
        workload = piece.setting.make_workload(seed)
        workload.profile(piece.setting.cluster)  # here, as it is kept and belongs to no cell
    except Exception as error:
        for cell in piece.cells:
            yield PlayedCell(cell, _record(cell, error={"window": None, "message": _message(error)}), {}, 0.0)
        return
    for cell in piece.cells:
        started_s = time.perf_counter()
        record, tables = _play_cell(piece, cell, workload, on_share)
        yield PlayedCell(cell, record, tables, time.perf_counter() - started_s)


def _play_cell(
    piece: Piece, cell: Cell, workload: Workload, on_share: OnShare
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    setting, window = piece.setting, None
    windows: list[dict[str, Any]] = []
    tables: dict[str, list[pd.DataFrame]] = {kind: [] for kind in piece.tables}
    try:
        policy: Any = build_policy(cell.policy, setting.cluster, workload, cell.scenario, piece.router)
        about = {
            "router": router_name(policy),
            "parameters": policy_parameters(policy),
            "profile": asdict(workload.profile(setting.cluster)),
        }
        if piece.recorded is not None:
            policy = Repeated(policy, piece.recorded[cell])
        chosen = range(len(workload.evaluation_windows)) if piece.windows is None else piece.windows
        window = chosen[0]
        results = each_window(
            workload, setting.cluster, policy, cell.seed, lambda share: on_share(cell, share), chosen
        )
        for k, result in enumerate(results, start=1):
            windows.append(_window_record(result))
            for kind, parts in tables.items():
                parts.append(_table(kind, result))
            window = chosen[k] if k < len(chosen) else None
    except Exception as error:
        return _record(cell, error={"window": window, "message": _message(error)}), {}
    return (
        _record(cell, about=about, windows=windows),
        {kind: pd.concat(parts, ignore_index=True) for kind, parts in tables.items()},
    )


def _table(kind: str, result: WindowResult) -> pd.DataFrame:
    if kind == "timelines":
        table = timeline(result.intervals)
    else:
        table = result.requests if kind == "requests" else result.intervals
    table = table.copy()
    table.insert(0, "window", result.window)
    return table


def _record(
    cell: Cell,
    about: dict[str, Any] | None = None,
    windows: list[dict[str, Any]] | None = None,
    error: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "scenario": cell.scenario,
        "policy": cell.label,
        "seed": cell.seed,
        **(about or {"router": None, "parameters": {}, "profile": {}}),
        "error": error,
        "windows": windows or [],
    }


def _window_record(result: WindowResult) -> dict[str, Any]:
    return {
        "window": result.window,
        "start_s": result.start_s,
        "figures": result.figures,
        "latency": {
            name: Histogram.of(measure(result.requests)).to_mapping() for name, measure in LATENCIES.items()
        },
        "targets": run_lengths(result.targets),
        **({} if result.weights is None else {"router_weights": changes_of(result.weights)}),
    }


def changes_of(weights: NDArray[np.float64]) -> list[list[float]]:
    """Rows ``[interval, w0, ..., w6]`` of the intervals whose weights differ from those before."""
    changed = np.append(True, (weights[1:] != weights[:-1]).any(axis=1)).nonzero()[0]
    return [[int(k), *weights[k].tolist()] for k in changed]


def _message(error: Exception) -> str:
    """What was raised and in which line; on one line, without the machine's paths."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})"


class Repeated:
    """Plays the recorded decisions of a policy, in its environment and with its predictions.

    Args:
        policy: whose options, predictions and initial fleet are used; it is asked for nothing else.
        decisions: by start of the window.
    """

    def __init__(self, policy: Any, decisions: Mapping[float, Decisions]) -> None:
        self.name = policy.name
        self.forecaster, self.predictor = policy.forecaster, policy.predictor
        self.env_id = getattr(policy, "env_id", None)
        self._policy = policy
        self._decisions = decisions
        if hasattr(policy, "initial_instances"):
            self.initial_instances = policy.initial_instances

    def env_options(self) -> dict[str, Any]:
        """Those of the policy, but with targets for actions where it sets nothing else."""
        options: dict[str, Any] = self._policy.env_options() | {"obs_mode": "dict"}
        return options | ({"action_mode": "target"} if "action_mode" in options else {})

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The action for what was decided."""
        if state is None:
            state = (self._decisions[float(observation["time_s"][0])], 0)
        decisions, k = state
        (target,) = _in_force(decisions.targets, k)
        if decisions.weights is not None:
            change = (int(target) - float(observation["target"][0])) / MAX_DELTA
            return np.append(change, 2.0 * _in_force(decisions.weights, k) - 1.0), (decisions, k + 1)
        cluster = self._policy.cluster
        action = target_to_action(int(target), cluster.min_instances, cluster.max_instances)
        return action, (decisions, k + 1)


def _in_force(changes: NDArray[Any], k: int) -> NDArray[Any]:
    """What follows the interval in the last row whose interval is not after ``k``."""
    values: NDArray[Any] = changes[np.searchsorted(changes[:, 0], k, side="right") - 1, 1:]
    return values
