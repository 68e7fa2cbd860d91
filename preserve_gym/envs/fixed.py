"""Options that stay as they were given."""

from __future__ import annotations

from typing import Any, ClassVar

from preserve_gym.errors import InputError


class FixedOptions:
    """Refuses new values for what a constructor was given, as the compiled part would not follow them.

    Attributes:
        FIXED: names of these attributes.
    """

    FIXED: ClassVar[frozenset[str]] = frozenset(
        (
            "task",
            "workload",
            "cluster_config",
            "reward_config",
            "profile",
            "router",
            "router_weights",
            "interval_s",
            "feature_names",
        )
    )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.FIXED and name in self.__dict__:
            raise InputError(f"{name}: cannot be changed after construction; make another environment")
        super().__setattr__(name, value)
