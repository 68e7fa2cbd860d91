"""``python -m experiments.run``: compare policies on a workload, print a table, write a run folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import pandas as pd
import yaml
from rich.console import Console

from experiments.folder import CONFIG, RunFolder
from experiments.plan import Options, complete_config, make_plan, parse
from experiments.pool import WorkerDiedError, run_cells
from experiments.progress import CellProgress
from experiments.report import WIDTH, as_text, describe, show, summary_table
from preserve_gym.command_line import complain
from preserve_gym.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot go on), 2 (bad input) or 130 (interrupted)."""
    try:
        run(parse(arguments))
    except InputError as error:
        complain(str(error))
        return 2
    except (WorkerDiedError, OSError) as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted, nothing was written")
        return 130
    return 0


def run(options: Options) -> None:
    """Check everything, play, and publish the folder.

    Raises:
        InputError: before anything is played or written.
    """
    progress = Console(stderr=True)
    with progress.status("reading the workload and measuring one instance (compiles at the first run)"):
        plan = make_plan(options)
        folder = RunFolder(options.out, plan.name)
    with folder:
        with CellProgress(progress, plan.cells) as bars:
            reports = run_cells(
                plan.setting, plan.cells, folder.path, jobs=plan.jobs, on_share=bars.share, on_done=bars.done
            )
        config = complete_config(plan.config, reports)
        summary = pd.DataFrame([{"policy": r.cell.label, "seed": r.cell.seed, **r.summary} for r in reports])
        table, about = summary_table(summary), describe(config, summary)
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=WIDTH)
        (folder.path / CONFIG).write_text(text, encoding="utf-8")
        summary.to_csv(folder.path / "summary.csv", index=False, lineterminator="\n")
        (folder.path / "table.txt").write_text(as_text(table, about), encoding="utf-8")
        with progress.status("drawing"):
            # Here, so that workers, which import this module too, do without matplotlib.
            from experiments.plots import draw

            draw(folder.path)
        place = folder.publish()
    output = Console()
    if output.is_terminal:
        show(output, table, about)
    else:
        print(as_text(table, about), end="")
    print(f"Results and plots: {place}")


if __name__ == "__main__":
    # As batch systems end a job: it shall leave no more behind than Ctrl-C, worker processes included.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
