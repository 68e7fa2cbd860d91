"""BurstGPT's first two months, generated from the counts of hours.

The requests are public (``load_trace("burstgpt")`` reads them where they are); here they are generated from
two small tables of third parties, ``burstgpt-hourly`` (requests by kind and hour) and ``burstgpt-daily``
(tokens of a day). Source: Wang et al., "BurstGPT", KDD 2025 (CC BY 4.0). Requests that failed are included.

What is assumed beyond the tables: the ripple is that of the minutes of the first week, when nearly all
requests were conversation (``tests/fit_azure_2024.py``); lengths have the shape of Azure's conversation
service of 2023, moved so that the tokens of each day come out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from preserve_gym.traces.modulation import ArrivalPattern, Modulation
from preserve_gym.traces.rate_process import sum_of
from preserve_gym.traces.synthetic_fits import SERVICES
from preserve_gym.traces.trace import Trace
from preserve_gym.traces.window_counts import WindowCounts

PATTERN = ArrivalPattern((Modulation(log_std=0.34, correlation_s=440.0),))
KINDS = ("conversation", "api")
_NOTE = (
    "generated from the count of each hour (an aggregate); where a request lies in it and its tokens "
    "are drawn"
)


def hourly_counts(hourly: Path, daily: Path, kind: str) -> WindowCounts:
    """The hours of the conversation or the API requests; all requests of a day have its mean tokens.

    Args:
        hourly, daily: paths of the two files.
        kind: one of ``KINDS``.
    """
    table, days = pd.read_csv(hourly), pd.read_csv(daily)
    lengths = SERVICES["chat"].lengths
    tokens = (days["tokens"] / days["requests"]).to_numpy(float)
    factor = (tokens / (lengths.prompt_mean + lengths.output_mean))[table["day"]]
    return WindowCounts(
        "burstgpt-from-hourly",
        _NOTE,
        3600.0,
        0.0,
        table[kind].to_numpy(np.int64),
        lengths.prompt_mean * factor,
        lengths.output_mean * factor,
    )


def trace_from_hourly(hourly: Path, daily: Path, seed: int = 0, service_scale: float = 1.0) -> Trace:
    """61 days with the count of each hour; class 0 is conversation, 1 API. See ``WindowCounts.generate``.

    BurstGPT has about 16 requests a minute: to load a cluster, ``service_scale`` is above 1.
    """
    parts = [
        hourly_counts(hourly, daily, kind).generate(
            PATTERN, SERVICES["chat"].lengths, service_scale=service_scale, seed=2 * seed + k
        )
        for k, kind in enumerate(KINDS)
    ]
    arrival_s = np.concatenate([part.arrival_s for part in parts])
    order = np.argsort(arrival_s, kind="stable")
    return Trace(
        arrival_s[order],
        np.concatenate([part.prompt_tokens for part in parts])[order],
        np.concatenate([part.output_tokens for part in parts])[order],
        request_class=np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order],
        name=parts[0].name,
        span_s=parts[0].span_s,
        rates=sum_of([part.rates for part in parts]),
        repairs=(_NOTE,),
    )
