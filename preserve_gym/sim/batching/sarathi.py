"""Sarathi-Serve's scheduler (OSDI 2024): decodes first, prefills in chunks with what the budget leaves.

The rules, as Vidur (MLSys 2024) implements them:

* all decoding requests, then the prompt that is half done, then new ones in strict order of arrival, while
  the tokens of the batch stay below the budget (the decodes themselves are not limited by it);
* admission reserves the blocks of the whole prompt and leaves ``watermark`` free;
* memory for decodes and preemption as in ``vllm_v0``. A prompt preempted half done starts again whole
  (Vidur loses the rest of it).
"""

from __future__ import annotations

from preserve_gym.sim.batching.common import (
    add_chunk,
    admit,
    close_batch,
    decode_all,
    no_room,
    no_tokens,
)
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for, take_blocks
from preserve_gym.sim.state import State


@kernel
def schedule(s: State, i: int, b: int, now: float, start: float) -> bool:
    """Schedule a batch of instance ``i`` at ``now``, to be executed at ``start``, into slot ``b``.

    Returns:
        Whether there is anything to do.
    """
    p, instance = s.params[0], s.instances[i]
    batch = no_tokens(s, b)
    decode_all(s, i, b, now)
    first = i * p.max_num_seqs
    for k in range(first, first + instance.n_prefilling):
        request = s.requests[s.prefilling[k]]
        n = min(request.prefill_target - request.computed, p.max_num_batched_tokens - batch.tokens)
        if n > 0:
            add_chunk(s, b, s.prefilling[k], n)
    while batch.tokens < p.max_num_batched_tokens and not no_room(s, i):
        r = admit(s, i, now, start)
        known = s.requests[r].prefill_target
        take_blocks(s, i, blocks_for(p, known), now)
        add_chunk(s, b, r, min(known, p.max_num_batched_tokens - batch.tokens))
    return close_batch(s, i, b)


@kernel
def stuck(s: State, i: int) -> bool:
    """Whether nothing that waits at instance ``i`` can be admitted while its running requests decode on."""
    return s.instances[i].n_decoding >= s.params[0].max_num_batched_tokens or no_room(s, i)
