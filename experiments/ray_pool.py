"""The functions of ``experiments.pool`` on a Ray cluster: results come back and are written here."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from experiments.cells import OnShare, Piece, PlayedCell, play_piece
from experiments.folder import RunFolder, record_text
from experiments.pool import OnDone, WorkerDiedError
from experiments.provenance import changes, own_files, trace_sources, versions
from preserve_gym.data import ENVIRONMENT_VARIABLE
from preserve_gym.errors import InputError, missing_extra

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

ROOT = Path(__file__).parents[1]
# What playing needs of the checkout, so that every node has the code of the command.
_SENT = ("agents", "baselines", "experiments", "preserve_gym", "results")
_RETRIES = 3  # of a piece whose worker or node was lost
_BYTES_OF_A_WEEK = 4 * 1024**3
_CONNECT_S = 10.0


@dataclass(frozen=True)
class Origin:
    """What a worker must have in common with the machine of the command.

    Attributes:
        folder: its working directory, from which files of one's own are looked up where it exists.
        data: its data folder, for nodes that name none.
        decisive: versions, hashes of traces and of files of one's own.
    """

    folder: str
    data: str | None
    decisive: Mapping[str, Any]

    @classmethod
    def of(cls, piece: Piece | None) -> Origin:
        """This machine, for a piece; None: for work that reads no data."""
        return cls(str(Path.cwd()), os.environ.get(ENVIRONMENT_VARIABLE), _decisive(piece))


@contextlib.contextmanager
def connected(address: str | None, jobs: int | None) -> Iterator[int]:
    """While this process is connected to Ray: how many CPUs the cluster has.

    Args:
        address: of the cluster; None: one of this machine is started, and ended afterwards.
        jobs: CPUs of one that is started; None: all.

    Raises:
        InputError: if Ray is not installed, or the cluster cannot be reached or has other versions.
    """
    ray = _ray()
    where: dict[str, Any]
    if address is None:
        # No copy of the code: what has been compiled here is used. Nothing is reported to Ray's makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": path}}
        where = {"address": "local", "num_cpus": jobs, "include_dashboard": False}
    else:
        _check_reachable(address)
        environment = {"working_dir": str(ROOT), "excludes": _not_sent()}
        where = {"address": address}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**where, runtime_env=environment, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = "on this machine" if address is None else address
        hint = "; does it want a token (RAY_AUTH_MODE)?" if isinstance(error, ConnectionError) else ""
        raise InputError(f"--backend ray: {place}: {' '.join(str(error).split())}{hint}") from None
    try:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own there
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        ray.shutdown()


def run_pieces(
    pieces: Sequence[Piece], folder: RunFolder, *, jobs: int, on_share: OnShare, on_done: OnDone
) -> None:
    """As ``experiments.pool.run_pieces``; shares of cells are not told.

    Raises:
        InputError: if a node has not the same versions, traces and files of one's own.
        WorkerDiedError: if a piece was lost again and again.
        OSError: if the folder cannot be written.
    """
    weeks = any(piece.setting.workload.split is not None for piece in pieces)
    arguments = [(piece, Origin.of(piece)) for piece in pieces]
    for _, played in _results(_play, arguments, jobs, _BYTES_OF_A_WEEK if weeks else 0):
        folder.write_cell(played)
        on_done(played.cell)


def run_tasks(
    function: Callable[[TaskT], ResultT],
    tasks: Sequence[TaskT],
    *,
    jobs: int,
    on_done: Callable[[int], None],
    on_result: Callable[[TaskT, ResultT], None] | None = None,
) -> list[ResultT]:
    """As ``experiments.pool.run_tasks``.

    Raises:
        InputError: if a node has not the same versions.
        WorkerDiedError: if a task was lost again and again.
    """
    results: dict[int, ResultT] = {}
    origin = Origin.of(None)
    for k, result in _results(_compute, [(function, task, origin) for task in tasks], jobs, 0):
        results[k] = result
        if on_result is not None:
            on_result(tasks[k], result)
        on_done(len(results))
    return [results[k] for k in range(len(tasks))]


def _results(
    function: Callable[..., Iterator[Any]], arguments: Sequence[tuple[Any, ...]], jobs: int, memory: int
) -> Iterator[tuple[int, Any]]:
    """What the function yields for each of the arguments, with the number of these, as it comes."""
    ray = _ray()
    largest = max(node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"])
    remote = ray.remote(
        num_cpus=1, memory=min(memory, largest), max_retries=_RETRIES, num_returns="streaming"
    )(function)
    waiting = iter(enumerate(arguments))
    running: dict[Any, int] = {}
    try:
        while True:
            for k, values in itertools.islice(waiting, jobs - len(running)):
                running[remote.remote(*values)] = k
            if not running:
                return
            for stream in ray.wait(list(running))[0]:
                try:
                    yield running[stream], ray.get(next(stream))
                except StopIteration:
                    del running[stream]
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if not isinstance(cause, ray.exceptions.RayError):
            raise cause from None  # what the function itself raised
        reason = str(cause).strip().partition("\n")[0]
        raise WorkerDiedError(f"work was lost on Ray, {_RETRIES} retries included: {reason}") from None
    finally:
        for stream in running:
            ray.cancel(stream, force=True)


def _play(piece: Piece, origin: Origin) -> Iterator[PlayedCell]:
    """On a worker: play a piece; records are made plain, as what they refer to may be known here only."""
    _settle(piece, origin)
    for played in play_piece(piece, lambda cell, share: None):
        yield replace(played, record=json.loads(record_text(played.record)))


def _compute(function: Callable[[TaskT], ResultT], task: TaskT, origin: Origin) -> Iterator[ResultT]:
    _settle(None, origin)
    yield function(task)


def _settle(piece: Piece | None, origin: Origin) -> None:
    """Make the worker like the machine of the command, or refuse."""
    if origin.data is not None:
        os.environ.setdefault(ENVIRONMENT_VARIABLE, origin.data)
    if Path(origin.folder).is_dir():
        os.chdir(origin.folder)
    try:
        changed = changes(origin.decisive, _decisive(piece), ("at the command", "there"))
    except (InputError, OSError) as error:
        changed = str(error)
    if changed:
        raise InputError(f"node {_ray().util.get_node_ip_address()}: {changed}")


def _decisive(piece: Piece | None) -> dict[str, Any]:
    if piece is None:
        return {"versions": versions()}
    return {
        "versions": versions(),
        "traces": trace_sources(piece.setting.workload),
        "own_files": own_files([cell.policy for cell in piece.cells], piece.router),
    }


def _not_sent() -> list[str]:
    return ["__pycache__", *(f"/{path.name}" for path in ROOT.iterdir() if path.name not in _SENT)]


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"--address: expected HOST:PORT or auto, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise InputError(f"--address: {address}: expected a Ray cluster: {error}") from None


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise missing_extra("--backend ray", "Ray", "ray") from None
    return ray
