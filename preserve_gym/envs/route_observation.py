"""Observations of the router: the request that waits for a decision, and the instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.envs import physical
from preserve_gym.envs.env_state import EnvState
from preserve_gym.envs.physical import (
    HUGE,
    N_PER_INSTANCE,
    RATE_SPANS_S,
    RATES,
    Layout,
    Physical,
    measure_instance,
    measure_rates,
)
from preserve_gym.envs.scale_observation import OBS_MODES, clip_features, need
from preserve_gym.errors import InputError
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import READY, State
from preserve_gym.traces.trace import SECONDS_PER_DAY

WITH_REQUEST = {"anticipated_peak_with_request": HUGE}
"""One more array over the slots: the peak of the look-ahead map if the request were sent there."""

ROUTE_SCALARS = {
    **physical.SCALARS,
    "request": 1.0,
    "request_prompt_tokens": HUGE,
    "request_predicted_tokens": HUGE,
    "since_last_s": HUGE,
}
"""``request`` is 1 while one waits for a decision, 0 at the end of an episode; ``since_last_s`` is the time
since the last decision."""

REQUEST_FEATURES = {
    "request": (0.0, 1.0),
    "request_prompt": (0.0, 16.0),
    "request_predicted": (0.0, 16.0),
    "request_kv": (0.0, 1.0),
    "ready": (0.0, 1.0),
    "load_10s": (0.0, 4.0),
    "load_60s": (0.0, 4.0),
}
"""Features of the request and the cluster: prompt and predicted tokens over their means, both together over
an instance's KV cache, instances ready and loads in instance-equivalents over ``max_instances``."""

INSTANCE_FEATURES = {
    "ready": (0.0, 1.0),
    "running": (0.0, 4.0),
    "waiting": (0.0, 4.0),
    "queued_prefill": (0.0, 4.0),
    "expected_tokens": (0.0, 4.0),
    "kv_use": (0.0, 1.0),
    "anticipated_peak": (0.0, 4.0),
    "anticipated_peak_with_request": (0.0, 4.0),
}
"""Features of each slot, all 0 unless it is ready: requests over those in flight at the profiled capacity,
queued prefill as time over the TTFT deadline, tokens as shares of the KV cache."""

_N_REQUEST, _N_INSTANCE = len(REQUEST_FEATURES), len(INSTANCE_FEATURES)
_LOAD_SPANS = (RATE_SPANS_S.index(10.0), RATE_SPANS_S.index(60.0))


class RouteObservation:
    """Spaces and names of the observation at an arriving request.

    ``dict``: float64 arrays in physical units (``PER_INSTANCE``, ``WITH_REQUEST``, ``ROUTE_SCALARS``,
    ``RATES``).

    ``flat``: float32 vector, ``REQUEST_FEATURES`` first and then ``INSTANCE_FEATURES`` of slot 0, slot 1 and
    so on, so that ``flat[7:].reshape(max_instances, 8)`` has a row for each action; bounds are true.
    """

    def __init__(self, mode: str, cluster: ClusterConfig) -> None:
        if mode not in OBS_MODES:
            raise InputError(f"obs_mode: expected one of {', '.join(OBS_MODES)}, got {mode!r}")
        self.mode = mode
        slots = cluster.max_instances
        self.layout = Layout(
            {
                **physical.quantities_of(slots),
                **{name: (slots, high) for name, high in WITH_REQUEST.items()},
                **physical.scalar(ROUTE_SCALARS),
                **{name: (len(RATE_SPANS_S), HUGE) for name in RATES},
            }
        )
        bounds = {
            **REQUEST_FEATURES,
            **{f"{name}_{i}": pair for i in range(slots) for name, pair in INSTANCE_FEATURES.items()},
        }
        # "ready" of the cluster and "ready_0" of a slot are different features.
        self.feature_names: tuple[str, ...] = tuple(bounds)
        self.low, self.high = np.array(list(bounds.values()), np.float32).T.copy()
        flat = spaces.Box(self.low, self.high, dtype=np.float32)
        self.space: spaces.Space[Any] = flat if mode == "flat" else self.layout.space

    def of(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | Physical:
        """The observation in arrays ``physical`` and ``flat``, of one environment or many; a copy."""
        return state["flat"].copy() if self.mode == "flat" else self.layout.named(state["physical"])


@kernel
def observe_request(s: State, e: EnvState) -> None:
    """Fill ``e.physical`` and ``e.flat`` for the request ``e.episode[0].request``."""
    c, episode, out, now = e.constants[0], e.episode[0], e.physical, s.totals[0].now_s
    n, r = len(s.instances), episode.request
    prompt, predicted = 0, 0
    if r >= 0:
        prompt, predicted = s.requests[r].prompt_tokens, s.requests[r].predicted_tokens
    with_request = N_PER_INSTANCE * n
    for i in range(n):
        out[with_request + i] = measure_instance(s, e, i, prompt, predicted)
    at = with_request + n
    out[at] = now
    out[at + 1] = (c.clock_s + now) % SECONDS_PER_DAY
    out[at + 2] = 1.0 if r >= 0 else 0.0
    out[at + 3] = prompt
    out[at + 4] = predicted
    out[at + 5] = now - episode.last_s
    measure_rates(e, at + 6, now, episode.first_row + s.totals[0].next_request)
    _request_features(s, e, with_request)


@kernel
def _request_features(s: State, e: EnvState, with_request: int) -> None:
    c, o, out, n = e.constants[0], e.physical, e.flat, len(s.instances)
    at = with_request + n
    capacity = s.params[0].kv_blocks * s.params[0].block_size
    ready = 0
    for i in range(n):
        ready += s.instances[i].state == READY
    spans = len(RATE_SPANS_S)
    out[0] = o[at + 2]
    out[1] = o[at + 3] / c.mean_prompt_tokens
    out[2] = o[at + 4] / c.mean_predicted_tokens
    out[3] = (o[at + 3] + o[at + 4]) / capacity
    out[4] = ready / n
    for k in range(len(_LOAD_SPANS)):
        span = at + 6 + _LOAD_SPANS[k]
        out[5 + k] = need(e, o[span + spans], o[span + 2 * spans]) / n
    prefill_s = 1.0 / c.prompt_tokens_per_s / c.ttft_scale_s
    for i in range(n):
        first = _N_REQUEST + i * _N_INSTANCE
        if s.instances[i].state != READY:
            for k in range(_N_INSTANCE):
                out[first + k] = 0.0
            continue
        out[first] = 1.0
        out[first + 1] = o[2 * n + i] / c.profiled_in_flight
        out[first + 2] = o[3 * n + i] / c.profiled_in_flight
        out[first + 3] = o[4 * n + i] * prefill_s
        out[first + 4] = o[5 * n + i] / capacity
        out[first + 5] = o[6 * n + i]
        out[first + 6] = o[7 * n + i]
        out[first + 7] = o[with_request + i]
    clip_features(e)
