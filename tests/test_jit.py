"""The cache of compiled functions notices every change of the engine's sources."""

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
