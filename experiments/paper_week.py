"""PreServe's scaling experiment as far as its set-up is known: a week of two services each, squeezed.

Known (arXiv 2504.03702 and its artifact): eight slots, Azure's weeks of 2024, 24 times as fast, two hours,
the first half trains, cold start, instance profile, SLO. Not known: the sampling, see ``Service.sampled``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.paper_calibration import WITH_PROMPTS
from preserve_gym import ClusterConfig, Trace, Workload, WorkloadConfig, load_trace
from preserve_gym.errors import InputError
from preserve_gym.forecasting import Forecaster, WorkloadForecast, make_forecast
from preserve_gym.forecasting.pending import pending_tokens
from preserve_gym.forecasting.walk_forward import Past
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.traces.azure_2024 import ten_minute_counts
from preserve_gym.traces.dataset_files import dataset_path

SLOTS = 8
SQUEEZE = 24.0
RECORDED_WINDOW_S = 600.0
WINDOW_S = RECORDED_WINDOW_S / SQUEEZE
FITTED_WINDOWS = 504
"""Half of the week: what forecasters are trained on; what is played begins there."""
START_S = FITTED_WINDOWS * WINDOW_S
_HORIZON = 3  # windows: the artifact looks 20 s ahead, a cold start takes up to 30 s
_UNFINISHED_S = 60.0 * SQUEEZE  # as elsewhere, on the clock that is played

FORECASTS = ("oracle", "noisy", "lstm-overlap", "lstm", "profile-ar", "naive")
"""What policies are told of the load; the first three know the future."""
LEARNED = ("lstm-overlap", "lstm", "profile-ar")
"""Those that are fitted."""


@dataclass(frozen=True)
class Service:
    """A service of the experiment, and what belongs to it.

    Attributes:
        name: ``code`` or ``conv``.
        cold_start_s: s.
        profile: what one instance serves, as the policies believe.
        sampled: one request of so many is served, so that the mean need is four instances.
        prompt_ape, output_ape: mean absolute percentage errors of PreServe's forecaster, as fractions.
        high_kv_use, low_kv_use: of the reactive baseline. Its two settings are known, not which is whose (M).
        low_use: of the artifact's Tier 2.
    """

    name: str
    cold_start_s: float
    profile: InstanceProfile
    sampled: float
    prompt_ape: float
    output_ape: float
    high_kv_use: float
    low_kv_use: float
    low_use: float

    @property
    def trace(self) -> str:
        """Name of its trace."""
        return f"azure-2024-{self.name}-from-10min"

    def cluster(self) -> ClusterConfig:
        """Up to eight of the instances of the routing experiment."""
        return dataclasses.replace(
            WITH_PROMPTS.cluster(),
            min_instances=1,
            max_instances=SLOTS,
            cold_start_s=self.cold_start_s,
            too_long="clip_prompt",
        )

    def recorded(self, seed: int) -> Trace:
        """The week, sampled, on its own clock; prompts are clipped to what the model has room for."""
        trace = load_trace(self.trace, seed, 1.0 / self.sampled)
        room = WITH_PROMPTS.cluster().instance.max_model_len - trace.output_tokens
        return dataclasses.replace(trace, prompt_tokens=np.minimum(trace.prompt_tokens, room))


def _profile(prompt: float, output: float, total: float, requests: float) -> InstanceProfile:
    return InstanceProfile(requests, prompt, output, total, in_flight=np.nan, unloaded_attainment=1.0,
                           unloaded_e2e_s=np.nan)  # fmt: skip


_CODE = Service("code", 20.0, _profile(3400.0, 215.0, 3500.0, 1.58), 137.0, 0.0774, 0.0845, 0.92, 0.1, 0.2)
_CONV = Service("conv", 30.0, _profile(1900.0, 205.0, 2100.0, 1.29), 235.0, 0.0415, 0.0430, 0.9, 0.2, 0.15)
PROFILES: dict[str, dict[str, Service]] = {
    "artifact": {"code": _CODE, "conv": _CONV},
    "measured": {
        "code": dataclasses.replace(_CODE, profile=_profile(420.0, 3.63, 424.0, 0.202), sampled=1418.0),
        "conv": dataclasses.replace(_CONV, profile=_profile(1684.0, 122.5, 1807.0, 1.131), sampled=285.0),
    },
}
"""Services by instance profile and name: the artifact's profile, or ours of the calibrated instance."""


class Week(Workload):
    """The second part of a service's week, squeezed, as the experiment plays it.

    Forecasts are made on the week's own clock, from windows of 10 minutes, where a day is a day: so whoever
    knows the time of day still does when time is squeezed.

    Args:
        service: whose week.
        seed: of the requests, and of the errors of predictions.
        horizon_s: how much is played.
        outputs: output tokens to serve in place of the true ones, int32[n]; None: the true ones.

    Attributes:
        service: whose week.
        recorded: the sampled week on its own clock.
    """

    def __init__(
        self, service: Service, seed: int, horizon_s: float = 7200.0, outputs: NDArray[np.int32] | None = None
    ) -> None:
        self.service = service
        self.recorded = service.recorded(seed)
        if outputs is not None:
            self.recorded = dataclasses.replace(self.recorded, output_tokens=outputs)
        self._forecasts: dict[tuple[str, str], WorkloadForecast] = {}
        config = WorkloadConfig(
            trace=service.trace,
            transforms=({"kind": "squeeze-time", "factor": SQUEEZE},),  # type: ignore[arg-type]
            seed=seed,
            warmup_s=0.0,
            start_s=START_S,
            horizon_s=horizon_s,
            window_s=WINDOW_S,
            forecast_windows=_HORIZON,
            forecaster="naive",
        )
        super().__init__(config, self.recorded)

    def profile(self, cluster: ClusterConfig) -> InstanceProfile:
        """That of the service."""
        return self.service.profile

    @property
    def scored_windows(self) -> slice:
        """Forecast windows that are played."""
        return slice(FITTED_WINDOWS, FITTED_WINDOWS + round((self.config.horizon_s or 0.0) / WINDOW_S))

    def need(self) -> NDArray[np.float64]:
        """Instances that each played window needs, not rounded, float64[k]."""
        prompt, output = (tokens[self.scored_windows] for tokens in self.trace.window_tokens(WINDOW_S))
        return np.asarray(self.service.profile.need(prompt / WINDOW_S, output / WINDOW_S), np.float64)

    def forecast_by(self, forecaster: str | Forecaster) -> WorkloadForecast:
        """As ``Workload``, by one of ``FORECASTS``.

        Raises:
            InputError: on an unknown name.
        """
        if not isinstance(forecaster, str) or forecaster not in FORECASTS:
            raise InputError(f"forecast: expected one of {', '.join(FORECASTS)}, got {forecaster!r}")
        key = (forecaster, self.config.predictor)
        if key not in self._forecasts:
            if forecaster.startswith("lstm"):
                made = self._learned(overlap=forecaster == "lstm-overlap")
            else:
                made = self._forecast(forecaster)
            self._forecasts[key] = dataclasses.replace(made, window_s=WINDOW_S)
        return self._forecasts[key]

    def _forecast(self, forecaster: str) -> WorkloadForecast:
        half_s = FITTED_WINDOWS * RECORDED_WINDOW_S
        prompt, output = self._fitted_mean()
        return make_forecast(
            forecaster,
            self.recorded,
            RECORDED_WINDOW_S,
            _HORIZON,
            prior=(prompt, output),
            train_s=half_s,
            predicted_tokens=self.predicted_tokens,
            unfinished_s=_UNFINISHED_S,
            prompt_mape=self.service.prompt_ape,
            output_mape=self.service.output_ape,
            seed=self.config.seed,
            wanted_from_s=half_s if forecaster == "profile-ar" else 0.0,
        )

    def _fitted_mean(self) -> tuple[float, float]:
        prompt, output = self.recorded.window_tokens(RECORDED_WINDOW_S)
        return float(prompt[:FITTED_WINDOWS].mean()), float(output[:FITTED_WINDOWS].mean())

    def _learned(self, overlap: bool) -> WorkloadForecast:
        """The artifact's LSTM, trained once on the first half, or on what is played as well."""
        pending = pending_tokens(self.recorded, self.predicted_tokens, RECORDED_WINDOW_S, _UNFINISHED_S)
        none = np.zeros((len(pending), 0))
        end = self.scored_windows.stop if overlap else FITTED_WINDOWS
        made = []
        for tokens, mean, unfinished in zip(
            self.recorded.window_tokens(RECORDED_WINDOW_S), self._fitted_mean(), (none, pending), strict=True
        ):
            past = Past(tokens, unfinished, FITTED_WINDOWS, mean, RECORDED_WINDOW_S, self.recorded.clock_s)
            made.append(lstm_rows(past, end, self.scored_windows, self.config.seed))
        return WorkloadForecast(RECORDED_WINDOW_S, made[0], made[1], "lstm", uses_future=overlap)

    def forecast_errors(self, forecasts: Sequence[str] = FORECASTS) -> dict[str, tuple[float, float]]:
        """Mean absolute percentage errors of both kinds of tokens of the window that begins, by forecast.

        ``expected`` is one that knows the recording before it was sampled: about the least error possible.
        Windows without tokens are left out.
        """
        true = self.recorded.window_tokens(RECORDED_WINDOW_S)
        columns_of = {"expected": self._expected()}
        for name in forecasts:
            made = self.forecast_by(name)
            columns_of[name] = (made.prompt_tokens[:, 0], made.output_tokens[:, 0])
        rows = self.scored_windows
        errors = {}
        for name, columns in columns_of.items():
            prompt, output = (
                _absolute_error(column[rows], tokens[rows])
                for column, tokens in zip(columns, true, strict=True)
            )
            errors[name] = (100.0 * prompt, 100.0 * output)
        return errors

    def _expected(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counts = ten_minute_counts(dataset_path("azure-2024-10min"), self.service.name)
        columns = []
        for mean, tokens in zip(
            (counts.prompt_mean, counts.output_mean),
            self.recorded.window_tokens(RECORDED_WINDOW_S),
            strict=True,
        ):
            assert mean is not None
            whole = counts.requests * mean
            columns.append(whole * tokens.sum() / whole.sum())
        return columns[0], columns[1]


def _absolute_error(forecast: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    some = true > 0.0
    return float(np.mean(np.abs(forecast[some] / true[some] - 1.0)))


def lstm_rows(past: Past, fitted_windows: int, rows: slice, seed: int) -> NDArray[np.float64]:
    """Forecasts of a series by the artifact's LSTM, float64[n, horizon].

    Args:
        past: the series.
        fitted_windows: windows that it is trained on, once.
        rows: windows at whose start it forecasts; the other rows repeat the window before.
        seed: of its first weights.
    """
    import torch

    from preserve_gym.forecasting.recurrent import ArtifactLstmForecaster

    forecaster = ArtifactLstmForecaster(seed, quantiles=False)
    histories = [past.before(window) for window in range(rows.start, rows.stop)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network is slower with more, and weeks share the cores already
    try:
        forecaster.fit(past.before(min(fitted_windows, len(past.series) - 1)), 0, past.window_s, past.clock_s)
        made = forecaster.predict_many(histories, _HORIZON)
    finally:
        torch.set_num_threads(threads)
    mean = np.repeat(np.append(past.prior, past.series[:-1])[:, None], _HORIZON, axis=1)
    mean[rows] = np.maximum([prediction.mean for prediction in made], 0.0)
    return mean
