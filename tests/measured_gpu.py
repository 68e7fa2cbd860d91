"""What ``measure`` timed on an H100 beside the laws of its presets and published servers.

Run as ``python -m tests.measured_gpu``: prints the tables of ``docs/bring-your-own-gpu.md``. The presets are
not fitted to these iterations.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from preserve_gym import InstanceConfig, LatencyLaw
from preserve_gym.latency.instance import Wanted, fit_instance
from preserve_gym.latency.iterations import Iterations
from preserve_gym.latency.whole_check import compare, read_whole
from tests.measured_servers import SERVERS, Server

FOLDER = Path(__file__).parents[1] / "preserve_gym" / "latency" / "measured"
MODELS = ("llama-3.1-8b", "qwen3-8b")
KINDS = (
    "up to 128 decodes",
    "256 decodes",
    "prompts up to 128 tokens",
    "prompts from 256 tokens on",
    "later chunks of prompts",
    "decodes and a chunk",
)
UNITS = {
    "base_s": ("ms", 1e3),
    "per_token_s": ("us", 1e6),
    "per_context_token_s": ("ns", 1e9),
    "per_quad_s": ("ns", 1e9),
    "knee_tokens": ("tokens", 1),
    "per_token_beyond_knee_s": ("us", 1e6),
    "per_mixed_context_token_s": ("ns", 1e9),
}
"""Of the coefficients of a law on the page."""


def profile_of(model: str) -> Path:
    """The file that ``measure`` wrote."""
    return FOLDER / f"{model}_h100_tp1.csv"


def measured(model: str) -> Iterations:
    """What the file holds."""
    return read_whole(profile_of(model), Wanted(model, "h100", 1).target())


def preset_law(model: str) -> LatencyLaw:
    """Of kernels, from aiconfigurator."""
    return InstanceConfig.from_preset(model, gpu="h100").latency


@cache
def measured_law(model: str) -> LatencyLaw:
    """Fitted to the file."""
    return fit_instance([profile_of(model)], Wanted(model, "h100", 1))[1].law


def errors_of(model: str, law: LatencyLaw) -> pd.DataFrame:
    """Columns ``kind``, one of ``KINDS``, and ``percent``, of the law against each iteration."""
    iterations = measured(model)
    table = compare(law, iterations)
    kinds = []
    for batch in iterations.batches:
        ((tokens, before),) = batch.chunks or ((0, 0),)
        if batch.contexts:
            kinds.append(KINDS[5] if tokens else KINDS[int(len(batch.contexts) > 128)])
        else:
            kinds.append(KINDS[4] if before else KINDS[2 + int(tokens > 128)])
    percent = 100 * (table["predicted_s"] / table["measured_s"] - 1)
    return pd.DataFrame({"kind": kinds, "percent": percent})


def error_rows() -> list[list[str]]:
    """Model and kind of batch; how many; median and range of the errors of both laws."""
    rows = []
    for model in MODELS:
        tables = [errors_of(model, law) for law in (preset_law(model), measured_law(model))]
        for kind in KINDS:
            errors = [table.loc[table["kind"] == kind, "percent"] for table in tables]
            shown = [f"{e.median():+.0f} ({e.min():+.0f} to {e.max():+.0f})" for e in errors]
            rows.append([model, kind, str(len(errors[0])), *shown])
    return rows


def coefficient_rows() -> list[list[str]]:
    """Name and unit of each coefficient; for each model that of the preset, and as measured."""
    laws = [law(model) for model in MODELS for law in (preset_law, measured_law)]
    return [
        [name, unit, *(f"{factor * getattr(law, name):.4g}" for law in laws)]
        for name, (unit, factor) in UNITS.items()
    ]


def servers() -> list[Server]:
    """Those of these models on one H100."""
    return [server for server in SERVERS if server.gpu == "h100" and server.model in MODELS]


def server_row(server: Server) -> list[str]:
    """Whose it is, its requests in flight, and the errors of both laws."""
    context = server.prompt + server.output / 2
    law = measured_law(server.model)
    errors = [100 * (1e3 * law.iteration_s(n, n * context, 0.0) / ms - 1) for n, ms in server.itl_ms.items()]
    return [
        *(server.measured_by, server.model, f"{server.prompt:,} / {server.output:,}"),
        f"{min(server.itl_ms):g} to {max(server.itl_ms):g}",
        *(", ".join(f"{error:+.0f}" for error in some) for some in (server.errors, errors)),
    ]


def tables() -> list[list[list[str]]]:
    """Those of the page, in its order."""
    return [error_rows(), coefficient_rows(), [server_row(server) for server in servers()]]


def main() -> None:
    for rows in tables():
        for row in rows:
            print("|", " | ".join(row), "|")
        print()


if __name__ == "__main__":
    main()
