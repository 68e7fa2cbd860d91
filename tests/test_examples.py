"""The examples: policies of one's own, compared with the others in one command."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from baselines import make_policy
from experiments.run import main
from preserve_gym import ClusterConfig, InputError
from preserve_gym.sim.profile import InstanceProfile
from tests.baseline_observations import PROFILE

EXAMPLES = Path(__file__).parents[1] / "examples"
SCALER = f"{EXAMPLES / 'my_scaler.py'}:RateWithHeadroom"
ROUTER = f"{EXAMPLES / 'my_router.py'}:LeastPrefill"


def trace_file(folder: Path) -> Path:
    """Twenty minutes of two requests a second."""
    rows = [f"{k / 2.0 + 0.1},{100 + k % 900},{20 + k % 200}" for k in range(2400)]
    path = folder / "trace.csv"
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n")
    return path


def test_both_play_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = [SCALER, ROUTER, "proactive"]
    out = tmp_path / "run"
    status = main(
        ["--trace", str(trace_file(tmp_path)), "--policies", *policies, "--out", str(out), "--jobs", "1"]
    )
    assert status == 0, capsys.readouterr()
    summary = pd.read_csv(out / "summary.csv")
    assert summary["policy"].tolist() == ["RateWithHeadroom", "LeastPrefill", "proactive"]
    assert (summary["slo_attainment"] > 0.9).all()
    assert (out / "cells" / "trace" / "LeastPrefill" / "seed0.json").is_file()
    assert "router: least_prefill" in (out / "config.yaml").read_text()


@pytest.mark.parametrize("example", [EXAMPLES / "my_scaler.py", EXAMPLES / "my_router.py"])
def test_an_example_is_short(example: Path) -> None:
    lines = example.read_text().split('"""', 2)[2].splitlines()
    assert sum(1 for line in lines if line.strip() and not line.strip().startswith("#")) <= 20


@pytest.mark.parametrize(
    ("source", "class_name", "message"),
    [
        (None, "Mine", "no such Python file"),
        ("x = 1\n", "Mine", "expected a class 'Mine' in"),
        ("Mine = 3\n", "Mine", "that is an Autoscaler"),
        ("class Mine:\n    pass\n", "Mine", "that is an Autoscaler"),
        ("raise RuntimeError('no luck')\n", "Mine", "raised RuntimeError: no luck"),
        ("def broken(:\n", "Mine", "raised SyntaxError"),
    ],
)
def test_a_file_without_a_policy_is_refused(
    tmp_path: Path, source: str | None, class_name: str, message: str
) -> None:
    path = tmp_path / f"refused_{tmp_path.name}.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(InputError, match=r"policy .*refused_") as error:
        make_policy(f"{path}:{class_name}", ClusterConfig(), PROFILE)
    assert message in str(error.value)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    profile: InstanceProfile = PROFILE
    source = (EXAMPLES / "my_scaler.py").read_text()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twice.py").write_text(source)
    made = make_policy(f"{tmp_path / 'one' / 'twice.py'}:RateWithHeadroom", ClusterConfig(), profile)
    assert made.name == "rate-with-headroom"
    with pytest.raises(InputError, match="there is another file of that name"):
        make_policy(f"{tmp_path / 'two' / 'twice.py'}:RateWithHeadroom", ClusterConfig(), profile)
