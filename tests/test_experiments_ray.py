"""The same work on a real Ray, started on this machine: the same bytes, and what goes wrong."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import ray_pool, tune
from experiments.run import main
from tests.test_experiments import ROOT, files, write_trace
from tests.test_experiments_resume import FAILING, started, wait_for_cells
from tests.test_experiments_tune import command_for, small  # noqa: F401 (a fixture)

# Ends its process when it is asked for something, as often as its file of that name has characters. Has
# a parameter that cannot be pickled.
DYING = """
import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

from baselines.base import Autoscaler

LIVES = Path(__file__).with_suffix(".lives")


@dataclass(frozen=True)
class Dies(Autoscaler):
    name: str = "dies"
    lock: object = field(default_factory=threading.Lock)

    def decide(self, obs, state):
        if lives := LIVES.read_text():
            LIVES.write_text(lives[1:])
            os.kill(os.getpid(), signal.SIGKILL)
        return 2
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trace(tmp_path_factory.mktemp("trace") / "tiny.csv")


@pytest.fixture
def _with_ray() -> None:
    pytest.importorskip("ray")


def arguments_of(trace: Path, out: Path, *more: str) -> list[str]:
    return ["--trace", str(trace), "--out", str(out), *more]


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which Ray and its warnings stay out of."""
    return subprocess.run(
        [sys.executable, "-m", "experiments.run", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def descendants(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = {int(child) for child in children}
    for child in children:
        with contextlib.suppress(FileNotFoundError):
            found |= descendants(int(child))
    return found


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "rya"], "--backend: expected one of local, ray, got 'rya' (did you mean ray?)"),
        (["--address", "auto"], "--address: expected --backend ray with it, got 'auto' alone"),
        (
            ["--backend", "ray", "--address", "ray://a:1"],
            "--address: expected HOST:PORT or auto, got 'ray://a:1'",
        ),
        (["--backend", "ray"], "--backend ray: Ray is missing: pip install 'preserve-gym[ray]'"),
        (["--suite", "paper-routing", "--backend", "ray"], "expected only --seeds and --out beside it"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense", "--address: expected HOST:PORT or auto, got 'nonsense'"),
        ("127.0.0.1:99999", "--address: expected HOST:PORT or auto, got '127.0.0.1:99999'"),
        ("127.0.0.1:{free}", "expected a Ray cluster: "),
    ],
)
@pytest.mark.parametrize("command", [main, tune.main])
def test_an_address_without_a_cluster_is_refused(
    command: Any,
    address: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ray_pool, "_ray", lambda: None)
    address = address.format(free=free_port())
    out = ["--out", str(tmp_path / "out")]
    needed = ["--scenario", "chat"] if command is tune.main else []
    assert command(["--backend", "ray", "--address", address, *needed, *out]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.slow
@pytest.mark.usefixtures("_with_ray")
def test_ray_writes_the_same_bytes(trace: Path, tmp_path: Path) -> None:
    own = tmp_path / "fails.py"
    own.write_text(FAILING.format("return 2 if obs['time_s'] < 600.0 else [][7]"))
    what = ["--policies", "hpa", f"{own}:Fails", "--seeds", "2", "--save", "requests"]
    assert main(arguments_of(trace, tmp_path / "local", *what, "--jobs", "1")) == 1
    result = run(arguments_of(trace, tmp_path / "ray", *what, "--jobs", "2", "--backend", "ray"))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "[4/4] tiny, " in result.stderr
    assert "Fails, seed 1, window 0: IndexError: list index out of range (fails.py:12)" in result.stderr
    assert files(tmp_path / "ray") == files(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.usefixtures("_with_ray")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_done_and_leaves_no_process(
    sent: signal.Signals, trace: Path, tmp_path: Path
) -> None:
    what = ["--policies", "hpa", "preserve", "static-2", "static-3", "--seeds", "3"]
    out = tmp_path / "interrupted"
    with started(arguments_of(trace, out, *what, "--jobs", "1", "--backend", "ray")) as process:
        wait_for_cells(out, 1, process)
        others = descendants(process.pid)
        if sent == signal.SIGINT:  # as a terminal does it
            os.killpg(process.pid, sent)
        else:
            process.send_signal(sent)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == (
        f"error: interrupted; what is done is kept, go on with python -m experiments.run --resume {out}"
    )
    assert "Traceback" not in said
    assert others
    deadline = time.monotonic() + 60.0
    while any(is_running(pid) for pid in others):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert 1 <= len(list(out.glob("cells/*/*/*.json"))) < 12
    assert main(["--resume", str(out), "--jobs", "1"]) == 0
    assert main(arguments_of(trace, tmp_path / "whole", *what, "--jobs", "1")) == 0
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.usefixtures("_with_ray")
def test_work_of_a_killed_worker_is_done_again_and_given_up_in_the_end(trace: Path, tmp_path: Path) -> None:
    own, lives = tmp_path / "dies.py", tmp_path / "dies.lives"
    own.write_text(DYING)
    lives.write_text("")
    what = ["--policies", "static-2", f"{own}:Dies"]
    assert main(arguments_of(trace, tmp_path / "local", *what, "--jobs", "1")) == 0
    lives.write_text("x")
    out = tmp_path / "ray"
    result = run(arguments_of(trace, out, *what, "--jobs", "1", "--backend", "ray"))
    assert (result.returncode, lives.read_text()) == (0, ""), result.stderr
    assert files(out) == files(tmp_path / "local")
    (out / "cells" / "tiny" / "Dies" / "seed0.json").unlink()
    lives.write_text("x" * 100)
    result = run(["--resume", str(out), "--jobs", "1", "--backend", "ray"])
    assert result.returncode == 1
    assert "error: work was lost on Ray, 3 retries included: " in result.stderr
    assert f"--resume {out}" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(lives.read_text()) == 96


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A Ray cluster of this machine that wants a token: where, and what finds it."""
    pytest.importorskip("ray")
    port = free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    # Without what the command shall bring, and from elsewhere, so that no checkout is found by chance.
    brought = ("PRESERVE_GYM_DATA", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in brought}
    with contextlib.ExitStack() as stack:
        # Short, for names of sockets.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2"]
        where = ["--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder}"]
        quiet = ["--include-dashboard=false", "--disable-usage-stats"]
        head = stack.enter_context(
            subprocess.Popen(
                [*command, *where, *quiet],
                cwd=folder,
                env=environment | token,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(head.terminate)
        deadline = time.monotonic() + 120.0
        while not answers(port):
            assert head.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield token | {"address": f"127.0.0.1:{port}"}


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def on_cluster(cluster: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    environment = dict(cluster)
    return ["--backend", "ray", "--address", environment.pop("address")], environment


@pytest.mark.slow
def test_a_cluster_gets_the_code_and_finds_files_by_their_relative_names(
    cluster: dict[str, str], trace: Path, tmp_path: Path
) -> None:
    what = ["--policies", "static-2", "preserve", "--jobs", "1"]
    assert main(arguments_of(trace, tmp_path / "local", *what)) == 0
    where, environment = on_cluster(cluster)
    # The trace's name is relative to the command's folder, not to that of the workers.
    relative = Path(os.path.relpath(trace, ROOT))
    result = run(arguments_of(relative, tmp_path / "ray", *what, *where), **environment)
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "ray") == files(tmp_path / "local")


@pytest.mark.slow
def test_a_node_with_other_versions_is_refused(cluster: dict[str, str], trace: Path, tmp_path: Path) -> None:
    where, environment = on_cluster(cluster)
    out = tmp_path / "out"
    # The machine of the command believes that it has another release.
    sitecustomize = tmp_path / "site" / "sitecustomize.py"
    sitecustomize.parent.mkdir()
    sitecustomize.write_text(
        "from importlib import metadata\n"
        "version = metadata.version\n"
        "metadata.version = lambda name: '99.1' if name == 'numba' else version(name)\n"
    )
    arguments = arguments_of(trace, out, "--policies", "static-2", *where)
    result = run(arguments, **environment, PYTHONPATH=str(sitecustomize.parent))
    assert result.returncode == 2, result.stderr
    assert "error: node " in result.stderr
    assert ": versions.numba: '99.1' at the command, '" in result.stderr
    assert "' there; what is done is kept" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("_with_ray")
def test_tuning_gives_the_same(small: Path, tmp_path: Path) -> None:  # noqa: F811
    for name, more in (("local", ["--jobs", "1"]), ("ray", ["--jobs", "2", "--backend", "ray"])):
        command = [*command_for(small, tmp_path / name, "static"), *more]
        result = subprocess.run(
            [sys.executable, "-m", "experiments.tune", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
    local, ray = (tmp_path / name / "tables" / "small.csv" for name in ("local", "ray"))
    assert ray.read_bytes() == local.read_bytes()
    points = sorted(path.name for path in (tmp_path / "ray" / "out").rglob("*.json"))
    assert points == sorted(path.name for path in (tmp_path / "local" / "out").rglob("*.json"))
