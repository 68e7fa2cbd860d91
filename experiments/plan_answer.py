"""How many instances one cluster needs for its traffic: static, under each policy, and in hindsight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from baselines import entry_of, make_fitted_policy
from baselines.bounds import BestStatic, LowerBound, as_policy, best_static, find_hindsight, play
from baselines.policy_name import label_of
from experiments.evaluate import WindowResult, play_windows
from experiments.metrics import percentile, tpot_s, ttft_s
from experiments.plan_case import Case
from experiments.playing import Policy
from experiments.pool import run_tasks
from experiments.tune_choice import Front, make_front, text_of
from experiments.tune_grid import Parameters, all_of
from experiments.tune_points import Point, play_parameters

STATIC, HINDSIGHT = "static", "hindsight"

OnDone = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is to do."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How one way of scaling serves the traffic that is measured.

    Attributes:
        policy: its name.
        setting: its parameters as they were chosen, as text.
        chosen_attainment: on the traffic that they were chosen on.
        figures: ``attainment``, ``arrived``, ``gpus`` and ``instances`` (means over time),
            ``peak_instances``, ``gpu_hours``, ``ttft_p99_s``, ``tpot_p99_s``, and ``cost_usd`` and
            ``energy_kwh`` where price and power are known.
        intervals: as ``experiments.evaluate.INTERVAL_COLUMNS``, all windows.
        meets: the target is met on both parts.
    """

    policy: str
    setting: str
    chosen_attainment: float
    figures: dict[str, float]
    intervals: pd.DataFrame
    meets: bool


@dataclass(frozen=True, eq=False)
class Answer:
    """What there is to say about a cluster.

    Attributes:
        case: the cluster and its traffic.
        prevented: why nothing meets the target, in a sentence; None: something does.
        hours: of the traffic that is measured.
        chosen_hours: of the traffic that settings are chosen on.
        static: best static fleet on the traffic that settings are chosen on; None: not tried.
        measured_static: on the traffic that is measured, in hindsight; None: not tried.
        plans: static first, then the policies in the order given, then the hindsight schedule if asked for.
        fronts: all settings that were tried, by policy.
        failed: policies that raised an error, and which.
        refused: policies that do not fit, and why.
    """

    case: Case
    prevented: str | None
    hours: float = 0.0
    chosen_hours: float = 0.0
    static: BestStatic | None = None
    measured_static: BestStatic | None = None
    plans: tuple[Plan, ...] = ()
    fronts: tuple[Front, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def policies(self) -> list[Plan]:
        """Plans of policies that could be run."""
        return [plan for plan in self.plans if plan.policy not in (STATIC, HINDSIGHT)]

    @property
    def static_gpu_hours(self) -> float:
        """Of the static fleet, on the traffic measured; NaN if none meets the target."""
        plan = self.plan(STATIC)
        return math.nan if plan is None else plan.figures["gpu_hours"]

    def saving(self, plan: Plan) -> float:
        """Share of the GPU-hours of that static fleet that a plan saves."""
        return 1.0 - plan.figures["gpu_hours"] / self.static_gpu_hours

    def plan(self, policy: str) -> Plan | None:
        """That of a policy, if there is one."""
        return next((plan for plan in self.plans if plan.policy == policy), None)

    @property
    def cheapest(self) -> Plan | None:
        """Of the plans that meet the target, static or not, the one with the fewest GPU-hours."""
        able = [plan for plan in self.plans if plan.meets and plan.policy != HINDSIGHT]
        return min(able, key=lambda plan: plan.figures["gpu_hours"], default=None)


@dataclass(frozen=True)
class _Task:
    """One setting of a policy, on the traffic to choose on."""

    case: Case
    policy: str
    parameters: Mapping[str, float]


def settings_of(policy: str) -> list[Parameters]:
    """Every combination of the values that a policy is tuned over; its defaults if there are none.

    Raises:
        InputError: if it is one's own and cannot be loaded.
    """
    entry = entry_of(policy)
    assert entry is not None
    return all_of(entry.tuned_over)


def static_answer(case: Case, on_done: OnDone) -> Answer:
    """The static fleet; ``prevented`` says so if not even the largest one meets the target."""
    chosen, measured = (case.problem(part) for part in (False, True))
    hours, chosen_hours = (
        sum(episode.horizon_s for episode in problem.episodes) / 3600.0 for problem in (measured, chosen)
    )
    on_done(f"{case.label}: static fleets", 0, 0)
    # From the smallest size on: the fleets that are too small show why.
    none = LowerBound(0.0, case.cluster.instance.gpus)
    static = best_static(chosen, none)
    in_hindsight = best_static(measured, none) if case.traffic.is_split else static
    answer = Answer(case, None, hours, chosen_hours, static, in_hindsight)
    short = next((one for one in (static, in_hindsight) if not one.meets), None)
    if short is not None:
        count = short.instances
        prevented = (
            f"the largest fleet, {count} instance{'s' * (count > 1)}, serves "
            f"{100 * short.outcome.attainment:.2f} % within the SLO; a larger one (--max-instances) may do"
        )
        return replace(answer, prevented=prevented)
    return answer


def full_answer(
    case: Case, policies: Sequence[str], *, hindsight: int | None, jobs: int, on_done: OnDone
) -> Answer:
    """The static fleet, every policy with the cheapest setting that meets the target, and hindsight.

    Args:
        policies: names of the registry, or ``file.py:Class``.
        hindsight: simulations that improve the hindsight schedule; None: none is looked for.
        jobs: processes.

    Raises:
        InputError: if a policy of one's own cannot be loaded.
        WorkerDiedError: if a worker was killed.
    """
    answer = static_answer(case, on_done)
    if answer.prevented is not None:
        return answer
    plans = [_static_plan(answer)]
    workload = case.traffic.workload(measured=True)
    fronts, failed, refused = _tried(case, policies, jobs, on_done)
    for k, front in enumerate(fronts):
        on_done(f"{case.label}: chosen settings", k, len(fronts))
        chosen = front.chosen
        policy = make_fitted_policy(front.policy, case.cluster, workload, **chosen.parameters)
        text = text_of(chosen.parameters) or "as it is"
        plans.append(_measured(case, policy, front.policy, text, chosen.attainment))
    if hindsight is not None:
        plans.append(_in_hindsight(case, answer, hindsight, on_done))
    return replace(answer, plans=tuple(plans), fronts=tuple(fronts), failed=failed, refused=refused)


def _static_plan(answer: Answer) -> Plan:
    """That of the smallest fleet that is enough for both parts of the traffic."""
    case, static, measured = answer.case, answer.static, answer.measured_static
    assert static is not None
    assert measured is not None
    size, attainment = static.instances, static.outcome.attainment
    if measured.instances > size:
        size, problem = measured.instances, case.problem(measured=False)
        attainment = play(problem, problem.constant(size)).attainment
    policy = make_fitted_policy(f"static-{size}", case.cluster, case.traffic.workload(measured=True))
    return _measured(case, policy, STATIC, f"{size} instance{'s' * (size > 1)}", attainment)


def _tried(
    case: Case, policies: Sequence[str], jobs: int, on_done: OnDone
) -> tuple[list[Front], dict[str, str], dict[str, str]]:
    """The front of each policy, errors, and refusals."""
    tasks = [_Task(case, policy, setting) for policy in policies for setting in settings_of(policy)]
    what = f"{case.label}: settings of policies"
    on_done(what, 0, len(tasks))
    points = run_tasks(_play, tasks, jobs=jobs, on_done=lambda k: on_done(what, k, len(tasks)))
    fronts, failed, refused = [], {}, {}
    for policy in policies:
        own = [point for point in points if point.policy == policy]
        good = [point for point in own if point.played]
        if errors := [point.error for point in own if point.error is not None]:
            failed[policy] = errors[0]
        elif not good:
            refused[policy] = str(own[0].refused)
        if good:
            fronts.append(make_front(good, case.target))
    return fronts, failed, refused


def _play(task: _Task) -> Point:
    """What comes of a setting."""
    case = task.case
    return play_parameters(task.policy, task.parameters, case.cluster, case.traffic.workload(measured=False))


def _measured(case: Case, policy: Policy, name: str, setting: str, chosen_attainment: float) -> Plan:
    results = play_windows(case.traffic.workload(measured=True), case.cluster, policy, seed=0)
    figures = _figures(case, results)
    intervals = pd.concat([result.intervals for result in results], ignore_index=True)
    meets = min(figures["attainment"], chosen_attainment) >= case.target
    return Plan(label_of(name), setting, chosen_attainment, figures, intervals, meets)


def _in_hindsight(case: Case, answer: Answer, effort: int, on_done: OnDone) -> Plan:
    assert answer.measured_static is not None
    problem = case.problem(measured=True)
    profile = case.traffic.workload(measured=True).profile(case.cluster)
    plays = 0

    def on_play(outcome: object) -> None:
        nonlocal plays
        plays += 1
        on_done(f"{case.label}: hindsight schedule, {plays} simulations", 0, 0)

    found = find_hindsight(problem, profile, answer.measured_static, effort=effort, on_play=on_play)
    policy = as_policy(problem, profile, found.schedule)
    return _measured(case, policy, HINDSIGHT, "knows all arrivals", found.attainment)


def _figures(case: Case, results: Sequence[WindowResult]) -> dict[str, float]:
    """Those of all windows together."""

    def total(name: str) -> float:
        return float(sum(result.figures[name] for result in results))

    requests: Any = pd.concat([result.requests for result in results], ignore_index=True)
    hours = total("horizon_s") / 3600.0
    peak = max(
        int((one.intervals["ready"] + one.intervals["starting"] + one.intervals["draining"]).max())
        for one in results
    )
    gpus = total("gpu_hours") / hours
    return {
        "attainment": 1.0 - total("violations") / max(total("arrived"), 1.0),
        "arrived": total("arrived"),
        "instances": gpus / case.cluster.instance.gpus,
        "peak_instances": peak,
        "gpus": gpus,
        **{
            name: total(name)
            for name in ("gpu_hours", "cost_usd", "energy_kwh")
            if name in results[0].figures
        },
        "ttft_p99_s": percentile(ttft_s(requests), 99.0),
        "tpot_p99_s": percentile(tpot_s(requests), 99.0),
    }
