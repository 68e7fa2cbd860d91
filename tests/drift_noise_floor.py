"""Why no forecaster beats the last window by much on the scenario drift, as docs/forecasting.md records it.

Run as ``python -m tests.drift_noise_floor`` with the data folder in ``PRESERVE_GYM_DATA``: some minutes.
The scenario is generated again client by client, and with other seeds. Their mean is close to what the
published windows of the clients make one expect; what a seed differs by from it is noise of counts and
lengths. Figures are mean absolute errors over the next six windows of the test days, over that of the last
window, of prompt and output tokens.
"""

from __future__ import annotations

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

FloatArray = NDArray[np.float64]

CONFIG = load_scenario("drift").workload
WINDOW_S = CONFIG.window_s
DAY = day_lag(1, WINDOW_S)
HORIZON = 6
OTHER_SEEDS = 4
NEAR = 3  # windows to each side over which the day before is smoothed
Forecast = FloatArray
"""float64[windows, HORIZON], row k made at the start of window k; rows before the test days are not read."""


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


def tested_windows(count: int) -> range:
    """Windows at whose start forecasts are measured: as in ``experiments.predict``."""
    assert CONFIG.split_s is not None
    return range(round((CONFIG.split_s[1] + CONFIG.split_gap_s) / WINDOW_S), count)


def error(forecast: Forecast, truth: FloatArray) -> float:
    """Mean absolute error over the test windows and all steps that the recording covers."""
    rows = np.array(tested_windows(len(truth)))[:, None]
    ahead = rows + np.arange(HORIZON)
    inside = ahead < len(truth)
    return float(np.abs(truth[ahead[inside]] - forecast[rows[:, 0]][inside]).mean())


def last_window(series: FloatArray) -> Forecast:
    return np.repeat(np.append(series[0], series[:-1])[:, None], HORIZON, axis=1)


def truth_ahead(series: FloatArray) -> Forecast:
    longer = np.append(series, np.full(HORIZON - 1, series[-1]))
    return np.lib.stride_tricks.sliding_window_view(longer, HORIZON)


def profile_ar(series: FloatArray) -> Forecast:
    past = Past(series, np.zeros((len(series), 0)), len(series), float(series[0]), WINDOW_S, 0.0)
    return walk_past(ProfileAR(WINDOW_S), past, HORIZON, wanted_from=tested_windows(len(series)).start).mean


def largest(tokens: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """The tokens of the largest clients before the test days, and of the others: [windows, clients] each."""
    order = np.argsort(-tokens[: tested_windows(len(tokens)).start].sum(axis=0), kind="stable")
    return tokens[:, order[:count]], tokens[:, order[count:]]


def each_by_itself(tokens: FloatArray, count: int) -> Forecast:
    """``profile_ar`` of each of the largest clients and of the others together, summed."""
    those, others = largest(tokens, count)
    parts = [*those.T, others.sum(axis=1)]
    return np.sum([profile_ar(np.ascontiguousarray(part)) for part in parts], axis=0)


def foreseen(tokens: FloatArray, count: int) -> Forecast:
    """The last window, with what the clients will send whose changes from window to window were largest."""
    before = tokens[: tested_windows(len(tokens)).start]
    order = np.argsort(-np.abs(np.diff(before, axis=0)).mean(axis=0), kind="stable")
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


def regression(tokens: FloatArray, count: int, learn: Learner) -> Forecast:
    """The relative change of the total, from the recent tokens of each of the largest clients and of all.

    Each step ahead has a model of its own, fitted anew each day on all the past.
    """
    those, others = largest(tokens, count)
    total = tokens.sum(axis=1)
    known = np.column_stack([those, others.sum(axis=1), total])
    forecast = last_window(total)
    origin = np.arange(first_row(WINDOW_S), len(total))
    level = total[origin - 1]
    for step in range(HORIZON):
        rows = client_features(known, origin, step) / level[:, None]
        ahead = np.minimum(origin + step, len(total) - 1)
        change = (total[ahead] - level) / level
        for first in range(tested_windows(len(total)).start // DAY * DAY, len(total), DAY):
            closed, today = origin + step < first, (first <= origin) & (origin < first + DAY)
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


def rows_of(field: int, own: FloatArray, others: list[FloatArray]) -> Iterator[tuple[str, float]]:
    """A row's title and its error over that of the last window.

    Args:
        field: 0 for prompt tokens, 1 for output tokens.
        own: ``client_tokens`` of the scenario's seed.
        others: those of other seeds.
    """
    tokens = own[field]
    total = tokens.sum(axis=1)
    expected = np.mean([other[field].sum(axis=1) for other in others], axis=0)
    naive = error(last_window(total), total)
    # The mean of n seeds has noise of its own.
    own_share = np.sqrt(len(others) / (len(others) + 1))
    yield (
        "expected tokens of the window (clients' published windows are known)",
        (own_share * error(truth_ahead(expected), total) / naive),
    )
    yield "last window, of expected tokens", error(last_window(expected), expected) / naive
    yield (
        "last window, and the future of the 1 most changeable client",
        error(foreseen(tokens, 1), total) / naive,
    )
    for count in (5, 20):
        title = f"last window, and the future of the {count} most changeable clients"
        yield title, error(foreseen(tokens, count), total) / naive
    yield "profile-ar", error(profile_ar(total), total) / naive
    yield (
        "profile-ar of expected tokens, over their last window",
        (error(profile_ar(expected), expected) / error(last_window(expected), expected)),
    )
    for count in (5, 20):
        yield f"profile-ar of each of {count} clients", error(each_by_itself(tokens, count), total) / naive
        for learn in (linear, trees):
            title = f"{learn.__name__} regression on {count} clients"
            yield title, error(regression(tokens, count, learn), total) / naive


def main() -> None:
    own, *others = (client_tokens(CONFIG.seed + k) for k in range(OTHER_SEEDS + 1))
    both = (rows_of(field, own, others) for field in (0, 1))
    for (title, prompt), (_, output) in zip(*both, strict=True):
        print(f"| {title} | {prompt:.2f} | {output:.2f} |", flush=True)


if __name__ == "__main__":
    main()
