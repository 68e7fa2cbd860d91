"""The examples that are programs of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SCENARIO = """
workload: {trace: synthetic-chat, horizon_s: 900, split_s: [43200, 64800], evaluation_horizon_s: 3600}
cluster: {max_instances: 8}
"""


@pytest.mark.slow
def test_a_clone_behaves_like_its_policy(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    one_thread_of_torch: None,
) -> None:
    pytest.importorskip("minari")
    from examples import behaviour_cloning
    from experiments import dataset

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    scenario = tmp_path / "day.yaml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    assert dataset.main(["--scenario", str(scenario), "--policies", "corr", "--episodes", "40"]) == 0
    assert behaviour_cloning.main([capsys.readouterr().out.strip()]) == 0
    said, *played = capsys.readouterr().out.splitlines()
    print(said, *played, sep="\n")
    agreed = re.fullmatch(r"3,600 decisions in 40 episodes; the clone agrees with (\d+\.\d)% of them", said)
    assert agreed is not None
    assert float(agreed[1]) > 80.0
    figures = [re.fullmatch(r"(\w+) +(\d+\.\d+) GPU-hours, +(\d+\.\d+)% in SLO", line) for line in played]
    (corr, clone) = [figure.groups() for figure in figures if figure is not None]
    assert (corr[0], clone[0]) == ("corr", "clone")
    assert float(clone[1]) == pytest.approx(float(corr[1]), rel=0.15)
    assert float(clone[2]) == pytest.approx(float(corr[2]), abs=5.0)


def test_the_example_of_cloning_refuses_a_dataset_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minari")
    pytest.importorskip("torch")
    from examples import behaviour_cloning

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert behaviour_cloning.main(["a/b-v0"]) == 1
    assert "error: Dataset a/b-v0 not found" in capsys.readouterr().err
