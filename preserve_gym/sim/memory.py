"""KV-cache memory of an instance: a pool of blocks, and its use integrated over time."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import Record


@kernel
def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold ``tokens`` tokens."""
    return (tokens + block_size - 1) // block_size


@kernel
def take_blocks(instance: Record, blocks: int, now: float) -> None:
    """Take ``blocks`` blocks (give back, if negative) at time ``now``."""
    instance.block_s += instance.blocks_used * (now - instance.blocks_since_s)
    instance.blocks_since_s = now
    instance.blocks_used += blocks


@kernel
def release_all(p: Record, instance: Record, request: Record, now: float) -> None:
    """Give back every block that ``request`` holds on ``instance``."""
    take_blocks(instance, -blocks_for(request.computed, p.block_size), now)
