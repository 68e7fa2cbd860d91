"""The engine's tests once more, uncompiled and with bounds checks: compiled code fails silently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_the_engine_equals_the_reference(variable: str, tmp_path: Path) -> None:
    chosen = [
        "test_the_engine_equals_the_reference",
        "test_looking_changes_nothing",
        "test_a_router_of_ones_own",
        "test_a_router_of_ones_own_may_have_many_weights",
    ]
    program = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"tests/test_engine.py::{name}" for name in chosen),
    ]
    assert f"{len(chosen)} passed" in output_of(program, variable, tmp_path)


ENVIRONMENTS = """
import sys
import gymnasium as gym
import numpy as np
import preserve_gym.workload
from preserve_gym import Trace, Workload, WorkloadConfig
from preserve_gym.sim.profile import InstanceProfile

# To find the capacity takes an hour uncompiled.
profile = InstanceProfile(2.0, 1000.0, 300.0, 1300.0, 20.0, 1.0, 4.0)
preserve_gym.workload.profile_instance = lambda *_: profile
k = np.arange(200)
trace = Trace(k / 2.0 + 1.0, 100 + k * 37 % 900, 20 + k * 61 % 90, span_s=110.0)
workload = Workload(WorkloadConfig(start_s=40.0, warmup_s=20.0, horizon_s=30.0, forecaster="naive"), trace)
for name in ("Autoscale", "Cluster", "Route"):
    options = {"workload": workload, "cluster": {"max_instances": 3}, "num_threads": 1}
    envs = gym.make_vec(f"preserve/{name}-v0", 2, **options)
    envs.action_space.seed(0)
    seen = [envs.reset(seed=0)[0]]
    for _ in range(4):
        observations, rewards, *_ = envs.step(envs.action_space.sample())
        seen += [observations, rewards]
    print([np.asarray(values, np.float64).sum().hex() for values in seen])
"""


@pytest.mark.slow
def test_environments_are_the_same_uncompiled_and_with_bounds_checks(tmp_path: Path) -> None:
    compiled = output_of(["-c", ENVIRONMENTS], "NUMBA_DISABLE_JIT", tmp_path / "0", "0")
    assert compiled.count("0x") > 20
    for variable in ("NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"):
        assert output_of(["-c", ENVIRONMENTS], variable, tmp_path / variable) == compiled


def output_of(arguments: list[str], variable: str, cache: Path, value: str = "1") -> str:
    # Checked and unchecked code must not share a cache.
    environment = {**os.environ, variable: value, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
