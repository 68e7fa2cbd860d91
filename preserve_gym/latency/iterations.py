"""Profiles of whole iterations: our own format, Splitwise's and SageServe's.

Ours, which ``measure`` writes and describes, has the columns of ``COLUMNS``. The other two time prompts
and output tokens of a whole instance: Patel et al., "Splitwise", ISCA 2024 (Mutinifni/splitwise-sim,
data/perf_model.csv) and Jaiswal et al., "SageServe", POMACS 2025 (shashwatj07/SageServe). Their columns are
the same, their units are not: Splitwise has milliseconds, and per output token; SageServe has seconds, and
for all output tokens together.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Iterations:
    """Batches and the measured time of each, s."""

    batches: list[Batch]
    seconds: FloatArray

    def joined(self, other: Iterations) -> Iterations:
        """Both together."""
        return Iterations(self.batches + other.batches, np.concatenate([self.seconds, other.seconds]))


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
    batches = []
    columns = ["prefill_tokens", "prefill_context", "decode_requests", "decode_context"]
    for line, (chunk, before, decodes, context) in zip(
        rows.index, rows[columns].itertuples(index=False), strict=True
    ):
        if min(chunk, before, decodes, context) < 0 or chunk + decodes < 1 or (decodes and context < 1):
            raise InputError(
                f"{source}: row {line + 2}: expected counts >= 0, a prefill or a decode, and a "
                f"decode_context >= 1 with decodes; got {chunk}, {before}, {decodes}, {context}"
            )
        batches.append(Batch((int(context),) * int(decodes), ((int(chunk), int(before)),) if chunk else ()))
    return Iterations(batches, rows["time_s"].to_numpy(float))


def whole_instance(table: pd.DataFrame, target: Target, source: str) -> Iterations:
    """Splitwise's or SageServe's table; the median of what was measured several times.

    The prompt time of a batch of one is an iteration that prefills it; those of larger batches are left out,
    as some do not grow with the batch. A token time is a decode with half of the output in the context.
    """
    rows = _rows_of(table, ("model", "hardware", "tensor_parallel"), target, source)
    seconds = _in_seconds(rows, source)
    keys = [rows["prompt_size"], rows["batch_size"], rows["token_size"]]
    medians = seconds.groupby(keys).median().reset_index()
    prompts = medians[medians["batch_size"] == 1].groupby("prompt_size")["prompt_s"].median()
    batches = [Batch((), ((int(tokens), 0),)) for tokens in prompts.index]
    times = list(prompts)
    several = medians[medians["token_size"] > 1]
    sizes = several[["prompt_size", "token_size", "batch_size"]].to_numpy(int)
    for (prompt, output, size), token_s in zip(sizes, several["token_s"], strict=True):
        batches.append(Batch((int(prompt + output // 2),) * int(size), ()))
        times.append(token_s)
    return Iterations(batches, np.array(times, dtype=float))


def _in_seconds(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """Prompt time, and time of an output token after the first."""
    prompt, token, whole = rows["prompt_time"], rows["token_time"], rows["e2e_time"]
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
