"""Data sets on this machine: found, and compared with the original."""

from __future__ import annotations

import functools
from pathlib import Path

from preserve_gym.data import ENVIRONMENT_VARIABLE, data_dir, find_data
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.traces.dataset import Dataset
from preserve_gym.traces.datasets import DATASETS
from preserve_gym.traces.files import content_sha256
from preserve_gym.traces.servegen import client_files, clients_sha256


def find_dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        InputError: if there is none; the message lists those there are.
    """
    if name not in DATASETS:
        raise InputError(
            f"data set {name!r}: expected one of {', '.join(DATASETS)}{did_you_mean(name, DATASETS)}"
        )
    return DATASETS[name]


def path_of(dataset: Dataset) -> Path | None:
    """Where a data set lies on this machine, if it does; it is not looked into."""
    return next((path for file in dataset.files if (path := find_data(f"traces/{file}"))), None)


def fetch_path(dataset: Dataset) -> Path:
    """Where ``fetch`` puts a data set."""
    return data_dir() / "traces" / dataset.files[1]


def dataset_path(name: str) -> Path:
    """The file of a data set, plain or gzip-compressed, after a comparison with its checksum.

    A file that has not changed since is compared once in a process.

    Raises:
        InputError: on an unknown name, a data set that is not on this machine (the message says where to
            get it), or a file with other content.
    """
    dataset = find_dataset(name)
    path = path_of(dataset)
    if path is None:
        raise InputError(
            f"data set {name!r}: not on this machine; {_how_to_get(name, dataset)}; or set "
            f"{ENVIRONMENT_VARIABLE} to the folder that holds traces/{dataset.files[0]}"
        )
    file = path.stat()
    try:
        found = _sha256(path, file.st_mtime_ns, file.st_size, dataset.clients > 0)
    except InputError as error:
        raise InputError(f"{error}; remove it: {_how_to_get(name, dataset)}") from None
    if found != dataset.sha256:
        raise InputError(
            f"{path}: expected the {dataset.kind} of {name} (SHA-256 {dataset.sha256[:12]}...), got other "
            f"content; remove it: {_how_to_get(name, dataset)}; or pass a file of your own by its path"
        )
    return path


def _how_to_get(name: str, dataset: Dataset) -> str:
    if dataset.url is None:
        return dataset.no_url
    return (
        f"python -m preserve_gym.traces fetch {name} gets it from {dataset.source} and puts it at "
        f"{fetch_path(dataset)}"
    )


@functools.cache
def _sha256(path: Path, mtime_ns: int, size_bytes: int, of_clients: bool) -> str:
    if not of_clients:
        return content_sha256(path)
    return clients_sha256((client, content) for client, _, content in client_files(path))
