"""A trace: when requests arrive and how many tokens each reads and writes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.prefix_blocks import PrefixBlocks, Rows
from preserve_gym.traces.rate_process import RateProcess

INT32_MAX = 2**31 - 1
SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Trace:
    """Requests in order of arrival, one read-only array per column.

    What the caller could still write to is copied.

    Attributes:
        arrival_s: float64[n], seconds since the trace's clock zero, >= 0, never decreasing.
        prompt_tokens: int32[n], tokens of the prompt, >= 1.
        output_tokens: int32[n], tokens generated, >= 1.
        request_class: int32[n] or None, service class of each request, >= 0.
        name: what it is, for tables, files and error messages.
        clock_s: time of day at ``arrival_s = 0``, seconds since midnight, in [0, 86400).
        span_s: length of the recording in seconds; by default it ends with the last arrival.
        repairs: what the reader of the file changed or left out, with counts, one sentence each.
        prefix_blocks: the blocks that each prompt consists of, where the recording has them.
        predicted_tokens: int32[n] or None, what was predicted of ``output_tokens`` at arrival, >= 1.
        predicted_upper_tokens: int32[n] or None, lengths that most requests do not exceed, each at least
            the prediction.
        rates: the rates that it was drawn from, where it was generated and they are known.

    Raises:
        InputError: naming the trace, the field, the row (from 0) and what was expected.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    request_class: NDArray[np.int32] | None
    name: str
    clock_s: float
    span_s: float
    repairs: tuple[str, ...]
    prefix_blocks: PrefixBlocks | None
    predicted_tokens: NDArray[np.int32] | None
    predicted_upper_tokens: NDArray[np.int32] | None
    rates: RateProcess | None

    def __init__(
        self,
        arrival_s: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        request_class: ArrayLike | None = None,
        name: str = "",
        clock_s: float = 0.0,
        span_s: float | None = None,
        repairs: tuple[str, ...] = (),
        prefix_blocks: PrefixBlocks | None = None,
        predicted_tokens: ArrayLike | None = None,
        predicted_upper_tokens: ArrayLike | None = None,
        rates: RateProcess | None = None,
    ) -> None:
        self._set("name", name)
        self._set("repairs", tuple(repairs))
        self._set("arrival_s", self._arrivals(arrival_s))
        self._set("prompt_tokens", self._integers("prompt_tokens", prompt_tokens, 1))
        self._set("output_tokens", self._integers("output_tokens", output_tokens, 1))
        classes = None if request_class is None else self._integers("request_class", request_class, 0)
        self._set("request_class", classes)
        if prefix_blocks is not None and len(prefix_blocks) != len(self):
            raise self._error("prefix_blocks", f"those of {len(self)} requests", len(prefix_blocks))
        self._set("prefix_blocks", prefix_blocks)
        self._set_predictions(predicted_tokens, predicted_upper_tokens)
        last_s = float(self.arrival_s[-1]) if len(self) else 0.0
        if span_s is not None and not last_s <= span_s < math.inf:
            raise self._error("span_s", f"a finite number >= the last arrival ({last_s:g})", span_s)
        if not 0.0 <= clock_s < SECONDS_PER_DAY:
            raise self._error("clock_s", "seconds since midnight in [0, 86400)", clock_s)
        self._set("span_s", last_s if span_s is None else float(span_s))
        self._set("clock_s", float(clock_s))
        if rates is not None and abs(len(rates) * rates.bin_s - self.span_s) > rates.bin_s:
            expected = f"rates of {self.span_s:g} s"
            raise self._error("rates", expected, f"{len(rates)} bins of {rates.bin_s:g} s")
        self._set("rates", rates)

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __repr__(self) -> str:
        repairs = "".join(f"; {repair}" for repair in self.repairs)
        return f"<Trace {self.name!r}: {len(self):,} requests in {self.span_s:,.1f} s{repairs}>"

    def take(
        self,
        rows: Rows,
        arrival_s: ArrayLike | None = None,
        clock_s: float | None = None,
        span_s: float | None = None,
        name: str | None = None,
        rates: RateProcess | None = None,
    ) -> Trace:
        """Some of the requests: a slice, a mask, or row numbers in order of arrival.

        The clock, the span and the name stay as they are; ``arrival_s``, ``clock_s``, ``span_s`` and ``name``
        replace them. The rates are those given: which requests are taken changes them.
        """
        return Trace(
            arrival_s=self.arrival_s[rows] if arrival_s is None else arrival_s,
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            request_class=None if self.request_class is None else self.request_class[rows],
            name=self.name if name is None else name,
            clock_s=self.clock_s if clock_s is None else clock_s,
            span_s=self.span_s if span_s is None else span_s,
            repairs=self.repairs,
            prefix_blocks=None if self.prefix_blocks is None else self.prefix_blocks.take(rows),
            predicted_tokens=None if self.predicted_tokens is None else self.predicted_tokens[rows],
            predicted_upper_tokens=(
                None if self.predicted_upper_tokens is None else self.predicted_upper_tokens[rows]
            ),
            rates=rates,
        )

    def row_range(self, start_s: float, end_s: float) -> slice:
        """Rows that arrive in [start_s, end_s), as a slice of the columns."""
        if not start_s <= end_s:
            raise InputError(f"{self._where()}: expected start_s <= end_s, got {start_s!r} and {end_s!r}")
        first, last = np.searchsorted(self.arrival_s, (start_s, end_s), side="left")
        return slice(int(first), int(last))

    def slice(self, start_s: float, end_s: float) -> Trace:
        """The requests that arrive in [start_s, end_s), as a trace that starts at ``start_s``.

        Arrivals become relative to ``start_s`` and ``clock_s`` moves with them, so each request keeps
        its time of day. ``span_s`` is ``end_s - start_s``.

        Raises:
            InputError: unless 0 <= start_s <= end_s, both finite.
        """
        if not 0.0 <= start_s <= end_s < math.inf:
            raise InputError(
                f"{self._where()}: expected 0 <= start_s <= end_s, got {start_s!r} and {end_s!r}"
            )
        rows = self.row_range(start_s, end_s)
        span_s = end_s - start_s
        return self.take(
            rows,
            # Rounding must not carry an arrival past the end of the slice.
            arrival_s=np.minimum(self.arrival_s[rows] - start_s, span_s),
            clock_s=(self.clock_s + start_s) % SECONDS_PER_DAY,
            span_s=span_s,
            rates=self.rates and self.rates.part(start_s, end_s),
        )

    def window_count(self, window_s: float) -> int:
        """Windows [k*window_s, (k+1)*window_s) that the recording touches, at least one.

        Raises:
            InputError: unless ``window_s`` is finite and positive, and at most 10 million windows.
        """
        if not (math.isfinite(window_s) and window_s > 0):
            raise InputError(f"window_s: expected a finite number > 0, got {window_s!r}")
        if self.span_s / window_s > 1e7:
            raise InputError(
                f"window_s: expected at most 10,000,000 windows in the {self.span_s:g} s of {self._where()}, "
                f"got windows of {window_s!r} s"
            )
        last = int(self.arrival_s[-1] // window_s) + 1 if len(self) else 1
        return max(last, math.ceil(self.span_s / window_s), 1)

    def window_tokens(self, window_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Prompt and output tokens that arrive in each window of the trace's clock.

        Window k covers ``arrival_s`` in [k*window_s, (k+1)*window_s). A request counts whole in the
        window of its arrival. The last window may be incomplete: the recording may end inside it.

        Returns:
            Two arrays float64[k], tokens per window.
        """
        count = self.window_count(window_s)
        window = (self.arrival_s // window_s).astype(np.int64)
        prompt_tokens, output_tokens = (
            np.bincount(window, weights=tokens, minlength=count).astype(np.float64, copy=False)
            for tokens in (self.prompt_tokens, self.output_tokens)
        )
        return prompt_tokens, output_tokens

    def _where(self) -> str:
        return f"trace {self.name!r}" if self.name else "trace"

    def _error(self, name: str, expected: str, value: object, row: int | None = None) -> InputError:
        at = "" if row is None else f"row {row}: "
        shown = value.item() if isinstance(value, np.generic) else value
        return InputError(f"{self._where()}: {at}{name}: expected {expected}, got {shown!r}")

    def _set(self, name: str, value: object) -> None:
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
        object.__setattr__(self, name, value)

    def _set_predictions(self, tokens: ArrayLike | None, upper: ArrayLike | None) -> None:
        name, upper_name = "predicted_tokens", "predicted_upper_tokens"
        if tokens is None and upper is not None:
            raise InputError(f"{self._where()}: {upper_name}: expected {name} too, got none")
        self._set(name, None if tokens is None else self._integers(name, tokens, 1))
        self._set(upper_name, None if upper is None else self._integers(upper_name, upper, 1))
        if self.predicted_tokens is not None and self.predicted_upper_tokens is not None:
            below = self.predicted_upper_tokens < self.predicted_tokens
            if below.any():
                row = int(np.argmax(below))
                expected = f"at least {name} ({self.predicted_tokens[row]})"
                raise self._error(upper_name, expected, self.predicted_upper_tokens[row], row)

    def _arrivals(self, values: ArrayLike) -> NDArray[np.float64]:
        try:
            array = np.array(values, dtype=np.float64, copy=None if _is_frozen(values) else True)
        except (TypeError, ValueError):
            raise InputError(f"{self._where()}: arrival_s: expected numbers (seconds)") from None
        if array.ndim != 1:
            raise self._error("arrival_s", "a one-dimensional array", f"shape {array.shape}")
        bad = ~(np.isfinite(array) & (array >= 0.0))
        if bad.any():
            row = int(np.argmax(bad))
            raise self._error("arrival_s", "a finite number of seconds >= 0", array[row], row)
        falls = array[1:] < array[:-1]
        if falls.any():
            row = int(np.argmax(falls)) + 1
            raise self._error(
                "arrival_s", f"at least that of the row before ({array[row - 1]:g})", array[row], row
            )
        return array

    def _integers(self, name: str, values: ArrayLike, least: int) -> NDArray[np.int32]:
        array = np.asarray(values)
        if array.ndim != 1 or len(array) != len(self.arrival_s):
            raise self._error(
                name, f"one value per arrival, shape ({len(self.arrival_s)},)", f"shape {array.shape}"
            )
        expected = f"an integer in [{least}, {INT32_MAX}]"
        if array.size == 0:
            return np.empty(0, np.int32)
        if array.dtype.kind not in "iuf":
            raise InputError(f"{self._where()}: {name}: expected integers, got {array.dtype} values")
        with np.errstate(invalid="ignore"):
            bad = (array < least) | (array > INT32_MAX)
            if array.dtype.kind == "f":
                bad |= array != np.floor(array)
        if bad.any():
            row = int(np.argmax(bad))
            raise self._error(name, expected, array[row], row)
        return array.astype(np.int32, copy=not _is_frozen(values))


def _is_frozen(values: ArrayLike) -> bool:
    """Whether this is an array that nobody can write to, so that no copy is needed."""
    if not isinstance(values, np.ndarray) or values.flags.writeable:
        return False
    return values.base is None or (isinstance(values.base, np.ndarray) and not values.base.flags.writeable)
