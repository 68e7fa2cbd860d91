"""From options to checked work: every mistake that can be seen beforehand shows here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from baselines import POLICIES
from baselines.policy_name import check_policy_name, label_of
from baselines.router_name import check_router_name, router_label
from baselines.tuned import SUFFIX, split_tuned, tuned_parameters
from experiments.backend import Pool
from experiments.cells import Piece
from experiments.evaluate import Cell, Setting
from experiments.options import Options
from experiments.policies import build_policy
from experiments.provenance import model_files, own_files, trace_sources, versions
from experiments.suites import SUITES, Suite
from experiments.trace_setting import trace_setting
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.forecasting.registry import FORECASTERS, SKTIME, unknown
from preserve_gym.prediction import PREDICTORS
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.scenarios.frozen import frozen_windows

# Each process may hold the workload of a week: that many fit into the memory of a small machine.
_MOST_DEFAULT_JOBS = 2


@dataclass(frozen=True)
class Plan:
    """Work that has been checked.

    Attributes:
        name: for the run folder.
        settings: each scenario, or the trace.
        policies: names of the policies that play each, by its name.
        seeds: of each.
        default_seeds: how many of them a policy plays whose tuned form plays too; None: all.
        router: in place of the policies' own; None: their own.
        windows: numbers of those that are played; None: all.
        save: which tables of each cell are kept: ``timelines``, ``intervals`` or ``requests``.
        baseline: label of the policy that the others are compared with; None: the usual one, if it plays.
        config: what decides the result, for ``config.yaml``.
    """

    name: str
    settings: tuple[Setting, ...]
    policies: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    default_seeds: int | None
    router: str | None
    windows: tuple[int, ...] | None
    save: str
    baseline: str | None
    config: dict[str, Any]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells in the order of tables: by scenario, policy and seed."""
        return tuple(
            Cell(setting.scenario, policy, seed)
            for setting in self.settings
            for policy in self.policies[setting.scenario]
            for seed in self._seeds_of(setting.scenario, policy)
        )

    def _seeds_of(self, scenario: str, policy: str) -> tuple[int, ...]:
        also_tuned = f"{policy}{SUFFIX}" in self.policies[scenario]
        return self.seeds[: self.default_seeds] if also_tuned else self.seeds

    def pieces(self, cells: Iterable[Cell], jobs: int) -> list[Piece]:
        """These cells in pieces that share a workload; more pieces only where there are fewer than jobs.

        The policies of one scenario and seed make a piece; the scenarios of one seed come before the next.
        """
        wanted = set(cells)
        pieces = []
        for seed in self.seeds:
            for setting in self.settings:
                names = self.policies[setting.scenario]
                chosen = [cell for name in names if (cell := Cell(setting.scenario, name, seed)) in wanted]
                if chosen:
                    pieces.append(self._piece(setting, tuple(chosen)))
        parts = -(-jobs // len(pieces)) if pieces else 1
        split = [replace(p, cells=p.cells[k::parts]) for p in pieces for k in range(parts)]
        return [piece for piece in split if piece.cells]

    def _piece(self, setting: Setting, cells: tuple[Cell, ...]) -> Piece:
        first = cells[0].seed == self.seeds[0]
        tables = {
            "timelines": ("timelines",) if first else (),
            "intervals": ("timelines", "intervals") if first else ("intervals",),
            "requests": (("timelines",) if first else ()) + ("intervals", "requests"),
        }
        return Piece(setting, cells, self.router, self.windows, tables[self.save])


def make_plan(options: Options) -> Plan:
    """Check the options against each other, the data and the clusters.

    Raises:
        InputError: naming the option, or the file and row, and what was expected.
    """
    suite = SUITES[options.suite or "quick"]
    scenarios = suite.scenarios if options.scenario is None else options.scenario
    if options.scenario is not None:
        suite = Suite(scenarios)
    if options.policies is not None:
        suite = Suite(suite.scenarios, options.policies, suite.seeds)
    _check_policies(suite.policies)
    if options.router is not None:
        check_router_name(options.router, "--router")
    first = options.seed or 0
    seeds = tuple(range(first, first + (options.seeds or suite.seeds)))
    if not scenarios and options.scenario is None:
        settings: tuple[Setting, ...] = (_checked_trace(options, suite, seeds[0]),)
    else:
        settings = _scenario_settings(options, scenarios)
        for setting in settings:
            _check_scenario(setting, suite.policies_of(setting.scenario), options)
    policies = {setting.scenario: suite.policies_of(setting.scenario) for setting in settings}
    return Plan(
        name=_name(options, settings),
        settings=settings,
        policies=policies,
        seeds=seeds,
        default_seeds=suite.default_seeds,
        router=options.router,
        windows=options.windows,
        save=options.save or "timelines",
        baseline=_checked_baseline(options.baseline, policies),
        config=_config(options, settings, policies, seeds),
    )


def _checked_baseline(name: str | None, policies: Mapping[str, Sequence[str]]) -> str | None:
    if name is None:
        return None
    label = Cell("", name, 0).label
    labels = {Cell("", policy, 0).label for played in policies.values() for policy in played}
    if label not in labels:
        hint = did_you_mean(label, sorted(labels))
        raise InputError(f"--baseline: expected a policy that plays, got {name!r}{hint}")
    return label


def jobs_of(pool: Pool, plan: Plan) -> int:
    """Processes to play with."""
    if pool.jobs is not None:
        return pool.jobs
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    weeks = any(setting.workload.split is not None for setting in plan.settings)
    return min(cores, _MOST_DEFAULT_JOBS) if weeks else cores


def _checked_trace(options: Options, suite: Suite, seed: int) -> Setting:
    setting, workload = trace_setting(options, options.trace or "synthetic-chat", seed)
    for name in suite.policies:
        build_policy(name, setting.cluster, workload, setting.scenario, options.router)
    return setting


def _scenario_settings(options: Options, names: tuple[str, ...]) -> tuple[Setting, ...]:
    if not names:
        raise InputError("--scenario: expected at least one, got none")
    scenarios: dict[str, Scenario] = {}
    for name in names:
        scenario = load_scenario(name)
        if scenario.name in scenarios:
            raise InputError(f"--scenario: expected each scenario once, got {scenario.name!r} twice")
        scenarios[scenario.name] = scenario
    _check_predictions(options)
    changed = {
        name: getattr(options, name)
        for name in ("forecaster", "predictor")
        if getattr(options, name) is not None
    }
    split: Any = options.split or "test"
    return tuple(
        Setting(name, scenario.cluster, replace(scenario.workload, split=split, **changed))
        for name, scenario in scenarios.items()
    )


def _check_predictions(options: Options) -> None:
    forecaster, predictor = options.forecaster, options.predictor
    if forecaster is not None and forecaster not in FORECASTERS and not forecaster.startswith(SKTIME):
        raise unknown(forecaster)
    if predictor is not None and predictor not in PREDICTORS:
        hint = did_you_mean(predictor, PREDICTORS)
        raise InputError(f"--predictor: expected one of {', '.join(PREDICTORS)}, got {predictor!r}{hint}")


def _check_scenario(setting: Setting, policies: tuple[str, ...], options: Options) -> None:
    """What shows without making its workload, which takes seconds."""
    for name in policies:
        if split_tuned(name) is not None:
            tuned_parameters(name, setting.scenario)
        elif sized := re.fullmatch(r"static-(\d{1,9})", name):
            low, high = setting.cluster.min_instances, setting.cluster.max_instances
            if not low <= int(sized[1]) <= high:
                raise InputError(
                    f"--policies: {name}: expected instances in [{low}, {high}], the bounds of the cluster "
                    f"of scenario {setting.scenario!r}"
                )
    frozen = frozen_windows().get(setting.scenario)
    if frozen is None or options.windows is None:
        return
    count = len(frozen.validation if setting.workload.split == "validation" else frozen.test)
    _check_windows(options.windows, count, setting.scenario)


def _check_windows(windows: tuple[int, ...], count: int, scenario: str) -> None:
    for window in windows:
        if not 0 <= window < count:
            raise InputError(
                f"--windows: expected numbers in [0, {count - 1}], as scenario {scenario!r} has {count} "
                f"window{'s' * (count > 1)}, got {window}"
            )
    if not windows or len(set(windows)) != len(windows):
        raise InputError(f"--windows: expected different numbers, at least one, got {list(windows)}")


def _check_policies(names: tuple[str, ...]) -> None:
    if not names:
        raise InputError(f"--policies: expected at least one of {', '.join(POLICIES)}")
    for i, name in enumerate(names):
        check_policy_name(name, POLICIES, "--policies")
        # Files are named after the labels.
        if label_of(name) in map(label_of, names[:i]):
            raise InputError(f"--policies: expected each policy once, got {name!r} twice")


def _name(options: Options, settings: tuple[Setting, ...]) -> str:
    if options.suite is not None:
        return options.suite
    return settings[0].scenario if len(settings) == 1 else f"{len(settings)}-scenarios"


def _config(
    options: Options,
    settings: tuple[Setting, ...],
    policies: dict[str, tuple[str, ...]],
    seeds: tuple[int, ...],
) -> dict[str, Any]:
    """Everything that decides the result and nothing that does not, such as places, times and ``jobs``."""
    scenarios = {}
    for setting in settings:
        sources = trace_sources(setting.workload)
        workload = setting.workload.to_mapping() | {"trace": sources[0]["name"]}
        del workload["seed"]
        models = model_files(policies[setting.scenario], setting.workload)
        scenarios[setting.scenario] = {
            "traces": sources,
            "cluster": setting.cluster.to_mapping(),
            "workload": workload,
            **({"models": models} if models else {}),
            "plays": [label_of(name) for name in policies[setting.scenario]],
        }
    files = own_files(policies[settings[0].scenario], options.router)
    return {
        "suite": options.suite,
        "seeds": list(seeds),
        "split": settings[0].workload.split,
        "windows": None if options.windows is None else list(options.windows),
        "router": None if options.router is None else router_label(options.router),
        "save": options.save or "timelines",
        "scenarios": scenarios,
        **({"own_files": files} if files else {}),
        "versions": versions(),
    }
