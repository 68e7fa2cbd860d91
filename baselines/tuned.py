"""Parameters that were tuned on the validation split of a scenario, by ``python -m experiments.tune``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from preserve_gym.errors import InputError

SUFFIX = "-tuned"
"""End of the name of a policy that has them."""
FILE = Path(__file__).parent / "tuned.yaml"
"""``{scenario: {policy: {parameters: {...}, attainment: ..., gpu_hours: ..., meets: ...}}}``."""


def read_tuned(path: Path = FILE) -> dict[str, dict[str, dict[str, Any]]]:
    """What the file holds; nothing if there is none.

    Raises:
        InputError: if it is no mapping of scenarios and policies.
    """
    if not path.is_file():
        return {}
    try:
        tuned = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tuned, dict) or not all(isinstance(policies, dict) for policies in tuned.values()):
        raise InputError(f"{path}: expected a mapping of scenarios to policies")
    return tuned


@cache
def _known(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    return read_tuned(path)


def is_tuned(policy: str, scenario: str) -> bool:
    """Whether there are parameters of that policy that were tuned for that scenario."""
    return policy in _known(FILE).get(scenario, {})


def tuned_parameters(policy: str, scenario: str) -> dict[str, Any]:
    """The tuned parameters of a policy.

    Args:
        policy: by its name without ``-tuned``.
        scenario: by name; empty: a workload that is of none.

    Raises:
        InputError: if there are none.
    """
    tuned = _known(FILE).get(scenario, {})
    if policy not in tuned:
        known = ", ".join(name + SUFFIX for name in tuned) or "none"
        where = f"scenario {scenario!r}" if scenario else "a workload without a scenario"
        raise InputError(f"policy {policy + SUFFIX!r}: no tuned parameters for {where}; there are {known}")
    return dict(tuned[policy]["parameters"])
