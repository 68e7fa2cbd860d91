"""``python -m experiments.bench``: speed of simulator, environments, traces and policies, in one run each."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from experiments.bench_envs import Envs
from experiments.bench_parts import PARTS, Part, PartName
from experiments.bench_policies import Policies
from experiments.bench_setup import QUICK, Setup, Sizes, find_trace, machine
from experiments.bench_traces import Traces
from experiments.tables import plain_console
from preserve_gym import InputError

COLUMNS: dict[str, tuple[str, str]] = {
    "environment": ("environment", "{}"),
    "environments": ("environments", "{:,}"),
    "instances": ("instances", "{:,}"),
    "threads": ("threads", "{}"),
    "scheduler": ("scheduler", "{}"),
    "policy": ("policy", "{}"),
    "router": ("router", "{}"),
    "simulator": ("simulator", "{}"),
    "stage": ("", "{}"),
    "cache": ("cache on disk", "{}"),
    "requests": ("requests", "{:,}"),
    "seconds": ("s", "{:.3f}"),
    "steps_per_s": ("steps/s", "{:,.0f}"),
    "requests_per_s": ("requests/s", "{:,.0f}"),
    "simulated_s_per_s": ("simulated s/s", "{:,.0f}"),
    "engine_requests_per_s": ("engine's requests/s", "{:,.0f}"),
    "of_engine": ("of the engine", "{:.0%}"),
    "of_one_thread": ("of one thread", "{:.2f}x"),
    "zero_cost_steps_per_s": ("steps/s at zero cost", "{:,.0f}"),
    "of_zero_cost": ("of zero cost", "{:.0%}"),
    "reset_ms": ("reset of one, ms", "{:.2f}"),
    "outside_us": ("us/step outside compiled code", "{:.1f}"),
    "compiled_us": ("us/step in it", "{:.1f}"),
    "spread": ("spread", "{:.0%}"),
    "iterations_per_s": ("iterations/s", "{:,.0f}"),
    "us_per_request": ("us/request", "{:.2f}"),
    "cores_used": ("cores used", "{:.2f}"),
    "of_reference": ("of reference", "{:,.0f}x"),
    "of_pandas": ("of pandas.read_csv", "{:.1f}x"),
    "preemptions_per_request": ("preemptions/request", "{:.3f}"),
    "bytes_per_request": ("bytes/request", "{:,.0f}"),
    "import_s": ("import, s", "{:.1f}"),
    "run_s": ("first run, s", "{:.1f}"),
    "total_s": ("in total, s", "{:.1f}"),
    "decisions": ("decisions", "{:,}"),
    "us_per_decision": ("us/decision", "{:.0f}"),
    "us_per_map": ("us/maps", "{:.1f}"),
    "us_routing": ("us routing/request", "{:.2f}"),
    "latency_s": ("latency, s", "{:.2f}"),
    "of_serving": ("of serving", "{:.5%}"),
}
"""Heading and format of each column that a part may have."""

_PLAIN_WIDTH = 120  # of tables, where there is no terminal


@dataclass(frozen=True)
class Engine:
    """Speed of the engine: by fleet, scheduler and router, beside the slow reference, and how it scales.

    Every figure is the best of some measurements; the spread is how much longer the slowest took. What the
    parts and columns mean is in docs/how-it-simulates.md.
    """

    parts: tuple[PartName, ...] = ()
    """What to measure; everything by default."""
    quick: bool = False
    """Small sizes, and without compilation: done in under a minute."""
    trace: str = "azure-2023-conv"
    """Workload: a name, or a file; of a long one, its busiest hour."""
    instances: tuple[int, ...] | None = None
    """Sizes of the fleet in the table of speeds."""
    requests: int | None = None
    """Requests served in each of its measurements."""
    repeats: int | None = None
    """Measurements of each figure."""
    load: float = 0.7
    """Share of what the instances can serve within the SLO."""
    out: Path | None = None
    """File for the figures, as JSON."""

    def run(self, console: Console, show: Callable[[Part, Console], None]) -> None:
        """Measure, print, and write if there is a file to write."""
        if not 0.0 < self.load < math.inf:
            raise InputError(f"--load: expected a number > 0, got {self.load}")
        sizes = self.sizes()
        trace, note = find_trace(self.trace)
        if note:
            console.print(note, highlight=False)
        document: dict[str, Any] = {
            "machine": machine(),
            "trace": trace.name,
            "load": self.load,
            "sizes": asdict(sizes),
            "parts": {},
        }
        names = self.parts or tuple(name for name in PARTS if not (self.quick and name == "compile"))
        for name in dict.fromkeys(names):
            self._write(document)  # each time, so that an interrupted run leaves what it has
            try:
                with console.status(name) as status:
                    setup = Setup(trace, sizes, self.load, lambda case: status.update(case))
                    # What is compiled, or loaded from the cache, at the first call is no part of a figure.
                    setup.serve(setup.config("vllm", 1), setup.replay(10, 1.0), "least-requests")
                    part = PARTS[name](setup)
            except InputError as error:
                if self.parts:
                    raise
                console.print(f"{name}: left out ({error})\n", highlight=False)
                continue
            show(part, console)
            document["parts"][name] = {"title": part.title, "rows": part.rows, **part.figures}
        self._write(document)

    def _write(self, document: Mapping[str, Any]) -> None:
        if self.out is not None:
            try:
                self.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise InputError(f"{self.out}: cannot be written ({error.strerror})") from None

    def sizes(self) -> Sizes:
        """How much is measured.

        Raises:
            InputError: on a size that is not positive.
        """
        given = {"instances": self.instances, "requests": self.requests, "repeats": self.repeats}
        for name, value in given.items():
            values = value if isinstance(value, tuple) else (value,)
            if value == () or any(v is not None and v < 1 for v in values):
                raise InputError(f"--{name}: expected at least 1, got {value}")
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(QUICK if self.quick else Sizes(), **chosen)


def show(part: Part, console: Console) -> None:
    """Print a part as a table."""
    columns = [name for name in COLUMNS if any(name in row for row in part.rows)]
    console.print(part.title, style="bold", highlight=False)
    table = Table()
    for name in columns:
        text = all(isinstance(row.get(name, ""), str) for row in part.rows)
        table.add_column(COLUMNS[name][0], justify="left" if text else "right", no_wrap=text)
    for row in part.rows:
        table.add_row(*(COLUMNS[name][1].format(row[name]) if name in row else "" for name in columns))
    console.print(table)
    for name, value in part.figures.items():
        console.print(f"{name.replace('_', ' ')}: {value:.2f}", highlight=False)
    console.print()


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark that the arguments name; exit status 2 on bad input, 130 on Ctrl-C."""
    bench = tyro.extras.subcommand_cli_from_dict(
        {"engine": Engine, "envs": Envs, "policies": Policies, "traces": Traces}, args=arguments
    )
    console = plain_console(_PLAIN_WIDTH)
    try:
        bench.run(console, show)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
