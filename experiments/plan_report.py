"""What comes of a capacity plan: tables, and a conclusion in words."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.plan_answer import HINDSIGHT, STATIC, Answer, Plan
from experiments.plan_case import Case
from experiments.report import slo_words
from experiments.tune_choice import text_of
from preserve_gym.forecasting.makers import PRESERVE_MAPE

WIDTH = 110
"""Of tables and text."""

# Heading, figure, factor to the shown unit, format.
_COLUMNS: tuple[tuple[str, str, float, str], ...] = (
    ("SLO\nmet %", "attainment", 100.0, ".2f"),
    ("GPUs\nmean", "gpus", 1.0, ".2f"),
    ("\nmost", "peak_gpus", 1.0, ".0f"),
    ("GPU-\nhours", "gpu_hours", 1.0, ".1f"),
    ("\nUSD", "cost_usd", 1.0, ".2f"),
    ("\nkWh", "energy_kwh", 1.0, ".1f"),
    ("of static\n%", "of_static", 100.0, ".0f"),
    ("TTFT\nP99 s", "ttft_p99_s", 1.0, ".2f"),
    ("TPOT\nP99 ms", "tpot_p99_s", 1000.0, ".1f"),
)


_TABLE = (
    *("cluster", "policy", "setting", "meets", "chosen_attainment", "attainment", "arrived", "hours"),
    *("instances", "peak_instances", "gpus", "peak_gpus", "gpu_hours", "cost_usd", "energy_kwh"),
    *("of_static", "ttft_p99_s", "tpot_p99_s"),
)


def plan_table(answers: Sequence[Answer]) -> pd.DataFrame:
    """One row per cluster and way of scaling, on the traffic measured; what is not known is NaN."""
    rows: list[dict[str, Any]] = []
    for answer in answers:
        gpus = answer.case.cluster.instance.gpus
        for plan in answer.plans:
            rows.append(
                {
                    "cluster": answer.case.label,
                    "policy": plan.policy,
                    "setting": plan.setting,
                    "meets": plan.meets,
                    "chosen_attainment": plan.chosen_attainment,
                    **plan.figures,
                    "peak_gpus": plan.figures["peak_instances"] * gpus,
                    "of_static": 1.0 - answer.saving(plan),
                    "hours": answer.hours,
                }
            )
    return pd.DataFrame(rows, columns=list(_TABLE))


def settings_table(answers: Sequence[Answer]) -> pd.DataFrame:
    """One row per cluster and setting tried, static sizes included, on the traffic that was chosen on."""
    rows = []
    for answer in answers:
        label, hours = answer.case.label, answer.chosen_hours
        if answer.static is not None:
            attainments, best = dict(answer.static.attainments), 0
            if (plan := answer.plan(STATIC)) is not None:
                best = int(plan.figures["peak_instances"])
                attainments[best] = plan.chosen_attainment
            for size, attainment in attainments.items():
                gpus = float(size * answer.case.cluster.instance.gpus)
                chosen = size == best
                rows.append((label, STATIC, f"instances={size}", attainment, gpus * hours, gpus, chosen))
        for front in answer.fronts:
            for one in front.configurations:
                text = text_of(one.parameters)
                means = one.attainment, one.gpu_hours, one.gpu_hours / hours
                rows.append((label, front.policy, text, *means, one is front.chosen))
    columns = ["cluster", "policy", "setting", "attainment", "gpu_hours", "gpus", "chosen"]
    return pd.DataFrame(rows, columns=columns)


def as_text(answers: Sequence[Answer]) -> str:
    """The table and the conclusion, as plain text without trailing blanks."""
    parts = [_wrapped(_question(answers[0].case))]
    for answer in answers:
        if answer.plans:
            stream = io.StringIO()
            Console(file=stream, width=2 * WIDTH, color_system=None).print(_shown(answer))
            parts.append("\n".join(line.rstrip() for line in stream.getvalue().splitlines()))
        parts.append("\n".join(_wrapped(text) for text in conclusion(answer)))
    if best := _best(answers):
        parts.append(_wrapped(best))
    return "\n\n".join(parts) + "\n"


def conclusion(answer: Answer) -> list[str]:
    """What a cluster's plan says, in sentences, a paragraph each."""
    label = answer.case.label
    if answer.prevented is not None:
        return [f"{label}: {answer.prevented}."]
    said = [f"{label}: {_static_words(answer)}", _policy_words(answer)]
    if (hindsight := answer.plan(HINDSIGHT)) is not None:
        said.append(
            f"Possible at most, for one who knows all arrivals: {hindsight.figures['gpus']:.1f} GPUs on "
            f"average, {_saved(answer.saving(hindsight))}, as far as it was searched."
        )
    said.append(_caveat(answer))
    said += [f"{policy}: not here: {reason}." for policy, reason in answer.refused.items()]
    return said


def _shown(answer: Answer) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    table.add_column(f"{answer.case.label}\nPolicy", no_wrap=True)
    table.add_column("\nSetting", no_wrap=True)
    rows = plan_table([answer])
    columns = [column for column in _COLUMNS if rows[column[1]].notna().any()]
    for heading, *_ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows.to_dict("records"):
        values = ((row[name] * factor, form) for _, name, factor, form in columns)
        cells = ["-" if math.isnan(value) else format(value, form) for value, form in values]
        table.add_row(row["policy"], row["setting"], *cells, "" if row["meets"] else "misses")
    return table


def _question(case: Case) -> str:
    workload = case.traffic.workload(measured=True)
    seconds = sum(workload.episode_at(float(start_s)).horizon_s for start_s in workload.evaluation_windows)
    problem, slo = case.problem(measured=True), case.cluster.slo
    return (
        f"{case.traffic.name}: {problem.arrived:,} requests in {_span(seconds / 3600.0)}. Wanted: "
        f"{100 * case.target:g} % of them with {'the ' * (slo.ttft_s is not None)}{slo_words(asdict(slo))}."
    )


def _static_words(answer: Answer) -> str:
    static, measured = answer.static, answer.measured_static
    plan = answer.plan(STATIC)
    assert static is not None
    assert measured is not None
    assert plan is not None
    size, gpus = max(static.instances, measured.instances), answer.case.cluster.instance.gpus
    said = f"{_count(size, gpus)} as a static fleet meet{'s' * (size == 1)} it"
    below = (measured if measured.instances == size else static).attainments.get(size - 1)
    if below is not None:
        said += f" ({size - 1} would serve {100 * below:.2f} % in time)"
    said += f": {_bill(plan)}."
    if static.instances < size:
        return f"{said} To go by {_first_part(answer)} alone, {static.instances} would be enough."
    if measured.instances < size:
        return f"{said} For {_rest(answer)} alone, {measured.instances} would do."
    return said


def _policy_words(answer: Answer) -> str:
    """The cheapest policy that meets the target, and under what conditions."""
    able = [plan for plan in answer.policies if plan.meets]
    if not answer.policies:
        return "No policy was tried."
    if not able:
        closest = max(answer.policies, key=lambda plan: plan.figures["attainment"])
        who = f"{closest.policy} comes closest with {100 * closest.figures['attainment']:.2f} %"
        if answer.case.traffic.is_split:
            return (
                f"No setting that was chosen meets it on both parts of the traffic; {who}. To plan for a "
                "higher --attainment leaves a reserve."
            )
        return f"No policy that was tried meets it; {who}."
    best = min(able, key=lambda plan: plan.figures["gpu_hours"])
    saving = answer.saving(best)
    if saving <= 0.0:
        return f"No policy that was tried saves anything; {best.policy} comes closest: {_bill(best)}."
    cluster = answer.case.cluster
    return (
        f"Under {best.policy} ({best.setting}) it takes {best.figures['gpus']:.1f} GPUs on average, "
        f"{best.figures['peak_instances'] * cluster.instance.gpus:.0f} at most, {_bill(best)}: "
        f"{_saved(saving)}, if GPUs are paid for only while they are held and an instance starts within "
        f"{cluster.mean_cold_start_s:.3g} s."
    )


def _caveat(answer: Answer) -> str:
    """On what traffic the settings were chosen, and what forecasts are assumed."""
    traffic = answer.case.traffic
    forecaster = traffic.measured_on.forecaster
    forecast = f"with a set error of {PRESERVE_MAPE:.1%}" if forecaster == "noisy" else f"of {forecaster}"
    if traffic.is_split:
        chosen = (
            f"Settings were chosen on {_first_part(answer)}, and all is measured on {_rest(answer)}; the "
            "static fleet is the smallest that is enough for both."
        )
    else:
        chosen = (
            "Settings, and the size of the static fleet, were chosen on the very traffic that they are "
            "measured on, which is optimistic: keep a reserve."
        )
    return f"{chosen} Policies that forecast have forecasts {forecast}."


def _best(answers: Sequence[Answer]) -> str | None:
    """The cheapest of several clusters, where prices are known."""
    plans = [(answer, answer.cheapest) for answer in answers]
    able = [(answer, plan) for answer, plan in plans if plan is not None and "cost_usd" in plan.figures]
    if len(answers) < 2 or not able:
        return None
    answer, plan = min(able, key=lambda pair: pair[1].figures["cost_usd"])
    return f"Cheapest of all: {plan.policy} on {answer.case.label}, {_bill(plan)}."


def _bill(plan: Plan) -> str:
    figures = plan.figures
    cost = f" for {figures['cost_usd']:,.2f} USD" if "cost_usd" in figures else ""
    return f"{figures['gpu_hours']:,.1f} GPU-hours{cost}"


def _saved(saving: float) -> str:
    return f"{100 * saving:.0f} % less than the static fleet"


def _count(size: int, gpus: int) -> str:
    of = f" ({size * gpus} GPUs)" if gpus > 1 else ""
    return f"{size} instance{'s' * (size > 1)}{of}"


def _first_part(answer: Answer) -> str:
    if answer.case.traffic.scenario is not None:
        return "the validation windows"
    return f"the first {_span(answer.chosen_hours)}"


def _rest(answer: Answer) -> str:
    return "the test windows" if answer.case.traffic.scenario is not None else "the rest"


def _span(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 2.0 else f"{60.0 * hours:.1f} min"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)
