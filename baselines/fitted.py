"""Parameters that a policy must know in advance, fitted to what may be fitted to."""

from __future__ import annotations

from typing import Any

from baselines.simple import daily_schedule
from baselines.static import peak_instances
from preserve_gym.config import ClusterConfig
from preserve_gym.workload import Workload


def fitted_static(cluster: ClusterConfig, workload: Workload) -> dict[str, Any]:
    """``static``: instances for the busiest window."""
    window_s = workload.config.window_s
    tokens = workload.fitted_window_tokens(window_s)
    return {"instances": peak_instances(cluster, workload.profile(cluster), *tokens, window_s)}


def fitted_schedule(cluster: ClusterConfig, workload: Workload) -> dict[str, Any]:
    """``time-of-day``: the usual need over the day."""
    window_s, trace = workload.config.window_s, workload.trace
    end_s = trace.span_s
    if workload.bounds is not None and workload.config.split is not None:
        end_s = workload.bounds["train"][1]
    # Whole windows; a recording shorter than one has but a part.
    whole = max(1, int(end_s / window_s + 1e-9))
    seconds = min(window_s, end_s)
    prompt, output = (tokens[:whole] / seconds for tokens in workload.fitted_window_tokens(window_s))
    needs = workload.profile(cluster).need(prompt, output)
    return {"schedule": daily_schedule(needs, window_s, trace.clock_s)}
