"""Hand-made observations for the tests of policies."""

from __future__ import annotations

from typing import Any

import numpy as np

from preserve_gym import ClusterConfig
from preserve_gym.envs.scale_observation import SCALARS
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.sim.state import DRAINING, OFF, READY, STARTING

CLUSTER = ClusterConfig(min_instances=1, max_instances=8, cold_start_s=60.0)
# 0.7 * 20 = 14 requests in flight per instance are the HPA's target.
PROFILE = InstanceProfile(
    requests_per_s=2.0,
    prompt_tokens_per_s=1000.0,
    output_tokens_per_s=200.0,
    total_tokens_per_s=1100.0,
    in_flight=20.0,
    unloaded_attainment=1.0,
    unloaded_e2e_s=5.0,
)
WINDOW_S = 600.0
RATES_KNOWN = {
    "needs": np.full(4000, 2.0),
    "needs_now": np.full(4000, 2.0),
    "needs_from_s": 0.0,
    "needs_bin_s": 5.0,
}
NEEDED: dict[str, dict[str, Any]] = {
    "static": {"instances": 2},
    "time-of-day": {"schedule": (2.0,)},
    "feasible": RATES_KNOWN,
    "feasible-by-load": RATES_KNOWN,
    "best-static": {"instances": 2},
    "hindsight": {"starts_s": (0.0,), "targets": ((2,),)},
}
"""Parameters that have no default."""
RATES = ("request_rate", "prompt_token_rate", "output_token_rate")
COUNTS = ("arrived", "prompt_tokens", "predicted_tokens", "mean_ttft_s", "mean_tpot_s")


def observe(
    *,
    ready: int = 1,
    starting: int = 0,
    draining: int = 0,
    time_s: float = 600.0,
    slots: int = CLUSTER.max_instances,
    **values: Any,
) -> dict[str, Any]:
    """What a policy sees: ready slots first, then starting and draining ones; idle unless told.

    Values per instance are given for the first slots; rates alike for all spans, or one for each.
    """
    state = [READY] * ready + [STARTING] * starting + [DRAINING] * draining
    names = (
        "running",
        "waiting",
        "queued_prefill_tokens",
        "kv_use",
        "anticipated_peak",
        "anticipated_overload",
    )
    arrays = {"state": np.array(state + [OFF] * (slots - len(state)), np.float64)}
    for name in names:
        given = np.atleast_1d(np.asarray(values.pop(name, []), np.float64))
        arrays[name] = np.concatenate((given, np.zeros(slots - len(given))))
    return {
        "time_s": time_s,
        "time_of_day_s": time_s % 86_400.0,
        "target": float(ready + starting),
        "window_s": WINDOW_S,
        "window_elapsed": time_s / WINDOW_S % 1.0,
        "forecast_prompt_tokens": np.full(3, 100.0),
        "forecast_output_tokens": np.full(3, 100.0),
        **arrays,
        **dict.fromkeys(COUNTS, 0.0),
        **{name: np.full(5, 0.0) + np.asarray(values.pop(name, 0.0), np.float64) for name in RATES},
        **{name: np.asarray(value) for name, value in values.items()},
    }


def as_observed(obs: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same as the environment gives it: scalars have shape (1,)."""
    return {name: np.reshape(value, (1,)) if name in SCALARS else value for name, value in obs.items()}


def forecast(*instances: float) -> dict[str, Any]:
    """Forecasts whose need is so many instances in each window, set by the output tokens."""
    output = np.array(instances) * PROFILE.output_tokens_per_s * WINDOW_S
    return {"forecast_prompt_tokens": np.zeros(len(instances)), "forecast_output_tokens": output}
