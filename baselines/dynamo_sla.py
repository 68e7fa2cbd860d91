"""NVIDIA Dynamo's SLA planner: predicted load over profiled throughput, corrected by what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from baselines.base import HEADROOMS, Autoscaler, Observation, ceil_instances
from baselines.fleet import count_fleet
from baselines.instance_speed import InstanceSpeed, slo_targets
from preserve_gym.errors import InputError
from preserve_gym.sim.state import READY

Predictor = Literal["forecast", "constant"]


@dataclass(frozen=True, kw_only=True)
class DynamoSla(Autoscaler):
    """Instances for prefill and for decode, each from the load of the next interval.

    Every 180 s, with the mean prompt and output lengths ISL and OSL of the last interval:

    * ``prefill = tokens in per second * min(1, p) / prefill throughput at ISL``,
      p = mean TTFT / TTFT expected at ISL;
    * ``decode = tokens out per second / decode throughput at (ITL SLO / d, ISL + OSL/2)``,
      d = mean ITL / ITL expected at the present batch and that context.

    Source: NVIDIA Dynamo's SLA planner, design document and defaults (H). Its default targets of 500 ms and
    50 ms are placeholders: the ITL target is the SLO's.

    Adapted: no disaggregation. One instance does both, so the two shares are added before they are rounded
    up. Expected latencies and throughputs come from the instance's law, there from a profile of the same
    kind. Output lengths are predicted ones, of what arrived. The prediction of the load is the environment's
    forecast, highest over the next interval, in place of its default, ARIMA; ``constant`` is its predictor of
    that name, the load of the last interval. An interval without a request, or without anything ready,
    corrects nothing and changes nothing there; here no request means the minimum. The law has a total, so
    starting instances are counted. No stabilisation beyond the interval is published.

    Attributes:
        load_predictor: ``forecast`` or ``constant``.
        headroom: factor on both shares; 1 as published, where nothing else keeps an instance from full use.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"headroom": HEADROOMS}

    name: str = "dynamo-sla"
    interval_s: float = 180.0
    load_predictor: Predictor = "forecast"
    headroom: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.load_predictor not in get_args(Predictor):
            raise InputError(
                f"DynamoSla.load_predictor: expected one of {', '.join(get_args(Predictor))}, "
                f"got {self.load_predictor!r}"
            )
        self._check("headroom", "a number > 0", lambda value: value > 0)

    def decide(self, obs: Observation, state: Any) -> int:
        """Both shares together."""
        if count_fleet(obs)[0] == 0:
            return int(obs["target"])
        tokens_in, tokens_out = self._load(obs)
        requests = max(obs["arrived"], 1.0)
        isl, osl = obs["prompt_tokens"] / requests, max(obs["predicted_tokens"] / requests, 1.0)
        if obs["arrived"] == 0.0 or isl == 0.0:
            return ceil_instances(0.0)
        speed, context = InstanceSpeed(self.cluster), isl + 0.5 * osl
        prefill_s = speed.prefill_s(isl)
        p = obs["mean_ttft_s"] / prefill_s if obs["mean_ttft_s"] > 0.0 else 1.0
        itl_s = slo_targets(self.cluster, isl, osl).itl_s / self._decode_factor(obs, context)
        prefill = tokens_in * min(1.0, p) * prefill_s / isl
        decode = tokens_out / speed.decode_throughput(itl_s, context)
        return ceil_instances(self.headroom * (prefill + decode))

    def _load(self, obs: Observation) -> tuple[float, float]:
        """Prompt and output tokens per second of the next interval."""
        if self.load_predictor == "constant":
            return obs["prompt_tokens"] / self.interval_s, obs["predicted_tokens"] / self.interval_s
        reached = slice(0, int(obs["window_elapsed"] + self.interval_s / obs["window_s"] + 1e-9) + 1)
        prompt, output = obs["forecast_prompt_tokens"][reached], obs["forecast_output_tokens"][reached]
        return float(np.max(prompt)) / obs["window_s"], float(np.max(output)) / obs["window_s"]

    def _decode_factor(self, obs: Observation, context: float) -> float:
        """d, 1 where nothing was decoded."""
        if obs["mean_tpot_s"] == 0.0:
            return 1.0
        batch = max(float(np.mean(obs["running"][obs["state"] == READY])), 1.0)
        return float(obs["mean_tpot_s"] / InstanceSpeed(self.cluster).decode_s(batch, context))
