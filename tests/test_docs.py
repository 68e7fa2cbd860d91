"""Every page: its Python runs, prints what it shows, its tables are true, its links lead somewhere."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

import preserve_gym
from preserve_gym import (
    AnticipatorConfig,
    ClusterConfig,
    InstanceConfig,
    RewardConfig,
    SloConfig,
    Workload,
    WorkloadConfig,
)
from preserve_gym.envs.autoscale import AutoscaleEnv
from preserve_gym.forecasting import FORECASTERS
from preserve_gym.latency.presets import load_preset, preset_names
from preserve_gym.prediction.lengths import PREDICTORS
from preserve_gym.scenarios import load_scenario, scenario_names
from preserve_gym.sim import ROUTERS, Histogram, RouterView
from preserve_gym.sim.histograms import METRICS
from preserve_gym.sim.routing import READS
from preserve_gym.traces import DATASETS, TRANSFORMS, synthetic_trace, trace_names
from preserve_gym.traces.generated import GENERATED
from tests import measure_transforms, measured_servers, plot_scenarios, whole_instances
from tests.test_scenarios import SHORT

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = ROOT / "README.md"
AUTOSCALE = ROOT / "docs" / "environments" / "autoscale.md"
TRACES = ROOT / "docs" / "bring-your-own-trace.md"
GPU = ROOT / "docs" / "bring-your-own-gpu.md"
SCENARIOS = ROOT / "docs" / "scenarios.md"
SIMULATES = ROOT / "docs" / "how-it-simulates.md"
POLICY = ROOT / "docs" / "write-your-own-policy.md"
PRESERVE = ROOT / "docs" / "preserve.md"
FORECASTING = ROOT / "docs" / "forecasting.md"


def each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.relative_to(ROOT).as_posix())


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    line: int  # of its first line of content, from 0
    text: str
    runs: bool  # a block of Python whose needs are installed
    is_output: bool  # what the block right before it prints


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    i = 0
    while i < len(lines):
        if not lines[i].startswith("```"):
            i += 1
            continue
        end = next(k for k in range(i + 1, len(lines)) if lines[k].startswith("```"))
        language = lines[i].removeprefix("```").strip()
        above = lines[i - 1] if i else ""
        needs = re.fullmatch(r"<!-- needs: (\w+) -->", above)
        installed = needs is None or importlib.util.find_spec(needs[1]) is not None
        is_output = language == "text" and above == "```" and bool(blocks) and blocks[-1].runs
        runs = language == "python" and installed
        blocks.append(Block(language, i + 1, "\n".join(lines[i + 1 : end]), runs, is_output))
        i = end + 1
    return blocks


def tables_of(page: Path, heading: str) -> Iterator[list[list[str]]]:
    """Cells of the tables between a heading and the next one, without backticks."""
    text = page.read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    for table in re.findall(r"(?:^\|.*\n)+", section + "\n", flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        yield [[re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in row] for row in rows[2:]]


def table_of(page: Path, heading: str) -> list[list[str]]:
    (table,) = tables_of(page, heading)
    return table


def assert_prints(shown: str, printed: str) -> None:
    """Equal, except that figures with a decimal point may be off by 2 %, for other platforms."""
    figure = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")
    assert figure.sub("#", printed) == figure.sub("#", shown)
    numbers = [[float(text) for text in figure.findall(side)] for side in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.02)


@each([page for page in PAGES if any(block.runs for block in blocks_of(page))])
def test_python_of_the_page_runs_and_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = blocks_of(page)
    code = [block for block in blocks if block.runs]
    # One script, since compiled routers must come from a file; its lines are those of the page.
    script = [""] * max(block.line + len(block.text.splitlines()) + 1 for block in code)
    for k, block in enumerate(blocks):
        if block.runs:
            lines = block.text.splitlines()
            script[block.line : block.line + len(lines)] = lines
            script[block.line + len(lines)] = f"print('<end of block {k}>')"
    file = tmp_path / f"{page.stem}.py"
    file.write_text("\n".join(script), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(file), run_name="__main__")
    outputs = {
        int(k): printed
        for printed, k in re.findall(r"(.*?)<end of block (\d+)>\n", capsys.readouterr().out, flags=re.DOTALL)
    }
    assert len(outputs) == len(code)
    for k, block in enumerate(blocks):
        if block.is_output:
            assert_prints(block.text, outputs[k - 1].rstrip("\n"))


@each(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        assert path.is_relative_to(ROOT), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings], target


def small_env(**options: Any) -> gym.Env[Any, Any]:
    trace = synthetic_trace("chat", duration_s=1200.0, start_clock_s=36_000.0, seed=0)
    workload = Workload(WorkloadConfig(horizon_s=60.0), trace=trace)
    return gym.make("preserve/Autoscale-v0", workload=workload, **options)


def test_flat_features() -> None:
    env = small_env()
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    rows = table_of(AUTOSCALE, "Flat")
    assert [row[:2] for row in rows] == [
        [str(k), name]
        for k, name in enumerate(env.unwrapped.feature_names)  # type: ignore[attr-defined]
    ]
    np.testing.assert_array_equal([float(row[2]) for row in rows], space.low)
    np.testing.assert_array_equal([float(row[3]) for row in rows], space.high)


def test_dict_entries() -> None:
    env = small_env(obs_mode="dict", cluster={"max_instances": 7})
    space = env.observation_space
    assert isinstance(space, gym.spaces.Dict)
    observation, _ = env.reset(seed=0)
    rows = table_of(AUTOSCALE, "Dict")
    assert [row[0] for row in rows] == list(observation)
    assert {row[0] for row in rows} == set(space)
    sizes = {"I": 7, "W": 3, "1": 1, "5": 5}
    for key, shape, high, *_ in rows:
        box = space[key]
        assert isinstance(box, gym.spaces.Box)
        assert box.shape == (sizes[shape.strip("(,)")],), key
        assert np.all(box.low == 0.0), key
        assert np.all(box.high == float(high)), key


@pytest.mark.parametrize(
    ("page", "documented"),
    [
        (AUTOSCALE, AutoscaleEnv),
        (AUTOSCALE, ClusterConfig),
        (AUTOSCALE, SloConfig),
        (AUTOSCALE, WorkloadConfig),
        (AUTOSCALE, RewardConfig),
        (GPU, InstanceConfig),
        (PRESERVE, AnticipatorConfig),
    ],
)
def test_arguments_and_defaults(page: Path, documented: type) -> None:
    rows = {row[0]: row[1] for row in table_of(page, f"`{documented.__name__}`")}
    parameters = inspect.signature(documented).parameters
    assert list(rows) == list(parameters)
    if dataclasses.is_dataclass(documented):
        factories = {
            f.name: f.default_factory()
            for f in dataclasses.fields(documented)
            if f.default_factory is not dataclasses.MISSING
        }
    else:
        factories = {}
    for name, parameter in parameters.items():
        if rows[name] == "required":
            assert parameter.default is inspect.Parameter.empty, name
        elif name in factories:
            assert eval(rows[name], vars(preserve_gym)) == factories[name], name
        else:
            shown = ast.literal_eval(rows[name])
            assert (shown, type(shown)) == (parameter.default, type(parameter.default)), name


def test_names_that_arguments_take() -> None:
    rows = {
        row[0]: row[-1]
        for heading in ("`AutoscaleEnv`", "`WorkloadConfig`")
        for row in table_of(AUTOSCALE, heading)
    }
    assert re.findall(r"`([\w-]+)`", rows["router"]) == list(ROUTERS)
    assert sorted(re.findall(r"`([\w-]+)`", rows["forecaster"])) == sorted(FORECASTERS)
    assert sorted(re.findall(r"`([\w-]+)`", rows["predictor"])) == sorted(PREDICTORS)


def test_forecasters_of_the_page() -> None:
    assert [row[0] for row in table_of(FORECASTING, "The forecasters")] == list(FORECASTERS)


def test_what_routers_see() -> None:
    rows = table_of(POLICY, "What the router gets")
    seen = {*RouterView.ARRAYS, *RouterView.SCALARS} - {"params", "totals"}
    assert sorted(row[0] for row in rows) == sorted(seen)
    assert {row[0] for row in rows if row[1] == "no"} == set(RouterView.SCALARS)
    needs = {row[0]: re.findall(r'reads="(\w+)"', row[-1]) for row in rows}
    assert {reads for names in needs.values() for reads in names} == set(READS)


def test_built_in_routers() -> None:
    assert [row[0] for row in table_of(POLICY, "Built-in routers")] == list(ROUTERS)


def test_histograms() -> None:
    assert {row[0] for row in table_of(SIMULATES, "Metrics")} == {*METRICS, "itl_s"}
    edges_s = Histogram(np.zeros(2050, np.int64)).edges_s[1:-1]
    widths = np.diff(edges_s) / edges_s[:-1]
    assert widths.max() == pytest.approx(0.016, rel=0.03)
    assert [edges_s[0], edges_s[-1]] == pytest.approx([61e-6, 3 * 86_400.0], rel=0.02)


def test_actions() -> None:
    env = small_env(initial_instances=5)
    for action, (shown, change) in enumerate(table_of(AUTOSCALE, "Action space")):
        assert int(shown) == action
        env.reset(seed=0)
        assert env.step(action)[-1]["target"] == 5 + int(change)
    assert isinstance(env.action_space, gym.spaces.Discrete)
    assert env.action_space.n == action + 1


def test_info_and_reward() -> None:
    env = small_env(initial_instances=3)
    base: Any = env.unwrapped
    _, first = env.reset(seed=0)
    forecast_prompt, forecast_output, _ = base.workload.forecast_at(first["time_s"])
    _, reward, _, _, info = env.step(3)
    rows = table_of(AUTOSCALE, "Info")
    for keys in (first, info):
        assert [(key, type(value).__name__) for key, value in keys.items()] == [(r[0], r[1]) for r in rows]
    # The formula of the page, by its own names.
    section = AUTOSCALE.read_text(encoding="utf-8").split("## Reward")[1].split("```")[1]
    names = {
        **dataclasses.asdict(base.reward_config),
        "instance_s": info["instance_s"],
        "baseline_s": base.reward_config.baseline_headroom
        * base.profile.need(forecast_prompt[0] / 600.0, forecast_output[0] / 600.0)
        * 10.0,
        "max_instances": 16,
        "interval_s": 10.0,
        "violations": info["violations"],
        "n": len(base.workload.trace) / 1200.0 * 10.0,
        "min": min,
    }
    formulas = dict(re.findall(r"(\w+) += (.*)", section))
    for part in ("reward_cost", "reward_slo", "reward"):
        names[part] = eval(formulas[part], dict(names))
    assert (names["reward_cost"], names["reward_slo"]) == pytest.approx(
        (info["reward_cost"], info["reward_slo"])
    )
    assert names["reward"] == pytest.approx(reward)
    assert info["reward_cost"] != 0.0


def test_trace_names() -> None:
    recorded = table_of(TRACES, "Names, and where data is looked for")
    generated, _ = tables_of(TRACES, "Generated traces")
    assert sorted(row[0] for row in (*recorded, *generated)) == sorted(trace_names())
    for name, meaning in recorded:
        assert f"{DATASETS[name].rows:,} requests" in meaning
    for (name, about, needs), (known, trace) in zip(generated, GENERATED.items(), strict=True):
        assert (name, about) == (known, trace.about)
        assert needs.replace("`", "") == (", ".join(trace.needs) or "nothing")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SHORT else pytest.mark.slow) for name in scenario_names()],
)
def test_sizes_of_scenarios(name: str, request: pytest.FixtureRequest) -> None:
    scenario = load_scenario(name)
    if not scenario.workload.trace.startswith("synthetic-"):
        request.getfixturevalue("data_dir")
    shown = next(row for row in table_of(SCENARIOS, "Sizes") if row[0] == name)
    found = plot_scenarios.size(scenario, scenario.make_workload("test"))
    measured = [cell.strip(" `") for cell in plot_scenarios.row(name, found).strip("|").split("|")]
    assert shown == measured
    assert (ROOT / "docs" / "images" / "scenarios" / f"{name}.png").is_file()


def test_scenarios() -> None:
    rows = table_of(SCENARIOS, "The scenarios")
    assert sorted(row[0] for row in rows) == list(scenario_names())
    for name, trace, cluster, _ in rows:
        scenario = load_scenario(name)
        sized = scenario.cluster
        assert trace == scenario.workload.trace
        assert cluster == f"up to {sized.max_instances} x `{sized.instance.name}`"


def test_data_sets_that_are_not_traces() -> None:
    readers = {"lengths": "read_lengths", "client windows": "read_client_windows"}
    rows = table_of(TRACES, "Data sets that are not traces")
    assert [(name, kind, reader) for name, _, kind, reader in rows] == [
        (name, dataset.kind, readers.get(dataset.holds, "pandas.read_csv"))
        for name, dataset in DATASETS.items()
        if dataset.holds != "requests"
    ]
    for name, held, *_ in rows:
        dataset = DATASETS[name]
        if dataset.holds == "lengths":
            assert held.startswith(f"{dataset.rows:,} pairs of lengths")
        elif dataset.holds == "client windows":
            assert held == f"{dataset.clients} clients in {dataset.rows // dataset.clients:,} windows"


def test_kinds_of_transforms() -> None:
    shown = {row[0]: re.findall(r"(\w+)", row[1]) for row in table_of(TRACES, "Changing a trace")}
    assert list(shown) == list(TRANSFORMS)
    for kind, cls in TRANSFORMS.items():
        assert shown[kind] == [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "azure-2023-conv",
        "azure-2023-code",
        pytest.param("synthetic-chat", marks=pytest.mark.slow),
    ],
)
def test_what_transforms_do_to_the_arrivals(name: str, data_dir: Path) -> None:
    rows = [row for row in table_of(TRACES, "What it does to the arrivals") if row[0] == name]
    measured = measure_transforms.rows_of(name)
    assert [row[1] for row in rows] == [row[1] for row in measured]
    for row, found in zip(rows, measured, strict=True):
        assert list(map(float, row[2:])) == pytest.approx(list(map(float, found[2:])), rel=0.02, abs=0.02)


def test_presets() -> None:
    rows, _ = tables_of(GPU, "The presets")
    assert rows == [
        [
            *(p.model, p.gpu, str(p.tp)),
            *(f"{error:.1f}" for error in dataclasses.astuple(p.fit_error)),
            f"{16 * (p.instance['num_gpu_blocks'] - 1):,}",
        ]
        for p in map(load_preset, preset_names())
    ]


@pytest.mark.slow
def test_whole_instances(data_dir: Path) -> None:
    rows = [whole_instances.row_of(case, data_dir) for case in whole_instances.CASES]
    assert table_of(GPU, "Against whole instances") == rows


def test_measured_servers() -> None:
    rows = [measured_servers.row_of(server) for server in measured_servers.SERVERS]
    assert table_of(GPU, "Against servers") == rows


def test_errors_against_real_servers() -> None:
    own, preset, *_ = tables_of(SIMULATES, "Against a real server")

    def largest(table: list[list[str]]) -> dict[str, float]:
        errors: dict[str, float] = {}
        for run, _, mean, *_ in table:
            errors[run] = max(errors.get(run, 0.0), abs(float(mean)))
        return errors

    shown = {
        re.sub(r" \(.*\)", "", run): (preset_error, own_error)
        for run, preset_error, own_error in table_of(README, "How far can you trust it?")
    }
    assert shown == {run: (f"{largest(preset)[run]} %", f"{error} %") for run, error in largest(own).items()}


def test_cases_of_vllm(data_dir: Path) -> None:
    folder = data_dir / "golden" / "vllm_v1"
    rows = table_of(SIMULATES, "How it was validated")
    assert sorted(row[0] for row in rows) == sorted(path.stem for path in folder.glob("*.json"))
    total = 0
    for case, requests, preemptions, scheduling, _ in rows:
        results = pd.read_csv(folder / f"{case}.csv.gz")
        asynchronous = json.loads((folder / f"{case}.json").read_text())["async_scheduling"]
        assert requests == f"{len(results):,}"
        assert preemptions == f"{results['preemptions'].sum():,}"
        assert scheduling == ("asynchronous" if asynchronous else "synchronous")
        total += len(results)
    # Wherever vLLM's scheduler and a number of requests stand in one paragraph, it is this one.
    claims = [
        claim
        for page in PAGES
        for paragraph in page.read_text(encoding="utf-8").split("\n\n")
        if "vLLM 0.19" in paragraph
        for claim in re.findall(r"([\d,]*\d) requests", paragraph)
    ]
    assert f"{total:,}" in claims
    assert set(claims) == {f"{total:,}"}
