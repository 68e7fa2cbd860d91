"""A public data set: what it is, where it comes from, and how to know the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["original", "aggregate", "estimate"]
Holds = Literal["requests", "lengths", "client windows", "window counts", "quantiles"]


@dataclass(frozen=True)
class Dataset:
    """A public data set and where it comes from.

    Attributes:
        files: names under ``traces/`` of the data folder by which it is found, the first preferred,
            the second that under which ``fetch`` puts it; each plain or gzip-compressed.
        holds: ``requests`` with times of arrival (``load_trace``); ``lengths`` of requests
            (``read_lengths``); ``client windows`` (``read_client_windows``); ``window counts`` and
            ``quantiles``, tables of CSV.
        kind: ``original``: the bytes of a published file. ``aggregate``: exact sums or quantiles of such
            files. ``estimate``: computed from the two or read off a figure, not to be quoted as data.
        made: how an aggregate or an estimate was made; empty for an original.
        source: public project, path and commit.
        url: where ``fetch`` gets it; with ``{client}`` in it where each client has a file of its own.
        no_url: why there is no ``url`` and what to do; empty where there is one.
        licence: licence of the data.
        citation: what to cite.
        rows: requests, or rows without the header.
        size_bytes: decompressed; of client windows, without what a tar file adds.
        sha256: of the decompressed content; of client windows ``clients_sha256``.
        clients: of client windows, numbered from 0; 0 for all else.
    """

    files: tuple[str, ...]
    holds: Holds
    source: str
    url: str | None
    licence: str
    citation: str
    rows: int
    size_bytes: int
    sha256: str
    kind: Kind = "original"
    made: str = ""
    no_url: str = ""
    clients: int = 0

    @property
    def contents(self) -> str:
        """What it holds, with a word on its kind unless it is the original."""
        return self.holds if self.kind == "original" else f"{self.holds} (an {self.kind})"
