"""``python -m preserve_gym.latency``: instances of measured GPUs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from preserve_gym.command_line import parse, status_of
from preserve_gym.config import InstanceConfig
from preserve_gym.errors import InputError
from preserve_gym.latency.instance import Wanted, as_yaml, fit_instance, refit
from preserve_gym.latency.measure import MeasureOptions
from preserve_gym.latency.measure import run as measure
from preserve_gym.latency.parts import Target
from preserve_gym.latency.presets import FOLDER, load_preset, preset_names, read_preset
from preserve_gym.latency.report import PICTURES, plot, show_check, show_fit, show_list
from preserve_gym.latency.whole_check import compare, read_whole

PROGRAM = "python -m preserve_gym.latency"


@dataclass(frozen=True)
class FitOptions:
    """Fit an instance to a profile of its GPU, say how far off it is, and write it to a file."""

    profiles: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files of Vidur, aiconfigurator, LLMServingSim, Splitwise, SageServe or `measure` that together say how
    long an iteration takes."""
    model: str
    """Model: a name, or the path of the config.json that it has on Hugging Face."""
    gpu: str
    """GPU: a name, or the path of a YAML file with the fields of Gpu in preserve_gym/latency/gpus.py."""
    tp: int = 1
    """GPUs of an instance (tensor parallelism)."""
    measured_on: str | None = None
    """The GPU of the profile, if it is another one: operators are scaled by what each card should need."""
    check: tuple[Path, ...] = ()
    """Tables of whole instances (Splitwise, SageServe, `measure`) to hold the law against."""
    gpu_memory_utilization: float = 0.9
    """Share of the memory that vLLM may use."""
    max_num_seqs: int | None = None
    """Most requests running at once. Default: vLLM's on such a card."""
    max_num_batched_tokens: int | None = None
    """Token budget of an iteration. Default: vLLM's on such a card."""
    max_model_len: int | None = None
    """Longest prompt plus output. Default: the model's, or what the KV cache holds."""
    out: Path | None = None
    """File to write. Default: <model>_<gpu>_tp<tp>.yaml."""
    plot: Path | None = None
    """Picture of predicted against measured times. Default: beside the file."""


@dataclass(frozen=True)
class RefitOptions:
    """Fit the presets of the package again and compare."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Presets, such as llama-3.1-8b_h100_tp1. Default: all."""
    write: bool = False
    """Write what comes out into the package."""


@dataclass(frozen=True)
class ListOptions:
    """Show the presets of the package, how far off each is, and what it costs."""


Command = (
    Annotated[FitOptions, tyro.conf.subcommand("fit")]
    | Annotated[RefitOptions, tyro.conf.subcommand("refit")]
    | Annotated[MeasureOptions, tyro.conf.subcommand("measure")]
    | Annotated[ListOptions, tyro.conf.subcommand("list")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (no way on, or a preset differs), 2 (bad input) or 130."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = parse(Command, arguments, PROGRAM)
    if isinstance(options, FitOptions):
        return _fit(options)
    if isinstance(options, RefitOptions):
        return _refit(options)
    if isinstance(options, MeasureOptions):
        print(measure(options))
    else:
        show_list(Console())
    return 0


def _fit(options: FitOptions) -> int:
    wanted = Wanted(**{field.name: getattr(options, field.name) for field in fields(Wanted)})
    target = wanted.target()
    out, picture = _files_to_write(options, target)
    wholes = [(path, read_whole(path, target)) for path in options.check]
    console = Console()
    with Console(stderr=True).status("fitting"):
        preset, fitted, _ = fit_instance(options.profiles, wanted)
    InstanceConfig(**preset.instance)  # complains of what it could not be
    show_fit(console, preset, fitted)
    for path, whole in wholes:
        show_check(console, path, compare(fitted.law, whole))
    drawn = BytesIO()
    plot(fitted, f"{preset.model} on {preset.tp} x {preset.gpu}", drawn, picture.suffix[1:].lower())
    out.write_text(as_yaml(preset), encoding="utf-8")
    picture.write_bytes(drawn.getvalue())
    console.print(f"{out}\n{picture}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _files_to_write(options: FitOptions, target: Target) -> tuple[Path, Path]:
    """Where the instance and the picture go.

    Raises:
        InputError: where they cannot go, or would replace something else.
    """
    out = options.out or Path(f"{target.model.name}_{target.gpu.name}_tp{target.tp}.yaml")
    if not out.name:
        raise InputError(f"--out: expected a file, got {str(out)!r}")
    picture = options.plot or out.with_suffix(".png")
    for option, path in (("out", out), ("plot", picture)):
        if path.is_dir():
            raise InputError(f"--{option}: {path}: expected a file, got a folder")
        if not path.parent.is_dir():
            raise InputError(f"--{option}: {path}: expected a folder that exists, {path.parent} does not")
    if out.resolve() == picture.resolve():
        raise InputError(f"--out: {out}: expected another file than the picture")
    if out.exists():
        try:
            read_preset(out)
        except InputError:
            raise InputError(
                f"--out: {out}: expected a new file, or one that `fit` wrote; this one holds something else"
            ) from None
    if picture.suffix.lower() not in PICTURES:
        raise InputError(f"--plot: {picture}: expected a file ending in {', '.join(PICTURES)}")
    return out, picture


def _refit(options: RefitOptions) -> int:
    console, differing = Console(), []
    known = preset_names()
    for name in options.names:
        if name not in known:
            raise InputError(f"preset {name!r}: expected one of {', '.join(known)}")
    for name in options.names or known:
        with Console(stderr=True).status(f"fitting {name}"):
            preset, fitted, _ = refit(load_preset(name))
        show_fit(console, preset, fitted)
        if as_yaml(preset) != (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"):
            differing.append(name)
            if options.write:
                (FOLDER / f"{name}.yaml").write_text(as_yaml(preset), encoding="utf-8")
    if differing:
        console.print(f"{'written' if options.write else 'differ'}: {', '.join(differing)}", highlight=False)
    return 1 if differing and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
