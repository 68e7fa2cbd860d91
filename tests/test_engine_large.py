"""The fast engine against the slow reference on larger cases than hypothesis builds.

Queues, batches and KV pools are deep enough here for storms of preemptions, long leaps, wheels of deadlines
that go around, look-ahead bounds that expire, and instances that come back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from preserve_gym import Cluster, ClusterConfig, InstanceConfig, LatencyLaw, SloConfig, Trace
from tests.reference import ROUTERS, ReferenceCluster
from tests.test_engine import assert_same_cluster, assert_same_histograms, assert_same_outcome

CASES = 240
LAWS = (
    LatencyLaw(1.0, 0.0, 0.0, 0.0),
    LatencyLaw(0.25, 0.0625, 0.0, 0.0),
    LatencyLaw(0.0065, 4e-5, 1.5e-5, 2.5e-5),
    LatencyLaw(1e-9, 0.01, 1e-3, 0.0),  # hardly any time of its own for an iteration
    LatencyLaw(0.02, 1e-9, 1e-12, 1e-12),
)
SLOS = (
    SloConfig(2.0, 0.0, 0.25),
    SloConfig(0.5, 0.125, 0.1),
    SloConfig(None, 0.0, None, 0.5),
    SloConfig(0.0, 0.0, 0.0),
    SloConfig(300.0, 0.01, 1.0, 5.0),
)


class Case:
    """A random cluster and what it serves; everything follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.n = int(self.choose(30, 100, 250))
        longest_output, longest_prompt = int(self.choose(1, 20, 60, 120)), int(self.choose(1, 8, 40, 100))
        self.prompt = rng.integers(1, longest_prompt + 1, self.n)
        self.output = rng.integers(1, longest_output + 1, self.n)
        noise = rng.lognormal(0.0, 0.4, self.n)
        self.predicted = np.maximum(1, (self.output * self.choose(1.0, noise, noise * 2.0)).astype(int))
        self.instance = self._instance(longest_prompt + longest_output)
        most = int(self.choose(1, 2, 4, 18))
        self.config = ClusterConfig(
            self.instance,
            self.choose(*SLOS),
            min_instances=int(rng.integers(1, min(most, 3) + 1)),
            max_instances=most,
            cold_start_s=self.choose(0.0, 3.0, (0.0, 1.0, 20.0)),
            too_long=self.choose("reject", "clip_prompt"),
        )
        self.start_s = float(self.choose(0.0, 7.3, 1234.5))
        self.gap_s = self._service_s(longest_prompt, longest_output) / most * self.choose(0.3, 1.0, 4.0)
        self.arrival_s = self.start_s + self._arrivals()
        self.router = self.choose(*sorted(ROUTERS), "preserve_look_ahead", "linear")
        self.weights = self.choose([1.0] * 7, [0.3, 7.0, 0.0, 1.0, 0.0, 1.0, 0.4])
        self.classes = rng.choice([0, 3, 2**31 - 1], self.n)
        self.anticipator = self.choose("paper", "artifact")
        self.initial = int(rng.integers(self.config.min_instances, most + 1))

    def choose(self, *values: Any) -> Any:
        """One of them."""
        return values[self.rng.integers(len(values))]

    def _instance(self, longest: int) -> InstanceConfig:
        rng, block_size = self.rng, int(self.choose(1, 4, 16))
        scheduler = self.choose("vllm", "vllm", "vllm_v0", "sarathi")
        chunked = bool(rng.random() < 0.75)
        max_model_len = longest + int(self.choose(1, 50))
        budget = int(self.choose(5, 16, 100))
        if scheduler == "vllm_v0" or not chunked:
            budget += max_model_len
        pool_tokens = longest * self.choose(1.1, 2.0, 4.0, 10.0)
        law = replace(
            self.choose(*LAWS),
            knee_tokens=int(self.choose(0, 3, 10)),
            per_token_beyond_knee_s=self.choose(0.0, 0.125, 3e-5),
            per_mixed_context_token_s=self.choose(0.0, 0.03125, 7e-6),
        )
        return InstanceConfig(
            law,
            num_gpu_blocks=max(4, int(pool_tokens) // block_size + 2),
            block_size=block_size,
            max_num_seqs=int(rng.integers(1, min(budget, 24) + 1)),
            max_num_batched_tokens=budget,
            max_model_len=max_model_len,
            enable_chunked_prefill=chunked,
            async_scheduling=bool(rng.random() < 0.6) and scheduler == "vllm",
            scheduler=scheduler,
            watermark=self.choose(0.0, 0.1),
            scheduler_reserve_full_isl=bool(rng.random() < 0.5),
            long_prefill_token_threshold=int(self.choose(0, 0, 3, 30)),
        )

    def _service_s(self, longest_prompt: int, longest_output: int) -> float:
        """About what a request takes of an instance that is full."""
        instance = self.instance
        tokens = (longest_prompt + longest_output) / 2
        held = max(1.0, min(instance.max_num_seqs, instance.kv_tokens / tokens))
        return instance.latency.iteration_s(held, held * tokens, 0.0) * (longest_output / 2 + 1) / held

    def _arrivals(self) -> Any:
        rng, n = self.rng, self.n
        single = rng.exponential(self.gap_s, n)
        batches = np.where(rng.random(n) < 0.1, 10.0 * self.gap_s, 0.0)
        bursts = np.where(rng.random(n) < 0.05, 40.0, 0.2) * single
        return np.cumsum(self.choose(single, batches, bursts))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, CASES, CASES // 8))
def test_the_engine_equals_the_reference(first: int) -> None:
    for seed in range(first, first + CASES // 8):
        case = Case(seed)
        trace = Trace(case.arrival_s, case.prompt, case.output, case.classes)
        common: dict[str, Any] = {
            "start_s": case.start_s,
            "look_ahead": 12,
            "anticipator": case.anticipator,
            "router_weights": case.weights,
            "seed": seed,
        }
        fast = Cluster(
            case.config,
            trace,
            case.router.replace("_", "-"),
            predicted_tokens=case.predicted,
            initial_instances=case.initial,
            **common,
        )
        slow = ReferenceCluster(
            case.config,
            trace.arrival_s.tolist(),
            trace.prompt_tokens.tolist(),
            trace.output_tokens.tolist(),
            fast._state.requests["predicted_tokens"].tolist(),
            ROUTERS[case.router],
            case.initial,
            request_class=case.classes.tolist(),
            **common,
        )
        now = case.start_s
        for _ in range(int(case.rng.integers(0, 15))):
            now += float(case.choose(0.0, 0.25, case.gap_s * case.rng.exponential(case.n / 10)))
            fast.run_until(now)
            slow.run_until(now)
            target = int(case.rng.integers(0, case.config.max_instances + 2))
            fast.scale_to(target)
            slow.scale_to(target)
            assert_same_cluster(fast, slow)
        fast.settle()
        slow.run_until(1e15)
        assert_same_outcome(fast, slow)
        assert_same_histograms(fast, slow)
