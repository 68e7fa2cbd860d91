"""The reference's ``vllm_v0`` and ``sarathi`` against results worked out on paper.

In the paper cases an iteration takes one second whatever is in it, a block holds one token, and no
watermark is kept, unless a case says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from preserve_gym.latency.law import LatencyLaw
from tests.reference import ReferenceCluster
from tests.test_reference import make, times

# One instance, on paper.

BOTH = pytest.mark.parametrize("scheduler", ["vllm_v0", "sarathi"])


def play(*requests: tuple[float, int, int], **config: Any) -> ReferenceCluster:
    cluster = make(*requests, **{"watermark": 0.0, **config})
    cluster.run_until(math.inf)
    return cluster


@BOTH
def test_iteration_time(scheduler: str) -> None:
    law = LatencyLaw(base_s=1.0, per_token_s=0.5, per_context_token_s=0.25, per_quad_s=0.125)
    # Prefill of 4: 1 + 0.5*4 + 0.125*4*(4/2) = 4. Decode after 4: 1 + 0.5*1 + 0.25*5 = 2.75.
    assert times(play((0.0, 4, 2), scheduler=scheduler, latency=law)) == [(0.0, 4.0, 6.75, 0)]


@BOTH
def test_running_requests_are_capped(scheduler: str) -> None:
    cluster = play((0.0, 2, 2), (0.0, 2, 1), scheduler=scheduler, max_num_seqs=1)
    assert times(cluster) == [(0.0, 1.0, 2.0, 0), (2.0, 3.0, 3.0, 0)]


@BOTH
def test_admission_leaves_the_watermark_free(scheduler: str) -> None:
    # 10 blocks, 2 of them the watermark. A takes 5, which leaves 5: B would leave 1 of them. C would leave
    # 4, but it waits behind B until A completes.
    requests = (0.0, 5, 3), (0.0, 4, 1), (0.0, 1, 1)
    cluster = play(*requests, scheduler=scheduler, num_gpu_blocks=11, watermark=0.2)
    assert times(cluster) == [(0.0, 1.0, 3.0, 0), (3.0, 4.0, 4.0, 0), (3.0, 4.0, 4.0, 0)]


@BOTH
def test_decodes_may_use_the_watermark(scheduler: str) -> None:
    # 10 blocks, 2 of them the watermark: just enough for both prompts, and for one decode of each.
    requests = (0.0, 4, 2), (0.0, 4, 2)
    cluster = play(*requests, scheduler=scheduler, num_gpu_blocks=11, watermark=0.2)
    assert times(cluster) == [(0.0, 1.0, 2.0, 0), (0.0, 1.0, 2.0, 0)]
    assert cluster.kv_block_s == 8 + 10


@BOTH
def test_the_last_of_the_running_list_is_preempted(scheduler: str) -> None:
    # 10 blocks. [0, 1] prefill of A, B and C, 6 blocks. [1, 2] all decode, 9 blocks. At 2 A takes the last
    # block, B evicts C, which goes to the head of the queue, before D; its 2 + 2 tokens do not fit into
    # the 2 blocks free. A and B complete at 4. C recomputes in [4, 5], which gives its third token, and
    # decodes in [5, 6]. D's 7 tokens do not fit beside.
    requests = (0.0, 2, 4), (0.0, 2, 4), (0.0, 2, 4), (0.5, 7, 1)
    cluster = play(*requests, scheduler=scheduler, num_gpu_blocks=11)
    assert times(cluster) == [
        (0.0, 1.0, 4.0, 0),
        (0.0, 1.0, 4.0, 0),
        (0.0, 1.0, 6.0, 1),
        (6.0, 7.0, 7.0, 0),
    ]
    assert cluster.kv_block_s == 6 + 9 + 8 + 10 + 4 + 5 + 7


@BOTH
def test_several_victims_keep_their_order(scheduler: str) -> None:
    # 6 blocks, all taken by the prefills. At 1 A evicts D for its block, then B evicts C for its one. At 2
    # A and B are done, and C and D recompute 1 + 1 tokens each.
    requests = (0.0, 2, 2), (0.0, 2, 2), (0.0, 1, 2), (0.0, 1, 2)
    cluster = make(*requests, scheduler=scheduler, num_gpu_blocks=7, watermark=0.0)
    cluster.run_until(1.5)
    instance = cluster.instances[0]
    assert [(request.index, request.blocks) for request in instance.running] == [(0, 3), (1, 3)]
    assert [request.index for request in instance.waiting] == [2, 3]
    cluster.run_until(math.inf)
    assert times(cluster) == [(0.0, 1.0, 2.0, 0)] * 2 + [(0.0, 1.0, 3.0, 1)] * 2


@BOTH
def test_the_last_one_evicts_itself(scheduler: str) -> None:
    # 7 blocks. [0, 1] prefill, 4 blocks. [1, 2] both decode, 6 blocks. At 2 A takes the last one and B
    # evicts itself. A goes on alone, as 2 + 2 tokens do not fit into 3 blocks, and completes at 5.
    cluster = play((0.0, 2, 5), (0.0, 2, 4), scheduler=scheduler, num_gpu_blocks=8)
    assert times(cluster) == [(0.0, 1.0, 5.0, 0), (0.0, 1.0, 7.0, 1)]


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        # Nobody needs another block, and V1 takes none.
        ("vllm", [(0.0, 18.0, 19.0, 0), (0.0, 18.0, 19.0, 0)]),
        # A evicts B and decodes; then B recomputes 4 tokens in 1 + 4*(4/2) = 9 s.
        ("vllm_v0", [(0.0, 18.0, 19.0, 0), (0.0, 18.0, 28.0, 1)]),
        # B comes back at once: its block is free again.
        ("sarathi", [(0.0, 18.0, 27.0, 0), (0.0, 18.0, 27.0, 1)]),
    ],
)
def test_a_decode_wants_a_free_block(scheduler: str, expected: list[tuple[float, float, float, int]]) -> None:
    law = LatencyLaw(base_s=1.0, per_token_s=0.0, per_context_token_s=0.0, per_quad_s=1.0)
    # 3 blocks of 4 tokens, all taken by the prefill of 5 + 3 tokens: 1 + 5*(5/2) + 3*(3/2) = 18 s.
    cluster = play((0.0, 5, 2), (0.0, 3, 2), scheduler=scheduler, latency=law, num_gpu_blocks=4, block_size=4)
    assert times(cluster) == expected


@BOTH
@pytest.mark.parametrize(
    ("blocks", "watermark", "most_stored"),
    [
        (10, 0.0, 9),  # the block that a decode wants
        (10, 0.1, 9),
        (10, 0.4, 6),
        (19, 0.15, 17),  # int(2.85) blocks
    ],
)
def test_a_request_must_fit_alone(scheduler: str, blocks: int, watermark: float, most_stored: int) -> None:
    limits = {"scheduler": scheduler, "num_gpu_blocks": blocks + 1, "watermark": watermark}
    output = 3
    longest = most_stored + 1 - output  # the last token is never stored
    fits, too_long = play((0.0, longest, output), (0.0, longest + 1, output), **limits).requests
    assert fits.completed_s is not None
    assert too_long.rejected
    (clipped,) = play((0.0, 60, output), too_long="clip_prompt", **limits).requests
    assert clipped.prompt_tokens == longest
    assert clipped.completed_s == output


# vllm_v0.


def test_prefill_comes_before_decode() -> None:
    # [0, 1] prefill of A. [1, 2] prefill of B, while A waits. [2, 3] both decode, [3, 4] A does.
    cluster = play((0.0, 2, 3), (0.5, 2, 2), scheduler="vllm_v0")
    assert times(cluster) == [(0.0, 1.0, 4.0, 0), (1.0, 2.0, 3.0, 0)]


def test_prefills_are_padded() -> None:
    # Budget 10. A and B padded are 2*6 tokens. B and C are 2*5, with D 3*5.
    requests = (0.0, 6, 1), (0.0, 2, 1), (0.0, 5, 1), (0.0, 1, 1)
    cluster = play(*requests, scheduler="vllm_v0", max_num_batched_tokens=10, max_model_len=10)
    assert times(cluster) == [
        (0.0, 1.0, 1.0, 0),
        (1.0, 2.0, 2.0, 0),
        (1.0, 2.0, 2.0, 0),
        (2.0, 3.0, 3.0, 0),
    ]
    assert cluster.instances[0].scheduled_tokens == 6 + 2 + 5 + 1  # not padded in time


# sarathi.


def test_chunks_are_limited_by_what_decodes_leave() -> None:
    # Budget 4. [0, 1] A's 1 token, 3 of B's 6. [1, 2] A decodes, B's other 3, and nothing is left for C.
    # [2, 3] A decodes, C. B holds the blocks of its whole prompt from 0 on.
    requests = (0.0, 1, 3), (0.0, 6, 1), (0.0, 2, 1)
    cluster = play(*requests, scheduler="sarathi", max_num_batched_tokens=4, max_num_seqs=4)
    assert times(cluster) == [(0.0, 1.0, 3.0, 0), (0.0, 2.0, 2.0, 0), (2.0, 3.0, 3.0, 0)]
    assert cluster.kv_block_s == (1 + 6) + (2 + 6) + (3 + 2)


def test_chunks_of_a_prompt_attend_to_what_is_done() -> None:
    law = LatencyLaw(base_s=1.0, per_token_s=0.0, per_context_token_s=0.0, per_quad_s=1.0)
    # 4 tokens: 1 + 4*(4/2) = 9. 2 tokens after 4: 1 + 2*(2/2 + 4) = 11.
    cluster = play((0.0, 6, 1), scheduler="sarathi", latency=law, max_num_batched_tokens=4, max_num_seqs=4)
    assert times(cluster) == [(0.0, 20.0, 20.0, 0)]


def test_a_new_prompt_starts_where_the_half_done_one_ends() -> None:
    # Budget 4: A 4, then A 2 and B 2, then B 1 and C 1.
    requests = (0.0, 6, 1), (0.0, 3, 1), (0.0, 1, 1)
    cluster = play(*requests, scheduler="sarathi", max_num_batched_tokens=4, max_num_seqs=4)
    assert times(cluster) == [(0.0, 2.0, 2.0, 0), (1.0, 3.0, 3.0, 0), (2.0, 3.0, 3.0, 0)]


def test_a_half_done_prefill_is_preempted_and_keeps_its_prompt() -> None:
    # 9 blocks, budget 4. [0, 1] A's 2 tokens, 2 of B's 6; 8 blocks. [1, 2] A decodes and takes the last
    # block, 3 more of B's. At 2 A evicts B, which has 1 token to go, and which does not fit into the 5
    # blocks free. A completes at 4. B prefills 4 in [4, 5], 2 in [5, 6], decodes in [6, 7].
    requests = (0.0, 2, 4), (0.0, 6, 2)
    cluster = play(
        *requests, scheduler="sarathi", num_gpu_blocks=10, max_num_batched_tokens=4, max_num_seqs=4
    )
    assert times(cluster) == [(0.0, 1.0, 4.0, 0), (0.0, 6.0, 7.0, 1)]
    assert cluster.instances[0].scheduled_tokens == (2 + 3) + (2 + 3) + (6 + 1)
