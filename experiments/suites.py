"""What is compared by default: scenarios, policies and seeds that belong together."""

from __future__ import annotations

from dataclasses import dataclass

from baselines import ABLATIONS, POLICIES
from baselines.tuned import SUFFIX, is_tuned
from preserve_gym.scenarios import scenario_names

FEASIBLE = ("feasible", "feasible-by-load")
"""The feasible bound is the lower one of these."""
USUAL = ("static", "reactive", "hpa", "preserve", "preserve-up-only")


@dataclass(frozen=True)
class Suite:
    """A comparison by name.

    Attributes:
        scenarios: names; empty: the embedded trace ``synthetic-chat``.
        policies: names.
        seeds: how many.
        tuned: also each policy with its tuned parameters, on the scenarios that there are some for.
        default_seeds: how many those that play tuned as well play with their defaults; None: all.
        only_tuned: names of those that play with tuned parameters only.
    """

    scenarios: tuple[str, ...] = ()
    policies: tuple[str, ...] = USUAL
    seeds: int = 1
    tuned: bool = False
    default_seeds: int | None = None
    only_tuned: tuple[str, ...] = ()

    def policies_of(self, scenario: str) -> tuple[str, ...]:
        """The policies that play a scenario."""
        candidates = (*(self.policies if self.tuned else ()), *self.only_tuned)
        tuned = [f"{name}{SUFFIX}" for name in candidates if is_tuned(name, scenario)]
        return (*self.policies, *tuned)


def autoscalers() -> tuple[str, ...]:
    """All of the registry but ablations and bounds, which not every scenario and seed has."""
    endings = tuple(f"-{part}" for part in ABLATIONS)
    return tuple(name for name, entry in POLICIES.items() if not (name.endswith(endings) or entry.oracle))


SUITES: dict[str, Suite] = {
    "quick": Suite(),
    "benchmark": Suite(
        scenario_names(), autoscalers(), seeds=8, tuned=True, default_seeds=2, only_tuned=FEASIBLE
    ),
    "week": Suite(("chat-week", "code-week", "flash-crowd", "recurring-surges")),
}
