"""``python -m experiments.explain``: the stretch that is shown, the means, the file, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.explain import by_minute_of_hour, draw, main, most_different


def intervals(ready: np.ndarray) -> pd.DataFrame:
    time_s = 10.0 * np.arange(len(ready))
    return pd.DataFrame(
        {
            "time_s": 7200.0 + time_s,
            "time_of_day_s": (7200.0 + time_s) % 86_400.0,
            "load": np.where(time_s % 3600.0 < 600.0, 4.0, 1.0),
            "ready": ready,
            "target": ready,
        }
    )


def test_the_stretch_is_where_they_differ_most() -> None:
    one, other = np.full(1440, 3), np.full(1440, 3)
    one[900:1000] += 2
    one[100] += 5
    start = most_different(intervals(one), intervals(other), hours=0.25)
    assert start + 90 >= 990  # of 90 intervals those in which they differ by 2
    assert start <= 910
    assert most_different(intervals(one), intervals(other), hours=24.0) == 0


def test_means_by_the_minute() -> None:
    ready = np.where(10.0 * np.arange(1440) % 3600.0 < 300.0, 6, 2)
    means = by_minute_of_hour(intervals(ready))
    assert list(means.index) == list(range(60))
    assert means["load"].tolist() == [4.0] * 10 + [1.0] * 50
    assert means["ready"].tolist() == [6.0] * 5 + [2.0] * 55


def test_the_figure_names_every_policy() -> None:
    played = {"ppo": intervals(np.full(1440, 4)), "preserve-tuned": intervals(np.full(1440, 5))}
    figure = draw(played, hours=2.0)
    over_day, over_hour = figure.axes
    labels = over_day.get_legend_handles_labels()[1]
    assert labels == ["load, mean of a minute", "ppo", "preserve-tuned"]
    assert {line.get_ydata()[0] for line in over_hour.get_lines() if len(line.get_ydata())} == {4.0, 5.0}
    assert over_day.get_xlim() == pytest.approx((2.0, 4.0))


@pytest.mark.slow
def test_it_draws_what_policies_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "small.yaml"
    scenario.write_text(
        "description: An hour.\nworkload:\n  trace: synthetic-chat\n  rate_scale: 0.3\n  warmup_s: 60\n"
        "  horizon_s: 600\n  split_s: [1500, 2800]\n  split_gap_s: 60\ncluster: {max_instances: 4}\n"
    )
    out = tmp_path / "figure.svg"
    options = ["--scenario", str(scenario), "--policies", "corr", "static-3", "--out", str(out)]
    assert main(options) == 0
    text = out.read_text()
    assert text.startswith("<?xml")
    first = out.read_bytes()
    assert main(options) == 0
    assert out.read_bytes() == first
    assert main([*options, "--window", "999"]) == 2
    assert "--window: expected an integer in [0, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policies", "corr"], "--policies: expected 2 to 5, got 1"),
        (["--policies", "corr", "corr"], "--policies: expected policies that differ, got corr, corr"),
        (["--out", "figure.doc"], "--out: expected a name that ends in .pdf, .png, .svg, got figure.doc"),
        (["--policies", "corr", "prisn"], "did you mean prism?"),
        (["--hours", "0"], "--hours: expected a number in [0.1, 24], got 0"),
        (["--scenario", "chat-weak"], "did you mean chat-week?"),
    ],
)
def test_bad_options_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    assert message in capsys.readouterr().err
