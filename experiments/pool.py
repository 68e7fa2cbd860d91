"""Playing many cells: over processes, with progress, and with results that do not depend on how many."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from experiments.evaluate import Cell, Setting, play_windows
from experiments.policies import build_policy, policy_parameters

_POLL_S = 0.2


@dataclass(frozen=True)
class CellReport:
    """What a worker sends back: figures only, the tables are in files.

    Attributes:
        cell: which.
        summary: ``experiments.metrics.summarize``.
        profile: fields of the ``InstanceProfile`` in use.
        parameters: of the policy.
    """

    cell: Cell
    summary: dict[str, float]
    profile: dict[str, float]
    parameters: dict[str, Any]


class WorkerDiedError(RuntimeError):
    """A worker process ended without an answer, most likely killed for want of memory."""


TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

OnShare = Callable[[int, float], None]
OnDone = Callable[[int, CellReport], None]


def run_cells(
    setting: Setting, cells: Sequence[Cell], folder: Path, *, jobs: int, on_share: OnShare, on_done: OnDone
) -> list[CellReport]:
    """Play ``cells`` and write ``requests/<cell>.parquet`` and ``intervals/<cell>.parquet``.

    Args:
        folder: an existing folder.
        jobs: processes; 1 plays in this one.
        on_share: called now and then with the index of a cell and the share of it that is done.
        on_done: called with the index and the report of each finished cell, in order of completion.

    Returns:
        Reports in the order of ``cells``.

    Raises:
        InputError: as ``run_cell``.
        WorkerDiedError: if a worker was killed.
    """
    for name in ("requests", "intervals"):
        (folder / name).mkdir()
    if jobs == 1:
        reports = []
        for i, cell in enumerate(cells):
            reports.append(_play(setting, cell, folder, partial(on_share, i)))
            on_done(i, reports[-1])
        return reports
    # spawn: the same on every platform, and no locks of compiled code are inherited.
    context = multiprocessing.get_context("spawn")
    shares = context.Array("d", len(cells), lock=False)
    found: dict[int, CellReport] = {}
    with contextlib.ExitStack() as stack:
        with _interrupts_held():
            executor = stack.enter_context(_executor(context, min(jobs, len(cells)), shares))
            pending = {
                executor.submit(_play_in_worker, setting, c, folder, i): i for i, c in enumerate(cells)
            }
        while pending:
            done, _ = concurrent.futures.wait(
                pending, timeout=_POLL_S, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for i in pending.values():
                on_share(i, shares[i])
            for future in sorted(done, key=pending.__getitem__):
                i = pending.pop(future)
                try:
                    found[i] = future.result()
                except BrokenProcessPool:
                    raise WorkerDiedError(
                        "a worker process was killed, most likely for want of memory: try fewer --jobs"
                    ) from None
                on_done(i, found[i])
    return [found[i] for i in range(len(cells))]


def run_tasks(
    function: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], *, jobs: int, on_done: Callable[[int], None]
) -> list[ResultT]:
    """``function`` of each task, in their order.

    Args:
        function: of a module, as processes look it up by name.
        jobs: processes; 1 computes in this one.
        on_done: called with how many are done.

    Raises:
        WorkerDiedError: if a worker was killed.
    """
    if jobs == 1:
        results = []
        for task in tasks:
            results.append(function(task))
            on_done(len(results))
        return results
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        with _interrupts_held():
            executor = stack.enter_context(_executor(context, min(jobs, len(tasks)), None))
            pending = [executor.submit(function, task) for task in tasks]
        for count, future in enumerate(concurrent.futures.as_completed(pending), start=1):
            try:
                future.result()
            except BrokenProcessPool:
                raise WorkerDiedError(
                    "a worker process was killed, most likely for want of memory: try fewer --jobs"
                ) from None
            on_done(count)
    return [future.result() for future in pending]


@contextlib.contextmanager
def _executor(
    context: SpawnContext, workers: int, shares: Any
) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """A process pool of which nothing is left afterwards, even when interrupted."""
    others = set(multiprocessing.active_children())
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(shares,)
    )
    try:
        yield executor
    except BaseException:
        # Waiting for cells in progress could take minutes.
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    executor.shutdown()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until afterwards, and nothing is left half made.

    Processes started meanwhile never see it, not even while they start. It reaches the whole process
    group, and the parent decides what to do about it.
    """
    # Started within, it would let interrupts through again.
    resource_tracker.ensure_running()
    arrived: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))
    # Children inherit what this thread blocks. Other threads do not block it, hence the handler as well.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)
    if arrived:
        raise KeyboardInterrupt


_shares: Any = None


def _start_worker(shares: Any) -> None:
    global _shares
    _shares = shares
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where interrupts cannot be held


def _play_in_worker(setting: Setting, cell: Cell, folder: Path, i: int) -> CellReport:
    def report(share: float) -> None:
        _shares[i] = share

    return _play(setting, cell, folder, report)


def _play(setting: Setting, cell: Cell, folder: Path, on_share: Callable[[float], None]) -> CellReport:
    workload = setting.make_workload(cell.seed)
    policy = build_policy(cell.policy, setting.cluster, workload)
    (result,) = play_windows(workload, setting.cluster, policy, cell.seed, on_share)
    for name, table in (("requests", result.requests), ("intervals", result.intervals)):
        floats = [column for column in table if table[column].dtype == np.float64]
        table.to_parquet(
            folder / name / f"{cell.label}-seed{cell.seed}.parquet",
            index=False,
            compression="zstd",
            # Times hardly repeat: a dictionary of them is a waste, their leading bytes compress.
            use_byte_stream_split=floats,
            use_dictionary=[column for column in table if column not in floats],
        )
    return CellReport(cell, result.figures, asdict(policy.profile), policy_parameters(policy))
