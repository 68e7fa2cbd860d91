"""What a law remembers of the last seconds: values by the time of the decision."""

from __future__ import annotations

from dataclasses import dataclass, field

# Decision times are sums of floats: an age of 60 s must not come out as 59.9999999999.
_SLACK_S = 1e-6


@dataclass
class Recent:
    """Values of the last ``span_s``, the present one included.

    Attributes:
        span_s: what is older, or exactly as old, is forgotten.
        values: (time_s, value), oldest first.
    """

    span_s: float
    values: list[tuple[float, float]] = field(default_factory=list)

    def add(self, time_s: float, value: float) -> None:
        """Remember a value, forget old ones."""
        self.values[:] = [one for one in self.values if one[0] > time_s - self.span_s + _SLACK_S]
        self.values.append((time_s, value))

    def highest(self) -> float:
        """The highest of them."""
        return max(value for _, value in self.values)

    def mean(self, span_s: float) -> float:
        """The mean of those of the last ``span_s``, at most all."""
        first_s = self.values[-1][0] - span_s + _SLACK_S
        chosen = [value for time_s, value in self.values if time_s > first_s]
        # A span shorter than the interval between decisions holds the present value.
        return sum(chosen) / len(chosen) if chosen else self.values[-1][1]
