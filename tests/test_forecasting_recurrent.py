from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.forecasting.mlstm import mlstm_hidden, mlstm_layers
from preserve_gym.forecasting.recurrent import (
    ArtifactLstmForecaster,
    ArtifactMlstmForecaster,
    LstmForecaster,
    MlstmForecaster,
    RecurrentForecaster,
)
from preserve_gym.forecasting.recurrent_network import ARCHITECTURES, Training
from preserve_gym.forecasting.recurrent_scaling import LevelScaling, RatioScaling

torch = pytest.importorskip("torch")

TINY = Training(hidden=8, epochs=2)
WINDOW_S = 600.0
FORECASTERS = (LstmForecaster, MlstmForecaster, ArtifactLstmForecaster, ArtifactMlstmForecaster)


def daily(days: float, seed: int = 0, noise: float = 0.05) -> np.ndarray:
    """A load that is four times as high at noon as at midnight, at windows of ten minutes."""
    window = np.arange(round(days * 144))
    level = 5e5 * (1.0 - 0.6 * np.cos(2.0 * np.pi * window / 144))
    return level * np.exp(noise * np.random.default_rng(seed).standard_normal(len(window)))


def fitted(kind: type[RecurrentForecaster], series: np.ndarray, seed: int = 0) -> RecurrentForecaster:
    forecaster = kind(seed, TINY)
    forecaster.fit(series, 0, WINDOW_S, 0.0)
    return forecaster


def projection(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def naive_mlstm(cell: torch.nn.ModuleDict, sequence: np.ndarray, *, stabilised: bool) -> np.ndarray:
    """Equations 19 to 27 of arXiv 2405.04517 step by step, one head at a time; h of every step."""
    heads = cell["input_gate"].out_features
    size = cell["query"].out_features // heads
    hidden = np.zeros((len(sequence), heads, size))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        memory, normaliser, stabiliser = np.zeros((size, size)), np.zeros(size), 0.0
        for t, x in enumerate(sequence):
            query = projection(cell["query"], x)[part]
            key = projection(cell["key"], x)[part] / np.sqrt(size)
            value = projection(cell["value"], x)[part]
            log_input = projection(cell["input_gate"], x)[head]
            log_forget = np.log(sigmoid(projection(cell["forget_gate"], x)[head]))
            before, least = 0.0, 1.0
            if stabilised:
                before, stabiliser = stabiliser, max(log_forget + stabiliser, log_input)
                least = np.exp(-stabiliser)
            forget = np.exp(log_forget + before - stabiliser)
            gate = np.exp(log_input - stabiliser)
            memory = forget * memory + gate * np.outer(value, key)
            normaliser = forget * normaliser + gate * key
            hidden[t, head] = memory @ query / max(abs(normaliser @ query), least)
    return sigmoid(projection(cell["output_gate"], sequence)) * hidden.reshape(len(sequence), -1)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_mlstm_cell_is_that_of_the_paper(heads: int, scale: float) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(heads)
        cell = mlstm_layers(5, 8, heads).double()
        # Gates that vary, some of them closed, so that every term of the equations counts.
        for gate in (cell["input_gate"], cell["forget_gate"]):
            torch.nn.init.normal_(gate.weight, std=scale)
            torch.nn.init.normal_(gate.bias, std=scale)
        sequence = torch.randn(30, 5, dtype=torch.float64)
    with torch.no_grad():
        found = np.stack(
            [mlstm_hidden(cell, sequence[None, : t + 1])[0].numpy() for t in range(len(sequence))]
        )
    for stabilised in (False, True):
        expected = naive_mlstm(cell, sequence.numpy(), stabilised=stabilised)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_mlstm_gate_does_not_overflow() -> None:
    cell = mlstm_layers(3, 4, 1)
    with torch.no_grad():
        cell["input_gate"].bias.fill_(800.0)
        hidden = mlstm_hidden(cell, torch.ones(1, 10, 3))
        with np.errstate(all="ignore"):
            assert not np.isfinite(naive_mlstm(cell, np.ones((10, 3)), stabilised=False)).all()
    assert torch.isfinite(hidden).all()
    expected = naive_mlstm(cell, np.ones((10, 3)), stabilised=True)[-1:]
    np.testing.assert_allclose(hidden.numpy(), expected, rtol=1e-4)


def test_mlstm_network_uses_every_window() -> None:
    network = ARCHITECTURES["mlstm"]
    inputs = torch.zeros(1, 25, 2, requires_grad=True)
    network.outputs(network.layers(2, 8, 1), inputs).sum().backward()
    assert (inputs.grad[0].abs().sum(1) > 0).all()


@pytest.mark.parametrize("kind", FORECASTERS)
def test_predictions_have_their_shapes(kind: type[RecurrentForecaster]) -> None:
    series = daily(2)
    forecaster = fitted(kind, series[:200])
    assert (forecaster.min_history, forecaster.refit_windows) == (25, None)
    for horizon in (1, 6, 8, 60):
        plain = forecaster.predict(series[:230], horizon)
        assert plain.quantiles is None
        made = forecaster.predict(series[:230], horizon, (0.1, 0.5, 0.9))
        np.testing.assert_array_equal(made.mean, plain.mean)
        assert made.mean.shape == (horizon,)
        assert made.mean.dtype == np.float64
        assert made.quantiles is not None
        assert made.quantiles.shape == (3, horizon)
        assert (np.diff(made.quantiles, axis=0) >= 0).all()
        assert (np.diff(made.quantiles[:, 0]) > 0).all()
        assert (made.mean >= 0).all()
    np.testing.assert_array_equal(
        forecaster.predict(series[:230], 6).mean, forecaster.predict(series[:230], 60).mean[:6]
    )


@pytest.mark.parametrize("kind", FORECASTERS)
def test_one_by_one_and_together_are_equal_to_the_bit(kind: type[RecurrentForecaster]) -> None:
    series = daily(2)
    forecaster = fitted(kind, series[:200])
    histories = [series[:n] for n in range(25, len(series))]
    together = forecaster.predict_many(histories, 7, (0.2, 0.8))
    for at in (0, 1, 63, 64, 130, len(histories) - 1):
        alone = forecaster.predict(histories[at], 7, (0.2, 0.8))
        np.testing.assert_array_equal(alone.mean, together[at].mean)
        np.testing.assert_array_equal(alone.quantiles, together[at].quantiles)
    assert forecaster.predict_many([], 7) == []


@pytest.mark.parametrize("kind", FORECASTERS)
def test_further_ahead_it_goes_on_from_its_own_forecasts(kind: type[RecurrentForecaster]) -> None:
    series = daily(1.5)
    forecaster = fitted(kind, series)
    far = forecaster.predict(series, 18).mean
    known = np.append(series, far[:12])
    np.testing.assert_array_equal(forecaster.predict(known, 6).mean, far[12:])


@pytest.mark.parametrize("kind", FORECASTERS)
def test_seeds(kind: type[RecurrentForecaster]) -> None:
    series = daily(1.5)
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = fitted(kind, series).predict(series, 6, (0.5,))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(6)
    again, other = (fitted(kind, series, seed).predict(series, 6, (0.5,)) for seed in (0, 1))
    np.testing.assert_array_equal(first.mean, again.mean)
    np.testing.assert_array_equal(first.quantiles, again.quantiles)
    assert not np.array_equal(first.mean, other.mean)


@pytest.mark.parametrize("kind", FORECASTERS)
def test_saved_and_loaded(kind: type[RecurrentForecaster], tmp_path: Path) -> None:
    series = daily(2)
    forecaster = kind(3, TINY)
    forecaster.fit(series[30:], 30, WINDOW_S, 3600.0)
    forecaster.save(tmp_path / "f.pt")
    loaded = kind.load(tmp_path / "f.pt")
    for horizon in (6, 9):
        expected, found = (f.predict(series[30:100], horizon, (0.1, 0.9)) for f in (forecaster, loaded))
        np.testing.assert_array_equal(found.mean, expected.mean)
        np.testing.assert_array_equal(found.quantiles, expected.quantiles)
    assert (loaded.seed, loaded.training) == (3, TINY)
    other = MlstmForecaster if kind is LstmForecaster else LstmForecaster
    with pytest.raises(InputError, match=f"name: expected a forecaster '{other.name}', got '{kind.name}'"):
        other.load(tmp_path / "f.pt")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.pt"
    for content in (b"", b"not a forecaster", b"PK\x03\x04 broken", bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(InputError, match="another kind of file"):
            LstmForecaster.load(path)
    for saved in ({"format": "other"}, [1, 2], {"weights": torch.zeros(2)}):
        torch.save(saved, path)
        with pytest.raises(InputError, match="another kind of file"):
            LstmForecaster.load(path)
    torch.save(Path("a class that weights_only refuses"), path)
    with pytest.raises(InputError, match="another kind of file"):
        LstmForecaster.load(path)
    with pytest.raises(InputError, match="expected a file that can be read"):
        LstmForecaster.load(tmp_path / "missing.pt")


def test_without_quantiles() -> None:
    """The same forecasts, and nothing but them."""
    series = daily(2)
    plain = ArtifactLstmForecaster(0, TINY, quantiles=False)
    plain.fit(series[:200], 0, WINDOW_S, 0.0)
    made = plain.predict(series[:230], 3, (0.1, 0.9))
    assert made.quantiles is None
    expected = fitted(ArtifactLstmForecaster, series[:200]).predict(series[:230], 3)
    np.testing.assert_array_equal(made.mean, expected.mean)


@pytest.mark.parametrize("kind", FORECASTERS)
def test_short_series(kind: type[RecurrentForecaster]) -> None:
    series = daily(1)
    with pytest.raises(InputError, match="history: expected at least 26 windows, got shape \\(25,\\)"):
        fitted(kind, series[:25])
    for count in (26, 27, 30, 36, 40):
        made = fitted(kind, series[:count]).predict(series[:count], 8, (0.3, 0.7))
        assert np.isfinite(made.mean).all()
        assert (made.quantiles is None) == (count == 26)
        assert made.quantiles is None or np.isfinite(made.quantiles).all()


def test_bad_input() -> None:
    series = daily(1)
    for bad in (np.nan, np.inf, -1.0):
        with pytest.raises(InputError, match="window 40: expected a finite number >= 0"):
            fitted(LstmForecaster, np.where(np.arange(144) == 40, bad, series))
    for constant in (0.0, 7.0):
        with pytest.raises(ArithmeticError, match="constant series"):
            fitted(LstmForecaster, np.full(100, constant))
    with pytest.raises(InputError, match="expected fit or load"):
        LstmForecaster(0, TINY).predict(series, 6)
    with pytest.raises(InputError, match="expected fit before save"):
        LstmForecaster(0, TINY).save("unused")
    with pytest.raises(InputError, match="seed"):
        LstmForecaster(-1)
    forecaster = fitted(LstmForecaster, series)
    with pytest.raises(InputError, match="at least 25 windows"):
        forecaster.predict(series[:24], 6)
    with pytest.raises(InputError, match="horizon"):
        forecaster.predict(series, 0)
    with pytest.raises(InputError, match="levels"):
        forecaster.predict(series, 6, (0.5, 1.0))


def test_training_that_diverges_is_refused() -> None:
    forecaster = ArtifactLstmForecaster(0, Training(hidden=8, epochs=3, learning_rate=1e30))
    with pytest.raises(ArithmeticError, match="loss after epoch 1: nan"):
        forecaster.fit(daily(1), 0, WINDOW_S, 0.0)


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"PyTorch is missing: pip install 'preserve-gym\[rl\]"):
        LstmForecaster()


@pytest.mark.parametrize("kind", FORECASTERS)
def test_silence_and_loads_never_seen(kind: type[RecurrentForecaster]) -> None:
    series = daily(2)
    series[100:184] = 0.0
    forecaster = fitted(kind, series)
    for history in (series[:184], 100.0 * series, np.zeros(30)):
        made = forecaster.predict(history, 12, (0.05, 0.95))
        assert np.isfinite(made.mean).all()
        assert made.quantiles is not None
        assert np.isfinite(made.quantiles).all()
        assert (made.quantiles >= 0).all()


def test_ratios_do_not_depend_on_the_level() -> None:
    series = daily(3)
    forecaster = fitted(LstmForecaster, series[:288])
    # Nearly: the offset of the logarithms stays.
    once, tenfold = (forecaster.predict(k * series, 6).mean for k in (1.0, 10.0))
    np.testing.assert_allclose(tenfold, 10.0 * once, rtol=0.03)


def test_time_of_day_is_that_of_the_window() -> None:
    series = daily(2)
    later = LstmForecaster(0, TINY)
    later.fit(series, 50, WINDOW_S, 0.0)
    clock = LstmForecaster(0, TINY)
    clock.fit(series, 0, WINDOW_S, 50 * WINDOW_S)
    np.testing.assert_array_equal(later.predict(series, 6).mean, clock.predict(series, 6).mean)
    other = fitted(LstmForecaster, series)
    assert not np.array_equal(later.predict(series, 6).mean, other.predict(series, 6).mean)


def test_scalings_undo_themselves() -> None:
    series = daily(2)
    windows, future = series[None, :25], series[None, 25:31]
    ratios = RatioScaling.fit(series, WINDOW_S, 0.0)
    np.testing.assert_allclose(ratios.tokens(windows, ratios.targets(windows, future)), future, rtol=1e-5)
    assert ratios.inputs(windows, np.array([25])).shape == (1, 25, RatioScaling.features)
    limit = ratios.tokens(windows, np.full((1, 6), 1e6, np.float32))
    assert (limit < 10 * series.max()).all()
    levels = LevelScaling.fit(series, WINDOW_S, 0.0)
    np.testing.assert_allclose(
        levels.tokens(windows, levels.targets(windows, 3.0 * future[:, :1])), 3.0 * future[:, :1], rtol=1e-5
    )
    assert 0.0 <= levels.inputs(series[None], np.array([288])).min() <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LstmForecaster, MlstmForecaster])
def test_learns_a_daily_cycle(kind: type[RecurrentForecaster]) -> None:
    series = daily(7)
    train, horizon = 4 * 144, 6
    forecaster = kind(0)
    forecaster.fit(series[:train], 0, WINDOW_S, 0.0)
    origins = range(train, len(series) - horizon + 1)
    made = forecaster.predict_many([series[:n] for n in origins], horizon, (0.1, 0.9))
    actual = np.stack([series[n : n + horizon] for n in origins])
    mean = np.stack([p.mean for p in made])
    naive = series[np.array(origins) - 1][:, None]
    assert np.abs(mean - actual).mean() < 0.6 * np.abs(naive - actual).mean()
    quantiles = np.stack([p.quantiles for p in made if p.quantiles is not None])
    inside = (actual >= quantiles[:, 0]) & (actual <= quantiles[:, 1])
    assert 0.7 < inside.mean() < 0.92
