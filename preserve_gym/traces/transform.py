"""What every transform of a trace is and promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from preserve_gym.errors import InputError
from preserve_gym.traces.fields import check_number, field_error
from preserve_gym.traces.trace import Trace

MAX_TIME_S = 1e9


class Transform(ABC):
    """Makes a trace of a trace; each subclass is a frozen dataclass that says what it keeps and alters.

    A trace may be a slice of a longer recording, such as the part that a policy is trained on. Whatever a
    transform draws and copies comes from the slice that it is given, so nothing leaks from one into another;
    what depends on time does so by the clock of the whole recording. The span stays as it is.

    Attributes:
        whole: the transform may change the span, so it must be given the whole recording, before that is
            cut up.
    """

    whole: ClassVar[bool] = False

    @abstractmethod
    def apply(self, trace: Trace, rng: np.random.Generator, start_s: float = 0.0) -> Trace:
        """The transformed trace.

        Args:
            trace: a recording, or a slice of it whose clock starts at 0.
            rng: draws what is random.
            start_s: where the slice's 0 lies on the clock of the recording, in seconds.

        Raises:
            InputError: if the trace does not suit, or a transform that is ``whole`` is given a later slice.
        """

    def seeded(self, seed: int) -> Transform:
        """The transform as a workload of that seed applies it, where its own seed was left open."""
        return self

    def _error(self, name: str, expected: str, value: object) -> InputError:
        return field_error(self, name, expected, value)

    def _check(self, name: str, low: float, high: float, *, above: bool = False) -> None:
        """Refuse all but a number in [low, high], or (low, high] with ``above``; store a Python float."""
        check_number(self, name, low, high, above=above)

    def _check_seed(self, name: str) -> None:
        value: Any = getattr(self, name)
        integer: Any = Integral
        if isinstance(value, bool) or not isinstance(value, integer) or not 0 <= value < 2**63:
            raise self._error(name, "an integer in [0, 2**63)", value)
        object.__setattr__(self, name, int(value))

    def _refuse_slice(self, start_s: float) -> None:
        if start_s != 0.0:
            raise InputError(
                f"{type(self).__name__}: expected the whole recording, got the slice from {start_s:g} s on"
            )
