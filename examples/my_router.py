"""A router of your own, with the fleet that PreServe's forecast asks for.

python -m experiments.run --policies examples/my_router.py:LeastPrefill proactive preserve
"""

from dataclasses import dataclass

from baselines import PreServe
from preserve_gym import router


@router
def least_prefill(view, request):
    """Fewest prompt tokens still to be read; ties to the lowest slot."""
    best = view.ready[0]
    for i in view.ready[: view.n_ready]:
        if view.queued_prefill_tokens[i] < view.queued_prefill_tokens[best]:
            best = i
    return best


@dataclass(frozen=True, kw_only=True)
class LeastPrefill(PreServe):
    """PreServe's first tier, and this router in place of PreServe's."""

    name: str = "least-prefill"
    router: object = least_prefill
    tier_2: bool = False
