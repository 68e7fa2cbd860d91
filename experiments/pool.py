"""Playing many cells: over processes, with progress, and with results that do not depend on how many."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext
from typing import Any, TypeVar

from experiments.cells import OnShare, Piece, play_piece
from experiments.evaluate import Cell
from experiments.folder import RunFolder

_POLL_S = 0.2


class WorkerDiedError(ChildProcessError):
    """A worker process ended without an answer, most likely killed for want of memory."""


TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

OnDone = Callable[[Cell], None]

_SHARE_DONE = 2.0  # of a cell whose record is written; 1 is all played


def run_pieces(
    pieces: Sequence[Piece], folder: RunFolder, *, jobs: int, on_share: OnShare, on_done: OnDone
) -> None:
    """Play all cells and write each into the folder as soon as it is done.

    Args:
        jobs: processes; 1 plays in this one.
        on_share: called now and then with a cell and the share of it that is done.
        on_done: called with each cell whose record has been written.

    Raises:
        WorkerDiedError: if a worker was killed.
        OSError: if the folder cannot be written.
    """
    if jobs == 1 or len(pieces) <= 1:
        for piece in pieces:
            for played in play_piece(piece, on_share):
                folder.write_cell(played)
                on_done(played.cell)
        return
    cells = [cell for piece in pieces for cell in piece.cells]
    context = multiprocessing.get_context("spawn")
    shares = context.Array("d", len(cells), lock=False)
    first = 0
    with contextlib.ExitStack() as stack:
        with _interrupts_held():
            executor = stack.enter_context(_executor(context, min(jobs, len(pieces)), shares))
            pending = set()
            for piece in pieces:
                pending.add(executor.submit(_play_in_worker, piece, folder, first))
                first += len(piece.cells)
        shown = [0.0] * len(cells)
        while pending:
            done, pending = concurrent.futures.wait(
                pending, timeout=_POLL_S, return_when=concurrent.futures.FIRST_COMPLETED
            )
            _show(cells, shares, shown, on_share, on_done)
            for future in done:
                _result(future)


def _show(
    cells: Sequence[Cell], shares: Sequence[float], shown: list[float], on_share: OnShare, on_done: OnDone
) -> None:
    for i, cell in enumerate(cells):
        share = shares[i]
        if share > shown[i]:
            shown[i] = share
            if share == _SHARE_DONE:
                on_done(cell)
            else:
                on_share(cell, share)


def _result(future: concurrent.futures.Future[ResultT]) -> ResultT:
    try:
        return future.result()
    except BrokenProcessPool:
        raise WorkerDiedError(
            "a worker process was killed, most likely for want of memory: try fewer --jobs"
        ) from None


def run_tasks(
    function: Callable[[TaskT], ResultT],
    tasks: Sequence[TaskT],
    *,
    jobs: int,
    on_done: Callable[[int], None],
    on_result: Callable[[TaskT, ResultT], None] | None = None,
) -> list[ResultT]:
    """``function`` of each task, in their order.

    Args:
        function: of a module, as processes look it up by name.
        jobs: processes; 1 computes in this one.
        on_done: called with how many are done.
        on_result: called, in this process, with each task that is done and its result.

    Raises:
        WorkerDiedError: if a worker was killed.
    """
    results: dict[int, ResultT] = {}

    def keep(k: int, result: ResultT) -> None:
        results[k] = result
        if on_result is not None:
            on_result(tasks[k], result)
        on_done(len(results))

    if jobs == 1:
        for k, task in enumerate(tasks):
            keep(k, function(task))
        return list(results.values())
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        with _interrupts_held():
            executor = stack.enter_context(_executor(context, min(jobs, len(tasks)), None))
            places = {executor.submit(function, task): k for k, task in enumerate(tasks)}
        for future in concurrent.futures.as_completed(places):
            keep(places[future], _result(future))
    return [results[k] for k in range(len(tasks))]


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
        started = set(multiprocessing.active_children()) - others
        for process in started:
            process.terminate()
        for process in started:
            process.join()
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
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Nobody waits for the work of a process whose parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _play_in_worker(piece: Piece, folder: RunFolder, first: int) -> None:
    place = {cell: first + k for k, cell in enumerate(piece.cells)}

    def report(cell: Cell, share: float) -> None:
        _shares[place[cell]] = share

    for played in play_piece(piece, report):
        folder.write_cell(played)
        report(played.cell, _SHARE_DONE)
