"""A lower bound on the bill of any autoscaler under any router, from the work of the requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from baselines.bounds.cheapest import Blocks, Plan, cheapest
from baselines.bounds.problem import Problem
from baselines.bounds.work import Work, works

FloatArray = NDArray[np.float64]

PARTS = (2, 8)
"""Into how many blocks a cold start is cut."""
_LEVELS, _FINE_LEVELS = 16, 128
"""In which work left over is counted, in the search and for its result."""
_STEPS = 30
_STEP_SIZE = 1.0


@dataclass(frozen=True)
class LowerBound:
    """What no policy can undercut; infinite if none can meet the target.

    Attributes:
        instance_s: instance-seconds billed in the scored parts.
        gpus: of one instance.
    """

    instance_s: float
    gpus: int

    @property
    def gpu_hours(self) -> float:
        """GPU-hours billed."""
        return self.instance_s * self.gpus / 3600.0


def lower_bound(problem: Problem) -> LowerBound:
    """The largest of three lower bounds on the instance-seconds of any policy that meets the target.

    Let w be the least work of each request (``work.works``) and d the number of requests that may violate
    the SLO and could comply. An iteration has a batch on one instance, so the work done by a moment is at
    most the time that instances have served by then, and an instance that serves is billed.

    1. *Bounds of the cluster*: ``min_instances`` times the length of the windows.
    2. *Fluid*: the work of all requests that is due by the end of its window, without the d heaviest.
    3. *Blocks*, with ceilings. Let c be the shortest cold start. An instance that serves at time u is billed
       in all of [u - c, u] (or since the start): it was started by u - c, or ready at the start, and an
       instance that has gone off has to start anew. So n instances that serve at any one moment u cost
       n all through [u - c, u]. Cut the window into blocks of c/m. If block k is to do u_k of work, then at
       some moment in it at least ``n_k = ceil(u_k / (c/m))`` instances serve, and each of the m - 1 blocks
       before it, which lie within c of that moment, is billed n_k throughout. So block j is billed at least
       the largest of n_k, k = j+1 ... j+m-1, and so any weighted mean of them; the last block at least the
       work in it, which is more than n - 1 times its length.

       Work may be done from its arrival until it is due: what arrives in block k, plus what has been left
       over before, minus u_k, is left over, and is at most what has arrived and is due after the block. A
       request that is dropped takes its work away in the block of its arrival. The least bill over all
       choices of n and of drops, with a price on drops in place of their limit d, minus the price of d, is
       a lower bound at any price (Lagrange's relaxation) and for any weights; it is found by dynamic
       programming in ``cheapest``, in which the work left over is rounded in the adversary's favour. Price
       and weights are searched for, by subgradients: more weight where the adversary has more instances.

    Every request counts, those in the batch that violate the SLO too; what they cost is left out. Requests
    of the warm-up are left out, and what arrives at the end may be served after it at no cost.
    """
    cluster = problem.cluster
    by_rule = list(zip(*(works(cluster, episode) for episode in problem.episodes), strict=True))
    floor_s = cluster.min_instances * sum(episode.horizon_s for episode in problem.episodes)
    fluids_s = [_fluid(problem, of_windows) for of_windows in by_rule]
    best = int(np.argmax(fluids_s))
    bound_s = max(floor_s, fluids_s[best])
    if np.isfinite(bound_s):
        price_s = None
        for parts in PARTS:
            by_blocks_s, price_s = _by_blocks(problem, by_rule[best], parts, price_s)
            bound_s = max(bound_s, by_blocks_s)
    return LowerBound(bound_s, cluster.instance.gpus)


def _droppable(problem: Problem, of_windows: Sequence[Work]) -> int:
    """Requests that may violate the SLO besides those that have to; negative: the target cannot be met."""
    return problem.allowed - sum(work.hopeless for work in of_windows)


def _fluid(problem: Problem, of_windows: Sequence[Work]) -> float:
    drops = _droppable(problem, of_windows)
    if drops < 0:
        return np.inf
    parts = []
    for episode, work in zip(problem.episodes, of_windows, strict=True):
        end_s = episode.start_s + episode.horizon_s
        parts.append(
            work.prefill_s * (work.prefill_due_s <= end_s) + work.decode_s * (work.decode_due_s <= end_s)
        )
    due_s = np.sort(np.concatenate(parts))
    return float(due_s[: max(len(due_s) - drops, 0)].sum())


def _by_blocks(
    problem: Problem, of_windows: Sequence[Work], parts: int, price_s: float | None
) -> tuple[float, float | None]:
    """The third bound with blocks of a cold start over ``parts``, and the best price.

    It is 0 where cold starts are too short or too long for it.
    """
    cluster, drops = problem.cluster, _droppable(problem, of_windows)
    length_s = min(cluster.cold_starts_s) / parts
    if length_s < 1.0 or any(episode.horizon_s < 2.0 * length_s for episode in problem.episodes):
        return 0.0, price_s
    rest_s, windows = 0.0, []
    for episode, work in zip(problem.episodes, of_windows, strict=True):
        count = int(episode.horizon_s / length_s)
        rest_s += cluster.min_instances * (episode.horizon_s - count * length_s)
        windows.append(cut(work, episode.start_s, length_s, count))

    best_s, price_s = _search(windows, cluster.min_instances, cluster.max_instances, drops, parts, price_s)
    return rest_s + best_s, price_s


def _search(
    windows: list[Blocks], low: int, high: int, drops: int, parts: int, price_s: float | None
) -> tuple[float, float]:
    """The largest bound found, over weights and prices from ``price_s`` on, and its price."""
    logits = [_nothing_known(len(blocks.arriving_s), parts) for blocks in windows]

    weights = [_weights(of_one) for of_one in logits]

    def plans_at(price_s: float, levels: int) -> list[Plan]:
        pairs = zip(windows, weights, strict=True)
        return [cheapest(*pair, low, high, price_s, levels) for pair in pairs]

    def bill_s(price_s: float, levels: int = _LEVELS) -> float:
        return sum(plan.cost_s for plan in plans_at(price_s, levels)) - price_s * drops

    best_s = -np.inf
    if price_s is None:
        # Beyond, a drop costs more than the largest fleet.
        highest_s = 2.0 * high * parts * windows[0].length_s
        found = minimize_scalar(
            lambda root: -bill_s(root**4),
            bounds=(0.0, highest_s**0.25),
            method="bounded",
            options={"xatol": 0.02},
        )
        price_s = float(found.x) ** 4
    best_price_s, best_weights = price_s, weights
    for step in range(_STEPS if parts > 2 else 0):
        plans = plans_at(price_s, _LEVELS)
        reached_s = sum(plan.cost_s for plan in plans) - price_s * drops
        if reached_s > best_s:
            best_s, best_price_s, best_weights = reached_s, price_s, weights
        size = _STEP_SIZE / np.sqrt(step + 1.0)
        for of_one, plan in zip(logits, plans, strict=True):
            ahead = np.pad(plan.instances[1:], (0, parts - 2), mode="edge").astype(np.float64)
            of_one += size * np.lib.stride_tricks.sliding_window_view(ahead, parts - 1)
        weights = [_weights(of_one) for of_one in logits]
        dropped = sum(plan.drops for plan in plans)
        price_s *= float(np.exp(size * (dropped - drops) / max(dropped, drops, 1)))
    weights = best_weights
    return max(bill_s(best_price_s, _FINE_LEVELS), bill_s(0.0)), best_price_s


def _nothing_known(count: int, parts: int) -> FloatArray:
    """Logits of equal weights: of block j on block j + 1 + i, float64[count - 1, parts - 1]; -inf: none."""
    reach = np.arange(count - 1)[:, np.newaxis] + 1 + np.arange(parts - 1)
    return np.where(reach < count, 0.0, -np.inf)


def _weights(logits: FloatArray) -> FloatArray:
    """What a block weighs in the bills of the blocks before it, float64[count]."""
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    weights = np.zeros(len(logits) + 1)
    for i in range(logits.shape[1]):
        used = min(len(logits), len(weights) - 1 - i)
        weights[1 + i :] += share[:used, i]
    return weights


def cut(work: Work, start_s: float, length_s: float, count: int) -> Blocks:
    """The work of a window from ``start_s`` on, in ``count`` blocks; what arrives later is left out."""
    block = ((work.arrival_s - start_s) / length_s).astype(np.int64)
    inside = block < count
    block, total_s = block[inside], work.total_s[inside]
    first = np.searchsorted(block, np.arange(count + 1), side="left")
    parts = np.split(total_s, first[1:-1])
    heaviest_s = np.concatenate([np.cumsum(np.sort(part)[::-1]) for part in parts])
    ends_s = start_s + length_s * np.arange(1, count + 1)
    movable_s = np.zeros(count)
    for part_s, due_s in ((work.prefill_s, work.prefill_due_s), (work.decode_s, work.decode_due_s)):
        arrived = np.searchsorted(work.arrival_s, ends_s, side="left")
        before = np.concatenate(([0.0], np.cumsum(part_s)))[arrived]
        order = np.argsort(due_s)
        due = np.searchsorted(due_s[order], ends_s, side="right")
        # What is due by then has arrived by then.
        movable_s += before - np.concatenate(([0.0], np.cumsum(part_s[order])))[due]
    arriving_s = np.bincount(block, weights=total_s, minlength=count).astype(np.float64)
    return Blocks(length_s, arriving_s, np.maximum(movable_s, 0.0), heaviest_s, first)
