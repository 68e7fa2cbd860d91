"""Prompt and output lengths of ServeGen's clients, drawn from figures fitted to the published ones.

ServeGen publishes, for each client and block of 6 hours, how often each number of tokens occurred, in
files of 218 MB. ``servegen_lengths/<model>.csv`` has of that, for each client whose lengths were at hand
and for prompt and output, the quantiles over the two weeks, and where the lengths of a client move enough
to matter (ten clients of each model and field) its mean in each block in percent of its mean.
``tests/fit_servegen_lengths.py`` is the recipe, and a test asserts that it gives these files again.

Source: alibaba/ServeGen, ``data/language``, Apache-2.0 (Xiang et al., "ServeGen", arXiv 2505.09999).
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.servegen import WINDOW_S, ClientWindows, read_client_windows
from preserve_gym.traces.trace import Trace

BLOCK_S = 21_600.0
FIELDS = ("prompt_tokens", "output_tokens")
FOLDER = Path(__file__).parent / "servegen_lengths"
MODELS = ("m-large", "m-mid", "m-small")

FloatArray = NDArray[np.float64]
Int32Array = NDArray[np.int32]


class ClientLengths:
    """Lengths of the clients of a model; a ``LengthSampler``.

    A client's prompts and outputs are drawn independently of each other: only their separate distributions
    are published. What correlation there is comes from clients that differ. Tokens are interpolated between
    the quantiles on a log scale, times the mean of the block where that is in the table.

    Each request of a client that is not in the table has the lengths of another client, drawn in proportion
    to the requests that these send in the same block.

    Attributes:
        levels: float64[levels], of the quantiles, from 0 to 1.
        quantiles: float64[fields, clients in the table, levels], tokens.
        drift: float64[fields, blocks, clients in the table], factor on the quantiles.
    """

    levels: FloatArray
    quantiles: FloatArray
    drift: FloatArray

    def __init__(self, model: str, windows: ClientWindows) -> None:
        """Read the table of a model, for the clients of its recording.

        Args:
            model: one of ``MODELS``.
            windows: what the clients did.

        Raises:
            InputError: on a model that there is not, or a recording that cannot be the model's.
        """
        if model not in MODELS:
            raise InputError(f"model: expected one of {', '.join(MODELS)}, got {model!r}")
        tabled = self._read(FOLDER / f"{model}.csv")
        clients, requests, blocks = windows.clients, windows.requests, self.drift.shape[1]
        if windows.span_s > blocks * BLOCK_S or not np.isin(tabled, clients).all():
            raise InputError(
                f"{windows.name}: expected clients 0 to {tabled[-1]} and at most {blocks * BLOCK_S:g} s of "
                f"{model}, got clients {clients[0]} to {clients[-1]} and {windows.span_s:g} s"
            )
        self._clients = tabled
        sent = requests[:, self.has(clients)].astype(np.float64)
        in_block = np.add.reduceat(sent, np.arange(0, len(sent), int(BLOCK_S / WINDOW_S)))
        # Where none of them sends in the block, in proportion to the whole recording; else all alike.
        weight = in_block + 1e-9 * (sent.sum(axis=0) + 1e-9)
        share = np.cumsum(weight, axis=1)
        # One rising row of numbers for all blocks: those of block k lie in (k, k + 1].
        self._lenders = (share / share[:, -1:] + np.arange(len(share))[:, np.newaxis]).ravel()

    def __call__(
        self, client: Int32Array, arrival_s: FloatArray, rng: np.random.Generator
    ) -> tuple[Int32Array, Int32Array]:
        """Prompt and output tokens of requests, see ``LengthSampler``."""
        row = self._rows(client)
        block = (arrival_s // BLOCK_S).astype(np.intp)
        borrows = np.flatnonzero(row < 0)
        place = np.searchsorted(self._lenders, block[borrows] + rng.random(len(borrows)), side="right")
        last = self.quantiles.shape[1] - 1
        row[borrows] = np.minimum(place - block[borrows] * (last + 1), last)
        prompt_tokens, output_tokens = (self._draw(field, row, block, rng) for field in range(len(FIELDS)))
        return prompt_tokens, output_tokens

    def has(self, client: Int32Array) -> NDArray[np.bool_]:
        """Whether each of these clients of the recording is in the table."""
        return self._rows(client) >= 0

    def _rows(self, client: Int32Array) -> NDArray[np.intp]:
        """Place of each client in the table, -1 where it is not there."""
        row = np.minimum(np.searchsorted(self._clients, client), len(self._clients) - 1)
        return np.where(self._clients[row] == client, row, -1)

    def _draw(
        self, field: int, row: NDArray[np.intp], block: NDArray[np.intp], rng: np.random.Generator
    ) -> Int32Array:
        """Tokens of a request of each of these rows of the table in these blocks."""
        u = rng.random(len(row))
        level = np.searchsorted(self.levels[1:-1], u, side="right")
        part = (u - self.levels[level]) / np.diff(self.levels)[level]
        log = np.log(self.quantiles[field])
        tokens = np.exp(log[row, level] + part * np.diff(log)[row, level]) * self.drift[field, block, row]
        return np.maximum(np.rint(tokens), 1.0).astype(np.int32)

    def _read(self, path: Path) -> Int32Array:
        """Read the table; the numbers of its clients, rising."""
        with path.open(newline="") as stream:
            header, *rows = csv.reader(stream)
        # Columns: client, field, p<percent> for each level, and block means in percent or nothing.
        self.levels = np.array([float(name[1:]) / 100.0 for name in header[2:-1]])
        tables = [[row for row in rows if row[1] == field] for field in FIELDS]
        self.quantiles = np.array([[row[2:-1] for row in table] for table in tables], np.float64)
        means = [[[float(mean) / 100.0 for mean in row[-1].split()] for row in table] for table in tables]
        blocks = max(len(client) for table in means for client in table)
        self.drift = np.swapaxes(
            np.array([[client or [1.0] * blocks for client in table] for table in means]), 1, 2
        ).copy()
        return np.array([int(row[0]) for row in tables[0]], np.int32)


def servegen_trace(
    model: str,
    path: str | Path,
    *,
    seed: int = 0,
    service_scale: float = 1.0,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Trace:
    """Requests generated from ServeGen's recording of a model, named ``servegen-<model>``.

    Arrivals are those of ``ClientWindows.generate``, lengths those of ``ClientLengths``. ``repairs`` says
    how many windows of the recording are empty (84 of 2,016 for m-mid, 37 for m-small: most likely gaps
    in the data) and for what share of the requests the lengths are those of other clients.

    Args:
        model: ``m-large``, ``m-mid`` or ``m-small``: 237, 2,165 and 1,421 million requests in 14 days.
        path: tar file of the model's ``chunk-<client>-trace.csv``.
        seed: of arrivals and lengths.
        service_scale: ratio of the request rate to that of the recording, in (0, 1].
        start_s, end_s: part of the recording to generate, seconds from its first midnight; by default all.

    Raises:
        InputError: see ``read_client_windows`` and ``ClientWindows.generate``; on a model that there is
            not, or a file that cannot be the model's.
    """
    windows = read_client_windows(path)
    lengths = ClientLengths(model, windows)
    windows = replace(windows, name=f"servegen-{model}")
    trace = windows.generate(
        start_s, windows.span_s if end_s is None else end_s, lengths, seed=seed, service_scale=service_scale
    )
    requests = windows.requests.sum(axis=0, dtype=np.int64)
    borrowing = 100.0 * requests[~lengths.has(windows.clients)].sum() / max(requests.sum(), 1)
    note = f"lengths of {borrowing:.0f} % of the recorded requests drawn from other clients"
    return replace(trace, repairs=(*trace.repairs, note))
