"""``python -m preserve_gym.prediction``: output lengths predicted from the text of prompts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError
from preserve_gym.prediction.accuracy import length_accuracy
from preserve_gym.prediction.lengths import LengthPrediction
from preserve_gym.prediction.prompt_file import read_prompts, write_predictions
from preserve_gym.prediction.text_lengths import TextLengths
from preserve_gym.prediction.text_network import TextTraining
from preserve_gym.splits import split_bounds

PROGRAM = "python -m preserve_gym.prediction"


@dataclass(frozen=True)
class FitOptions:
    """Train a text model on the first part of a file of requests, and measure it on the rest."""

    file: Annotated[Path, tyro.conf.Positional]
    """CSV with the columns arrival_s, prompt_tokens, output_tokens and prompt; class is optional."""
    encoder: str
    """Folder of a pretrained encoder such as DistilBERT, or hub: and its name on Hugging Face's hub."""
    out: Path
    """Folder for the trained model."""
    train_s: float | None = None
    """End of the training part in seconds. Default: 60 % of the recording, as WorkloadConfig.split has it."""
    level: float = 0.9
    """Share of the requests that are to be no longer than their upper quantile."""
    seed: int = 0
    """Of the prompt vectors and of the order of the requests."""
    device: str = "cpu"
    """Device of PyTorch, such as cpu or cuda."""
    training: Annotated[TextTraining, tyro.conf.arg(name="")] = field(default_factory=TextTraining)


@dataclass(frozen=True)
class PredictOptions:
    """Write a trace with the predicted lengths of its requests, for the predictor `column`."""

    file: Annotated[Path, tyro.conf.Positional]
    """CSV as for `fit`."""
    model: Path
    """Folder that `fit` wrote."""
    out: Path
    """CSV file to write: the trace without the prompts, with predicted_tokens and predicted_upper_tokens."""
    device: str = "cpu"
    """Device of PyTorch, such as cpu or cuda."""


Command = (
    Annotated[FitOptions, tyro.conf.subcommand("fit")]
    | Annotated[PredictOptions, tyro.conf.subcommand("predict")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (a file cannot be written), 2 (bad input) or 130."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = parse(Command, arguments, PROGRAM)
    if not options.out.parent.is_dir():
        raise InputError(
            f"--out: {options.out}: expected a folder that exists, {options.out.parent} does not"
        )
    return _fit(options) if isinstance(options, FitOptions) else _predict(options)


def _fit(options: FitOptions) -> int:
    if options.out.exists() and not (options.out / "text_lengths.json").is_file():
        raise InputError(f"--out: {options.out}: expected a new folder, or one that `fit` wrote")
    trace, prompts = read_prompts(options.file)
    train_s = options.train_s
    if train_s is None:
        train_s = split_bounds(trace.span_s, None, 0.0)["train"][1]
    if not 0.0 < train_s <= trace.span_s:
        raise InputError(
            f"--train-s: expected a number above 0 and at most the {trace.span_s:g} s of {options.file}, "
            f"got {train_s!r}"
        )
    count = trace.row_range(0.0, train_s).stop
    model = TextLengths(
        options.encoder,
        level=options.level,
        training=options.training,
        seed=options.seed,
        device=options.device,
    )
    with _progress("training") as report:
        model.fit(prompts[:count], trace.output_tokens[:count], report)
    model.save(options.out)
    console = Console(highlight=False)
    if count < len(trace):
        with _progress("measuring") as report:
            prediction = model.predict(prompts[count:], report)
        console.print(_measured(trace.output_tokens[count:], prediction, options.level), soft_wrap=True)
    console.print(f"{options.out}", markup=False, soft_wrap=True)
    return 0


def _predict(options: PredictOptions) -> int:
    if options.out.is_dir() or options.out.resolve() == options.file.resolve():
        raise InputError(f"--out: {options.out}: expected another file than the one to read, not a folder")
    trace, prompts = read_prompts(options.file)
    model = TextLengths.load(options.model, device=options.device)
    with _progress("predicting") as report:
        prediction = model.predict(prompts, report)
    write_predictions(options.out, trace, prediction)
    Console(highlight=False).print(f"{options.out}", markup=False, soft_wrap=True)
    return 0


def _measured(output_tokens: np.ndarray, prediction: LengthPrediction, level: float) -> str:
    accuracy = length_accuracy(output_tokens, prediction)
    return (
        f"{len(output_tokens):,} requests after the training part: MAE {accuracy.mae:.1f} tokens, "
        f"bias {accuracy.bias:+.1f}, Acc-50 {accuracy.acc_50:.1%}, Acc-100 {accuracy.acc_100:.1%}, "
        f"tau {accuracy.kendall_tau:.2f}, within P{100 * level:g} {accuracy.coverage:.1%}"
    )


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; whom to tell the rows done and all rows."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


if __name__ == "__main__":
    sys.exit(main())
