"""Load in instances that it needs: measured over the last seconds, and forecast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.base import Observation
from preserve_gym.envs.physical import RATE_SPANS_S
from preserve_gym.sim.profile import InstanceProfile


def measured_need(obs: Observation, profile: InstanceProfile, span_s: float) -> float:
    """Instances for the tokens that arrived in the last ``span_s``, one of ``RATE_SPANS_S``; not rounded."""
    span = RATE_SPANS_S.index(span_s)
    return float(profile.need(obs["prompt_token_rate"][span], obs["output_token_rate"][span]))


def forecast_needs(obs: Observation, profile: InstanceProfile) -> NDArray[Any]:
    """Instances for each forecast window, the current one first; float64, not rounded."""
    window_s = obs["window_s"]
    needs: NDArray[Any] = profile.need(
        obs["forecast_prompt_tokens"] / window_s, obs["forecast_output_tokens"] / window_s
    )
    return needs


def reached_need(obs: Observation, profile: InstanceProfile, lead_s: float) -> float:
    """The highest of ``forecast_needs`` between now and ``lead_s`` later, as far as the forecast reaches."""
    ahead = int(obs["window_elapsed"] + lead_s / obs["window_s"] + 1e-9)
    return float(np.max(forecast_needs(obs, profile)[: ahead + 1]))
