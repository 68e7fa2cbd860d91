"""The reference's metrics against results worked out on paper.

An iteration takes one second whatever is in it, and a block holds one token, unless a case says otherwise.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.config import SloConfig
from tests.reference import FIGURES, ReferenceCluster, bin_of, histogram
from tests.reference_metrics import BINS
from tests.test_reference import make, play, random_cluster


def figures(cluster: ReferenceCluster) -> list[dict[str, list[float]]]:
    """Those of each request."""
    return [{name: figure(request) for name, figure in FIGURES.items()} for request in cluster.requests]


# 6 blocks. A gets its tokens at 1, 2, 3 and 4. B gets two at 1 and 2, is preempted at 2, comes back at 4 and
# gets its third at 5. C arrives at 0.5, gets in at 5 and is done at 6.
PREEMPTION = (0.0, 2, 4), (0.0, 2, 3), (0.5, 4, 1)


def test_figures_of_requests() -> None:
    cluster = play(*PREEMPTION, num_gpu_blocks=7)
    assert [request.token_times_s for request in cluster.requests] == [[1, 2, 3, 4], [1, 2, 5], [6]]
    assert figures(cluster) == [
        {
            "inter_token_latency_s": [1.0, 1.0, 1.0],
            "ttft_s": [1.0],
            "tpot_s": [1.0],
            "e2e_s": [4.0],
            "normalized_latency_s": [1.0],
        },
        {
            "inter_token_latency_s": [1.0, 3.0],
            "ttft_s": [1.0],
            "tpot_s": [2.0],
            "e2e_s": [5.0],
            "normalized_latency_s": [5 / 3],
        },
        {
            "inter_token_latency_s": [],
            "ttft_s": [5.5],
            "tpot_s": [],
            "e2e_s": [5.5],
            "normalized_latency_s": [5.5],
        },
    ]


def test_figures_of_requests_under_way() -> None:
    cluster = make(*PREEMPTION, num_gpu_blocks=7)
    cluster.run_until(2.5)
    a, _, c = figures(cluster)
    assert a["inter_token_latency_s"] == a["ttft_s"] == [1.0]
    assert a["tpot_s"] == a["e2e_s"] == a["normalized_latency_s"] == []
    assert not any(c.values())


def test_a_rejected_request_has_no_figures() -> None:
    (request,) = figures(play((0.0, 90, 20)))
    assert not any(request.values())


def test_token_in_flight_at_a_preemption() -> None:
    # Preempted at 1, but its second token is in flight and comes at 2; the third after its recomputation.
    cluster = play((0.0, 2, 4), (0.0, 2, 3), num_gpu_blocks=7, async_scheduling=True)
    assert [request.token_times_s for request in cluster.requests] == [[1, 2, 3, 4], [1, 2, 5]]


def test_integrals_and_counters() -> None:
    cluster = make(*PREEMPTION, num_gpu_blocks=7, slo=SloConfig(ttft_s=2.0, tpot_s=None))
    # C waits from 0.5 to 5, B from 2 to 4. C misses its deadline.
    expected = {
        # until: requests_s, waiting_s, generated and compliant tokens
        0.5: (1.0, 0.0, 0, 0),
        2.0: (2 * 2.0 + 1.5, 1.5, 4, 0),
        3.0: (2 * 3.0 + 2.5, 2.5 + 1.0, 5, 0),
        4.0: (2 * 4.0 + 3.5, 3.5 + 2.0, 6, 4),
        5.0: (4.0 + 5.0 + 4.5, 4.5 + 2.0, 7, 4 + 3),
        9.0: (4.0 + 5.0 + 5.5, 4.5 + 2.0, 8, 4 + 3),
    }
    for until_s, values in expected.items():
        cluster.run_until(until_s)
        found = (
            cluster.requests_s,
            cluster.waiting_s,
            cluster.generated_tokens,
            cluster.compliant_output_tokens,
        )
        assert found == values


@pytest.mark.parametrize(
    ("slo", "compliant"),
    [
        # First token at 1, completion at 3, exactly at a deadline or later.
        (SloConfig(ttft_s=1.0, tpot_s=1.0), 3),
        (SloConfig(ttft_s=1.0, tpot_s=0.9), 0),
        (SloConfig(ttft_s=0.9, tpot_s=5.0), 0),
        (SloConfig(ttft_s=1.0, tpot_s=1.0, normalized_latency_s=1.0), 3),
        (SloConfig(ttft_s=1.0, tpot_s=1.0, normalized_latency_s=0.9), 0),
    ],
)
def test_compliant_tokens(slo: SloConfig, compliant: int) -> None:
    assert play((0.0, 2, 3), slo=slo).compliant_output_tokens == compliant


def test_the_integral_is_the_sum_of_latencies() -> None:
    cluster = random_cluster(3, "least_requests")
    cluster.run_until(math.inf)
    latencies_s = [latency_s for request in figures(cluster) for latency_s in request["e2e_s"]]
    assert cluster.requests_s == pytest.approx(sum(latencies_s), rel=1e-12)
    assert 0.0 < cluster.waiting_s < cluster.requests_s
    assert cluster.generated_tokens == sum(r.output_tokens for r in cluster.requests if not r.rejected)
    assert 0 < cluster.compliant_output_tokens < cluster.generated_tokens


def test_classes_of_requests() -> None:
    requests = (0.0, 2, 1), (0.0, 2, 2), (0.0, 2, 3)
    assert [r.request_class for r in play(*requests).requests] == [0, 0, 0]
    assert [r.request_class for r in play(*requests, request_class=[2, 0, 1]).requests] == [2, 0, 1]


# Histograms.

ONE_SECOND_BIN = 1 + 64 * 14  # 14 octaves above 2**-14


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, 0),
        (2.0**-15, 0),
        (math.nextafter(2.0**-14, 0.0), 0),
        (2.0**-14, 1),
        (math.nextafter(2.0**-14 * (1 + 1 / 64), 0.0), 1),
        (2.0**-14 * (1 + 1 / 64), 2),
        (math.nextafter(1.0, 0.0), ONE_SECOND_BIN - 1),
        (1.0, ONE_SECOND_BIN),
        (1.5, ONE_SECOND_BIN + 32),
        (math.nextafter(2.0, 0.0), ONE_SECOND_BIN + 63),
        (3.0, ONE_SECOND_BIN + 64 + 32),
        (math.nextafter(2.0**18, 0.0), 32 * 64),
        (2.0**18, 1 + 32 * 64),
        (1e9, 1 + 32 * 64),
        (math.inf, 1 + 32 * 64),
    ],
)
def test_bins(seconds: float, expected: int) -> None:
    assert bin_of(seconds) == expected


@given(st.floats(2.0**-14, 2.0**18, exclude_max=True))
def test_a_value_lies_in_its_bin(seconds: float) -> None:
    octave, part = divmod(bin_of(seconds) - 1, 64)
    lower_s = 2.0 ** (octave - 14) * (1 + part / 64)
    upper_s = 2.0 ** (octave - 14) * (1 + (part + 1) / 64)
    assert lower_s <= seconds < upper_s


def test_histogram() -> None:
    counts = histogram([0.0, 1.0, 1.01, 1.5, 1e9])
    assert len(counts) == BINS == 2 + 32 * 64
    assert {k: n for k, n in enumerate(counts) if n} == {
        0: 1,
        ONE_SECOND_BIN: 2,
        ONE_SECOND_BIN + 32: 1,
        BINS - 1: 1,
    }
