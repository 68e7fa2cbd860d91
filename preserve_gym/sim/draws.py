"""Random numbers by number: kernels keep no generator, so that no draw shifts another."""

from __future__ import annotations

from preserve_gym.sim.jit import entry, kernel


@entry
def uniform(seed: int, draw: int) -> float:
    """The ``draw``-th random number of ``seed``, in [0, 1), with 32 random bits.

    A router keeps no state, so it draws by number: ``view.routed`` differs for every request.
    """
    x = _mix((seed & 0xFFFFFFFF) ^ 0x9E3779B9)
    x = _mix(x ^ (seed >> 32))
    x = _mix(x ^ (draw & 0xFFFFFFFF))
    x = _mix(x ^ (draw >> 32))
    return x * 2.0**-32


@kernel
def _mix(x: int) -> int:
    """A bijection of 32-bit numbers that scatters them; no product exceeds 63 bits."""
    x = (((x >> 16) ^ x) * 0x45D9F3B) & 0xFFFFFFFF
    x = (((x >> 16) ^ x) * 0x45D9F3B) & 0xFFFFFFFF
    return (x >> 16) ^ x
