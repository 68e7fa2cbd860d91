"""vLLM's first scheduler (up to 0.7): prefill before decode, whole prompts.

If anything that waits can be admitted, the batch is prefill only; otherwise all running requests decode.
The rules, as Vidur (MLSys 2024) implements them:

* strict first come first served; admission reserves the blocks of the prompt and leaves ``watermark`` free;
* the token budget of a prefill batch counts every prompt as long as the longest;
* a decoding request needs a free block at its turn even if it does not grow; the victim of a preemption is
  the last one not placed yet, else the request itself; it is recomputed.
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
    longest = 0
    admitted = 0
    while not stuck(s, i):
        head = s.requests[instance.waiting_head]
        n = head.prompt_tokens + head.generated
        if (admitted + 1) * max(longest, n) > p.max_num_batched_tokens:
            break
        longest = max(longest, n)
        admitted += 1
        r = admit(s, i, now, start)
        take_blocks(s, i, blocks_for(p, n), now)
        add_chunk(s, b, r, n)
    if admitted > 0:
        batch.advances = 0
    else:
        decode_all(s, i, b, now)
    return close_batch(s, i, b)


@kernel
def stuck(s: State, i: int) -> bool:
    """Whether nothing that waits at instance ``i`` can be admitted."""
    return no_room(s, i)
