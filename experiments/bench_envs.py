"""``python -m experiments.bench envs``: speed of the environments, beside the engine and a learner."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from experiments.bench_env_parts import QUICK_ENVS, EnvSetup, EnvSizes, overhead, share, steps
from experiments.bench_parts import Part
from experiments.bench_ppo import ppo
from experiments.bench_setup import machine
from preserve_gym import InputError

PartName = Literal["steps", "overhead", "engine", "ppo"]

PARTS: dict[PartName, Callable[[EnvSetup], Part]] = {
    "steps": steps,
    "overhead": overhead,
    "engine": share,
    "ppo": ppo,
}


@dataclass(frozen=True)
class Envs:
    """Speed of the environments: steps, time outside compiled code, share of the engine's speed, PPO.

    They play the synthetic chat service, Autoscale and Cluster without a change of the fleet, Route by the
    fewest requests. Every figure but those of the part ``overhead``, which are medians over the steps, is the
    best of some measurements; the spread is how much longer the slowest took.
    """

    parts: tuple[PartName, ...] = ()
    """What to measure; everything by default."""
    quick: bool = False
    """Small sizes: done in about a minute."""
    environments: tuple[int, ...] | None = None
    """Numbers of environments in a vector."""
    threads: tuple[int, ...] | None = None
    """Numbers of threads that step them."""
    repeats: int | None = None
    """Measurements of each figure."""
    out: Path | None = None
    """File for the figures, as JSON."""

    def run(self, console: Console, show: Callable[[Part, Console], None]) -> None:
        """Measure, print, and write if there is a file to write."""
        sizes = self.sizes()
        document: dict[str, Any] = {"machine": machine(), "sizes": asdict(sizes), "parts": {}}
        setup: EnvSetup | None = None
        for name in dict.fromkeys(self.parts or PARTS):
            self._write(document)  # each time, so that an interrupted run leaves what it has
            try:
                with console.status(name) as status:
                    setup = replace(setup, tell=status.update) if setup else EnvSetup(sizes, status.update)
                    part = PARTS[name](setup)
            except InputError as error:
                if self.parts:
                    raise
                console.print(f"{name}: left out ({error})\n", highlight=False)
                continue
            show(part, console)
            document["parts"][name] = {"title": part.title, "rows": part.rows}
        self._write(document)

    def sizes(self) -> EnvSizes:
        """How much is measured.

        Raises:
            InputError: on a size that is not positive.
        """
        given = {"environments": self.environments, "threads": self.threads, "repeats": self.repeats}
        for name, value in given.items():
            values = value if isinstance(value, tuple) else (value,)
            if value == () or any(v is not None and v < 1 for v in values):
                raise InputError(f"--{name}: expected at least 1, got {value}")
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(QUICK_ENVS if self.quick else EnvSizes(), **chosen)

    def _write(self, document: dict[str, Any]) -> None:
        if self.out is not None:
            try:
                self.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise InputError(f"{self.out}: cannot be written ({error.strerror})") from None
