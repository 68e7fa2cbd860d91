"""The tables of docs/preserve.md."""

from __future__ import annotations

import dataclasses

import pytest

from baselines import ABLATIONS, PreServe, PreServeArtifact, make_policy
from tests.baseline_observations import CLUSTER, PROFILE
from tests.measure_preserve import ABLATED, INSTANCES, SCALE_DOWN, ablation_rows, figures, scale_down_row
from tests.test_docs import ROOT, table_of, tables_of

PAGE = ROOT / "docs" / "preserve.md"
PARAMETERS = "Parameters"
CONFIDENCES = {"H", "M", "L"}


def test_every_parameter_has_its_value_its_source_and_its_confidence() -> None:
    told = {row[0]: row[1:] for row in table_of(PAGE, PARAMETERS)}
    policies = {"preserve": PreServe, "preserve-artifact": PreServeArtifact}
    own = {f.name for cls in policies.values() for f in dataclasses.fields(cls)}
    own -= {"cluster", "profile", "_", "name", "variant", "tier_1", "tier_2"}
    assert set(told) == own - {"anticipator"} | {
        f"anticipator.{f.name}" for f in dataclasses.fields(PreServe(CLUSTER, PROFILE).anticipator)
    }
    for name, (paper, paper_confidence, artifact, artifact_confidence, _) in told.items():
        for policy, value, confidence in (
            ("preserve", paper, paper_confidence),
            ("preserve-artifact", artifact, artifact_confidence),
        ):
            made = make_policy(policy, CLUSTER, PROFILE)
            for part in name.split("."):
                made = getattr(made, part, dataclasses.MISSING)
            if made is dataclasses.MISSING:
                assert (value, confidence) == ("-", "-"), name
            else:
                assert value == f"{made:g}" if isinstance(made, float) else str(made), name
                assert confidence in CONFIDENCES, name


def test_tables_of_measurements_are_complete() -> None:
    rows = table_of(PAGE, "Scaling down")
    assert [(row[0], row[2]) for row in rows] == [
        (pool, policy) for pool in INSTANCES for policy in SCALE_DOWN
    ]
    endings, measured = tables_of(PAGE, "Ablations")
    assert [row[0] for row in endings] == list(ABLATIONS)
    names = [(row[0], row[1]) for row in measured]
    assert names == [
        (pool, f"{variant}{ablation}")
        for pool, variant in ABLATED
        for ablation in ("", *(f"-{end}" for end in ABLATIONS))
    ]


def test_scaling_down_as_printed_collapses_on_a_large_kv_cache() -> None:
    own, large = (figures(pool, "preserve", seeds=(0,)) for pool in INSTANCES)
    up_only = figures("80 GB", "preserve-up-only", seeds=(0,))
    assert own["attainment"] > 95.0
    assert large["attainment"] < 50.0
    assert up_only["attainment"] > 99.0
    assert up_only["kv_p95"] < 30.0 < own["kv_p95"]
    assert large["instances"] < up_only["instances"]


@pytest.mark.slow
@pytest.mark.parametrize("pool", INSTANCES)
def test_the_table_of_scaling_down(pool: str) -> None:
    told = [row for row in table_of(PAGE, "Scaling down") if row[0] == pool]
    for row, policy in zip(told, SCALE_DOWN, strict=True):
        assert row == [cell.strip("`") for cell in scale_down_row(pool, policy)]


@pytest.mark.slow
@pytest.mark.parametrize(("pool", "variant"), ABLATED)
def test_the_table_of_ablations(pool: str, variant: str) -> None:
    names = (variant, *(f"{variant}-{ablation}" for ablation in ABLATIONS))
    measured = list(tables_of(PAGE, "Ablations"))[1]
    told = [row for row in measured if row[0] == pool and row[1] in names]
    assert told == [[cell.strip("`") for cell in row] for row in ablation_rows(pool, variant)]
