"""Fixes the evaluation windows of the named scenarios: writes ``preserve_gym/scenarios/windows.json``.

Run as ``python -m tests.freeze_windows [names]``, with the data folder in ``PRESERVE_GYM_DATA``; without
names, for all scenarios. Entries of scenarios that there are no more are dropped.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

from preserve_gym import Workload
from preserve_gym.config import SPLITS
from preserve_gym.scenarios import (
    FrozenWindows,
    Scenario,
    frozen_windows,
    load_scenario,
    scenario_names,
    trace_digest,
)
from preserve_gym.scenarios.frozen import FILE
from preserve_gym.traces import load_trace


def freeze(scenario: Scenario) -> FrozenWindows:
    """The windows that tile the splits of a scenario, at its own seed."""
    config = scenario.workload
    trace = load_trace(config.trace, config.seed, config.service_scale)
    workloads = {split: Workload(replace(config, split=split), trace) for split in SPLITS}
    bounds = workloads["train"].bounds
    assert bounds is not None
    return FrozenWindows(
        trace_sha256=trace_digest(workloads["train"].trace),
        train_s=bounds["train"],
        validation_s=bounds["validation"],
        test_s=bounds["test"],
        warmup_s=float(config.warmup_s),
        horizon_s=workloads["test"].config.scored_s,
        validation=tuple(workloads["validation"].evaluation_windows.tolist()),
        test=tuple(workloads["test"].evaluation_windows.tolist()),
    )


def main(names: list[str]) -> None:
    windows = frozen_windows() if FILE.exists() else {}
    for name in names or scenario_names():
        windows[name] = freeze(load_scenario(name))
        print(f"{name}: {len(windows[name].validation)} + {len(windows[name].test)} windows")
    FILE.write_text(as_json(windows), encoding="utf-8")


def as_json(windows: dict[str, FrozenWindows]) -> str:
    """The file, a line for each field."""
    entries = [
        f'"{name}": {{\n'
        + ",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in asdict(windows[name]).items())
        + "\n}"
        for name in scenario_names()
        if name in windows
    ]
    return "{\n" + ",\n".join(entries) + "\n}\n"


if __name__ == "__main__":
    main(sys.argv[1:])
