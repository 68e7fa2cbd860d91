"""docs/policies.md says of every autoscaler what the code says."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from baselines import ABLATIONS, POLICIES, PreServe, PreServeArtifact, make_policy
from baselines.base import Autoscaler
from baselines.hpa_rules import HpaRules
from tests.baseline_observations import CLUSTER, NEEDED, PROFILE
from tests.pages import ROOT, table_of

PAGE = ROOT / "docs" / "policies.md"
LISTED = [name for name in POLICIES if not name.endswith(tuple(ABLATIONS))]


def test_every_autoscaler_is_told() -> None:
    assert [row[0] for row in table_of(PAGE, "The autoscalers")] == LISTED


@pytest.mark.parametrize("name", LISTED)
def test_row(name: str) -> None:
    (row,) = (row for row in table_of(PAGE, "The autoscalers") if row[0] == name)
    _, law, shown, _, _, interval_s, router, tuned = row
    policy = make_policy(name, CLUSTER, PROFILE, **NEEDED.get(name, {}))
    assert law
    assert float(interval_s) == policy.interval_s
    assert router == policy.router
    assert re.findall(r"\w+", tuned) == list(POLICIES[name].tuned_over)
    if isinstance(policy, PreServe | PreServeArtifact):
        return  # its parameters have a page, and a test, of their own
    own = {f.name: getattr(policy, f.name) for f in fields(policy)}
    for known in fields(Autoscaler):
        own.pop(known.name, None)
    for required in NEEDED.get(name, {}):
        own.pop(required)
    if isinstance(policy, HpaRules) and name != "hpa":
        # What is as in the HPA is told there.
        own = {
            field: value
            for field, value in own.items()
            if field not in {f.name for f in fields(HpaRules)} or value != getattr(HpaRules, field)
        }
    defaults = dict(re.findall(r"`(\w+)` ([\w.-]+)", shown))
    assert sorted(defaults) == sorted(own)
    for field, value in own.items():
        assert defaults[field] == (value if isinstance(value, str) else f"{value:g}")
