"""The engine and the slow reference against recorded runs of vLLM's own scheduler and of Vidur."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from preserve_gym import Cluster
from tests import golden
from tests.reference import ReferenceCluster, round_robin

OUTCOMES = ("instance", "first_scheduled_s", "first_token_s", "completed_s", "preemptions")
QUICK = ("longprefill", "b_code_4rep_rr_ts0.25_sarathi")


@pytest.mark.parametrize("case", golden.CASES)
def test_the_engine_serves_every_request_exactly_so(case: str, data_dir: Path) -> None:
    run = golden.load(data_dir, case)
    cluster = Cluster(run.config, run.trace, "round-robin")
    cluster.settle()
    results = cluster.results()
    for name in OUTCOMES:
        np.testing.assert_array_equal(results[name], run.requests[name], err_msg=name)


def compare_reference(run: golden.Golden, until_s: float) -> ReferenceCluster:
    """Serve until then, and compare what has completed, to 1e-9 s."""
    requests = run.requests
    outputs = requests["output_tokens"].tolist()
    cluster = ReferenceCluster(
        run.config,
        requests["arrival_s"].tolist(),
        requests["prompt_tokens"].tolist(),
        outputs,
        outputs,
        round_robin,
        run.config.max_instances,
    )
    cluster.run_until(until_s)
    served = [request for request in cluster.requests if request.completed_s is not None]
    expected = requests[requests["completed_s"] <= until_s]
    assert [request.index for request in served] == expected.index.tolist() != []
    for name in OUTCOMES:
        ours = np.array([getattr(request, name) for request in served], float)
        np.testing.assert_allclose(ours, expected[name], rtol=0, atol=1e-9, err_msg=name)
    return cluster


@pytest.mark.parametrize("case", golden.CASES)
def test_the_reference_serves_the_first_minute_so(case: str, data_dir: Path) -> None:
    # What has completed by then cannot depend on later arrivals.
    compare_reference(golden.load(data_dir, case), until_s=60.0)


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in golden.CASES]
)
def test_the_reference_serves_all_of_it_so(case: str, data_dir: Path) -> None:
    run = golden.load(data_dir, case)
    cluster = compare_reference(run, until_s=math.inf)
    assert sum(instance.iterations for instance in cluster.instances) == run.result["iterations"]
    if case in golden.VLLM_V1:
        (only,) = cluster.instances
        assert only.empty_schedules == run.result["empty_schedules"]
        assert only.scheduled_tokens == run.result["scheduled_tokens"]
        assert cluster.busy_s == pytest.approx(run.result["busy_s"], abs=1e-6)
