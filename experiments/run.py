"""``python -m experiments.run``: compare policies on scenarios, print a table, write a run folder."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from baselines.router_name import router_file
from experiments.backend import Pool, opened
from experiments.compare import as_text, compare, show, write, write_report
from experiments.evaluate import Cell
from experiments.folder import CorruptCellError, RunFolder
from experiments.options import PAPERS, PROGRAM, Options, parse, to_keep
from experiments.progress import CellProgress, outcome
from experiments.replay import replay
from experiments.report import episodes_table
from experiments.run_plan import Plan, jobs_of, make_plan
from experiments.run_records import RunRecords
from preserve_gym.command_line import complain
from preserve_gym.errors import InputError

Record = dict[str, Any]


class StoppedError(Exception):
    """A run ended before its end; what was done is kept.

    Attributes:
        status: for the command to exit with.
    """

    def __init__(self, reason: str, path: Path, status: int) -> None:
        super().__init__(f"{reason}; what is done is kept, go on with {PROGRAM} --resume {path}")
        self.status = status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (a cell failed or the machine refused), 2 (bad input) or 130."""
    try:
        options = parse(arguments)
        if options.suite in PAPERS:
            return _paper(options)
        with opened(options.backend, options.address, options.jobs) as pool:
            if options.replay is not None:
                return replay(options.replay, pool)
            return _resume(options.resume, pool) if options.resume is not None else _run(options, pool)
    except InputError as error:
        complain(str(error))
        return 2
    except StoppedError as error:
        complain(str(error))
        return error.status
    except OSError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted, nothing was written")
        return 130


def _paper(options: Options) -> int:
    # Here, so that workers, which import this module too, do without matplotlib.
    module = importlib.import_module(f"experiments.{str(options.suite).replace('-', '_')}")
    seeds = [] if options.seeds is None else ["--seeds", str(options.seeds)]
    status: int = module.main(seeds + ([] if options.out is None else ["--out", str(options.out)]))
    return status


def _run(options: Options, pool: Pool) -> int:
    console = Console(stderr=True)
    with console.status("reading the workload and measuring one instance (compiles at the first run)"):
        plan = make_plan(options)
    folder = RunFolder.create(options.out, plan.name, to_keep(options), plan.config)
    return _play(plan, folder, pool, console)


def _resume(path: Path, pool: Pool) -> int:
    console = Console(stderr=True)
    folder = RunFolder.open(path, "--resume")
    with console.status("comparing traces and versions with those that the run began with"):
        plan = make_plan(folder.options())
        folder.check_unchanged(_without_mended(folder, plan))
    return _play(plan, folder, pool, console)


def _without_mended(folder: RunFolder, plan: Plan) -> Record:
    """The configuration, but for one's own files of which nothing has been played to the end yet."""
    everywhere = plan.router is not None and router_file(plan.router) is not None
    own = [cell for cell in plan.cells if everywhere or ":" in cell.policy]
    if not all(_is_missing(folder, cell) for cell in own):
        return plan.config
    return {name: value for name, value in plan.config.items() if name != "own_files"}


def _play(plan: Plan, folder: RunFolder, pool: Pool, console: Console) -> int:
    """Play what is missing and write the tables; the exit status."""
    jobs = jobs_of(pool, plan)
    with folder.locked():
        try:
            missing = [cell for cell in plan.cells if _is_missing(folder, cell, console)]
            if missing:
                folder.begin(plan.config)
            with CellProgress(console, len(missing)) as bars:
                pool.run_pieces(
                    plan.pieces(missing, jobs),
                    folder,
                    jobs=jobs,
                    on_share=bars.share,
                    on_done=lambda cell: bars.done(cell, outcome(_read(folder, cell))),
                )
            return _finish(plan, folder)
        except KeyboardInterrupt:
            raise StoppedError("interrupted", folder.path, 130) from None
        except OSError as error:
            raise StoppedError(str(error), folder.path, 1) from None
        except InputError as error:
            raise StoppedError(str(error), folder.path, 2) from None


def _is_missing(folder: RunFolder, cell: Cell, console: Console | None = None) -> bool:
    """Whether a cell is to be played: for the first time, or as it failed or its file is broken."""
    try:
        record = folder.read_cell(cell)
    except CorruptCellError as error:
        if console is not None:
            console.print(f"{error}; it is played again", highlight=False, markup=False, soft_wrap=True)
        return True
    return record is None or record["error"] is not None


def _read(folder: RunFolder, cell: Cell) -> Record:
    record = folder.read_cell(cell)
    assert record is not None
    return record


def _finish(plan: Plan, folder: RunFolder) -> int:
    records = [_read(folder, cell) for cell in plan.cells]
    episodes = episodes_table(records)
    folder.write("episodes.csv", episodes.to_csv(index=False, lineterminator="\n"))
    folder.write_config(plan.config | _known_afterwards(records))
    _compare(folder, plan)
    print(f"Results: {folder.path}")
    page = folder.path / "report.html"
    if page.is_file():  # the extra is installed
        print(f"Report: {page}")
    failed = [record for record in records if record["error"] is not None]
    for record in failed:
        error = record["error"]
        window = "" if error["window"] is None else f", window {error['window']}"
        complain(
            f"{record['scenario']}, {record['policy']}, seed {record['seed']}{window}: {error['message']}"
        )
    if failed:
        complain(f"{len(failed)} of {len(records)} cells failed; --resume {folder.path} plays them again")
    return 1 if failed else 0


def _compare(folder: RunFolder, plan: Plan) -> None:
    """Write statistics, figures and the report, and print the table."""
    records = RunRecords(folder.path)
    # All its cells may have failed.
    baseline = plan.baseline if plan.baseline in set(records.episodes["policy"]) else None
    table = compare(records, baseline)
    try:
        write_report(records, table)
    except InputError as error:  # the extra is not installed: all else is there
        complain(f"report.html is left out: {error}")
    output = Console()
    if output.is_terminal:
        show(output, records, table)
    else:
        print(as_text(records, table), end="")
    # The last one: with it a run is complete.
    write(records, table)


def _known_afterwards(records: Sequence[Record]) -> dict[str, Any]:
    """Each policy's parameters and each scenario's instance profile; what differs between seeds, by seed."""
    policies: dict[str, dict[str, dict[int, Record]]] = {}
    profiles: dict[str, dict[int, Record]] = {}
    for record in records:
        if record["error"] is None:
            by_policy = policies.setdefault(record["scenario"], {})
            by_policy.setdefault(record["policy"], {})[record["seed"]] = record["parameters"]
            profiles.setdefault(record["scenario"], {})[record["seed"]] = record["profile"]
    return {
        "policies": {
            scenario: {policy: _merge(by_seed) for policy, by_seed in by_policy.items()}
            for scenario, by_policy in policies.items()
        },
        "profile": {scenario: _merge(by_seed) for scenario, by_seed in profiles.items()},
    }


def _merge(by_seed: dict[int, Record]) -> Record:
    first = next(iter(by_seed.values()))
    return {
        key: value
        if all(other[key] == value for other in by_seed.values())
        else {f"seed{seed}": other[key] for seed, other in by_seed.items()}
        for key, value in first.items()
    }


if __name__ == "__main__":
    # As batch systems end a job: it shall leave no more behind than Ctrl-C, worker processes included.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
