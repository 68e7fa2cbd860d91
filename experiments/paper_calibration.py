"""PreServe's routing experiment as far as its set-up is known, and what of it had to be fitted.

Known (arXiv 2504.03702 and its artifact): four instances of Llama-2-7B on vLLM 0.6.6, 16 * 2306 = 36,896 KV
tokens each, ``max_num_seqs`` 128, ``max_model_len`` 4096, Poisson arrivals, lengths of ShareGPT with a mean
output of about 285 tokens. Not known: the GPU, the time that vLLM's host code takes, and the prompts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq

from experiments.metrics import normalized_latency_s, percentile, tpot_s, ttft_s
from preserve_gym.config import ClusterConfig, InstanceConfig, SloConfig
from preserve_gym.errors import InputError
from preserve_gym.traces import Lengths, Trace, dataset_path, read_lengths

INSTANCES = 4
MEAN_OUTPUT_TOKENS = 285
RATE_RPS = 9.5
REQUESTS = 2800
"""Arrivals of the artifact's runs whose figures are ``PUBLISHED``."""

_MODEL_LEN = 4096

PUBLISHED: dict[str, dict[str, float]] = {
    "least-requests": {
        "ttft_mean_s": 0.754,
        "ttft_p50_s": 0.120,
        "ttft_p99_s": 9.37,
        "e2e_mean_s": 20.98,
        "e2e_p99_s": 78.4,
        "tpot_mean_s": 0.0710,
        "tpot_p99_s": 0.0931,
    },
    "least-kv": {
        "ttft_mean_s": 1.341,
        "ttft_p50_s": 0.157,
        "ttft_p99_s": 20.2,
        "e2e_mean_s": 21.50,
        "e2e_p99_s": 78.2,
        "tpot_mean_s": 0.0727,
        "tpot_p99_s": 0.1073,
    },
}
"""Figures of one run each, by router (arXiv 2504.03702, its artifact)."""


@dataclass(frozen=True)
class Calibration:
    """What is not known of the experiment.

    Attributes:
        gpu_factor: time of the GPU's work over that of an A100.
        host_s: time of an iteration in which the GPU waits for vLLM's host code, s.
        prompt_factor: prompts over those of the data set.
        fitted: names of the figures of ``least-requests`` that it was fitted to.
    """

    gpu_factor: float
    host_s: float
    prompt_factor: float
    fitted: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, least in (("gpu_factor", 1e-6), ("host_s", 0.0), ("prompt_factor", 1e-6)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise InputError(f"Calibration.{name}: expected a finite number >= {least:g}, got {value!r}")

    def cluster(self) -> ClusterConfig:
        """The four instances."""
        known = InstanceConfig.from_preset(
            "llama-2-7b",
            gpu="a100",
            num_gpu_blocks=2307,
            max_num_seqs=128,
            max_num_batched_tokens=_MODEL_LEN,
            scheduler="vllm_v0",
            async_scheduling=False,
        )
        a100, factor = known.latency, self.gpu_factor
        law = dataclasses.replace(
            a100,
            base_s=factor * a100.base_s + self.host_s,
            per_context_token_s=factor * a100.per_context_token_s,
            per_token_beyond_knee_s=factor * a100.per_token_beyond_knee_s,
            per_quad_s=factor * a100.per_quad_s,
        )
        return ClusterConfig(
            instance=dataclasses.replace(known, latency=law, name="llama-2-7b on PreServe's GPU"),
            slo=SloConfig(ttft_s=None, tpot_s=None, normalized_latency_s=0.25),
            min_instances=INSTANCES,
            max_instances=INSTANCES,
        )

    def lengths(self) -> Lengths:
        """The pairs of lengths that requests draw from."""
        outputs = output_lengths()
        pairs = sharegpt()
        room = _MODEL_LEN - outputs
        prompts = np.rint(self.prompt_factor * pairs.prompt_tokens).astype(np.int32)
        return Lengths(np.clip(prompts, 1, room), outputs, None, pairs.name, pairs.repairs)

    def trace(self, rate_rps: float, requests: int, seed: int) -> Trace:
        """The first ``requests`` of Poisson arrivals.

        Raises:
            InputError: as ``Lengths.poisson``.
        """
        # Ten standard deviations more than are wanted.
        duration_s = (requests + 10.0 * math.sqrt(requests) + 100.0) / rate_rps
        trace = self.lengths().poisson(rate_rps, duration_s, seed)
        first = slice(0, requests)
        return Trace(
            trace.arrival_s[first], trace.prompt_tokens[first], trace.output_tokens[first], name=trace.name
        )


GPU_ONLY = Calibration(2.3, 0.0193, 1.0, ("tpot_mean_s", "tpot_p99_s"))
WITH_PROMPTS = Calibration(1.2, 0.0371, 1.45, ("tpot_mean_s", "tpot_p99_s", "ttft_mean_s"))
CALIBRATIONS: dict[str, Calibration] = {"gpu": GPU_ONLY, "gpu-and-prompts": WITH_PROMPTS}
"""Fitted by ``tests/fit_paper_routing.py`` to the figures of least requests that each names, no other."""


@functools.cache
def sharegpt() -> Lengths:
    """Ten thousand conversations of ShareGPT in tokens of Llama-2."""
    return read_lengths(dataset_path("sharegpt-10k"))


@functools.cache
def output_lengths() -> NDArray[np.int32]:
    """Outputs of ShareGPT with the artifact's mean: ``P99 * (D / P99)**a``, int32, one for each pair.

    The data set's mean is 326 tokens, its P99 1,000. The published latencies are 285 times the time per
    token in the mean and 1,000 times it at P99: so the mean is brought to 285 and the P99 is left where it
    is.
    """
    outputs = sharegpt().output_tokens.astype(np.float64)
    p99 = np.percentile(outputs, 99.0)

    def shaped(exponent: float) -> NDArray[np.float64]:
        return np.maximum(1.0, np.rint(p99 * (outputs / p99) ** exponent))

    exponent = brentq(lambda a: float(shaped(a).mean()) - MEAN_OUTPUT_TOKENS, 1.0, 2.0, xtol=1e-6)
    return shaped(exponent).astype(np.int32)


def figures(requests: pd.DataFrame) -> dict[str, float]:
    """What the experiment reports of a run, from ``Simulation.requests``; ``tpot`` is its TBT."""
    ttft, tpot, normalized = ttft_s(requests), tpot_s(requests), normalized_latency_s(requests)
    e2e = (requests["completed_s"] - requests["arrival_s"]).to_numpy(np.float64)
    return {
        "ttft_mean_s": float(np.nanmean(ttft)),
        "ttft_p50_s": percentile(ttft, 50.0),
        "ttft_p99_s": percentile(ttft, 99.0),
        "e2e_mean_s": float(np.nanmean(e2e)),
        "e2e_p99_s": percentile(e2e, 99.0),
        "tpot_mean_s": float(np.nanmean(tpot)),
        "tpot_p99_s": percentile(tpot, 99.0),
        "normalized_latency_mean_s": float(np.nanmean(normalized)),
        "normalized_latency_p99_s": percentile(normalized, 99.0),
        "preemptions": int(requests["preemptions"].sum()),
        "mean_output_tokens": float(requests["output_tokens"].mean()),
    }
