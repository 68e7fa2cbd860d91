"""PreServe's load anticipator: an instance's predicted KV use over its next iterations.

Source: arXiv 2504.03702.  A request that produced its first token adds ``(P + k) / M`` at ``k``
iterations after it, for ``k`` in ``[0, D)``, with ``P`` prompt tokens, ``D`` predicted output tokens
and ``M`` tokens of KV capacity.  A request that outlives its prediction has it extended by 20 %,
again and again; one that ends early stops counting.

The published form writes each request into a ring of future iterations.  The same map follows from
the running requests alone, so none is kept: it is summed when somebody asks.
"""

from __future__ import annotations

from preserve_gym.sim.decoding import ended_output
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import F8, OFF, PREFILLING, State


@kernel
def predicted_end(predicted_tokens: int, after: int) -> int:
    """Predicted output length, extended by a fifth (at least 1) until it exceeds ``after``."""
    step = max(1, (predicted_tokens + 4) // 5)
    end = predicted_tokens
    if end <= after:
        end += ((after - end) // step + 1) * step
    return end


@kernel
def look_ahead(s: State, i: int, use: F8, ends: F8) -> None:
    """Fill ``use[j]`` with the predicted KV use of instance ``i`` in ``j`` iterations.

    Args:
        use: float64 of shape (look_ahead,); fractions of the KV capacity, may exceed 1.
        ends: scratch of the same shape.
    """
    window = len(use)
    for j in range(window):
        use[j] = 0.0  # first: tokens of the requests that end at j
        ends[j] = 0.0  # how many they are
    tokens = 0.0
    count = 0.0
    r = s.instances[i].running_head
    while r >= 0:
        request = s.requests[r]
        r = request.next
        produced = request.generated
        if request.status != PREFILLING:
            produced = ended_output(s.instances[i], request)
        if produced == 0:
            continue
        age = produced - 1
        left = predicted_end(request.predicted_tokens, age) - age
        tokens += request.prompt_tokens + age
        count += 1
        if left < window:
            use[left] += request.prompt_tokens + age + left
            ends[left] += 1
    capacity = s.params[0].kv_blocks * s.params[0].block_size
    for j in range(window):
        tokens -= use[j]
        count -= ends[j]
        use[j] = tokens / capacity
        tokens += count


@kernel
def look_ahead_all(
    s: State,
    high: float,
    use: F8,
    ends: F8,
    peak: F8,
    share_above: F8,
) -> None:
    """Peak of the look-ahead map and the share of it above ``high``, for every instance.

    Args:
        use, ends: scratch, float64 of shape (look_ahead,).
        peak, share_above: float64 of shape (max_instances,), filled; 0 for instances that are off.
    """
    window = len(use)
    for i in range(len(s.instances)):
        peak[i] = 0.0
        share_above[i] = 0.0
        if s.instances[i].state == OFF or s.instances[i].n_running == 0:
            continue
        look_ahead(s, i, use, ends)
        above = 0
        for j in range(window):
            peak[i] = max(peak[i], use[j])
            if use[j] > high:
                above += 1
        share_above[i] = above / window
