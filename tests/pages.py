"""The pages of the documentation, and their tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = ROOT / "README.md"
DOCS = ROOT / "docs"
ENVIRONMENTS = DOCS / "environments" / "index.md"
AUTOSCALE = DOCS / "environments" / "autoscale.md"
ROUTE = DOCS / "environments" / "route.md"
CLUSTER = DOCS / "environments" / "cluster.md"
CONFIGURATION = DOCS / "configuration.md"
TRACES = DOCS / "bring-your-own-trace.md"
GPU = DOCS / "bring-your-own-gpu.md"
SCENARIOS = DOCS / "scenarios.md"
SIMULATES = DOCS / "how-it-simulates.md"
POLICY = DOCS / "write-your-own-policy.md"
PRESERVE = DOCS / "preserve.md"
FORECASTING = DOCS / "forecasting.md"


def tables_of(page: Path, heading: str) -> Iterator[list[list[str]]]:
    """Cells of the tables between a heading and the next one, without backticks."""
    text = page.read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    for table in re.findall(r"(?:^\|.*\n)+", section + "\n", flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        yield [[re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in row] for row in rows[2:]]


def table_of(page: Path, heading: str) -> list[list[str]]:
    (table,) = tables_of(page, heading)
    return table
