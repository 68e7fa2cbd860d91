"""Fits the lengths in ``preserve_gym/traces/servegen_lengths`` to ServeGen's published distributions.

Run as ``python -m tests.fit_servegen_lengths`` with the data folder in ``PRESERVE_GYM_DATA``: writes the
files again and prints, for each model, how well generated lengths follow the recording.

Method. A client's distribution over the two weeks is that of its 6-hour blocks, weighted by its requests
in them. Its quantiles are interpolated on a log scale; the last is not the maximum but such that the mean
is right, as far as the maximum allows (where the mean is small, the last two are). The ``DRIFTING``
clients whose block means move the tokens of the model most (requests times distance from the client's
mean) keep the means of their blocks, and their quantiles are those of the lengths divided by them.
Clients without requests are left out.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq

from preserve_gym.traces import read_client_windows
from preserve_gym.traces.client_lengths import BLOCK_S, FIELDS, FOLDER, MODELS, ClientLengths
from preserve_gym.traces.servegen import ClientWindows

FloatArray = NDArray[np.float64]
LEVELS = np.array([0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 1.0])
DRIFTING = 10
WINDOWS_PER_BLOCK = int(BLOCK_S / 600)
# The lowest published quantile stands for the minimum.
PUBLISHED = {"p1": 0.0, **{f"p{k}": k / 100 for k in (5, *range(10, 100, 10), 95, 99)}, "max": 1.0}
SOURCE_FIELDS = dict(zip(FIELDS, ("input_tokens", "output_tokens"), strict=True))
GRID = (np.arange(1000) + 0.5) / 1000


def windows_of(model: str, traces: Path) -> ClientWindows:
    return read_client_windows(traces / f"servegen_{model}_traces.tar.gz")


def published_lengths(traces: Path) -> pd.DataFrame:
    return pd.read_csv(traces / "servegen_length_quantiles.csv.gz")


def block_requests(windows: ClientWindows) -> FloatArray:
    """Requests of each client in each block, float64[blocks, clients]."""
    return windows.requests.reshape(-1, WINDOWS_PER_BLOCK, len(windows.clients)).sum(axis=1, dtype=np.float64)


def fit_table(model: str, windows: ClientWindows, published: pd.DataFrame) -> str:
    """The text of the file of a model."""
    requests = block_requests(windows)
    lines = [",".join(["client", "field", *(f"p{100 * level:g}" for level in LEVELS), "block_means_percent"])]
    for field, source in SOURCE_FIELDS.items():
        rows = published[(published["model"] == model) & (published["field"] == source)]
        rows = rows.assign(
            block=rows["window_start_s"] // int(BLOCK_S),
            requests=requests[rows["window_start_s"] // int(BLOCK_S), rows["client"]],
        )
        clients = dict(list(rows[rows["requests"] > 0].groupby("client")))
        moved = {client: _moved_tokens(part) for client, part in clients.items()}
        drifting = set(sorted(moved, key=lambda client: -moved[client])[:DRIFTING])
        for client, part in clients.items():
            quantiles, percent = _fit_client(part, client in drifting, len(requests))
            figures = ",".join(f"{tokens:g}" for tokens in quantiles)
            lines.append(f"{client},{field},{figures},{' '.join(map(str, percent))}")
    return "\n".join(lines) + "\n"


def _moved_tokens(blocks: pd.DataFrame) -> float:
    mean = np.average(blocks["mean"], weights=blocks["requests"])
    return float((blocks["requests"] * (blocks["mean"] - mean).abs()).sum())


def _fit_client(blocks: pd.DataFrame, drifts: bool, count: int) -> tuple[list[float], list[int]]:
    """Quantiles, tokens, and block means in percent of the client's, or none of these."""
    weights = blocks["requests"].to_numpy()
    means = blocks["mean"].to_numpy()
    percent = np.full(count, 100)
    if drifts:
        share = 100 * means / np.average(means, weights=weights)
        percent[blocks["block"]] = np.maximum(np.rint(share), 1)
    scale = percent[blocks["block"]] / 100
    # Requests without output have one token here.
    table = blocks[list(PUBLISHED)].clip(lower=1.0).to_numpy() / scale[:, np.newaxis]
    pool = np.concatenate([np.exp(np.interp(GRID, list(PUBLISHED.values()), np.log(row))) for row in table])
    order = np.argsort(pool, kind="stable")
    passed = np.cumsum(np.repeat(weights, len(GRID))[order])
    at = np.minimum(np.searchsorted(passed, LEVELS[:-1] * passed[-1], side="right"), len(pool) - 1)
    quantiles = [_three_digits(tokens) for tokens in pool[order][at]]
    mean = np.average(means / scale, weights=weights)
    return _with_tail(quantiles, mean, table[:, -1].max()), percent.tolist() if drifts else []


def _with_tail(quantiles: list[float], mean: float, most: float) -> list[float]:
    """These quantiles and a last one, such that the distribution has this mean, within what they can be.

    Where even a flat end is too long, the last two lie lower.
    """

    def lifted(last: float) -> list[float]:
        return [*quantiles, last]

    def lowered(last: float) -> list[float]:
        return [*quantiles[:-1], last, last]

    def excess(last: float) -> float:
        return interpolated_mean(np.array(ended(last))) - mean

    ended, low, high = lifted, quantiles[-1], max(quantiles[-1], most)
    if excess(low) > 0.0:
        ended, low, high = lowered, quantiles[-2], quantiles[-1]
    if excess(low) >= 0.0:
        return ended(low)
    return ended(_three_digits(high if excess(high) <= 0.0 else brentq(excess, low, high)))


def interpolated_mean(quantiles: FloatArray) -> float:
    """Mean of a distribution whose logarithm is linear between the quantiles."""
    low, high = quantiles[:-1], quantiles[1:]
    rise = np.log(high / low)
    rises = rise > 1e-9
    segment = np.where(rises, (high - low) / np.where(rises, rise, 1.0), low)
    return float((segment * np.diff(LEVELS)).sum())


def _three_digits(value: float) -> float:
    # Published lengths are integers; without the first rounding the last bit would decide on their ties.
    return float(f"{round(value, 6):.3g}")


def window_means(windows: ClientWindows, lengths: ClientLengths) -> FloatArray:
    """Expected tokens of a request in each window, float64[fields, windows]; NaN where there is none."""
    requests = windows.requests.astype(np.float64)
    block = np.arange(len(requests)) // WINDOWS_PER_BLOCK
    tabled = lengths.has(windows.clients)
    sent = block_requests(windows)[:, tabled]
    total = requests.sum(axis=1)
    means = []
    for quantiles, drift in zip(lengths.quantiles, lengths.drift, strict=True):
        client = np.array([interpolated_mean(row) for row in quantiles]) * drift
        lent = (client * sent).sum(axis=1) / np.maximum(sent.sum(axis=1), 1.0)
        tokens = (requests[:, tabled] * client[block]).sum(axis=1)
        tokens += requests[:, ~tabled].sum(axis=1) * lent[block]
        means.append(tokens / np.where(total > 0, total, np.nan))
    return np.array(means)


def estimated_means(model: str, traces: Path) -> FloatArray:
    """Tokens of a request in each window by the table of totals, shaped as ``window_means``."""
    totals = pd.read_csv(traces / "servegen_10min.csv.gz")
    rows = totals[totals["model"] == model].sort_values("window_start_s")
    requests = rows["requests"].where(rows["requests"] > 0)
    return np.array([rows[f"{field}_est"] / requests for field in FIELDS])


@dataclass(frozen=True)
class Agreement:
    """How well means of windows follow others."""

    correlation: float
    explained: float
    total_error: float
    median_error: float
    error_95: float


def agreements(means: FloatArray, estimated: FloatArray, windows: ClientWindows) -> list[Agreement]:
    """For each field, over the windows with requests, which both arrays have."""
    requests = windows.requests.sum(axis=1, dtype=np.float64)
    requests = requests[requests > 0]
    found = []
    for mean, expected in zip(means, estimated, strict=True):
        error = abs(mean / expected - 1.0)
        residual = ((mean - expected) ** 2).sum() / ((expected - expected.mean()) ** 2).sum()
        found.append(
            Agreement(
                correlation=float(np.corrcoef(mean, expected)[0, 1]),
                explained=float(1.0 - residual),
                total_error=float(mean @ requests / (expected @ requests) - 1.0),
                median_error=float(np.median(error)),
                error_95=float(np.quantile(error, 0.95)),
            )
        )
    return found


def main() -> None:
    traces = Path(os.environ["PRESERVE_GYM_DATA"]) / "traces"
    published = published_lengths(traces)
    for model in MODELS:
        windows = windows_of(model, traces)
        (FOLDER / f"{model}.csv").write_text(fit_table(model, windows, published))
        seen = windows.requests.any(axis=1)
        estimated = estimated_means(model, traces)[:, seen]
        for title in ("as fitted", "without the means of blocks"):
            lengths = ClientLengths(model, windows)
            if title != "as fitted":
                lengths.drift = np.ones_like(lengths.drift)
            means = window_means(windows, lengths)[:, seen]
            for field, agreement in zip(FIELDS, agreements(means, estimated, windows), strict=True):
                figures = ", ".join(f"{name} {value:.3f}" for name, value in asdict(agreement).items())
                print(f"{model} {field}, {title}: {figures}")


if __name__ == "__main__":
    main()
