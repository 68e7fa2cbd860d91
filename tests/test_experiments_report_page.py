from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from baselines.bounds.kept import KeptBounds, file_name
from experiments.compare import as_text, compare, main, write_report
from experiments.latency_histogram import Histogram
from experiments.policy_table import WIDTH, explain, policy_table
from experiments.report_data import POINTS, SHARES, scenario_data, significant, sweeps
from experiments.report_figures import chosen
from experiments.report_page import standings
from experiments.run_records import RunRecords
from preserve_gym.errors import InputError
from tests.synthetic_run import write_run


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> RunRecords:
    return RunRecords(write_run(tmp_path_factory.mktemp("run"), scenarios=2, policies=8, seeds=3))


@pytest.fixture(scope="module")
def summary(records: RunRecords) -> pd.DataFrame:
    return compare(records)


@pytest.fixture(scope="module")
def data(records: RunRecords, summary: pd.DataFrame) -> dict[str, Any]:
    return scenario_data(records, summary, "chat")


def _without_browser(folder: Path) -> str:
    """The page but for the library that draws."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    return re.sub(r'<script type="text/plain" id="plotly">.*?</script>', "", text, flags=re.DOTALL)


def test_numbers_are_rounded_and_nan_is_null() -> None:
    assert significant([0.123456, 123456.0, 0.0, np.nan, 1e-9], 3) == [0.123, 123000, 0, None, 1e-9]
    assert significant([[1.5, 2.0]], 2) == [[1.5, 2]]
    assert json.dumps(significant([2.0, 0.1 + 0.2])) == "[2, 0.3]"


def test_sweeps_are_policies_that_differ_in_a_number() -> None:
    names = ("static-8", "hpa", "static-4", "keda-2", "static-10", "keda-4")
    assert sweeps(names) == [[2, 0, 4]]


def test_time_lines_are_those_of_the_run(records: RunRecords, data: dict[str, Any]) -> None:
    table = records.timeline("chat", "hpa")
    assert table is not None
    k = data["rows"]["policy"].index("hpa")
    assert [window["number"] for window in data["windows"]] == [0, 1]
    for number, window in enumerate(data["windows"]):
        part = table[table["window"] == number]
        assert len(window["load"]) == POINTS == len(part)
        np.testing.assert_allclose(window["load"], part["load"], rtol=1e-3)
        lines = {name: np.array(values, float) for name, values in window["policies"][k].items()}
        billed = part[["ready", "starting", "draining"]].sum(axis=1)
        np.testing.assert_allclose(lines["instances"], billed, rtol=1e-2)
        np.testing.assert_allclose(lines["waiting"], part["waiting"], rtol=1e-2)
        np.testing.assert_allclose(lines["ttft_ms"], 1000 * part["ttft_mean_s"], rtol=1e-2)
        np.testing.assert_allclose(lines["missed"], 100 * part["violations"] / part["arrived"], rtol=1e-2)


def test_forecasts_are_judged_once_for_each_window(records: RunRecords, data: dict[str, Any]) -> None:
    table = records.timeline("chat", "hpa")
    assert table is not None
    assert [entry["window"] for entry in data["forecasts"]] == [0, 1]
    for entry in data["forecasts"]:
        part = table[table["window"] == entry["window"]]
        gap = part["forecast_load"] - part["load"]
        assert entry["error"] == pytest.approx(gap.abs().sum() / part["load"].sum(), rel=1e-3)
        assert entry["bias"] == pytest.approx(gap.sum() / part["load"].sum(), rel=1e-3, abs=1e-5)
        assert entry["short"] == pytest.approx(-gap[gap < 0].sum() / part["load"].sum(), rel=1e-3)


def test_latencies_are_those_of_all_requests(records: RunRecords, data: dict[str, Any]) -> None:
    found = records.histograms("chat")
    pooled = sum((v["tpot_s"] for (p, _, _), v in found.items() if p == "keda"), start=Histogram.of([]))
    curve = data["latencies"]["tpot_s"][data["rows"]["policy"].index("keda")]
    assert curve[list(SHARES).index(99.0)] == pytest.approx(1000 * pooled.percentile(99.0), rel=1e-3)
    assert curve == sorted(curve)


def test_policies_are_in_the_order_of_their_rank(data: dict[str, Any]) -> None:
    assert data["rows"]["rank"] == list(range(1, 9))
    drawn = [data["rows"]["policy"][k] for k in chosen(data)]
    assert drawn[:3] == ["preserve", "best-static", "hindsight"]


def test_standings_count_a_missed_target_and_what_a_constant_fleet_beats_as_nought() -> None:
    rows = [("a", "x", 1, 0.8, True), ("b", "x", 2, np.nan, False), ("a", "y", 2, 0.2, True)]
    rows += [("b", "y", 1, 0.6, True), ("c", "x", 1, np.nan, True)]
    rows += [("a", "z", 3, -9.0, True), ("b", "z", 3, 0.2, True)]
    table = pd.DataFrame(rows, columns=["scenario", "policy", "rank", "score", "meets_target"])
    x, y, z = standings(table.assign(gpu_hours_change=[0.0, 1.0, np.nan, -0.5, 3.0, np.nan, np.nan]))
    assert (z["score"], z["change"]) == (0.1, None)
    assert (x["policy"], x["score"], x["met"], x["played"]) == ("x", 0.4, 2, 3)
    assert x["change"] == pytest.approx((1.0 * 2.0 * 4.0) ** (1 / 3) - 1.0)
    assert (y["policy"], y["score"], y["rank"], y["change"]) == ("y", 0.4, 1.5, pytest.approx(-0.5))
    assert standings(pd.DataFrame()) == []


def test_table_has_the_figures_of_the_summary_and_fits(records: RunRecords, summary: pd.DataFrame) -> None:
    text = as_text(records, summary)
    row = summary[(summary["scenario"] == "chat") & (summary["policy"] == "keda")].iloc[0]
    (line,) = (line for line in text.split("\n\n")[2].splitlines() if " keda " in line)
    mark = " " if row["meets_target"] else "*"
    assert f"{100 * row['slo_attainment']:.2f}{mark}[" in line
    assert f"{row['gpu_hours']:.1f} ±" in line
    assert f"{100 * row['gpu_hours_change']:+.1f} [" in line
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "chat, test, 2 windows, seeds 0 to 2" in text


def test_table_leaves_out_what_is_not_known(summary: pd.DataFrame) -> None:
    chat = summary[summary["scenario"] == "chat"]
    alone = chat.drop(columns=[name for name in chat if "change" in name or "difference" in name])
    headings = [str(column.header) for column in policy_table(alone.assign(score=np.nan)).columns]
    assert not any("preserve" in heading or "Score" in heading for heading in headings)
    assert "not inferior" not in explain(alone)
    assert "no intervals" in explain(alone.assign(seeds=1))


def test_report_holds_every_scenario(
    records: RunRecords, summary: pd.DataFrame, data: dict[str, Any]
) -> None:
    pytest.importorskip("plotly")
    write_report(records, summary)
    text = _without_browser(records.folder)
    packed = dict(re.findall(r'data-of="([^"]+)">([^<]+)<', text))
    assert list(packed) == records.scenarios
    assert json.loads(zlib.decompress(base64.b64decode(packed["chat"]))) == json.loads(json.dumps(data))
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", text)
    names = {path.name for path in (records.folder / "figures").iterdir()}
    kinds = ("front", "time", "latencies", "instances", "forecasts")
    assert names == {f"{scenario}-{kind}.svg" for scenario in records.scenarios for kind in kinds}


def test_report_is_the_same_every_time(records: RunRecords, summary: pd.DataFrame) -> None:
    pytest.importorskip("plotly")
    paths = [records.folder / "report.html", records.folder / "figures" / "chat-front.svg"]
    write_report(records, summary)
    before = [path.read_bytes() for path in paths]
    write_report(records, summary)
    assert [path.read_bytes() for path in paths] == before


def test_names_are_escaped(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    records = RunRecords(write_run(tmp_path, scenarios=1, policies=1, seeds=1))
    records.config["note"] = "</pre><script>alert(1)</script>"
    write_report(records, compare(records))
    assert "<script>alert" not in _without_browser(tmp_path)


def test_without_time_lines_and_seeds(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    folder = write_run(tmp_path, scenarios=1, policies=3, seeds=1, windows=1)
    for path in (folder / "timelines").rglob("*.parquet"):
        path.unlink()
    assert main([str(folder)]) == 0
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "api-burst-front.svg",
        "api-burst-latencies.svg",
    }
    assert "no intervals" in (folder / "table.txt").read_text(encoding="utf-8")


def test_command_compares_with_any_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    folder = write_run(tmp_path, scenarios=1, policies=4, seeds=2)
    assert main([str(folder), "--baseline", "hpa"]) == 0
    assert "GPU-hours % to" in capsys.readouterr().out
    table = pd.read_csv(folder / "summary.csv").set_index("policy")
    assert table.loc["hpa", "gpu_hours_change"] == 0.0
    assert table.loc["preserve", "gpu_hours_change"] != 0.0
    assert main([str(folder), "--baseline", "hpb"]) == 2
    assert "did you mean hpa?" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
    assert "run: expected the folder of a run" in capsys.readouterr().err
    (folder / "config.yaml").write_text("- no", encoding="utf-8")
    assert main([str(folder)]) == 2
    assert "expected the configuration of a run" in capsys.readouterr().err


def test_bounds_are_those_of_the_split_and_of_all_windows(records: RunRecords, tmp_path: Path) -> None:
    row = {"target": 0.5, "static_gpu_hours": 900.0, "hindsight_gpu_hours": 100.0, "windows": 2}
    for scenario, windows in (("api-burst", 3), ("chat", 2)):
        KeptBounds(row | {"windows": windows}, "", (), 10.0, ()).write(
            tmp_path / file_name(scenario, "test", 0)
        )
    table = compare(records, bounds=tmp_path).set_index(["scenario", "policy"])
    assert (table["target"] == 0.5).all()
    chat = table.loc["chat"]
    # Best static and hindsight played there, so the table of bounds gives no more than the target.
    ends = [chat.loc[name, "gpu_hours"] for name in ("best-static", "hindsight")]
    assert chat.loc["hpa", "score"] == pytest.approx(
        (ends[0] - chat.loc["hpa", "gpu_hours"]) / (ends[0] - ends[1])
    )
    records.config["split"] = "validation"
    assert (compare(records, bounds=tmp_path)["target"] == 0.99).all()
    records.config["split"] = "test"
    (tmp_path / file_name("chat", "test", 0)).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"chat-test-seed0\.json: expected bounds"):
        compare(records, bounds=tmp_path)


def test_bounds_of_other_windows_give_no_score(tmp_path: Path) -> None:
    records = RunRecords(write_run(tmp_path, scenarios=1, policies=1, seeds=2))
    path = tmp_path / file_name("api-burst", "test", 0)
    row = {"target": 0.5, "static_gpu_hours": 900.0, "hindsight_gpu_hours": 100.0, "windows": 2}
    KeptBounds(row, "", (), 10.0, ()).write(path)
    (hours,), (score,) = (compare(records, bounds=tmp_path)[name] for name in ("gpu_hours", "score"))
    assert score == pytest.approx((900.0 - hours) / 800.0)
    KeptBounds(row | {"windows": 3}, "", (), 10.0, ()).write(path)
    assert compare(records, bounds=tmp_path)["score"].isna().all()


def test_says_which_extra_is_missing(
    records: RunRecords, summary: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(InputError, match=r"preserve-gym\[report\]"):
        write_report(records, summary)
