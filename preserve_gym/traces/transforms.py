"""The transforms by name, and those that change the time, the services or the lengths of a trace."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.traces.catalog import load_trace
from preserve_gym.traces.rate_process import sum_of
from preserve_gym.traces.rate_shapes import Burst, Ramp, Step
from preserve_gym.traces.scaling import scale_rate
from preserve_gym.traces.trace import Trace
from preserve_gym.traces.transform import MAX_TIME_S, Transform


@dataclass(frozen=True)
class SqueezeTime(Transform):
    """Time runs ``factor`` times as fast: arrivals and span are divided by it.

    Keeps every request, their order, the shape of the rate curve, the CV of the inter-arrival times, and the
    index of dispersion of windows that are squeezed with them. Alters the span and, by ``factor``, the rate;
    bursts and lulls are as many times shorter, so a cold start weighs more. ``clock_s`` stays the time of day
    of clock zero, and the clock goes on at its usual pace: at 24 a day takes an hour, and the time of day
    says nothing about where in it a request belongs.

    Attributes:
        factor: 1e-6 to 1e6; PreServe's artifact takes 24. Below 1 time is stretched.
    """

    whole: ClassVar[bool] = True
    factor: float

    def __post_init__(self) -> None:
        self._check("factor", 1e-6, 1e6)

    def apply(self, trace: Trace, rng: np.random.Generator, start_s: float = 0.0) -> Trace:
        """The trace in ``1 / factor`` of its time; nothing is drawn."""
        self._refuse_slice(start_s)
        return trace.take(
            slice(None),
            arrival_s=trace.arrival_s / self.factor,
            span_s=trace.span_s / self.factor,
            rates=trace.rates and trace.rates.squeezed(self.factor),
        )


@dataclass(frozen=True)
class Slice(Transform):
    """Only the requests that arrive in [from_s, to_s).

    Keeps each of them and its time of day. Alters the span and clock zero, which is at ``from_s`` from then
    on, for the transforms that follow as well.

    Attributes:
        from_s: start, on the trace's clock.
        to_s: end, later than ``from_s`` and at most the trace's span.
    """

    whole: ClassVar[bool] = True
    from_s: float
    to_s: float

    def __post_init__(self) -> None:
        self._check("from_s", 0.0, MAX_TIME_S)
        self._check("to_s", self.from_s, MAX_TIME_S, above=True)

    def apply(self, trace: Trace, rng: np.random.Generator, start_s: float = 0.0) -> Trace:
        """The slice of the trace; nothing is drawn."""
        self._refuse_slice(start_s)
        if self.to_s > trace.span_s:
            expected = f"at most the {trace.span_s:.15g} s of trace {trace.name!r}"
            raise self._error("to_s", expected, self.to_s)
        return trace.slice(self.from_s, self.to_s)


@dataclass(frozen=True)
class Mix(Transform):
    """Adds the requests of another service, as a class of its own; see ``mix_traces``.

    Keeps the span and every request of the trace. Alters the rate, by that of the other service, and the mix
    of lengths. The other recording may be thinned but not raised, as copies would flatten its rate curve.

    Attributes:
        trace: name or path of the other recording, as ``load_trace`` takes it.
        rate_scale: share of its requests that is kept, above 0 and at most 1, by thinning.
        service_scale: size of the other service, where it is generated, as ``load_trace`` takes it.
        seed: of the other recording, where it is generated; None: one that follows from that of the workload
            (outside of one, 1).
    """

    whole: ClassVar[bool] = True
    trace: str
    rate_scale: float = 1.0
    service_scale: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.trace, str | Path) and str(self.trace)):
            raise self._error("trace", "the name or the path of a trace", self.trace)
        object.__setattr__(self, "trace", str(self.trace))
        self._check("rate_scale", 0.0, 1.0, above=True)
        self._check("service_scale", 0.0, 1e6, above=True)
        if self.seed is not None:
            self._check_seed("seed")

    def seeded(self, seed: int) -> Mix:
        """The seed itself would give a generated service the very users that the first one has."""
        return self if self.seed is not None else dataclasses.replace(self, seed=seed + 1)

    def apply(self, trace: Trace, rng: np.random.Generator, start_s: float = 0.0) -> Trace:
        """Both services in one trace; ``rng`` draws what is kept of the other one."""
        self._refuse_slice(start_s)
        seed = 1 if self.seed is None else self.seed
        other = load_trace(self.trace, seed, self.service_scale)
        return mix_traces(trace, scale_rate(other, self.rate_scale, rng))


def mix_traces(trace: Trace, other: Trace) -> Trace:
    """The requests of two services in one trace, told apart by their class.

    The clock zeros of both lie on each other, whatever their times of day; ``clock_s`` and the span are those
    of the first, and what the other has from its end on is left out. Requests of the first keep their class,
    or get 0 where they have none; all of the other get the next free one. Prefix blocks are dropped: an id
    means another block in each recording.

    Raises:
        InputError: if the other is shorter than the first.
    """
    if other.span_s < trace.span_s:
        raise InputError(
            f"mix: expected a trace of at least the {trace.span_s:.15g} s of {trace.name!r}, got the "
            f"{other.span_s:.15g} s of {other.name!r}; slice the first, or mix it into the other"
        )
    rates = sum_of([trace.rates, other.rates])
    other = other.take(other.row_range(0.0, trace.span_s))
    first_class = np.zeros(len(trace), np.int64) if trace.request_class is None else trace.request_class
    next_class = int(first_class.max(initial=0)) + 1
    arrival_s = np.concatenate((trace.arrival_s, other.arrival_s))
    order = np.argsort(arrival_s, kind="stable")
    return Trace(
        arrival_s=arrival_s[order],
        prompt_tokens=np.concatenate((trace.prompt_tokens, other.prompt_tokens))[order],
        output_tokens=np.concatenate((trace.output_tokens, other.output_tokens))[order],
        request_class=np.concatenate((first_class, np.full(len(other), next_class)))[order],
        name=f"{trace.name} + {other.name}",
        clock_s=trace.clock_s,
        span_s=trace.span_s,
        repairs=(*trace.repairs, *(f"{other.name}: {repair}" for repair in other.repairs)),
        rates=rates,
    )


@dataclass(frozen=True)
class LengthDrift(Transform):
    """The mix of short and long requests moves over time, as a sine.

    The requests of the trace are divided at the median of their work (prompt and output tokens, equal ones in
    order of arrival) into a short and a long half. At time t a request is drawn from the long half with
    probability ``0.5 * (1 + amplitude * sin(2 pi (t - phase_s) / period_s))``, else from the short one, each
    with replacement.

    Keeps the arrivals, and which prompt, output and class come together. Where the rate is even, the lengths
    over whole periods have the distribution that they had; where it moves with the drift, the longer half
    weighs more or less. Alters the order of the lengths: within a half they are independent, so a drift that
    the trace had is gone. Prefix blocks are dropped, as a request that is drawn twice would share its own.

    Attributes:
        period_s: from one swing to the next.
        amplitude: above 0 and at most 1; at 1 there are moments with only long or only short requests.
        phase_s: a time at which the halves are even and the long one grows, on the clock of the recording.
    """

    period_s: float
    amplitude: float
    phase_s: float = 0.0

    def __post_init__(self) -> None:
        self._check("period_s", 0.0, MAX_TIME_S, above=True)
        self._check("amplitude", 0.0, 1.0, above=True)
        self._check("phase_s", 0.0, MAX_TIME_S)

    def apply(self, trace: Trace, rng: np.random.Generator, start_s: float = 0.0) -> Trace:
        """The trace with other lengths at the same arrivals; a trace of one request stays as it is."""
        if len(trace) < 2:
            return trace
        work = trace.prompt_tokens.astype(np.int64) + trace.output_tokens
        by_work = np.argsort(work, kind="stable")
        half = len(trace) // 2
        is_long = rng.random(len(trace)) < self._long_share(start_s + trace.arrival_s)
        drawn = np.where(
            is_long, rng.integers(half, len(trace), len(trace)), rng.integers(0, half, len(trace))
        )
        if trace.prefix_blocks is not None:
            trace = dataclasses.replace(trace, prefix_blocks=None)
        rates = trace.rates
        if rates is not None:
            share = self._long_share(start_s + rates.middle_s)
            means = (
                (1.0 - share) * tokens[by_work[:half]].mean() + share * tokens[by_work[half:]].mean()
                for tokens in (trace.prompt_tokens, trace.output_tokens)
            )
            rates = rates.with_means(*means)
        return trace.take(by_work[drawn], arrival_s=trace.arrival_s, rates=rates)

    def _long_share(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the requests that are drawn from the long half, at times on the recording's clock."""
        angle = 2.0 * math.pi * (time_s - self.phase_s) / self.period_s
        return 0.5 * (1.0 + self.amplitude * np.sin(angle))


TRANSFORMS: dict[str, type[Transform]] = {
    "burst": Burst,
    "step": Step,
    "ramp": Ramp,
    "squeeze-time": SqueezeTime,
    "slice": Slice,
    "mix": Mix,
    "length-drift": LengthDrift,
}
"""Kind, as a mapping names it, to the transform."""


def make_transform(value: Transform | Mapping[str, Any]) -> Transform:
    """A transform from a mapping of its ``kind`` and its fields, as in YAML; a transform is left as it is.

    Raises:
        InputError: on an unknown kind, a field that it does not have or lacks, or a value that it refuses.
    """
    if isinstance(value, Transform):
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"transform: expected a mapping of its kind and its fields, got {value!r}")
    fields = dict(value)
    if "kind" not in fields:
        raise InputError(f"transform: expected a kind, one of {', '.join(TRANSFORMS)}, got {fields!r}")
    kind = fields.pop("kind")
    if not isinstance(kind, str) or kind not in TRANSFORMS:
        raise InputError(
            f"transform: kind: expected one of {', '.join(TRANSFORMS)}, got {kind!r}"
            f"{did_you_mean(kind, TRANSFORMS)}"
        )
    cls = TRANSFORMS[kind]
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in fields:
        if name not in known:
            expected = f"expected one of {', '.join(known)}{did_you_mean(name, known)}"
            raise InputError(f"{cls.__name__}.{name}: no such field; {expected}")
    for name, field in known.items():
        if name not in fields and field.default is dataclasses.MISSING:
            raise InputError(f"{cls.__name__}.{name}: expected a value, as it has no default")
    return cls(**fields)


def transform_mapping(transform: Transform) -> dict[str, Any]:
    """The mapping of kind and fields that ``make_transform`` reads back.

    Raises:
        InputError: on a transform that is none of ``TRANSFORMS``.
    """
    kind = next((kind for kind, cls in TRANSFORMS.items() if type(transform) is cls), None)
    if kind is None:
        raise InputError(f"transform: expected one of {', '.join(TRANSFORMS)}, got {transform!r}")
    return {"kind": kind, **dataclasses.asdict(transform)}  # type: ignore[call-overload]
