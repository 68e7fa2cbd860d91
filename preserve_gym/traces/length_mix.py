"""The joint distribution of prompt and output tokens of a service, in a few figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from preserve_gym.traces.fields import check_number, field_error

FloatArray = NDArray[np.float64]
# Exponents u -> u**e of the quantile level; the mean falls as they rise.
_EXPONENTS = np.geomspace(1 / 16, 16, 257)
_POINTS = (np.arange(20_000) + 0.5) / 20_000


@dataclass(frozen=True)
class LengthMix:
    """Prompt and output tokens of a service's requests.

    Each follows a quantile table, log-linear between the quantiles. A Farlie-Gumbel-Morgenstern copula
    couples the two; but for ties it has the rank correlation exactly.

    Attributes:
        levels: rising, from 0 to 1.
        prompt_quantiles, output_quantiles: tokens at each of ``levels``, never falling.
        correlation: Spearman's rank correlation of prompt and output tokens, in [-1/3, 1/3].

    Raises:
        InputError: on tables or a correlation that are not like this.
    """

    levels: tuple[float, ...]
    prompt_quantiles: tuple[int, ...]
    output_quantiles: tuple[int, ...]
    correlation: float

    def __post_init__(self) -> None:
        levels = np.asarray(self.levels, dtype=np.float64)
        if len(levels) < 2 or levels[0] != 0 or levels[-1] != 1 or not (np.diff(levels) > 0).all():
            raise field_error(self, "levels", "numbers that rise from 0 to 1", self.levels)
        for name in ("prompt_quantiles", "output_quantiles"):
            tokens = np.asarray(getattr(self, name))
            rises = tokens.shape == levels.shape and (np.diff(tokens) >= 0).all()
            if not (rises and tokens[0] >= 1 and tokens[-1] < 2**31):
                expected = f"{len(levels)} numbers of tokens from 1 on that never fall, one for each level"
                raise field_error(self, name, expected, getattr(self, name))
        check_number(self, "correlation", -1 / 3, 1 / 3)

    def draw(
        self,
        size: int,
        rng: np.random.Generator,
        prompt_mean: FloatArray | None = None,
        output_mean: FloatArray | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Prompt and output tokens of ``size`` requests, int32[size] each.

        Args:
            size: requests.
            rng: draws them.
            prompt_mean, output_mean: float64[size], the mean of the distribution that each request's tokens
                come from; None: that of the table. The level u of the table's quantile becomes u**e with
                the e that gives this mean, so that limits and favourite lengths of the service stay and
                only how often they occur changes. Means are clipped to what e in [1/16, 16] gives.
        """
        u, w = rng.random((2, size))
        # Farlie-Gumbel-Morgenstern, theta = 3 * Spearman's correlation: the conditional distribution of
        # v given u is v + a*v*(1 - v); w is its value, v the root in [0, 1].
        a = 3 * self.correlation * (1 - 2 * u)
        v = 2 * w / (1 + a + np.sqrt((1 + a) ** 2 - 4 * a * w))
        if prompt_mean is not None:
            u = u ** self._exponent(self._prompt_means, prompt_mean)
        if output_mean is not None:
            v = v ** self._exponent(self._output_means, output_mean)
        return self._tokens(self.prompt_quantiles, u), self._tokens(self.output_quantiles, v)

    @property
    def prompt_mean(self) -> float:
        """Mean of the prompt tokens by the table."""
        return float(self._tokens(self.prompt_quantiles, _POINTS).mean())

    @property
    def output_mean(self) -> float:
        """Mean of the output tokens by the table."""
        return float(self._tokens(self.output_quantiles, _POINTS).mean())

    @cached_property
    def means_of_requests(self) -> FloatArray:
        """What a request is in the mean by the table: 1 request, its prompt and its output tokens."""
        return np.array([1.0, self.prompt_mean, self.output_mean])

    def reached_means(
        self, prompt_mean: FloatArray | None, output_mean: FloatArray | None, size: int
    ) -> FloatArray:
        """The means that ``draw`` gives where these are wanted, float64[2, size]; None: that of the table."""
        prompt, output = (
            np.full(size, table) if wanted is None else np.clip(wanted, means[-1], means[0])
            for wanted, means, table in (
                (prompt_mean, self._prompt_means, self.prompt_mean),
                (output_mean, self._output_means, self.output_mean),
            )
        )
        return np.stack((prompt, output))

    @cached_property
    def _prompt_means(self) -> FloatArray:
        return self._means(self.prompt_quantiles)

    @cached_property
    def _output_means(self) -> FloatArray:
        return self._means(self.output_quantiles)

    def _means(self, quantiles: tuple[int, ...]) -> FloatArray:
        """Mean tokens at each of ``_EXPONENTS``."""
        return np.array([self._tokens(quantiles, _POINTS**e).mean() for e in _EXPONENTS])

    @staticmethod
    def _exponent(means: FloatArray, wanted: FloatArray) -> FloatArray:
        # Many requests share a mean.
        value, place = np.unique(wanted, return_inverse=True)
        return np.exp(np.interp(value, means[::-1], np.log(_EXPONENTS[::-1])))[place]

    def _tokens(self, quantiles: tuple[int, ...], level: FloatArray) -> NDArray[np.int32]:
        return np.rint(np.exp(np.interp(level, self.levels, np.log(quantiles)))).astype(np.int32)
