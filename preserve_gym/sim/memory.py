"""KV-cache memory of an instance: a pool of blocks, and its use integrated over time."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import Instances, Params, Requests


@kernel
def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold ``tokens`` tokens."""
    return (tokens + block_size - 1) // block_size


@kernel
def take_blocks(ins: Instances, i: int, blocks: int, now: float) -> None:
    """Take ``blocks`` blocks of instance ``i`` (give back, if negative) at time ``now``."""
    ins.block_s[i] += ins.blocks_used[i] * (now - ins.blocks_since_s[i])
    ins.blocks_since_s[i] = now
    ins.blocks_used[i] += blocks


@kernel
def release_all(p: Params, rq: Requests, ins: Instances, i: int, r: int, now: float) -> None:
    """Give back every block that request ``r`` holds on instance ``i``."""
    take_blocks(ins, i, -blocks_for(rq.computed[r], p.block_size), now)
