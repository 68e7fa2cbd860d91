"""PreServe's Algorithm 2: the instances that the forecast windows need."""

from __future__ import annotations

import numpy as np

from baselines.base import Autoscaler, Observation
from preserve_gym.errors import InputError


def windows_ahead(obs: Observation, lead_s: float) -> int:
    """How many windows after the current one the window begins that holds the time in ``lead_s``."""
    return int(obs["window_elapsed"] + lead_s / obs["window_s"] + 1e-9)


def forecast_need(policy: Autoscaler, obs: Observation, first: int, last: int) -> float:
    """Instances for the busiest of the forecast windows ``first`` to ``last``, 0 being the current one.

    The need of a window of length W with P prompt and D output tokens is
    ``max(P/(mu_p*W), D/(mu_d*W), (P+D)/(mu_t*W))``, mu being the instance profile.

    Raises:
        InputError: if there is no forecast for the last one.
    """
    prompt_tokens, output_tokens = obs["forecast_prompt_tokens"], obs["forecast_output_tokens"]
    window_s = obs["window_s"]
    if last >= len(prompt_tokens):
        raise InputError(
            f"{type(policy).__name__}.lead_s: expected to stay within the {len(prompt_tokens)} forecast "
            f"windows of {window_s:g} s, got {policy.lead_s}"  # type: ignore[attr-defined]
        )
    reached = slice(first, last + 1)
    need = policy.profile.need(prompt_tokens[reached] / window_s, output_tokens[reached] / window_s)
    return float(np.max(need))
