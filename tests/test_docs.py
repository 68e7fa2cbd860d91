"""Every page: its Python runs, prints what it shows, its tables are true, its links lead somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preserve_gym.forecasting import FORECASTERS
from preserve_gym.latency.presets import load_preset, preset_names
from preserve_gym.scenarios import load_scenario, scenario_names
from preserve_gym.sim import ROUTERS, Histogram, RouterView
from preserve_gym.sim.histograms import METRICS
from preserve_gym.sim.routing import READS
from preserve_gym.traces import DATASETS, TRANSFORMS, trace_names
from preserve_gym.traces.generated import GENERATED
from tests import measure_transforms, measured_servers, plot_scenarios, whole_instances
from tests.page_blocks import blocks_of
from tests.pages import (
    FORECASTING,
    GPU,
    PAGES,
    POLICY,
    README,
    ROOT,
    SCENARIOS,
    SIMULATES,
    TRACES,
    table_of,
    tables_of,
)
from tests.test_scenarios import SHORT


def each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.relative_to(ROOT).as_posix())


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
        if block.is_output and blocks[k - 1].runs:
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
