"""``python -m experiments.bounds``: its table and files, going on, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from experiments import bounds
from experiments.bounds import main
from preserve_gym.traces import synthetic_trace


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Half an hour of a small service, and a scenario of it."""
    trace = synthetic_trace("chat", duration_s=1800.0, mean_rate_rps=4.0)
    rows = zip(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, strict=True)
    lines = ["arrival_s,prompt_tokens,output_tokens", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "half-hour.csv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "small.yaml"
    path.write_text(
        f"workload:\n  trace: {tmp_path / 'half-hour.csv'}\n  split_s: [700, 1200]\n  split_gap_s: 0\n"
        "  warmup_s: 30\n  horizon_s: 250\n  transforms:\n    - {kind: step, at_s: 1500, factor: 2}\n"
        "cluster:\n  max_instances: 8\n"
    )
    return path


def test_the_bounds_are_in_order_and_kept(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bounds"
    command = ["--scenario", str(small), "--effort", "30", "--out", str(out)]
    assert main(command) == 0
    assert "small" in capsys.readouterr().out
    row = pd.read_csv(out / "bounds.csv").iloc[0]
    assert row["meets"]
    assert row["windows"] == 2
    assert row["lower_gpu_hours"] <= row["hindsight_gpu_hours"] <= row["static_gpu_hours"]
    assert min(row["static_attainment"], row["hindsight_attainment"]) >= 0.99
    assert row["static_gpu_hours"] == pytest.approx(row["static_instances"] * 500.0 / 3600.0)
    kept = json.loads((out / "small-test-seed0.json").read_text())
    assert kept["starts_s"] == [1230.0, 1480.0]
    assert [window[0][0] for window in kept["targets"]] == [0, 0]
    assert all(interval < 25 for window in kept["targets"] for interval, _ in window)

    def compute_again(*_: object) -> None:
        raise AssertionError("it was there")

    monkeypatch.setattr(bounds, "compute", compute_again)
    assert main(command) == 0
    # More effort than was asked for is as good; less is not, nor is another target.
    assert main(["--scenario", str(small), "--effort", "29", "--out", str(out)]) == 0
    for other in (["--target", "0.95"], ["--effort", "31"]):
        with pytest.raises(AssertionError, match="it was there"):
            main([*command, *other])


def test_what_cannot_be_served_is_said(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.write_text(small.read_text().replace("max_instances: 8", "max_instances: 1"))
    assert main(["--scenario", str(small), "--out", str(tmp_path / "bounds")]) == 0
    shown = capsys.readouterr().out
    expected = r"small: its largest fleet, 1 instance, reaches \d+\.\d+ %: it cannot be served at the target"
    assert re.search(expected, shown)
    row = pd.read_csv(tmp_path / "bounds" / "bounds.csv").iloc[0]
    assert not row["meets"]
    assert pd.isna(row["hindsight_gpu_hours"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "chatt"], "scenario 'chatt': expected .*did you mean chat"),
        (["--scenario"], "--scenario: expected some of"),
        (["--target", "99"], r"--target: expected a share in \(0, 1\], got 99"),
        (["--effort", "-1"], "--effort: expected an integer in"),
        (["--router", "least-request"], "--router: expected one of .*did you mean least-requests"),
        (["--split", "train"], "split"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
