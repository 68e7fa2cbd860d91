"""Azure's LLM services of May 2024: a week each, generated from published sums.

The requests themselves are public but large (16.8 and 27.3 million rows); ``load_trace("azure-2024-conv")``
reads them where they are. Here the week is generated from two small files:

* ``azure-2024-hourly``: exact requests of each service and hour, exact tokens of both services together
  (an aggregate);
* ``azure-2024-10min``: the same hours divided into 10-minute windows and between the services after
  published figures (an estimate).

Source of both: AzureLLMInferenceDataset2024 (Stojkovic et al., "DynamoLLM", HPCA 2025; CC BY 4.0). The
figures in ``SERVICES`` are fitted to them and to the services of 2023 by ``tests/fit_azure_2024.py``, which a
test runs again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from preserve_gym.traces.length_mix import LengthMix
from preserve_gym.traces.modulation import ArrivalPattern, Modulation
from preserve_gym.traces.trace import Trace
from preserve_gym.traces.window_counts import WindowCounts

# The weekday (0 is Monday) on which each service's recording starts; hours of the file are UTC + 4.
_FIRST_DAY = {"conv": 6, "code": 4}
_FILE_ZONE = pd.Timedelta(hours=4)
_DRAWN = "where a request lies in it and its tokens are drawn"
_HOURLY_NOTE = f"generated from the count of each hour (an aggregate); {_DRAWN}"
_10MIN_NOTE = f"generated from an estimate of the count of each 10 minutes; {_DRAWN}"


@dataclass(frozen=True)
class Service:
    """What is known of a service besides its counts.

    Attributes:
        pattern: how its rate moves inside 10 minutes.
        slow: how it moves from ten minutes to ten minutes within an hour.
        lengths: of its requests.
        prompt_mean, output_mean: mean tokens of a request over the week.
    """

    pattern: ArrivalPattern
    slow: Modulation
    lengths: LengthMix
    prompt_mean: int
    output_mean: int


# fmt: off
_LEVELS = (
    0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75,
    0.8, 0.85, 0.9, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0,
)
SERVICES: dict[str, Service] = {
    "conv": Service(
        pattern=ArrivalPattern((Modulation(log_std=0.062, correlation_s=146.6),), bin_variance=0.0026),
        slow=Modulation(log_std=0.057, correlation_s=1200.0),
        lengths=LengthMix(
            _LEVELS,
            prompt_quantiles=(
                2, 79, 120, 155, 199, 288, 359, 440, 537, 545, 559, 590, 679, 900, 1332, 1687, 1902, 2107,
                2339, 2655, 3037, 3811, 4869, 5202, 5516, 5884, 6607, 14050,
            ),
            output_quantiles=(
                2, 2, 2, 2, 3, 4, 5, 7, 9, 13, 17, 24, 27, 38, 38, 49, 49, 71, 104, 165, 248, 334, 446, 483,
                520, 574, 670, 1000,
            ),
            correlation=0.07,
        ),
        prompt_mean=1604,
        output_mean=108,
    ),
    "code": Service(
        pattern=ArrivalPattern(
            (
                Modulation(log_std=0.202, correlation_s=2.7),
                Modulation(log_std=0.074, correlation_s=60.0),
            ),
            bin_variance=0.0102,
        ),
        slow=Modulation(log_std=0.07, correlation_s=900.0),
        lengths=LengthMix(
            _LEVELS,
            prompt_quantiles=(
                3, 6, 32, 57, 117, 315, 510, 716, 918, 1118, 1296, 1489, 1699, 1912, 2132, 2367, 2630, 2937,
                3324, 3860, 4702, 6225, 7670, 7670, 7670, 7670, 7670, 7670,
            ),
            output_quantiles=(
                2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 9, 10, 11, 13, 15, 18, 20, 27, 38, 71, 88, 110, 159,
                249, 1899,
            ),
            correlation=-0.02,
        ),
        prompt_mean=2556,
        output_mean=18,
    ),
}
# fmt: on


def hourly_counts(path: Path, service: str) -> WindowCounts:
    """The hours of a service's week from ``azure-2024-hourly``.

    Only the tokens of both services together are published. A code request answers with 18 tokens in the
    mean throughout; prompts of both services are longer or shorter than in the week's mean by one factor.

    Args:
        path: of the file.
        service: ``conv`` or ``code``.
    """
    table = pd.read_csv(path, parse_dates=["time_gst"])
    start = table["time_gst"] - _FILE_ZONE
    # The file is a nominal week; each service starts on its own day of it.
    day = (start.dt.weekday - _FIRST_DAY[service]) % 7
    table = table.iloc[np.lexsort((start.dt.hour, day))]
    code, conv = (table[f"requests_{name}"].to_numpy(float) for name in ("code", "conv"))
    factor = table["context_tokens"].to_numpy(float) / (
        code * SERVICES["code"].prompt_mean + conv * SERVICES["conv"].prompt_mean
    )
    code_output = np.full(len(table), float(SERVICES["code"].output_mean))
    conv_output = (table["generated_tokens"].to_numpy(float) - code * code_output) / conv
    return WindowCounts(
        f"azure-2024-{service}-from-hourly",
        _HOURLY_NOTE,
        3600.0,
        0.0,
        table[f"requests_{service}"].to_numpy(np.int64),
        SERVICES[service].prompt_mean * factor,
        conv_output if service == "conv" else code_output,
    )


def ten_minute_counts(path: Path, service: str) -> WindowCounts:
    """The 10-minute windows of a service's week from ``azure-2024-10min``.

    Args:
        path: of the file.
        service: ``conv`` or ``code``.
    """
    table = pd.read_csv(path)
    table = table[table["service"] == service].sort_values("window_start_utc")
    requests = table["requests"].to_numpy(np.int64)
    return WindowCounts(
        f"azure-2024-{service}-from-10min",
        _10MIN_NOTE,
        600.0,
        0.0,
        requests,
        table["context_tokens_est"].to_numpy(float) / requests,
        table["generated_tokens_est"].to_numpy(float) / requests,
    )


def trace_from_hourly(path: Path, service: str, seed: int = 0, service_scale: float = 1.0) -> Trace:
    """A week of a service with the exact count of each hour; see ``WindowCounts.generate``."""
    known = SERVICES[service]
    pattern = replace(known.pattern, modulations=(known.slow, *known.pattern.modulations))
    return hourly_counts(path, service).generate(
        pattern, known.lengths, service_scale=service_scale, seed=seed
    )


def trace_from_ten_minutes(path: Path, service: str, seed: int = 0, service_scale: float = 1.0) -> Trace:
    """A week of a service with the estimated count of each 10 minutes; see ``WindowCounts.generate``."""
    known = SERVICES[service]
    counts = ten_minute_counts(path, service)
    return counts.generate(known.pattern, known.lengths, service_scale=service_scale, seed=seed)
