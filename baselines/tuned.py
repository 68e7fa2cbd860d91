"""Parameters that were tuned on the validation split of a scenario, by ``python -m experiments.tune``."""

from __future__ import annotations

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


def tuned_parameters(policy: str, scenario: str | None, path: Path = FILE) -> dict[str, Any]:
    """The tuned parameters of a policy.

    Args:
        policy: by its name without ``-tuned``.
        scenario: by name; None: a workload that is of none.
        path: of the file.

    Raises:
        InputError: if there are none.
    """
    if scenario is None:
        raise InputError(
            f"policy {policy + SUFFIX!r}: expected the workload and cluster of a named scenario, got others"
        )
    tuned = read_tuned(path).get(scenario, {})
    if policy not in tuned:
        known = ", ".join(name + SUFFIX for name in tuned) or "none"
        raise InputError(
            f"policy {policy + SUFFIX!r}: no tuned parameters for scenario {scenario!r}; there are {known}; "
            f"python -m experiments.tune --scenarios {scenario} --policies {policy} makes them"
        )
    return dict(tuned[policy]["parameters"])
