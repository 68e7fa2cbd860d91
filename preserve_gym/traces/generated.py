"""Traces that are generated, by name: synthetic services, and services of which only sums are published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from preserve_gym.traces import azure_2024, burstgpt_hours
from preserve_gym.traces.client_lengths import servegen_trace
from preserve_gym.traces.dataset_files import dataset_path
from preserve_gym.traces.lengths import read_lengths
from preserve_gym.traces.synthetic import synthetic_trace
from preserve_gym.traces.synthetic_fits import SERVICES
from preserve_gym.traces.trace import SECONDS_PER_DAY, Trace

# The middle of the rates of PreServe's routing experiment.
_SHAREGPT_RATE_RPS = 9.5


@dataclass(frozen=True)
class GeneratedTrace:
    """A trace that is drawn anew for each seed.

    Attributes:
        about: what it is, in a few words.
        generate: gives the trace of a seed and a ``service_scale``, the size of the service relative to the
            recorded or default one.
        needs: data sets that it is generated from.
    """

    about: str
    generate: Callable[[int, float], Trace]
    needs: tuple[str, ...] = ()


def _synthetic(kind: str, days: int, start_day: int) -> GeneratedTrace:
    def generate(seed: int, scale: float) -> Trace:
        return synthetic_trace(
            kind,
            duration_s=days * SECONDS_PER_DAY,
            start_day=start_day,
            mean_rate_rps=scale * SERVICES[kind].default_rate_rps,
            seed=seed,
        )

    span = "a Tuesday" if days == 1 else "a week from Friday"
    return GeneratedTrace(f"{span} of a {kind} service like Azure's", generate)


def _azure_2024(service: str, data_set: str) -> GeneratedTrace:
    make, sums = {
        "azure-2024-hourly": (azure_2024.trace_from_hourly, "counts of hours (an aggregate)"),
        "azure-2024-10min": (azure_2024.trace_from_ten_minutes, "counts of 10 minutes (an estimate)"),
    }[data_set]
    return GeneratedTrace(
        f"a week of Azure's {service} service from {sums}",
        lambda seed, scale: make(dataset_path(data_set), service, seed, scale),
        (data_set,),
    )


def _servegen(model: str) -> GeneratedTrace:
    data_set = f"servegen-{model}"
    return GeneratedTrace(
        f"two weeks of Alibaba's {model} from its clients' counts of 10 minutes; service_scale up to 1",
        lambda seed, scale: servegen_trace(model, dataset_path(data_set), seed=seed, service_scale=scale),
        (data_set,),
    )


def _sharegpt_poisson(seed: int, scale: float) -> Trace:
    return read_lengths(dataset_path("sharegpt-10k")).poisson(_SHAREGPT_RATE_RPS * scale, 7200.0, seed)


GENERATED: dict[str, GeneratedTrace] = {
    "synthetic-chat": _synthetic("chat", 1, 1),
    "synthetic-code": _synthetic("code", 1, 1),
    "synthetic-chat-week": _synthetic("chat", 7, 4),
    "synthetic-code-week": _synthetic("code", 7, 4),
    "azure-2024-conv-from-hourly": _azure_2024("conv", "azure-2024-hourly"),
    "azure-2024-code-from-hourly": _azure_2024("code", "azure-2024-hourly"),
    "azure-2024-conv-from-10min": _azure_2024("conv", "azure-2024-10min"),
    "azure-2024-code-from-10min": _azure_2024("code", "azure-2024-10min"),
    **{f"servegen-{model}-from-windows": _servegen(model) for model in ("m-large", "m-mid", "m-small")},
    "burstgpt-from-hourly": GeneratedTrace(
        "two months of BurstGPT from counts of hours (an aggregate)",
        lambda seed, scale: burstgpt_hours.trace_from_hourly(
            dataset_path("burstgpt-hourly"), dataset_path("burstgpt-daily"), seed, scale
        ),
        ("burstgpt-hourly", "burstgpt-daily"),
    ),
    "sharegpt-poisson": GeneratedTrace(
        "two hours of Poisson arrivals, 9.5 requests/s, with the lengths of ShareGPT conversations",
        _sharegpt_poisson,
        ("sharegpt-10k",),
    ),
}
