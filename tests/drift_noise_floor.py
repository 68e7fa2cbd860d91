"""Why no forecaster beats the last window by much on the scenario drift, as docs/forecasting.md records it.

Run as ``python -m tests.drift_noise_floor`` with the data folder in ``PRESERVE_GYM_DATA``: some minutes.
The scenario is generated again client by client, and with other seeds. Their mean is close to what the
published windows of the clients make one expect; what a seed differs by from it is noise of counts and
lengths. Figures are mean absolute errors over the next six windows, over that of the last window: of prompt
and output tokens on the validation days, and on the test days.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from preserve_gym.forecasting.forecaster import day_lag
from preserve_gym.forecasting.lag_features import first_row
from preserve_gym.forecasting.profile_ar import ProfileAR, least_absolute
from preserve_gym.forecasting.walk_forward import Past, walk_past
from preserve_gym.scenarios import load_scenario
from preserve_gym.traces import dataset_path, read_client_windows
from preserve_gym.traces.client_lengths import ClientLengths
from preserve_gym.traces.trace import SECONDS_PER_DAY

FloatArray = NDArray[np.float64]

CONFIG = load_scenario("drift").workload
WINDOW_S = CONFIG.window_s
DAY = day_lag(1, WINDOW_S)
HORIZON = 6
OTHER_SEEDS = 4
NEAR = 3  # windows to each side over which the day before is smoothed
Forecast = FloatArray
"""float64[windows, HORIZON], row k made at the start of window k; only the rows measured need to be right."""


def client_tokens(seed: int) -> FloatArray:
    """Prompt and output tokens of each client in each window, float64[2, windows, clients]."""
    windows = read_client_windows(dataset_path("servegen-m-large"))
    lengths = ClientLengths("m-large", windows)
    count, clients = windows.requests.shape
    tokens = np.zeros((2, count, clients))

    def noted(
        client: NDArray[np.int32], arrival_s: FloatArray, rng: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        drawn = lengths(client, arrival_s, rng)
        if len(client):
            window = int(arrival_s[0] // WINDOW_S)
            place = np.searchsorted(windows.clients, client)
            tokens[:, window] = [np.bincount(place, column, clients) for column in drawn]
        return drawn

    windows.generate(0.0, windows.span_s, noted, seed, CONFIG.service_scale)
    return tokens


def measured(split: str) -> tuple[int, int]:
    """The first window of the validation or test days that is measured, and their end."""
    train_s, validation_s = CONFIG.split_s or (math.nan, math.nan)
    spans_s = {"validation": (train_s, validation_s), "test": (validation_s, 14 * SECONDS_PER_DAY)}
    start_s, end_s = spans_s[split]
    return round((start_s + CONFIG.split_gap_s) / WINDOW_S), round(end_s / WINDOW_S)


def error(forecast: Forecast, truth: FloatArray, first: int) -> float:
    """Mean absolute error of the rows from ``first`` on, over all steps that ``truth`` covers."""
    rows = np.arange(first, len(truth))[:, None]
    ahead = rows + np.arange(HORIZON)
    inside = ahead < len(truth)
    return float(np.abs(truth[ahead[inside]] - forecast[rows[:, 0]][inside]).mean())


def last_window(series: FloatArray) -> Forecast:
    return np.repeat(np.append(series[0], series[:-1])[:, None], HORIZON, axis=1)


def truth_ahead(series: FloatArray) -> Forecast:
    longer = np.append(series, np.full(HORIZON - 1, series[-1]))
    return np.lib.stride_tricks.sliding_window_view(longer, HORIZON)


def profile_ar(series: FloatArray, first: int) -> Forecast:
    past = Past(series, np.zeros((len(series), 0)), len(series), float(series[0]), WINDOW_S, 0.0)
    return walk_past(ProfileAR(WINDOW_S), past, HORIZON, wanted_from=first).mean


def largest(tokens: FloatArray, count: int, first: int) -> tuple[FloatArray, FloatArray]:
    """Tokens of the clients that were largest before ``first``, and of the others, [windows, clients]."""
    order = np.argsort(-tokens[:first].sum(axis=0), kind="stable")
    return tokens[:, order[:count]], tokens[:, order[count:]]


def each_by_itself(tokens: FloatArray, count: int, first: int) -> Forecast:
    """``profile_ar`` of each of the largest clients and of the others together, summed."""
    those, others = largest(tokens, count, first)
    parts = [*those.T, others.sum(axis=1)]
    return np.sum([profile_ar(np.ascontiguousarray(part), first) for part in parts], axis=0)


def foreseen(tokens: FloatArray, count: int, first: int) -> Forecast:
    """The last window, with what the clients will send whose changes from window to window were largest."""
    order = np.argsort(-np.abs(np.diff(tokens[:first], axis=0)).mean(axis=0), kind="stable")
    known, others = tokens[:, order[:count]].sum(axis=1), tokens[:, order[count:]].sum(axis=1)
    return truth_ahead(known) + last_window(others)


Learner = Callable[[FloatArray, FloatArray], Callable[[FloatArray], FloatArray]]
"""Fits rows float64[n, k] to targets float64[n], and gives what predicts the targets of rows."""


def linear(rows: FloatArray, target: FloatArray) -> Callable[[FloatArray], FloatArray]:
    weights = least_absolute(rows, target)
    return lambda others: np.asarray(others @ weights, np.float64)


def trees(rows: FloatArray, target: FloatArray) -> Callable[[FloatArray], FloatArray]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        loss="absolute_error", learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=30, random_state=0
    ).fit(rows, target)
    return lambda others: np.asarray(model.predict(others), np.float64)


def regression(tokens: FloatArray, count: int, learn: Learner, first: int) -> Forecast:
    """The relative change of the total, from the recent tokens of all and of each of the largest clients.

    Each step ahead has a model of its own, fitted anew each day on all the past.
    """
    those, others = largest(tokens, count, first)
    total = tokens.sum(axis=1)
    known = np.column_stack([those, others.sum(axis=1), total])
    forecast = last_window(total)
    origin = np.arange(first_row(WINDOW_S), len(total))
    level = total[origin - 1]
    for step in range(HORIZON):
        rows = client_features(known, origin, step) / level[:, None]
        ahead = np.minimum(origin + step, len(total) - 1)
        change = (total[ahead] - level) / level
        for midnight in range(first // DAY * DAY, len(total), DAY):
            closed, today = origin + step < midnight, (midnight <= origin) & (origin < midnight + DAY)
            predicted = learn(rows[closed], change[closed])(rows[today])
            forecast[origin[today], step] = level[today] * np.maximum(1.0 + predicted, 0.0)
    return forecast


def client_features(tokens: FloatArray, origin: NDArray[np.intp], step: int) -> FloatArray:
    """Changes from the last window to those before it, and of the day before, of each column."""
    sums = np.vstack([np.zeros(tokens.shape[1]), np.cumsum(tokens, axis=0)])

    def mean(first: NDArray[np.intp], end: NDArray[np.intp]) -> FloatArray:
        return np.asarray((sums[end] - sums[first]) / (end - first)[:, None], np.float64)

    last = tokens[origin - 1]
    columns = [tokens[origin - 2] - last, *(mean(origin - width, origin) - last for width in (3, 6, 24))]
    now, then = origin - 1 - DAY, origin + step - DAY
    day_before = [mean(np.maximum(t - NEAR, 0), t + NEAR + 1) for t in (now, then)]
    return np.hstack([*columns, day_before[1] - day_before[0], day_before[0] - last])


def rows_of(tokens: FloatArray, expected: FloatArray, first: int) -> Iterator[tuple[str, float]]:
    """A row's title and its error over that of the last window, from window ``first`` on.

    Args:
        tokens: float64[windows, clients] of the scenario.
        expected: float64[windows], mean total of other seeds.
        first: first window at whose start forecasts are measured.
    """
    total = tokens.sum(axis=1)
    naive = error(last_window(total), total, first)
    expected_naive = error(last_window(expected), expected, first)
    # The mean of n seeds has noise of its own.
    own_share = math.sqrt(OTHER_SEEDS / (OTHER_SEEDS + 1))

    def ratio(forecast: Forecast) -> float:
        return error(forecast, total, first) / naive

    yield "expected tokens of the window itself", own_share * ratio(truth_ahead(expected))
    yield "last window of expected tokens, of those to come", expected_naive / naive
    for count in (1, 5, 20):
        title = f"last window, and the future of the {count} most changeable client{'s' * (count > 1)}"
        yield title, ratio(foreseen(tokens, count, first))
    yield "`profile-ar`", ratio(profile_ar(total, first))
    smooth = error(profile_ar(expected, first), expected, first) / expected_naive
    yield "`profile-ar` of expected tokens, over their last window", smooth
    for count in (5, 20):
        title = f"`profile-ar` of each of the {count} largest clients"
        yield title, ratio(each_by_itself(tokens, count, first))
    for learn in (linear, trees):
        for count in (0, 5, 20):
            title = f"{learn.__name__} on totals" + (f" and the {count} largest clients" if count else "")
            yield title, ratio(regression(tokens, count, learn, first))


def main() -> None:
    own, *others = (client_tokens(CONFIG.seed + k) for k in range(OTHER_SEEDS + 1))
    expected = np.mean([other.sum(axis=2) for other in others], axis=0)
    columns = []
    for split in ("validation", "test"):
        first, end = measured(split)
        columns += [rows_of(own[field, :end], expected[field, :end], first) for field in (0, 1)]
    for cells in zip(*columns, strict=True):
        print(f"| {cells[0][0]} | {' | '.join(f'{value:.2f}' for _, value in cells)} |", flush=True)


if __name__ == "__main__":
    main()
