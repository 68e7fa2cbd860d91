"""Who does the work: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from preserve_gym.errors import InputError

BACKENDS = ("local", "ray")


@dataclass(frozen=True)
class Pool:
    """Workers, and what they are asked with.

    Attributes:
        jobs: how many work at a time; None: the command decides.
        run_pieces, run_tasks: those of ``experiments.pool``, or others with the same arguments and results.
    """

    jobs: int | None
    run_pieces: Callable[..., None]
    run_tasks: Callable[..., list[Any]]


def check_address(backend: str | None, address: str | None) -> None:
    """Refuse an address that cannot be meant.

    Raises:
        InputError: naming what was expected.
    """
    if address is None:
        return
    if backend != "ray":
        raise InputError(f"--address: expected --backend ray with it, got {address!r} alone")
    if "://" in address:
        raise InputError(f"--address: expected HOST:PORT or auto, got {address!r}; run the command on a node")


@contextlib.contextmanager
def opened(backend: str | None, address: str | None, jobs: int | None) -> Iterator[Pool]:
    """The workers of a backend, as long as they are needed.

    Args:
        backend: one of ``BACKENDS``; None: ``local``.
        address: of a Ray cluster; None: one is started on this machine.
        jobs: how many work at a time.

    Raises:
        InputError: if Ray is not installed or there is no cluster at the address.
    """
    # Here, as both import what imports this module.
    if backend == "ray":
        from experiments import ray_pool

        with ray_pool.connected(address, jobs) as cpus:
            yield Pool(cpus if jobs is None else jobs, ray_pool.run_pieces, ray_pool.run_tasks)
    else:
        from experiments import pool

        yield Pool(jobs, pool.run_pieces, pool.run_tasks)
