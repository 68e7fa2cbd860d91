"""``python -m experiments.bench traces``: reading and generating traces, time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from experiments.bench_parts import Part
from preserve_gym import InputError
from preserve_gym.traces import DATASETS, load_trace, synthetic_trace
from preserve_gym.traces.dataset_files import path_of
from preserve_gym.traces.generated import GENERATED

# A service this small tells how large it is.
_PROBE = 1e-4
# Runs in a process of its own, so that its peak memory is that of one case.
_CASE = """
import json, re, sys, time
from pathlib import Path

import pandas
from preserve_gym.traces import load_trace

name, repeats, scale, by_pandas = json.loads(sys.argv[1])
def run():
    return pandas.read_csv(name) if by_pandas else load_trace(name, 0, scale)
def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status")
    return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024 if status.exists() else 0

before, times = peak(), []
for _ in range(repeats):
    start = time.perf_counter()
    requests = len(run())
    times.append(time.perf_counter() - start)
print(json.dumps({"requests": requests, "times": times, "peak": peak() - before}))
"""


@dataclass(frozen=True)
class Traces:
    """Speed and memory of reading a trace in each format, beside pandas.read_csv, and of generating one.

    Each case runs in a process of its own; the time is the best of the repeats, the memory the most that was
    taken above what the imports take (on Linux). Generated traces whose data set is not on this machine are
    left out.
    """

    requests: int = 1_000_000
    """Requests of the files that are read."""
    repeats: int = 3
    """Measurements of each case."""
    generated_requests: int = 1_000_000
    """About how many requests are generated in each case."""
    out: Path | None = None
    """File for the figures, as JSON."""

    def run(self, console: Console, show: Callable[[Part, Console], None]) -> None:
        """Measure, print, and write if there is a file to write."""
        for name in ("requests", "repeats", "generated_requests"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
        with tempfile.TemporaryDirectory() as folder, console.status("") as status:
            parts = [self._read(Path(folder), status.update)]
            show(parts[0], console)
            parts.append(self._generate(status.update))
            show(parts[1], console)
        if self.out is not None:
            document = {part.title: part.rows for part in parts}
            self.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    def _read(self, folder: Path, tell: Callable[[str], None]) -> Part:
        rows = []
        tell("writing the files to read")
        for format_, path in _files(folder, self.requests).items():
            tell(format_)
            row = self._case(format_, str(path), 1.0)
            if path.suffix == ".csv":
                row["of_pandas"] = self._case("", str(path), 1.0, by_pandas=True)["seconds"] / row["seconds"]
            rows.append(row)
        return Part("Reading", rows)

    def _generate(self, tell: Callable[[str], None]) -> Part:
        rows = []
        for name, generated in GENERATED.items():
            if any(path_of(DATASETS[need]) is None for need in generated.needs):
                continue
            tell(name)
            scale = min(1.0, _PROBE * self.generated_requests / len(load_trace(name, 0, _PROBE)))
            rows.append(self._case(name, name, scale))
        return Part("Generating", rows)

    def _case(self, stage: str, name: str, scale: float, *, by_pandas: bool = False) -> dict[str, Any]:
        arguments = json.dumps([name, self.repeats, scale, by_pandas])
        done = subprocess.run(
            [sys.executable, "-c", _CASE, arguments], check=True, capture_output=True, text=True
        )
        found = json.loads(done.stdout)
        seconds = min(found["times"])
        row: dict[str, Any] = {
            "stage": stage,
            "requests": found["requests"],
            "seconds": seconds,
            "requests_per_s": found["requests"] / seconds,
            "spread": max(found["times"]) / seconds - 1,
        }
        if found["peak"] > 0:
            row["bytes_per_request"] = found["peak"] / found["requests"]
        return row


def _files(folder: Path, requests: int) -> dict[str, Path]:
    """A file of about so many synthetic requests in each format."""
    trace = synthetic_trace("chat", duration_s=86_400.0, mean_rate_rps=max(requests / 86_400, 0.001))
    stamps = pd.Timestamp("2024-05-10") + pd.to_timedelta(np.round(trace.arrival_s, 6), unit="s")
    azure = pd.DataFrame(
        {
            "TIMESTAMP": stamps.strftime("%Y-%m-%d %H:%M:%S.%f"),
            "ContextTokens": trace.prompt_tokens,
            "GeneratedTokens": trace.output_tokens,
        }
    )
    own = pd.DataFrame(
        {
            "arrival_s": trace.arrival_s,
            "prompt_tokens": trace.prompt_tokens,
            "output_tokens": trace.output_tokens,
        }
    )
    blocks = -(-trace.prompt_tokens // 512)
    first = np.cumsum(blocks) - blocks
    columns = (trace.arrival_s, trace.prompt_tokens, trace.output_tokens, first.tolist(), blocks.tolist())
    lines = (
        f'{{"timestamp": {round(1000 * t)}, "input_length": {p}, "output_length": {o}, '
        f'"hash_ids": {list(range(b, b + n))}}}\n'
        for t, p, o, b, n in zip(*columns, strict=True)
    )
    paths = {
        "Azure CSV": folder / "azure.csv",
        "Azure CSV, gzip": folder / "azure.csv.gz",
        "own CSV": folder / "own.csv",
        "own Parquet": folder / "own.parquet",
        "Mooncake JSONL": folder / "mooncake.jsonl",
    }
    azure.to_csv(paths["Azure CSV"], index=False)
    azure.to_csv(paths["Azure CSV, gzip"], index=False)
    own.to_csv(paths["own CSV"], index=False)
    own.to_parquet(paths["own Parquet"], index=False)
    with paths["Mooncake JSONL"].open("w", encoding="utf-8") as file:
        file.writelines(lines)
    return paths
