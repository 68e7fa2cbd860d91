"""Parameters that were tuned on the validation split of a scenario, by ``python -m experiments.tune``."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from preserve_gym.errors import InputError

SUFFIX = "-tuned"
"""End of the name of a policy that has them; ``@99.5`` after it asks for another target, in %."""
FOLDER = Path(__file__).parents[1] / "results" / "tuning"
"""``<scenario>.csv``: a row for each configuration that was played, with its attainment and GPU-hours."""
_AT_TARGET = re.compile(r"(.+)@(\d+(?:\.\d+)?)")


class TunedName(NamedTuple):
    """What the name of a tuned policy says: the policy, and another target attainment or None."""

    policy: str
    target: float | None


def split_target(name: str) -> tuple[str, float | None]:
    """What stands before ``@PERCENT`` in a policy's name, and that attainment or None."""
    found = _AT_TARGET.fullmatch(name)
    return (name, None) if found is None else (found[1], float(found[2]) / 100.0)


def split_tuned(name: str) -> TunedName | None:
    """The parts of ``NAME-tuned`` or ``NAME-tuned@PERCENT``; None: it is another name."""
    base, target = split_target(name)
    policy = base.removesuffix(SUFFIX)
    if ":" in base or policy in ("", base):
        return None
    return TunedName(policy, target)


@cache
def _table(folder: Path, scenario: str) -> pd.DataFrame:
    path = folder / f"{scenario}.csv"
    if not scenario or not path.is_file():
        return pd.DataFrame(columns=["policy"])
    try:
        table = pd.read_csv(path)
        return table[["policy", "parameters", "attainment", "gpu_hours", "chosen"]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected a table of python -m experiments.tune: {error}") from None


def is_tuned(policy: str, scenario: str) -> bool:
    """Whether there are parameters of that policy that were tuned for that scenario."""
    return policy in set(_table(FOLDER, scenario)["policy"])


def tuned_parameters(name: str, scenario: str) -> dict[str, float]:
    """The tuned parameters of a policy.

    Args:
        name: ``NAME-tuned``: those that were chosen; ``NAME-tuned@PERCENT``: of what was played the cheapest
            that attains so much.
        scenario: by name; empty: a workload that is of none.

    Raises:
        InputError: if there are none.
    """
    parts = split_tuned(name)
    assert parts is not None
    table = _table(FOLDER, scenario)
    rows = table[table["policy"] == parts.policy]
    if rows.empty:
        known = ", ".join(f"{policy}{SUFFIX}" for policy in dict.fromkeys(table["policy"])) or "none"
        where = f"scenario {scenario!r}" if scenario else "a workload without a scenario"
        raise InputError(f"policy {name!r}: no tuned parameters for {where}; there are {known}")
    if parts.target is None:
        rows = rows[rows["chosen"]]
    else:
        meeting = rows[rows["attainment"] >= parts.target]
        if meeting.empty:
            raise InputError(
                f"policy {name!r}: nothing that was tried for scenario {scenario!r} attains "
                f"{100.0 * parts.target:g} %, at most {100.0 * rows['attainment'].max():.2f} %"
            )
        rows = meeting.sort_values(["gpu_hours", "attainment"], ascending=[True, False], kind="stable")
    pairs = (pair.split("=") for pair in str(rows["parameters"].iloc[0]).split())
    return {name: int(value) if value.isdigit() else float(value) for name, value in pairs}
