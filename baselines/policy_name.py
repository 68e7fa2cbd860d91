"""What the name of a policy may be, and how it is called in tables and files."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from baselines.own import load_own
from baselines.tuned import SUFFIX, split_target, split_tuned
from preserve_gym.errors import InputError, did_you_mean

LEARNED = ("ppo", "maskable-ppo", "recurrent-ppo", "dqn", "qr-dqn", "sac")
"""Algorithms: as a policy, the model in ``agents/models`` that was trained on the workload."""


def label_of(name: str) -> str:
    """Of one's own, ``file.py:Class``, the class; of a model by its folder, that of the training."""
    if ":" in name:
        return name.rpartition(":")[2]
    base, at, percent = name.partition("@")
    parts = Path(base).parts
    if len(parts) > 1:
        base = parts[-2] if parts[-1] == "model" else parts[-1]
    return base + at + percent


def is_learned(name: str) -> bool:
    """Whether it is an algorithm, a model in ``agents/models`` or the folder of one, ``@`` or not."""
    # Here, as agents uses what this package defines.
    from agents.learned_policy import model_folder

    base, _ = split_target(name)
    return base in LEARNED or model_folder(base) is not None


def check_policy_name(name: str, registered: Collection[str], option: str) -> None:
    """Refuse a name that no policy has.

    Args:
        registered: names of the registry.
        option: for the message.

    Raises:
        InputError: with a suggestion; or what is wrong with a file of one's own.
    """
    tuned = split_tuned(name)
    if ":" in name:
        load_own(name)
    elif not (
        name in registered
        or re.fullmatch(r"static-\d{1,9}", name)
        or (tuned is not None and (tuned.policy in registered or is_learned(tuned.policy)))
        or is_learned(name)
    ):
        others = (*LEARNED, "static-N", f"NAME{SUFFIX}", f"NAME{SUFFIX}@PERCENT", "file.py:Class")
        known = ", ".join((*registered, *others, "the folder of a model"))
        hint = did_you_mean(name, (*registered, *LEARNED))
        raise InputError(f"{option}: expected some of {known}, got {name!r}{hint}")
