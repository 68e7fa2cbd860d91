"""KV-cache memory of an instance: a pool of blocks, and its use integrated over time."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import Record, State


@kernel
def blocks_for(p: Record, tokens: int) -> int:
    """Blocks that hold ``tokens`` tokens."""
    return (tokens + p.block_size - 1) >> p.block_shift


@kernel
def free_blocks(s: State, i: int) -> int:
    """Blocks of instance ``i`` that nobody holds."""
    return s.params[0].kv_blocks - s.blocks_used[i]


@kernel
def take_blocks(s: State, i: int, blocks: int, now: float) -> None:
    """Take ``blocks`` blocks (give back, if negative) of instance ``i`` at time ``now``."""
    instance = s.instances[i]
    instance.block_s += s.blocks_used[i] * (now - instance.blocks_since_s)
    instance.blocks_since_s = now
    s.blocks_used[i] += blocks
