"""Routers by name: built in, learned, and of one's own, wherever a router is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from agents.shared_router import load_router, shared_score
from agents.train import main as train
from baselines import make_fitted_policy
from baselines.router_name import check_router_name, router_options
from experiments import routers, transfer
from experiments.run import main as run
from experiments.totals import play_totals
from preserve_gym import Workload, WorkloadConfig
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.routers import USUAL_WEIGHTS
from preserve_gym.traces import synthetic_trace

EXAMPLE = str(Path(__file__).parents[1] / "examples" / "alike_router.py") + ":alike"
OWN = """
from preserve_gym import router

@router
def first(view, request):
    return view.ready[0]

def plain(view, request):
    return view.ready[0]
"""


def test_the_options_of_an_environment() -> None:
    assert router_options("preserve") == {"router": "preserve"}
    assert router_options(shared_score) == {"router": shared_score}
    learned = router_options("evolved")
    assert learned == {"router": shared_score, "router_weights": load_router("evolved").weights}
    own = router_options(EXAMPLE)["router"]
    assert own.reads
    assert router_options(EXAMPLE)["router"] is own


def test_the_example_is_linear_with_two_weights() -> None:
    """KV use and 0.3 times how unlike prompts are: the same figures, to the bit."""
    hour = synthetic_trace("chat", duration_s=1800.0, start_clock_s=36_000.0, seed=0)
    workload = Workload(WorkloadConfig(horizon_s=1200.0, rate_scale=2.0), trace=hour)
    cluster = ClusterConfig(min_instances=4, max_instances=4)

    class Linear:
        """The policy with the other router."""

        def __init__(self, policy: object) -> None:
            self.policy = policy

        def __getattr__(self, name: str) -> object:
            return getattr(self.policy, name)

        def env_options(self) -> dict[str, object]:
            options = self.policy.env_options()  # type: ignore[attr-defined]
            return {**options, "router": "linear", "router_weights": (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.3)}

    own, other = (make_fitted_policy("static-4", cluster, workload, router=r) for r in (EXAMPLE, "least-kv"))
    assert play_totals(workload, own) == play_totals(workload, Linear(other))  # type: ignore[arg-type]
    assert play_totals(workload, own) != play_totals(workload, other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evolve", r"--router: expected one of round-robin, .*file.py:function, got 'evolve' \(did you mean"),
        ("nothing.yaml", "router 'nothing.yaml': "),
        ("nothing.py:first", "router 'nothing.py:first': no such Python file: 'nothing.py'"),
        ("{own}:second", "expected a function 'second' in .*py made by @router"),
        ("{own}:plain", "expected a function 'plain' in .*py made by @router"),
        ("{broken}:first", "broken.py raised ZeroDivisionError"),
    ],
)
def test_what_is_no_router_is_refused(name: str, message: str, tmp_path: Path) -> None:
    own, broken = tmp_path / f"{tmp_path.name}.py", tmp_path / "broken.py"  # a name of its own
    own.write_text(OWN)
    broken.write_text("1 / 0\n")
    with pytest.raises(InputError, match=message):
        check_router_name(name.format(own=own, broken=broken), "--router")


def test_a_router_of_ones_own_in_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "tiny.csv"
    made = synthetic_trace("chat", duration_s=900.0, start_clock_s=36_000.0, seed=0)
    columns = ("arrival_s", "prompt_tokens", "output_tokens")
    pd.DataFrame({name: getattr(made, name) for name in columns}).to_csv(trace, index=False)
    out = tmp_path / "run"
    options = ["--trace", str(trace), "--policies", "static-3", "--jobs", "1", "--out", str(out)]
    assert run([*options, "--router", EXAMPLE]) == 0
    (record,) = out.glob("cells/*/static-3/seed0.json")
    assert json.loads(record.read_text())["router"] == EXAMPLE
    assert run(["--replay", str(out), "--jobs", "1"]) == 0
    assert "1 of 1 cells replayed with equal figures" in capsys.readouterr().out


def test_a_run_knows_its_router_anywhere_and_notices_a_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = synthetic_trace("chat", duration_s=900.0, start_clock_s=36_000.0, seed=0)
    columns = ("arrival_s", "prompt_tokens", "output_tokens")
    pd.DataFrame({name: getattr(made, name) for name in columns}).to_csv(tmp_path / "tiny.csv", index=False)
    (tmp_path / "mine_here.py").write_text(OWN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    options = ["--trace", "tiny.csv", "--policies", "static-3", "--router", "mine_here.py:first"]
    assert run([*options, "--jobs", "1", "--out", "run"]) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(["--replay", "../run", "--jobs", "1"]) == 0
    assert run(["--resume", "../run", "--jobs", "1"]) == 0
    capsys.readouterr()
    (tmp_path / "mine_here.py").write_text(OWN.replace("view.ready[0]", "view.ready[view.n_ready - 1]"))
    assert run(["--resume", "../run", "--jobs", "1"]) == 2
    assert "own_files.mine_here.py" in capsys.readouterr().err


def test_linear_by_name_has_its_usual_weights() -> None:
    assert router_options("linear")["router_weights"] == USUAL_WEIGHTS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--router", "prismm"], r"--router: expected one of .*evolved.*, got 'prismm' \(did you mean prism"),
        (["--router", EXAMPLE], "--router: expected one of"),
        (["--env", "preserve/Cluster-v0", "--router", "prism"], "--router: expected none with joint control"),
    ],
)
def test_a_model_names_its_router(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["--scenario", "flash-crowd", *options, "--out", str(tmp_path / "x")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_router_of_ones_own_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    options = ["--rates", "9.5", "--seeds", "2", "--requests", "200", "--out", str(tmp_path / "runs.csv")]
    assert routers.main([*options, "--routers", EXAMPLE, "evolved"]) == 0
    assert set(pd.read_csv(tmp_path / "runs.csv")["router"]) == {"least-requests", "alike", "evolved"}
    options = ["--policies", "static-2", "--scenario", "chat", "--seeds", "1"]
    changes = ["--changes", f"router-{EXAMPLE}", "router-evolved"]
    assert transfer.main([*options, *changes, "--out", str(tmp_path / "transfer.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "transfer.csv")) == 2
    capsys.readouterr()
