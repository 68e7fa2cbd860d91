"""KV-cache memory of an instance: a pool of blocks, and its use integrated over time."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import Record


@kernel
def blocks_for(p: Record, tokens: int) -> int:
    """Blocks that hold ``tokens`` tokens."""
    return (tokens + p.block_size - 1) // p.block_size


@kernel
def take_blocks(instance: Record, blocks: int, now: float) -> None:
    """Take ``blocks`` blocks (give back, if negative) at time ``now``."""
    instance.block_s += instance.blocks_used * (now - instance.blocks_since_s)
    instance.blocks_since_s = now
    instance.blocks_used += blocks
