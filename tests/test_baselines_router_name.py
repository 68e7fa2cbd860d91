"""Routers by name: built in, learned, and of one's own, wherever a router is named."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from agents.shared_router import load_router, shared_score
from baselines import make_fitted_policy
from baselines.router_name import check_router_name, router_options
from experiments import routers, transfer
from experiments.run import main as run
from experiments.totals import play_totals
from preserve_gym import Workload, WorkloadConfig
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
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
