"""The learners in examples/, as a user runs them, and what they need."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
WITHOUT = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def mean_returns(example: str, *arguments: str) -> list[float]:
    """What it prints of each iteration."""
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    printed = re.findall(r"^iteration \d+: mean return.*? (-?\d+\.\d+|nan)", run.stdout, flags=re.MULTILINE)
    return [float(figure) for figure in printed]


@pytest.mark.slow
def test_ppo_in_the_manner_of_cleanrl_learns() -> None:
    pytest.importorskip("torch")
    returns = mean_returns("cleanrl_ppo.py", "--iterations", "12")
    assert len(returns) == 12
    assert np.isfinite(returns).all()
    assert np.mean(returns[-3:]) > returns[0] / 2.0


@pytest.mark.slow
def test_ppo_of_rllib_learns() -> None:
    pytest.importorskip("ray")
    pytest.importorskip("tree")
    returns = mean_returns("rllib_ppo.py", "--iterations", "6")
    assert len(returns) == 6
    assert np.isfinite(returns).all()
    assert returns[-1] > returns[0] / 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "module", "message"),
    [
        ("cleanrl_ppo.py", "torch", "torch is missing: pip install 'preserve-gym[rl]'"),
        ("rllib_ppo.py", "ray", "ray is missing: pip install 'preserve-gym[rllib]'"),
        ("rllib_ppo.py", "tree", "tree is missing: pip install 'preserve-gym[rllib]'"),
    ],
)
def test_an_example_names_the_extra_that_it_needs(example: str, module: str, message: str) -> None:
    if module == "tree":
        pytest.importorskip("ray")
    code = WITHOUT + f"runpy.run_path({example!r}, run_name='__main__')"
    run = subprocess.run(
        [sys.executable, "-c", code, module],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == message


def test_the_extra_rllib_has_all_that_ray_asks_for_but_an_older_gymnasium() -> None:
    pytest.importorskip("ray")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["rllib"]
    ours = {canonicalize_name(Requirement(need).name) for need in (*extra, *project["dependencies"])}
    asked = []
    for need in map(Requirement, importlib.metadata.requires("ray") or []):
        if (
            need.marker
            and need.marker.evaluate({"extra": "rllib"})
            and not need.marker.evaluate({"extra": ""})
        ):
            asked.append(need)
    assert {canonicalize_name(need.name) for need in asked} <= ours
    # Once it fits, ray[rllib] itself will do.
    installed = importlib.metadata.version("gymnasium")
    assert [need.name for need in asked if need.name == "gymnasium" and installed not in need.specifier]
