"""Profiles of whole iterations: our own format, Splitwise's and SageServe's.

Ours, which ``measure`` writes and describes, has the columns of ``COLUMNS``. The other two time prompts
and output tokens of a whole instance: Patel et al., "Splitwise", ISCA 2024 (Mutinifni/splitwise-sim,
data/perf_model.csv) and Jaiswal et al., "SageServe", POMACS 2025 (shashwatj07/SageServe). Their columns are
the same, their units are not: Splitwise has milliseconds, and per output token; SageServe has seconds, and
for all output tokens together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.latency.batch import Batch
from preserve_gym.latency.gpus import gpu_name
from preserve_gym.latency.measure import COLUMNS
from preserve_gym.latency.models import model_name
from preserve_gym.latency.parts import Target
from preserve_gym.latency.tables import FloatArray

WHOLE_INSTANCE_COLUMNS = (
    "model",
    "hardware",
    "prompt_size",
    "batch_size",
    "token_size",
    "prompt_time",
    "token_time",
    "e2e_time",
    "tensor_parallel",
)
MOST_SEQUENCES = 2**16
"""In a batch; whoever has more has swapped columns."""


@dataclass(frozen=True)
class Iterations:
    """Whole iterations.

    Attributes:
        batches: that were timed.
        seconds: of each, float64 of shape (n,), s.
        places: where in its file each stands.
        of_one_gpu: timed on one GPU of an instance, without what its GPUs exchange.
    """

    batches: list[Batch]
    seconds: FloatArray
    places: list[str]
    of_one_gpu: bool

    def joined(self, other: Iterations) -> Iterations:
        """Both together.

        Raises:
            InputError: if only one of them has what the GPUs exchange.
        """
        if self.of_one_gpu != other.of_one_gpu:
            raise InputError("profile: expected files of `measure` or tables of whole instances, got both")
        return Iterations(
            self.batches + other.batches,
            np.concatenate([self.seconds, other.seconds]),
            self.places + other.places,
            self.of_one_gpu,
        )

    def with_exchange(self, exchange_s: Callable[[float, float], float]) -> Iterations:
        """The same with what the GPUs exchange, by tokens and sequences."""
        exchanged = [exchange_s(batch.tokens, batch.sequences) for batch in self.batches]
        return replace(self, seconds=self.seconds + np.array(exchanged), of_one_gpu=False)

    def distinct(self) -> Iterations:
        """Each batch once, with the mean of its times."""
        groups: dict[Batch, list[int]] = {}
        for row, batch in enumerate(self.batches):
            groups.setdefault(batch, []).append(row)
        return Iterations(
            list(groups),
            np.array([self.seconds[rows].mean() for rows in groups.values()]),
            [self.places[rows[0]] for rows in groups.values()],
            self.of_one_gpu,
        )


def _rows_of(table: pd.DataFrame, columns: tuple[str, str, str], target: Target, source: str) -> pd.DataFrame:
    """Rows of the target's model, GPU and tensor-parallel degree."""
    model, gpu, tp = (table[column] for column in columns)
    models = {name: model_name(name) for name in model.astype(str).unique()}
    gpus = {name: gpu_name(name) for name in gpu.astype(str).unique()}
    here = (
        (model.astype(str).map(models) == target.model.name)
        & (gpu.astype(str).map(gpus) == target.measured_on.name)
        & (tp == target.tp)
    )
    if not here.any():
        there = table[list(columns)].drop_duplicates().astype(str).agg(" ".join, axis=1)
        raise InputError(
            f"{source}: {', '.join(columns)}: expected rows of {target.model.name} on "
            f"{target.measured_on.name} with tp {target.tp}, found {'; '.join(there)}"
        )
    return table[here]


def measured(table: pd.DataFrame, target: Target, source: str) -> Iterations:
    """A profile in our own format."""
    rows = _rows_of(table, ("model", "gpu", "tp"), target, source)
    batches, places = [], []
    columns = ["prefill_tokens", "prefill_context", "decode_requests", "decode_context"]
    for line, (chunk, before, decodes, context) in zip(
        rows.index, rows[columns].itertuples(index=False), strict=True
    ):
        if chunk + decodes < 1 or decodes > MOST_SEQUENCES or (decodes and context < 1):
            raise InputError(
                f"{source}: row {line + 2}: expected a prefill, or at most {MOST_SEQUENCES} decodes with a "
                f"decode_context >= 1; got {chunk:.0f} prefill_tokens, {decodes:.0f} decode_requests and "
                f"decode_context {context:.0f}"
            )
        batches.append(Batch((int(context),) * int(decodes), ((int(chunk), int(before)),) if chunk else ()))
        places.append(f"row {line + 2}")
    return Iterations(batches, rows["time_s"].to_numpy(float), places, of_one_gpu=True)


def whole_instance(table: pd.DataFrame, target: Target, source: str) -> Iterations:
    """Splitwise's or SageServe's table; the median of what was measured several times.

    The prompt time of a batch of one is an iteration that prefills it; those of larger batches are left out,
    as some do not grow with the batch. A token time is a decode with half of the output in the context.
    """
    rows = _rows_of(table, ("model", "hardware", "tensor_parallel"), target, source)
    too_large = rows["batch_size"] > MOST_SEQUENCES
    if too_large.any():
        raise InputError(
            f"{source}: row {rows.index[too_large][0] + 2}, batch_size: expected at most {MOST_SEQUENCES}"
        )
    seconds = _in_seconds(rows, source)
    keys = [rows["prompt_size"], rows["batch_size"], rows["token_size"]]
    medians = seconds.groupby(keys).median().reset_index()
    prompts = medians[medians["batch_size"] == 1].groupby("prompt_size")["prompt_s"].median()
    prompts = prompts[prompts.index > 0]
    batches = [Batch((), ((int(tokens), 0),)) for tokens in prompts.index]
    places = [f"prompt_size {tokens:.0f}, prompt_time" for tokens in prompts.index]
    times = list(prompts)
    several = medians[(medians["token_size"] > 1) & (medians["batch_size"] > 0)]
    sizes = several[["prompt_size", "token_size", "batch_size"]].to_numpy(int)
    for (prompt, output, size), token_s in zip(sizes, several["token_s"], strict=True):
        batches.append(Batch((int(prompt + output // 2),) * int(size), ()))
        times.append(token_s)
        places.append(f"prompt_size {prompt}, batch_size {size}, token_size {output}, token_time")
    return Iterations(batches, np.array(times, dtype=float), places, of_one_gpu=False)


def _in_seconds(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """Prompt time, and time of an output token after the first."""
    prompt, token, whole = rows["prompt_time"], rows["token_time"], rows["e2e_time"]
    if not whole.median() > 0:
        raise InputError(f"{source}: e2e_time: expected times above 0")
    later = (rows["token_size"] - 1).clip(lower=1)
    per_token = float((prompt + token * later - whole).abs().median() / whole.median())
    altogether = float((prompt + token - whole).abs().median() / whole.median())
    if min(per_token, altogether) > 0.1:
        raise InputError(
            f"{source}: e2e_time: expected prompt_time plus token_time, of all output tokens or of each, "
            f"got something else ({100 * min(per_token, altogether):.0f} % away)"
        )
    if per_token < altogether:
        return pd.DataFrame({"prompt_s": 1e-3 * prompt, "token_s": 1e-3 * token})
    return pd.DataFrame({"prompt_s": prompt, "token_s": token / later})


__all__ = ["COLUMNS", "WHOLE_INSTANCE_COLUMNS", "Iterations", "measured", "whole_instance"]
