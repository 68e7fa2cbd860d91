"""Forecasts on disk: the same as fresh ones, and shared where the past is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.forecasting import Forecaster, ForecastTable, Prediction, make_forecast
from preserve_gym.forecasting import cache as cache_module
from preserve_gym.forecasting.cache import cache_dir, cached_walk
from preserve_gym.forecasting.registry import make_forecaster
from preserve_gym.forecasting.walk_forward import Past, walk_past
from preserve_gym.traces import Trace

HOUR_S = 3600.0
LEVELS = (0.1, 0.9)


def past(parts: int = 6, seed: int = 0) -> Past:
    """So many times 72 hours, after which forecasters are fitted again."""
    hours = 72 * parts
    rng = np.random.default_rng(seed)
    series = 1e5 * np.exp(np.sin(np.arange(hours) / 24 * 2 * np.pi) + 0.1 * rng.standard_normal(hours))
    return Past(series, np.zeros((hours, 1)), 72, 1e5, HOUR_S, 0.0)


def run(
    folder: Path, of: Past, make: Callable[[], Forecaster] | None = None, **options: object
) -> ForecastTable:
    make = make or (lambda: make_forecaster("profile-ar", HOUR_S))
    settings = {"configuration": "profile-ar", "horizon": 2, "levels": LEVELS} | options
    return cached_walk(make, past=of, folder=folder, **settings)  # type: ignore[arg-type]


def same(one: ForecastTable, two: ForecastTable) -> None:
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.quantiles, two.quantiles)  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.fell_back, two.fell_back)
    assert one.failure == two.failure


def never() -> Forecaster:
    raise AssertionError("computed again")


class Interrupted:
    """profile-ar, until somebody presses Ctrl-C."""

    def __init__(self, windows: int) -> None:
        self._model = make_forecaster("profile-ar", HOUR_S)
        self.name, self.min_history = "profile-ar", self._model.min_history
        self.refit_windows = self._model.refit_windows
        self.fit, self._left = self._model.fit, windows

    def predict(self, history: np.ndarray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._model.predict(history, horizon, levels)


def test_what_is_read_is_what_was_computed(tmp_path: Path) -> None:
    fresh = walk_past(make_forecaster("profile-ar", HOUR_S), past(), 2, LEVELS)
    same(run(tmp_path, past()), fresh)
    assert len(list(tmp_path.rglob("*.npz"))) == 6
    same(run(tmp_path, past(), never), fresh)


@pytest.mark.slow
def test_a_part_computed_alone_is_the_same(tmp_path: Path) -> None:
    def make() -> Forecaster:
        return make_forecaster("trees", HOUR_S)

    fresh = run(tmp_path, past(), make, configuration="trees")
    # Each other part is computed again, from a fit of its own.
    for path in list(tmp_path.rglob("*.npz"))[::2]:
        path.unlink()
    same(run(tmp_path, past(), make, configuration="trees"), fresh)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, past(), lambda: Interrupted(180))
    kept = set(tmp_path.rglob("*"))
    assert sum(path.suffix == ".npz" for path in kept) == 3
    same(run(tmp_path, past()), walk_past(make_forecaster("profile-ar", HOUR_S), past(), 2, LEVELS))
    assert not list(tmp_path.rglob("*.part"))


def test_parts_that_nobody_wants_are_skipped(tmp_path: Path) -> None:
    fresh = walk_past(make_forecaster("profile-ar", HOUR_S), past(), 2, LEVELS)
    for _ in range(2):
        table = run(tmp_path, past(), wanted_from=300)
        assert len(list(tmp_path.rglob("*.npz"))) == 2
        same(table, walk_past(make_forecaster("profile-ar", HOUR_S), past(), 2, LEVELS, wanted_from=300))
        np.testing.assert_array_equal(table.mean[288:], fresh.mean[288:])
        assert not table.fell_back.any()
        # The day before.
        np.testing.assert_array_equal(table.mean[24:288, 0], past().series[:264])
    same(run(tmp_path, past()), fresh)


def test_a_broken_file_is_computed_again(tmp_path: Path) -> None:
    fresh = run(tmp_path, past())
    files = sorted(tmp_path.rglob("*.npz"))
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:100])
    files[2].write_bytes(b"not an archive")
    np.savez(files[3], mean=np.zeros((1, 1)), quantiles=np.zeros(1), fell_back=np.zeros(1), failure="")
    np.savez(files[4], mean=np.zeros((72, 2)))
    same(run(tmp_path, past()), fresh)
    same(run(tmp_path, past(), never), fresh)


def test_parts_with_the_same_past_are_shared(tmp_path: Path) -> None:
    run(tmp_path, past(4))
    longer = past()
    run(tmp_path, longer)
    # The random numbers of the first four parts are the same, so only two are new.
    assert len(list(tmp_path.rglob("*.npz"))) == 6
    changed = longer.series.copy()
    changed[-1] += 1.0  # no forecast reads the last window
    run(tmp_path, Past(changed, longer.pending, 72, 1e5, HOUR_S, 0.0), never)
    changed[220] += 1.0
    run(tmp_path, Past(changed, longer.pending, 72, 1e5, HOUR_S, 0.0))
    assert len(list(tmp_path.rglob("*.npz"))) == 9


@pytest.mark.parametrize(
    "change", ["configuration", "horizon", "levels", "train", "prior", "clock", "pending", "code"]
)
def test_whatever_a_forecast_depends_on_is_in_its_name(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = past(1)
    run(tmp_path, base)
    options: dict[str, object] = {}
    late = base.pending + (change == "pending")
    other = Past(
        base.series,
        late,
        73 if change == "train" else 72,
        2e5 if change == "prior" else 1e5,
        HOUR_S,
        60.0 if change == "clock" else 0.0,
    )
    if change == "code":
        monkeypatch.setattr(cache_module, "_code", lambda: "another")
    elif change in ("configuration", "horizon", "levels"):
        options = {change: {"configuration": "profile-ar-2", "horizon": 3, "levels": (0.1, 0.8)}[change]}
    run(tmp_path, other, **options)
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_without_a_place_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    fresh = run(tmp_path / "file", past())
    assert fresh.mean.shape == (432, 2)


def test_the_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRESERVE_GYM_FORECASTS", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("PRESERVE_GYM_FORECASTS")
    assert cache_dir().parts[-2:] == ("preserve_gym", "forecasts")


def test_forecasts_of_a_trace_are_cached_but_those_of_instant_ones(tmp_path: Path) -> None:
    hours = np.arange(120)
    trace = Trace(hours * HOUR_S, 100 + hours % 24, 10 + hours % 24, span_s=120 * HOUR_S)
    first = make_forecast("profile-ar", trace, HOUR_S, 2, levels=LEVELS, cache_dir=tmp_path)
    assert len(list(tmp_path.rglob("*.npz"))) == 4
    again = make_forecast("profile-ar", trace, HOUR_S, 2, levels=LEVELS, cache_dir=tmp_path)
    np.testing.assert_array_equal(first.prompt_tokens, again.prompt_tokens)
    np.testing.assert_array_equal(first.output_quantiles, again.output_quantiles)  # type: ignore[arg-type]
    assert again.fallbacks == first.fallbacks > 0
    make_forecast("seasonal-naive", trace, HOUR_S, 2, cache_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("levels", [(0.0,), (0.5, 0.1), (0.5, 0.5), (1.5,)])
def test_bad_levels_are_named(levels: tuple[float, ...]) -> None:
    trace = Trace([0.0], [1], [1])
    with pytest.raises(InputError, match=r"levels: expected ascending numbers in \(0, 1\)"):
        make_forecast("drift", trace, HOUR_S, 2, levels=levels)
