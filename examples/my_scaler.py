"""An autoscaler of your own: the token rate of the last two minutes, and a fifth more.

python -m experiments.run --policies examples/my_scaler.py:RateWithHeadroom hpa preserve
"""

import math
from dataclasses import dataclass

from baselines.base import Autoscaler


@dataclass(frozen=True)
class RateWithHeadroom(Autoscaler):
    """Says how many instances there should be, starting and ready ones together."""

    name: str = "rate-with-headroom"
    headroom: float = 1.2

    def decide(self, obs, state):
        """As many as the load needs, and a fifth more."""
        prompt, output = obs["prompt_token_rate"][3], obs["output_token_rate"][3]  # over 120 s
        return math.ceil(self.headroom * self.profile.need(prompt, output))
