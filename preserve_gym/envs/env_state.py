"""What an environment's compiled part works on, beside its cluster: flat arrays, changed in place.

Sizes: ``N`` requests of the workload, ``W`` windows of its forecast, ``H`` windows in each, ``P`` physical
quantities, ``F`` features, ``K`` figures of info, ``T`` totals.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numba import float32, float64, from_dtype, int64, types
from numpy.typing import NDArray

from preserve_gym.sim.addresses import take_number, taker
from preserve_gym.sim.by_reference import ByReference, ByReferenceType
from preserve_gym.sim.engine import EVENT_LOOP_SIGNATURE
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.routing import ROUTER_SIGNATURE, RouterView
from preserve_gym.sim.state import F8, I8, Records, State

F4 = NDArray[np.float32]

CONSTANTS = np.dtype(
    [
        ("interval_s", "f8"),
        ("reads", "i8"),  # what the router reads
        ("warmup_reads", "i8"),  # and that of the warm-up
        ("sets_weights", "i8"),  # 1 if actions hold weights of the router
        # The workload.
        ("clock_s", "f8"),  # time of day at its start
        ("window_s", "f8"),
        ("horizon", "i8"),  # H
        ("mean_prompt_tokens", "f8"),
        ("mean_predicted_tokens", "f8"),
        # The cluster.
        ("overload_use", "f8"),
        ("mean_cold_start_s", "f8"),
        ("ttft_scale_s", "f8"),
        ("tpot_scale_s", "f8"),
        # Its instance profile.
        ("requests_per_s", "f8"),
        ("prompt_tokens_per_s", "f8"),
        ("output_tokens_per_s", "f8"),
        ("total_tokens_per_s", "f8"),
        ("profiled_in_flight", "f8"),
        ("unloaded_e2e_s", "f8"),
        # The reward.
        ("scale", "f8"),
        ("baseline_headroom", "f8"),
        ("requests_per_interval", "f8"),
    ],
    align=True,
)
"""What does not change after construction."""

STEP, BEGIN, LOOK = 0, 1, 2

EPISODE = np.dtype(
    [
        ("next", "i8"),  # what the next turn does: STEP, BEGIN or LOOK
        ("ended", "i8"),
        ("start_s", "f8"),  # of the scored part
        ("end_s", "f8"),
        ("warmup_s", "f8"),
        ("first_row", "i8"),  # of the episode's requests in the workload
        ("violation_weight", "f8"),
        ("steps", "i8"),
        ("last_target", "i8"),  # before the last action
        ("closed_window", "i8"),  # the last closed window that closed_ratio is of
        ("closed_ratio", "f8"),  # measured over forecast load of that window
        # Route.
        ("request", "i8"),  # the one that waits for a decision, or -1
        ("schedule_row", "i8"),  # the next change of the fleet
        ("pause_s", "f8"),  # serve no further: the caller wants to act
        ("last_s", "f8"),  # time of the last decision
        ("chosen", "i8"),  # where the last request went, or -1
    ],
    align=True,
)
"""Where an episode stands."""


class EnvState(ByReference):
    """One environment."""

    constants: Records  # CONSTANTS, (1,)
    episode: Records  # EPISODE, (1,)
    arrival_s: F8  # (N,)
    prompt_before: I8  # (N + 1,) prompt tokens of the requests before each
    predicted_before: I8  # (N + 1,)
    forecast_prompt: F8  # (W*H,)
    forecast_output: F8  # (W*H,)
    needs: F8  # (W*H,) the forecast as instances
    schedule_s: F8  # (any,) when the fleet changes, on the trace's clock; Route only
    schedule_instances: I8  # (any,) to how many
    low: F4  # (F,) bounds of the features
    high: F4  # (F,)
    # Results.
    action: I8  # (1,) target or choice
    weights: F8  # (ROUTER_WEIGHTS,)
    before: F8  # (T,) totals at the start of the interval
    now: F8  # (T,) and at its end
    start: F8  # (T,) and at the start of the scored part
    physical: F8  # (P,)
    flat: F4  # (F,)
    info: F8  # (K,)

    COLUMNS: ClassVar[dict[str, Any]] = {
        "constants": from_dtype(CONSTANTS)[::1],
        "episode": from_dtype(EPISODE)[::1],
        "arrival_s": float64[::1],
        "prompt_before": int64[::1],
        "predicted_before": int64[::1],
        "forecast_prompt": float64[::1],
        "forecast_output": float64[::1],
        "needs": float64[::1],
        "schedule_s": float64[::1],
        "schedule_instances": int64[::1],
        "low": float32[::1],
        "high": float32[::1],
        "action": int64[::1],
        "weights": float64[::1],
        "before": float64[::1],
        "now": float64[::1],
        "start": float64[::1],
        "physical": float64[::1],
        "flat": float32[::1],
        "info": float64[::1],
    }


class Turns(ByReference):
    """Environments that shall take a turn: begin their episode, or make a step of it.

    Each thread has an object of its own, and all but ``own`` in common. It takes the environments of its
    block, so that they find their data in its processor's cache, and then those that the others have not
    come to.
    """

    states: Any  # tables, see ``addresses``; int64 of shape (number of environments,)
    views: Any
    envs: Any
    functions: Any  # (1,) the event loop
    routers: Any  # (2,) that of the steps and that of the warm-up
    which: I8  # (number of environments,) those that shall take a turn
    count: I8  # (1,) how many they are
    blocks: I8  # (1,) threads at work
    taken: I8  # (threads,) of each block, how many environments have been taken, or more
    own: I8  # (1,) block of this thread

    COLUMNS: ClassVar[dict[str, Any]] = dict.fromkeys(
        (
            "states",
            "views",
            "envs",
            "functions",
            "routers",
            "which",
            "count",
            "blocks",
            "taken",
            "own",
        ),
        int64[::1],
    )


STATE = ByReferenceType(State)
VIEW = ByReferenceType(RouterView)
ENV = ByReferenceType(EnvState)
EVENT_LOOP = types.FunctionType(EVENT_LOOP_SIGNATURE)
ROUTER = types.FunctionType(ROUTER_SIGNATURE)

take_state = taker(STATE)
take_view = taker(VIEW)
take_env = taker(ENV)
take_event_loop = taker(EVENT_LOOP)
take_router = taker(ROUTER)


@kernel
def next_environment(turns: Turns) -> int:
    """An environment that shall take a turn and that nobody else has taken; -1 if there is none."""
    count, blocks = turns.count[0], turns.blocks[0]
    for k in range(blocks):
        block = (turns.own[0] + k) % blocks
        first, end = count * block // blocks, count * (block + 1) // blocks
        if first + turns.taken[block] < end:
            place = first + take_number(turns.taken, block)
            if place < end:
                return turns.which[place]
    return -1
