"""The default instance against a run of a real vLLM server on the same GPU.

The run: 300 ShareGPT requests at 10 sessions/s on one RTX 4090, vLLM 0.19.0, KV cache saturated. The latency
law was fitted to kernel timings of that GPU; nothing was fitted to this run. Prefix caching was on in the
server and is not modelled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preserve_gym import Cluster, ClusterConfig, Trace
from tests.test_docs import SIMULATES, table_of

STATISTICS: dict[str, Callable[[pd.Series], float]] = {
    "mean": lambda x: float(x.mean()),
    "P50": lambda x: float(x.quantile(0.5)),
    "P90": lambda x: float(x.quantile(0.9)),
    "P99": lambda x: float(x.quantile(0.99)),
}


def measured(data_dir: Path) -> tuple[pd.DataFrame, Trace]:
    """Latencies of the server in s, in order of arrival, and the trace it served."""
    file = data_dir / "golden" / "real_vllm" / "rtx4090_llama-3.1-8b" / "requests.jsonl"
    run = pd.DataFrame([json.loads(line) for line in file.read_text().splitlines()])
    run = run.sort_values("arrival_time", kind="stable").reset_index(drop=True)
    latencies = pd.DataFrame(
        {
            "TTFT": run["first_token_ts"] - run["queued_ts"],
            "TPOT": (run["last_token_ts"] - run["first_token_ts"]) / (run["output_toks"] - 1),
            "E2E": run["last_token_ts"] - run["queued_ts"],
        }
    )
    arrival_s = run["arrival_time"] - run["arrival_time"].iloc[0]
    return latencies, Trace(arrival_s, run["input_toks"], run["output_toks"])


def simulated(trace: Trace) -> pd.DataFrame:
    cluster = Cluster(ClusterConfig(max_instances=1), trace)
    cluster.settle()
    results = cluster.results()
    decode_s = results["completed_s"] - results["first_token_s"]
    return pd.DataFrame(
        {
            "TTFT": results["first_token_s"] - results["arrival_s"],
            "TPOT": decode_s / (results["output_tokens"] - 1),
            "E2E": results["completed_s"] - results["arrival_s"],
        }
    )


def test_latencies_are_those_of_the_server(data_dir: Path) -> None:
    real, trace = measured(data_dir)
    ours = simulated(trace)
    assert len(real) == 300
    error = {
        (latency, name): 100 * (statistic(ours[latency]) / statistic(real[latency]) - 1)
        for latency in real
        for name, statistic in STATISTICS.items()
    }
    assert all(abs(error[latency, "mean"]) < 5 for latency in real), error
    rank = {latency: real[latency].corr(ours[latency], method="spearman") for latency in real}
    assert rank["TTFT"] > 0.99
    assert rank["E2E"] > 0.99
    shown = {row[0]: row[1:] for row in table_of(SIMULATES, "Against a real server")}
    for latency in real:
        *errors, correlation = map(float, shown[latency][:5])
        assert errors == pytest.approx([error[latency, name] for name in STATISTICS], abs=0.06)
        assert correlation == pytest.approx(rank[latency], abs=0.006)
    assert np.isfinite(list(error.values())).all()
