"""A cluster as a fluid: what a policy sees of it, and what it asks for, without any request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from baselines import Autoscaler
from preserve_gym.envs.physical import RATE_SPANS_S
from tests.baseline_observations import CLUSTER, PROFILE, RATES, WINDOW_S, as_observed, observe

# At 2 requests/s these sizes need one instance by output and by all tokens.
PROMPT_TOKENS, OUTPUT_TOKENS = 450.0, 100.0
RESIDENCE_S = PROFILE.in_flight / PROFILE.requests_per_s
FASTEST_RPS = 1.25 * PROFILE.requests_per_s
KV_USE = 0.85 / PROFILE.in_flight  # of a request: 0.85 at the profiled load


def run(
    policy: Autoscaler,
    rate: Callable[[float], float],
    *,
    seconds: float,
    ready: int = 3,
    cold_start_s: float = CLUSTER.mean_cold_start_s,
) -> list[int]:
    """Targets that a policy asks for, one for each decision.

    Args:
        rate: requests per second at a time.
        ready: instances at the start.
        cold_start_s: of those that it starts.
    """
    starts: list[float] = [-1e9] * ready  # when each instance was started
    targets, state, backlog, now_s = [], None, 0.0, WINDOW_S
    end_s = now_s + seconds
    while now_s < end_s - 1e-6:
        n_ready = sum(now_s - start_s >= cold_start_s for start_s in starts)
        action, state = policy.predict(
            as_observed(_look(policy, rate, now_s, n_ready, starts, backlog)), state
        )
        low, high = policy.cluster.min_instances, policy.cluster.max_instances
        target = round(low + (float(action[0]) + 1.0) / 2.0 * (high - low))
        starts = sorted(starts)[:target] + [now_s] * (target - len(starts))
        targets.append(target)
        for _ in range(max(1, int(policy.interval_s))):
            n_ready = sum(now_s - start_s >= cold_start_s for start_s in starts)
            backlog = max(0.0, backlog + rate(now_s) - n_ready * FASTEST_RPS)
            now_s += policy.interval_s / max(1, int(policy.interval_s))
    return targets


def _look(
    policy: Autoscaler,
    rate: Callable[[float], float],
    now_s: float,
    n_ready: int,
    starts: list[float],
    backlog: float,
) -> dict[str, Any]:
    served = min(rate(now_s) / max(n_ready, 1), FASTEST_RPS) if not backlog else FASTEST_RPS
    running, waiting = served * RESIDENCE_S, backlog / max(n_ready, 1)
    arrived = [np.mean([rate(now_s - age) for age in np.linspace(0.5, span, 20)]) for span in RATE_SPANS_S]
    ahead = [now_s - now_s % WINDOW_S + (k + 0.5) * WINDOW_S for k in range(3)]
    expected = np.array([rate(time_s) for time_s in ahead]) * WINDOW_S
    sizes = dict(zip(RATES, (1.0, PROMPT_TOKENS, OUTPUT_TOKENS), strict=True))
    requests = arrived[0] * policy.interval_s
    use = min(running * KV_USE, 1.0)
    return observe(
        ready=n_ready,
        starting=len(starts) - n_ready,
        time_s=now_s,
        slots=policy.cluster.max_instances,
        running=[running] * n_ready,
        waiting=[waiting] * n_ready,
        queued_prefill_tokens=[waiting * PROMPT_TOKENS] * n_ready,
        kv_use=[use] * n_ready,
        anticipated_peak=[use] * n_ready,
        **{name: size * np.array(arrived) for name, size in sizes.items()},
        forecast_prompt_tokens=expected * PROMPT_TOKENS,
        forecast_output_tokens=expected * OUTPUT_TOKENS,
        arrived=requests,
        prompt_tokens=requests * PROMPT_TOKENS,
        predicted_tokens=requests * OUTPUT_TOKENS,
        mean_ttft_s=0.1 + waiting / FASTEST_RPS if requests else 0.0,
        mean_tpot_s=0.05 if requests else 0.0,
    )
