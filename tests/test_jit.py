"""What is compiled: nothing stale, nothing that counts references, and indices checked where asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import preserve_gym

PROGRAM = """
import numpy as np
from preserve_gym import Cluster, ClusterConfig, Trace
cluster = Cluster(ClusterConfig(), Trace([0.0], [100], [10]))
cluster.settle()
print(cluster.results()["preemptions"][0])
"""


@pytest.mark.slow
def test_a_change_in_any_file_of_the_engine_is_compiled(tmp_path: Path) -> None:
    package = tmp_path / "preserve_gym"
    shutil.copytree(Path(preserve_gym.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))

    def run() -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run() == "0"
    # The event loop, which is what is compiled and cached, lies in another file.
    execution = package / "sim" / "execution.py"
    source = execution.read_text()
    routed = "s.instance_of[r] = i\n"
    assert source.count(routed) == 1
    execution.write_text(source.replace(routed, routed + "    s.preemptions[r] = 7\n"))
    assert run() == "7"


def output_of(program: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CALLS_OF_THE_RUNTIME = """
import re
from preserve_gym.envs.route_turn import compile_route_turns
from preserve_gym.envs.scale_turn import compile_scale_turns
from preserve_gym.sim.engine import compile_event_loop
for function in (compile_event_loop, compile_route_turns, compile_scale_turns):
    (code,) = function().inspect_llvm().values()
    assert "define" in code
    print(set(re.findall("@(NRT_[A-Za-z_]*)", code)))
"""


@pytest.mark.slow
def test_nothing_compiled_counts_references_or_allocates(tmp_path: Path) -> None:
    # What is loaded from a cache has no source to look at.
    assert output_of(CALLS_OF_THE_RUNTIME, NUMBA_CACHE_DIR=str(tmp_path)).split() == 3 * ["set()"]


INDICES = """
import numpy as np
from preserve_gym import ClusterConfig
from preserve_gym.sim.jit import entry
from preserve_gym.sim.state import make_state

@entry
def read(s, k):
    return s.weights[k] + s.requests[k].computed

@entry
def write(s, k):
    s.weights[k] = 1.0

state = make_state(ClusterConfig(), np.zeros(9), *3 * [np.ones(9, np.int32)])
assert read(state, 5) == 0.0
for function in (read, write):
    for k in (512, -1, 2**40):
        try:
            function(state, k)
        except IndexError:
            print(function.__name__, k)
"""


def test_columns_are_checked_where_bounds_checks_are_asked_for(tmp_path: Path) -> None:
    found = output_of(INDICES, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
    assert found == [f"{name} {k}" for name in ("read", "write") for k in (512, -1, 2**40)]
