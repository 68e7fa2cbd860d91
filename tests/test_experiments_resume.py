"""Runs that end before their end, cells that fail, and runs that are played again."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from experiments import run as run_module
from experiments.cells import Repeated
from experiments.evaluate import Cell
from experiments.folder import RunFolder
from experiments.run import main
from preserve_gym.scenarios import load_scenario
from tests.test_experiments import ROOT, files, write_trace

SCENARIOS = ("first", "second")
POLICIES = ("hpa", "preserve", "static-2")


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two scenarios of a trace of an hour, each with two test windows of five minutes."""
    folder = tmp_path_factory.mktemp("scenarios")
    trace = write_trace(folder / "hour.csv", requests=12_000, span_s=3600.0)
    for k, name in enumerate(SCENARIOS, start=1):
        workload = {
            "trace": str(trace),
            "rate_scale": float(k),
            "split_gap_s": 0.0,
            "warmup_s": 60.0,
            "horizon_s": 300.0,
        }
        content = {"workload": workload, "cluster": {"max_instances": 6}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return [str(folder / f"{name}.yaml") for name in SCENARIOS]


def arguments_of(scenarios: list[str], out: Path, *more: str) -> list[str]:
    return ["--scenario", *scenarios, "--policies", *POLICIES, "--seeds", "2", "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(scenarios: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted, in one process."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(arguments_of(scenarios, out, "--jobs", "1")) == 0
    return out


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copied"))


def cell_file(folder: Path, scenario: str = "first", policy: str = "hpa", seed: int = 0) -> Path:
    return folder / "cells" / scenario / policy / f"seed{seed}.json"


def change_cell(path: Path, change: Any) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background has interrupts ignored, which children inherit.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        yield process


def wait_for_cells(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240.0
    while len(list(folder.glob("cells/*/*/seed*.json"))) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_windows_of_scenarios_are_rows(whole: Path) -> None:
    episodes = pd.read_csv(whole / "episodes.csv")
    keys = [
        (scenario, policy, seed, window)
        for scenario in SCENARIOS
        for policy in POLICIES
        for seed in (0, 1)
        for window in (0, 1)
    ]
    columns = ["scenario", "policy", "seed", "window"]
    assert list(episodes[columns].itertuples(index=False, name=None)) == keys
    summary = pd.read_csv(whole / "summary.csv")
    assert summary["scenario"].tolist() == ["first"] * 3 + ["second"] * 3
    assert (summary["windows"] == 2).all()
    # The second has twice the rate.
    assert 1.8 < summary["arrived"][3] / summary["arrived"][0] < 2.2


def test_windows_seeds_and_router_can_be_chosen(whole: Path, scenarios: list[str], tmp_path: Path) -> None:
    out = tmp_path / "some"
    arguments = ["--scenario", scenarios[0], "--policies", "static-2", "--windows", "1", "--seed", "1"]
    assert main([*arguments, "--jobs", "1", "--out", str(out)]) == 0
    some = pd.read_csv(out / "episodes.csv")
    of_whole = pd.read_csv(whole / "episodes.csv").query(
        "scenario == 'first' and policy == 'static-2' and seed == 1 and window == 1"
    )
    pd.testing.assert_frame_equal(some, of_whole.reset_index(drop=True))
    out = tmp_path / "routed"
    assert main([*arguments, "--router", "round-robin", "--jobs", "1", "--out", str(out)]) == 0
    assert json.loads(cell_file(out, "first", "static-2", 1).read_text())["router"] == "round-robin"
    assert pd.read_csv(out / "episodes.csv")["ttft_mean_s"][0] != some["ttft_mean_s"][0]


@pytest.mark.skipif(os.name != "posix", reason="sends signals to processes")
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    whole: Path, scenarios: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    with started(arguments_of(scenarios, out, "--jobs", "2")) as process:
        wait_for_cells(out, 2, process)
        process.kill()
        # Returns when the last worker, too, has closed its end of the pipe.
        process.communicate(timeout=60)
    assert not (out / "summary.csv").exists()
    assert 2 <= len(list(out.glob("cells/*/*/*.json"))) < 12
    (out / "cells" / "first" / "hpa" / ".seed1.json.1.partial").write_text("half")
    assert main(["--resume", str(out), "--jobs", "2"]) == 0
    assert files(out) == files(whole)
    assert len(pd.read_csv(out / "timings.csv")) >= 12


@pytest.mark.skipif(os.name != "posix", reason="sends signals to processes")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_done(
    sent: signal.Signals, whole: Path, scenarios: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "interrupted"
    with started(arguments_of(scenarios, out, "--jobs", "2")) as process:
        wait_for_cells(out, 1, process)
        if sent == signal.SIGINT:  # as a terminal does it: to the workers too
            os.killpg(process.pid, sent)
        else:
            process.send_signal(sent)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        f"error: interrupted; what is done is kept, go on with python -m experiments.run --resume {out}"
    )
    assert "Traceback" not in said
    assert list(out.rglob("*.partial")) == []
    assert main(["--resume", str(out), "--jobs", "1"]) == 0
    assert files(out) == files(whole)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
def test_a_killed_worker_is_told_and_nothing_is_lost(
    whole: Path, scenarios: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "worker"
    with started(arguments_of(scenarios, out, "--jobs", "2")) as process:
        wait_for_cells(out, 1, process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
        os.kill(int(workers[0]), signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: a worker process was killed" in said
    assert f"--resume {out}" in said
    assert "Traceback" not in said
    assert main(["--resume", str(out), "--jobs", "1"]) == 0
    assert files(out) == files(whole)


def test_a_full_disk_is_told_and_nothing_is_lost(
    whole: Path,
    scenarios: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "full"
    write_text, written = Path.write_text, []

    def full_after_four_cells(self: Path, *arguments: Any, **options: Any) -> int:
        if ".json" in self.name:
            written.append(self)
            if len(written) > 4:
                raise OSError(28, "No space left on device", str(self))
        return write_text(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full_after_four_cells)
        assert main(arguments_of(scenarios, out, "--jobs", "1")) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in said
    assert f"--resume {out}" in said
    assert len(list(out.glob("cells/*/*/*.json"))) == 4
    assert main(["--resume", str(out), "--jobs", "1"]) == 0
    assert files(out) == files(whole)


def test_nobody_else_writes_into_a_run(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(copied).locked():
        assert main(["--resume", str(copied)]) == 2
    assert "another process" in capsys.readouterr().err


def test_a_broken_cell_is_named_and_played_again(
    whole: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell_file(copied).write_text('{"scenario": "fir')
    cell_file(copied, seed=1).write_bytes(b"\xff\x00")
    change_cell(cell_file(copied, "second"), lambda record: record.pop("windows"))
    change_cell(cell_file(copied, "second", "preserve"), lambda record: record.update(seed=7))
    change_cell(cell_file(copied, "second", "static-2"), lambda record: record["windows"][0].pop("figures"))
    assert main(["--resume", str(copied), "--jobs", "1"]) == 0
    said = capsys.readouterr().err
    for path in (cell_file(copied), cell_file(copied, seed=1), cell_file(copied, "second", "static-2")):
        assert str(path) in said
    assert said.count("it is played again") == 5
    assert files(copied) == files(whole)


def test_resuming_a_complete_run_plays_nothing(whole: Path, copied: Path) -> None:
    before = (copied / "timings.csv").read_bytes()
    assert main(["--resume", str(copied)]) == 0
    assert (copied / "timings.csv").read_bytes() == before
    assert files(copied) == files(whole)


def test_what_has_changed_is_named_and_refused(
    whole: Path, scenarios: list[str], copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = Path(load_scenario(scenarios[0]).workload.trace)
    content = trace.read_text()
    before = files(copied)

    def refused(*said: str) -> None:
        assert main(["--resume", str(copied)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert all(words in error for words in ("changed since the run began", *said)), error

    try:
        trace.write_text(content.rsplit("\n", 2)[0] + "\n")
        refused("scenarios.first.traces[0].sha256", "scenarios.second.traces[0].sha256")
    finally:
        trace.write_text(content)
    config = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(config.replace("  numba: ", "  numba: 0."))
    refused("versions.numba: '0.")
    (copied / "config.yaml").write_text(config.replace("max_instances: 6", "max_instances: 5", 1))
    refused("scenarios.first.cluster.max_instances: 5 then, 6 now")
    (copied / "config.yaml").write_text(config)
    assert files(copied) == before


@pytest.mark.parametrize(
    ("name", "said"), [("config.yaml", "no config.yaml"), ("options.yaml", "options.yaml")]
)
@pytest.mark.parametrize("option", ["--resume", "--replay"])
def test_a_folder_that_is_no_run_is_refused(
    option: str, name: str, said: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / name).unlink()
    assert main([option, str(copied)]) == 2
    assert said in capsys.readouterr().err


FAILING = """
from dataclasses import dataclass

from baselines.base import Autoscaler


@dataclass(frozen=True)
class Fails(Autoscaler):
    name: str = "fails"

    def decide(self, obs, state):
        {0}
"""


def test_a_policy_that_raises_does_not_sink_the_others(
    scenarios: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / f"fails_{tmp_path.name}.py"
    own.write_text(FAILING.format("return 2 if obs['time_s'] < 3300.0 else [][7]"))
    out = tmp_path / "out"
    arguments = ["--scenario", scenarios[0], "--policies", f"{own}:Fails", "static-2", "--out", str(out)]
    assert main([*arguments, "--jobs", "1"]) == 1
    captured = capsys.readouterr()
    message = f"IndexError: list index out of range ({own.name}:12)"
    assert f"error: first, Fails, seed 0, window 1: {message}" in captured.err
    assert "1 of 2 cells failed" in captured.err
    assert "Traceback" not in captured.err
    assert "static-2" in captured.out
    record = json.loads(cell_file(out, policy="Fails").read_text())
    assert record["error"] == {"window": 1, "message": message}
    assert pd.read_csv(out / "summary.csv")["policy"].tolist() == ["static-2"]
    # A file of which nothing has been played to the end may be mended.
    own.write_text(FAILING.format("return 2"))
    mended = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--resume", str(out), "--jobs", "1"],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert mended.returncode == 0, mended.stderr
    assert sorted(pd.read_csv(out / "summary.csv")["policy"]) == ["Fails", "static-2"]
    own.write_text(FAILING.format("return 3"))
    assert main(["--resume", str(out)]) == 2
    assert f"own_files.{own.name}" in capsys.readouterr().err


def test_a_workload_that_cannot_be_made_fails_its_cells(
    scenarios: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = tmp_path / "long.yaml"
    content = yaml.safe_load(Path(scenarios[0]).read_text())
    content["workload"]["horizon_s"] = 7200.0
    scenario.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    arguments = ["--scenario", str(scenario), scenarios[0], "--policies", "static-2", "--jobs", "1"]
    assert main([*arguments, "--out", str(out)]) == 1
    assert "error: long, static-2, seed 0: InputError: split 'test'" in capsys.readouterr().err
    assert pd.read_csv(out / "summary.csv")["scenario"].tolist() == ["first"]


def test_a_replay_gives_the_same_figures(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(whole)
    assert main(["--replay", str(whole), "--jobs", "1"]) == 0
    assert "12 of 12 cells replayed with equal figures" in capsys.readouterr().out
    assert files(whole) == before


def test_a_replay_does_not_ask_the_policy(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from baselines import Hpa, PreServe

    for policy in (Hpa, PreServe):
        monkeypatch.setattr(policy, "decide", None)
    assert main(["--replay", str(whole), "--jobs", "1"]) == 0


def test_a_replay_finds_what_was_tampered_with(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cheaper(record: dict[str, Any]) -> None:
        record["windows"][1]["figures"]["gpu_hours"] -= 0.25

    def other_decision(record: dict[str, Any]) -> None:
        record["windows"][0]["targets"][0][1] += 1

    def faster(record: dict[str, Any]) -> None:
        record["windows"][0]["latency"]["ttft_s"]["counts"][0] += 1

    change_cell(cell_file(copied), cheaper)
    change_cell(cell_file(copied, "second"), other_decision)
    change_cell(cell_file(copied, "second", "static-2", 1), faster)
    cell_file(copied, "first", "preserve").write_text("")
    cell_file(copied, "first", "preserve", 1).unlink()
    assert main(["--replay", str(copied), "--jobs", "1"]) == 1
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert "7 of 12 cells replayed with equal figures" in captured.out
    assert len(said) == 5
    for words in (
        "error: first, hpa, seed 0, window 1: gpu_hours recorded",
        "error: second, hpa, seed 0, window 0: ",
        "error: second, static-2, seed 1, window 0: latency differ",
        f"error: {cell_file(copied, 'first', 'preserve')}: expected the record of a cell",
        "error: first, preserve, seed 1: has not been played",
    ):
        assert any(line.startswith(words) for line in said), words


def test_a_replay_on_another_version_says_so(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(config.replace("  numba: ", "  numba: 0."))
    assert main(["--replay", str(copied), "--jobs", "1"]) == 0
    assert "other versions: versions.numba" in capsys.readouterr().err


def test_workloads_are_made_once_for_all_policies(whole: Path, scenarios: list[str], tmp_path: Path) -> None:
    plan = run_module.make_plan(run_module.parse(arguments_of(scenarios, tmp_path / "x")))
    assert [len(piece.cells) for piece in plan.pieces(plan.cells, 4)] == [3, 3, 3, 3]
    assert [piece.cells[0].seed for piece in plan.pieces(plan.cells, 4)] == [0, 0, 1, 1]
    assert [len(piece.cells) for piece in plan.pieces(plan.cells, 5)] == [2, 1] * 4
    assert len(plan.pieces(plan.cells, 100)) == 12
    assert plan.pieces((), 2) == []
    assert {cell for piece in plan.pieces(plan.cells, 5) for cell in piece.cells} == set(plan.cells)


def test_a_repeated_policy_starts_as_the_policy_did() -> None:
    class Plain:
        name, forecaster, predictor, cluster = "plain", None, None, None

        def env_options(self) -> dict[str, Any]:
            return {"router": "random", "action_mode": "delta"}

    class Ready(Plain):
        def initial_instances(self, start_s: float) -> int:
            return 3

    assert not hasattr(Repeated(Plain(), {}), "initial_instances")
    assert Repeated(Ready(), {}).initial_instances(0.0) == 3
    options = Repeated(Plain(), {}).env_options()
    assert options == {"router": "random", "action_mode": "target", "obs_mode": "dict"}


def test_a_cell_that_was_not_played_has_no_record(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).read_cell(Cell("first", "hpa", 0)) is None
