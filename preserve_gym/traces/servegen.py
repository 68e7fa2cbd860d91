"""ServeGen: clients of Alibaba's model services, window by window, and requests generated from them."""

from __future__ import annotations

import hashlib
import math
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.files import open_content, shown, stem
from preserve_gym.traces.rate_process import rates_of_windows
from preserve_gym.traces.scaling import MAX_REQUESTS
from preserve_gym.traces.trace import SECONDS_PER_DAY, Trace

WINDOW_S = 600.0
FAMILIES = ("", "Gamma", "Weibull")
_MEMBER = re.compile(r"(?:.*/)?chunk-(\d{1,9})-trace\.csv", re.ASCII)
_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"
_LINE = re.compile(rf"(\d{{1,12}}),{_NUMBER},{_NUMBER},(Gamma|Weibull|),{_NUMBER},{_NUMBER}", re.ASCII)
_MOST_REQUESTS = 2**31 - 1  # of a client in a window

LengthSampler = Callable[
    [NDArray[np.int32], NDArray[np.float64], np.random.Generator],
    tuple[NDArray[np.int32], NDArray[np.int32]],
]
"""From client numbers int32[n], arrivals float64[n] on the clock of the recording, and a generator:
prompt and output tokens, int32[n] each."""


@dataclass(frozen=True, eq=False)
class ClientWindows:
    """What each client did in each window of 600 s; window k covers [600 k, 600 (k + 1)) seconds.

    Second 0 is a midnight.

    Attributes:
        name: that of the file.
        clients: int32[clients], their numbers, rising.
        requests: int32[windows, clients].
        cv: float64[windows, clients], coefficient of variation of the inter-arrival times.
        family: int8[windows, clients], place in ``FAMILIES`` of the fitted inter-arrival distribution;
            0 where there is no request.
        shape: float64[windows, clients], its shape parameter.
        scale_s: float64[windows, clients], its scale parameter, seconds.
    """

    name: str
    clients: NDArray[np.int32]
    requests: NDArray[np.int32]
    cv: NDArray[np.float64]
    family: NDArray[np.int8]
    shape: NDArray[np.float64]
    scale_s: NDArray[np.float64]

    @property
    def span_s(self) -> float:
        """Length of the recording, seconds."""
        return WINDOW_S * len(self.requests)

    def generate(
        self,
        start_s: float,
        end_s: float,
        lengths: LengthSampler,
        seed: int = 0,
        service_scale: float = 1.0,
    ) -> Trace:
        """Requests that arrive in [start_s, end_s), as a trace that starts at ``start_s``.

        Each client is a renewal process of its own in each window, as in ServeGen's generator: gaps are
        drawn from the fitted family with the fitted shape and scaled to fill the window, so that the
        number of requests is that of the recording. The shape gives the CV of the recording for Gamma,
        for Weibull about 0.8 of it (median). ServeGen starts the first gap with the window; here
        the window is a circle that is entered at a random moment, so that all of its parts are alike.

        ``service_scale`` makes every client slower and leaves family and shape of its gaps, as ServeGen
        does: the number of its requests in a window is binomial, of those of the recording with
        probability ``service_scale``, and its gaps are longer. A burst then has as many requests as before
        and lasts longer, whereas thinning the finished requests (``scale_rate``) makes bursts smaller.
        Twelve hours of m-large at 1/20: mean CV of a client in a window 1.97 against 1.20 (2.36 at full
        rate), variance over mean of the counts in 1 s, 10 s, 60 s and 600 s 3.9, 12.8, 51 and 434 against
        2.1, 8.7, 44 and 428 (22, 155, 868 and 8,551).

        A window is generated alike whichever part of it is asked for. Memory is that of the requests, and
        of the busiest window. Windows without any request stay empty; ``Trace.repairs`` counts them.

        Args:
            start_s, end_s: seconds on the clock of the recording.
            lengths: gives the tokens of the requests, see ``LengthSampler``; called once for each window.
            seed: of the arrivals and of the generator that ``lengths`` gets.
            service_scale: ratio of the request rate to that of the recording, in (0, 1].

        Raises:
            InputError: unless 0 <= start_s < end_s <= ``span_s``, on another ``service_scale``, or where it
                leaves more than ``MAX_REQUESTS``.
        """
        if not 0.0 <= start_s < end_s <= self.span_s:
            raise InputError(
                f"{self.name}: expected 0 <= start_s < end_s <= {self.span_s:g}, got {start_s!r} and "
                f"{end_s!r}"
            )
        if not (isinstance(service_scale, Real) and 0.0 < service_scale <= 1.0):
            raise InputError(
                f"{self.name}: service_scale: expected a number in (0, 1], got {service_scale!r}"
            )
        windows = range(int(start_s // WINDOW_S), math.ceil(end_s / WINDOW_S))
        recorded = self.requests[windows.start : windows.stop].sum(axis=1, dtype=np.int64)
        if service_scale * int(recorded.sum()) > MAX_REQUESTS:
            raise InputError(
                f"{self.name}: service_scale: expected at most {MAX_REQUESTS / recorded.sum():.4g} "
                f"({MAX_REQUESTS:,} of the {recorded.sum():,} requests from {start_s:g} s to {end_s:g} s), "
                f"got {service_scale:g}"
            )
        parts: tuple[list[NDArray], ...] = ([], [], [])
        for window in windows:
            # One stream for each window, so that it does not depend on where the slice begins.
            rng = np.random.default_rng([seed, 4, window])
            client, arrival_s = self._window(window, self._sent(window, service_scale, seed), rng)
            tokens = lengths(self.clients[client], arrival_s, rng)
            inside = slice(*np.searchsorted(arrival_s, (start_s, end_s)))
            for part, column in zip(parts, (arrival_s - start_s, *tokens), strict=True):
                part.append(column[inside])
        arrival_s, prompt_tokens, output_tokens = map(_joined, parts)
        empty = int((recorded == 0).sum())
        sums = _window_sums(windows, start_s + arrival_s, prompt_tokens, output_tokens)
        return Trace(
            arrival_s,
            prompt_tokens,
            output_tokens,
            name=self.name,
            clock_s=start_s % SECONDS_PER_DAY,
            span_s=end_s - start_s,
            repairs=(f"{empty:,} of {len(windows):,} windows without any request left empty",)
            if empty
            else (),
            rates=rates_of_windows(sums, WINDOW_S, start_s, end_s, SECONDS_PER_DAY),
        )

    def _sent(self, window: int, service_scale: float, seed: int) -> NDArray[np.int32]:
        """Requests of each client in a window."""
        count = self.requests[window]
        if service_scale == 1.0:
            return count
        return np.random.default_rng([seed, 5, window]).binomial(count, service_scale).astype(np.int32)

    def _window(
        self, window: int, count: NDArray[np.int32], rng: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Place of the client and time of arrival of each request in a window, in order of arrival.

        ``count``, int32[clients], is how many each client sends.
        """
        client = np.repeat(np.arange(len(count)), count)
        shape = self.shape[window, client]
        weibull = self.family[window, client] == FAMILIES.index("Weibull")
        gap = np.empty(len(client))
        gap[weibull] = rng.weibull(shape[weibull])
        gap[~weibull] = rng.standard_gamma(shape[~weibull])
        gap = np.maximum(gap, 1e-300)  # all gaps of a very bursty client may underflow
        end = np.cumsum(count, dtype=np.int64)
        present = np.flatnonzero(count)
        first = (end - count)[present]
        gap *= np.repeat(WINDOW_S / np.add.reduceat(gap, first), count[present]) if len(present) else 1.0
        since = np.cumsum(gap)
        since -= np.repeat(since[first] - gap[first], count[present])
        phase_s = np.repeat(rng.random(len(present)) * WINDOW_S, count[present])
        arrival_s = window * WINDOW_S + (since + phase_s) % WINDOW_S
        arrival_s = np.minimum(arrival_s, np.nextafter((window + 1) * WINDOW_S, 0.0))
        order = np.argsort(arrival_s, kind="stable")
        return client[order], arrival_s[order]


def _window_sums(
    windows: range, time_s: NDArray[np.float64], prompt_tokens: NDArray, output_tokens: NDArray
) -> NDArray[np.float64]:
    """Requests, prompt and output tokens of each of the windows, float64[3, windows]."""
    place = np.minimum((time_s / WINDOW_S).astype(np.intp) - windows.start, len(windows) - 1)
    columns = (None, prompt_tokens, output_tokens)
    return np.stack([np.bincount(place, weights=column, minlength=len(windows)) for column in columns])


def _joined(parts: list[NDArray]) -> NDArray:
    """The parts one after another; they are emptied, and the result is frozen, to hold each once only."""
    column = np.concatenate(parts)
    parts.clear()
    column.flags.writeable = False
    return column


def read_client_windows(path: str | Path) -> ClientWindows:
    """Read a tar file of ServeGen's ``chunk-<client>-trace.csv``, plain or gzip-compressed.

    Its lines have no header: start of the window (s), requests/s, CV, ``Gamma``, ``Weibull`` or nothing,
    shape, scale (s). All clients have the same windows, the first at 0. Other members are skipped.

    Raises:
        InputError: one line naming file, member, row and what was expected.
    """
    path = Path(path)
    tables = {client: _read_client(where, content) for client, where, content in client_files(path)}
    if not tables:
        raise InputError(f"{path}: expected members chunk-<client>-trace.csv, got none")
    clients = sorted(tables)
    lengths = {len(table) for table in tables.values()}
    if len(lengths) > 1:
        raise InputError(
            f"{path}: expected as many windows of each client, got {min(lengths)} to {max(lengths)}"
        )
    requests, cv, family, shape, scale_s = np.stack([tables[client] for client in clients], axis=1).T
    return ClientWindows(
        stem(path),
        np.array(clients, np.int32),
        requests.T.astype(np.int32),
        cv.T.copy(),
        family.T.astype(np.int8),
        shape.T.copy(),
        scale_s.T.copy(),
    )


def client_files(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """Client, place for errors, and content of each ``chunk-<client>-trace.csv`` in a tar file.

    Raises:
        InputError: if it is no tar file, plain or gzip-compressed, or has a client twice.
    """
    seen: set[int] = set()
    with open_content(path) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    match = _MEMBER.fullmatch(member.name)
                    if match is None or not member.isfile():
                        continue
                    client, where = int(match[1]), f"{path}: {member.name}"
                    if client in seen:
                        raise InputError(f"{where}: expected each client once, got {match[1]} again")
                    seen.add(client)
                    yield client, where, cast(BinaryIO, archive.extractfile(member)).read()
        except tarfile.TarError as error:
            raise InputError(f"{path}: expected a tar file, got other content ({error})") from None


def clients_sha256(files: Iterable[tuple[int, bytes]]) -> str:
    """SHA-256 that identifies the files of all clients, however and in whichever order they are packed.

    It is that of what ``sha256sum`` prints for the files ``chunk-<client>-trace.csv`` in order of client.

    Args:
        files: client and content of each.
    """
    lines = {client: hashlib.sha256(content).hexdigest() for client, content in files}
    text = "".join(f"{lines[client]}  {client_file(client)}\n" for client in sorted(lines))
    return hashlib.sha256(text.encode()).hexdigest()


def client_file(client: int) -> str:
    """Name of the file of a client."""
    return f"chunk-{client}-trace.csv"


def _read_client(where: str, content: bytes) -> NDArray[np.float64]:
    """Requests, CV, family, shape and scale of each window, float64[windows, 5]."""
    rows = []
    for row, line in enumerate(content.splitlines(), start=1):
        text = line.decode("utf-8", errors="surrogateescape")
        match = _LINE.fullmatch(text)
        if match is None:
            raise InputError(
                f"{where}: row {row}: expected second,rate,CV,Gamma or Weibull or nothing,shape,scale, "
                f"got {shown(text)}"
            )
        second, family = int(match[1]), FAMILIES.index(match[4])
        rate_rps, cv, shape, scale_s = (float(match[place]) for place in (2, 3, 5, 6))
        requests = round(rate_rps * WINDOW_S) if rate_rps <= _MOST_REQUESTS / WINDOW_S else -1
        if second != WINDOW_S * (row - 1):
            raise InputError(f"{where}: row {row}: expected second {WINDOW_S * (row - 1):.0f}, got {second}")
        if requests < 0 or abs(requests - rate_rps * WINDOW_S) > 0.01:
            raise InputError(
                f"{where}: row {row}: expected a rate of k/600 requests/s, at most {_MOST_REQUESTS} "
                f"requests, got {match[2]}"
            )
        used = requests > 0
        if not (
            used == (family > 0) and all(math.isfinite(v) and (v > 0) >= used for v in (cv, shape, scale_s))
        ):
            raise InputError(
                f"{where}: row {row}: expected a family with CV, shape and scale > 0 where there are "
                f"requests, none elsewhere, got {shown(text)}"
            )
        rows.append((requests, cv, family, shape, scale_s))
    if not rows:
        raise InputError(f"{where}: expected at least one row, got an empty file")
    return np.array(rows, np.float64)
