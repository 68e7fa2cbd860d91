"""Lengths of requests without times of arrival, such as ShareGPT's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.csv_table import IGNORED, LONGEST_S, TOKENS, read_columns
from preserve_gym.traces.files import line_chunks, open_content, stem
from preserve_gym.traces.request_rows import dropped_requests
from preserve_gym.traces.trace import Trace

COLUMNS = {
    "num_prefill_tokens": TOKENS,
    "num_decode_tokens": TOKENS,
    "num_total_tokens": IGNORED,
    "pd_ratio": IGNORED,
}
PREDICTED = "num_predicted_decode_tokens"


@dataclass(frozen=True, eq=False)
class Lengths:
    """Prompts and their outputs, in no order of time.

    Attributes:
        prompt_tokens: int32[n], >= 1.
        output_tokens: int32[n], >= 1.
        predicted_tokens: int32[n], what a predictor made of the prompt for ``output_tokens``, or None.
        name: that of the file.
        repairs: what the reader left out, with counts.
    """

    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    predicted_tokens: NDArray[np.int32] | None
    name: str
    repairs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def poisson(self, rate_rps: float, duration_s: float, seed: int = 0) -> Trace:
        """A trace of Poisson arrivals, each with a pair of lengths drawn with replacement.

        Args:
            rate_rps: mean requests per second.
            duration_s: length of the trace, at most 366 days.
            seed: of the arrivals and the pairs.

        Raises:
            InputError: on a rate or a duration that is not finite and positive, or too long.
        """
        for name, value, most in (("rate_rps", rate_rps, 1e6), ("duration_s", duration_s, LONGEST_S)):
            if not (math.isfinite(value) and 0.0 < value <= most):
                raise InputError(f"{name}: expected a number in (0, {most:g}], got {value!r}")
        rng = np.random.default_rng([seed, 3])
        count = int(rng.poisson(rate_rps * duration_s))
        arrival_s = np.sort(rng.random(count)) * duration_s
        pair = rng.integers(len(self), size=count)
        return Trace(
            arrival_s,
            self.prompt_tokens[pair],
            self.output_tokens[pair],
            name=self.name,
            span_s=duration_s,
            repairs=self.repairs,
        )


def read_lengths(path: str | Path) -> Lengths:
    """Read a file of lengths as Vidur processes them, plain or gzip-compressed.

    Columns ``num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio``, of which the last two are
    not read, and optionally ``num_predicted_decode_tokens``. Requests without prompt or output are left
    out and counted.

    Raises:
        InputError: one line naming file, row, column and what was expected.
    """
    path = Path(path)
    with open_content(path) as stream:
        tables = [
            columns for _, columns in read_columns(path, line_chunks(stream), COLUMNS, {PREDICTED: TOKENS})
        ]
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    served = (columns["num_prefill_tokens"] > 0) & (columns["num_decode_tokens"] > 0)
    if not served.any():
        raise InputError(f"{path}: expected at least one request with prompt and output tokens")
    columns = {name: column[served] for name, column in columns.items()}
    dropped = int((~served).sum())
    return Lengths(
        columns["num_prefill_tokens"],
        columns["num_decode_tokens"],
        columns.get(PREDICTED),
        stem(path),
        (dropped_requests(dropped),) if dropped else (),
    )
