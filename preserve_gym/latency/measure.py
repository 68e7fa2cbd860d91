"""``python -m preserve_gym.latency measure``: time a model's iterations on the GPU of this machine.

A profile is a CSV file. One row is one iteration of the whole model on one GPU of ``tp``: embedding, all
layers, final norm, output head and greedy sampling for ``decode_requests`` sequences, and one more with a
prefill. A GPU has its share of heads, MLP columns and vocabulary; what the GPUs exchange is not in the time.

===============  =====================================================================================
column           meaning
===============  =====================================================================================
model            name, as ``find_model`` knows it
gpu              as CUDA names it, or ``cpu``
tp               GPUs that share the model
prefill_tokens   tokens of one prompt that are computed; 0: no prefill
prefill_context  tokens of the same prompt that were computed before
decode_requests  requests that decode
decode_context   tokens that each of them attends to, the new one included; 0 without decodes
time_s           median time of the iteration in seconds
repeats          iterations timed
===============  =====================================================================================

No batch is in a file twice. A row is written as soon as it is measured.
"""

from __future__ import annotations

import csv
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from preserve_gym.errors import InputError, missing_extra
from preserve_gym.latency.decoder import (
    BatchShape,
    Decoder,
    batch_bytes,
    decoder_bytes,
    logits,
    random_batch,
    random_decoder,
    tp_share,
)
from preserve_gym.latency.models import BYTES_PER_VALUE, ModelShape, find_model, tidy

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("model", "gpu", "tp", *BatchShape._fields, "time_s", "repeats")

# Batches that serving visits, for each field of BatchShape.
_DECODES = ((0,), (0,), tuple(2**k for k in range(9)), tuple(2**k for k in range(4, 15)))
_PREFILLS = (tuple(2**k for k in range(4, 14)), (0, 512, 2048, 4096, 8192), (0,), (0,))
_MIXED = ((128, 512, 2048), (0, 2048), (8, 64, 256), (256, 1024, 4096))

_WARM_UP = 3  # iterations
_USABLE_SHARE = 0.92  # of the free memory; the rest is for CUDA's workspaces and graphs
_WEIGHT_SHARE = 0.75  # of that, for distinct layers; the rest is for KV caches and activations
_CPU_BYTES = 8 * 2**30  # the CPU is for trying it out


@dataclass(frozen=True)
class MeasureOptions:
    """Time a model's iterations on the GPU of this machine, and write them to a CSV file row by row.

    Weights are random: only the shapes of the model are needed. The same command goes on with a file that an
    earlier one has begun.
    """

    model: str = "llama-3.1-8b"
    """Model: a name, or the path of the config.json that it has on Hugging Face."""
    tp: int = 1
    """GPUs that share the model. One GPU's share is timed, on one GPU; what they exchange is not."""
    out: Path | None = None
    """File to write, or to go on with. Default: <model>_<gpu>_tp<tp>.csv."""
    repeats: int = 20
    """Iterations timed for each batch; their median is written."""
    device: Literal["cuda", "cpu"] = "cuda"
    """Where to run; the CPU is for trying it out with a small model."""


def run(options: MeasureOptions, grid: Sequence[BatchShape] | None = None) -> Path:
    """Measure what the file does not hold yet, and return its path.

    Args:
        options: as on the command line.
        grid: batches, in the order to time them. Default: ``default_grid``.

    Raises:
        InputError: no PyTorch, no GPU, a model that is unknown or too large, a file of something else.
    """
    if not 1 <= options.repeats <= 10_000:
        raise InputError(f"--repeats: expected an integer in [1, 10000], got {options.repeats}")
    shape = find_model(options.model)
    share = tp_share(shape, options.tp)
    gpu = _find_device(options.device)
    name = f"{shape.name}_{tidy(gpu).replace('/', '-')}_tp{options.tp}.csv"
    distinct, batch_limit = _plan_memory(share, options)
    profile = ProfileFile(options.out or Path(name), model=shape.name, gpu=gpu, tp=options.tp)
    batches = default_grid(shape.max_model_len) if grid is None else grid
    fitting = [b for b in batches if batch_bytes(share, distinct, b, BYTES_PER_VALUE) <= batch_limit]
    left_out = len(batches) - len(fitting)
    todo = [b for b in fitting if b not in profile.done]
    console = Console(stderr=True)
    try:
        if todo:
            left_out += _measure(share, distinct, todo, options, profile, console)
    except KeyboardInterrupt:
        _say(console, f"{len(profile.done)} batches are in {profile.path}; the same command adds the others")
        raise
    if left_out:
        _say(console, f"{left_out} of {len(batches)} batches left out: they do not fit into the memory")
    _say(console, f"{len(profile.done)} batches are in {profile.path}")
    return profile.path


def default_grid(max_model_len: int) -> list[BatchShape]:
    """The batches that are measured, coarse ones first: any beginning of the list spans the whole.

    Args:
        max_model_len: longest context in tokens.
    """
    ranked: list[tuple[int, BatchShape]] = []
    for axes in (_DECODES, _PREFILLS, _MIXED):
        for index in itertools.product(*(range(len(axis)) for axis in axes)):
            batch = BatchShape(*(axis[i] for axis, i in zip(axes, index, strict=True)))
            if max(batch.prefill_context + batch.prefill_tokens, batch.decode_context) <= max_model_len:
                rank = max(_rank(i, len(axis)) for axis, i in zip(axes, index, strict=True))
                ranked.append((rank, batch))
    return [batch for _, batch in sorted(ranked, key=lambda item: item[0])]


def _rank(i: int, n: int) -> int:
    """0 for the ends and every fourth of ``n`` values, 1 for those half way between, 2 for the rest."""
    if i % 4 == 0 or i == n - 1:
        return 0
    return 1 if i % 2 == 0 else 2


class ProfileFile:
    """A profile that grows.

    Attributes:
        path: of the file.
        done: batches that it holds.

    Raises:
        InputError: if there is a file that is no profile, or one of another model, GPU or ``tp``.
    """

    def __init__(self, path: Path, *, model: str, gpu: str, tp: int) -> None:
        self.path = path
        self.done: set[BatchShape] = set()
        self._key = {"model": model, "gpu": gpu, "tp": str(tp)}
        if path.exists():
            self._read()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(COLUMNS)

    def add(self, batch: BatchShape, times_s: Sequence[float]) -> float:
        """Write the row of a batch; returns the median of its times."""
        time_s = statistics.median(times_s)
        self._append([*self._key.values(), *batch, f"{time_s:.6g}", len(times_s)])
        self.done.add(batch)
        return time_s

    def _append(self, row: Sequence[object]) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)

    def _read(self) -> None:
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path}: expected a profile: {error}") from None
        rows = list(csv.reader(text.splitlines()))
        if not rows or tuple(rows[0]) != COLUMNS:
            raise InputError(
                f"{self.path}: row 1: expected the columns {','.join(COLUMNS)}, "
                f"got {','.join(rows[0]) if rows else 'an empty file'!r}"
            )
        if not text.endswith("\n"):
            raise InputError(
                f"{self.path}: row {len(rows)}: expected a whole line; remove it to measure it again"
            )
        for number, row in enumerate(rows[1:], start=2):
            self.done.add(self._batch(number, row))

    def _batch(self, number: int, row: list[str]) -> BatchShape:
        if len(row) != len(COLUMNS):
            raise InputError(f"{self.path}: row {number}: expected {len(COLUMNS)} fields, got {len(row)}")
        fields = dict(zip(COLUMNS, row, strict=True))
        for name, ours in self._key.items():
            if fields[name] != ours:
                raise InputError(
                    f"{self.path}: row {number}: {name}: expected {ours!r}, got {fields[name]!r}; "
                    "a file holds one model, GPU and tp: choose another --out"
                )
        for name in BatchShape._fields:
            if not fields[name].isdecimal():
                raise InputError(
                    f"{self.path}: row {number}: {name}: expected an integer >= 0, got {fields[name]!r}"
                )
        return BatchShape(*(int(fields[name]) for name in BatchShape._fields))


def _find_device(device: str) -> str:
    """The name that profiles have for the device."""
    try:
        import torch
    except ModuleNotFoundError:
        raise missing_extra("measure", "PyTorch", "rl") from None
    if device == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise InputError(
            f"measure: no CUDA GPU found by PyTorch {torch.__version__}; run it on a machine with a GPU that "
            "nvidia-smi shows, with a PyTorch built for CUDA, or try it out with --device cpu and the "
            "config.json of a small model"
        )
    gpu = torch.cuda.get_device_name()
    if torch.cuda.get_device_capability() < (8, 0):
        major, minor = torch.cuda.get_device_capability()
        raise InputError(
            f"measure: expected a GPU of compute capability 8.0 (A100, RTX 30) or newer, for bfloat16; {gpu} "
            f"has {major}.{minor}"
        )
    return gpu


def _plan_memory(share: ModelShape, options: MeasureOptions) -> tuple[int, int]:
    """Distinct layers, and the bytes that they leave to a batch."""
    import torch

    free = _CPU_BYTES if options.device == "cpu" else torch.cuda.mem_get_info()[0]
    usable = int(_USABLE_SHARE * free)
    fewest = min(2, share.layers)
    distinct = share.layers
    while decoder_bytes(share, distinct, BYTES_PER_VALUE) > _WEIGHT_SHARE * usable:
        distinct -= 1
        if distinct < fewest:
            least = decoder_bytes(share, fewest, BYTES_PER_VALUE)
            raise InputError(
                f"measure: {fewest} layers, embedding and output head of {share.name} with tp {options.tp} "
                f"take {least / 1e9:.1f} GB, expected at most {_WEIGHT_SHARE * usable / 1e9:.1f} of "
                f"{free / 1e9:.1f} GB free; a larger --tp takes less"
            )
    return distinct, usable - decoder_bytes(share, distinct, BYTES_PER_VALUE)


def _measure(
    share: ModelShape,
    distinct: int,
    batches: Sequence[BatchShape],
    options: MeasureOptions,
    profile: ProfileFile,
    console: Console,
) -> int:
    """Time the batches, write their rows, and return how many did not fit."""
    import torch

    with console.status("drawing random weights"):
        decoder = random_decoder(share, distinct, device=options.device, dtype=torch.bfloat16)
    if options.device == "cuda":
        decoder = _compiled(decoder, console)
    too_large = eager = 0
    with _progress(console, len(batches)) as show:
        for number, batch in enumerate(batches, start=1):
            show(number, str(batch))
            try:
                timing = time_batch(decoder, batch, options.repeats)
            except torch.cuda.OutOfMemoryError:
                too_large += 1
                continue
            finally:
                torch.cuda.empty_cache()
            time_s = profile.add(batch, timing.times_s)
            eager += timing.eager
            if not console.is_terminal:
                _say(console, f"[{number}/{len(batches)}] {batch}: {1e3 * time_s:.2f} ms")
    if eager and options.device == "cuda":
        _say(
            console,
            f"{eager} batches could not be captured as CUDA graphs: their times are those of kernels that "
            "PyTorch launches one by one",
        )
    return too_large


def _compiled(decoder: Decoder, console: Console) -> Decoder:
    """The decoder with its small kernels compiled, if PyTorch can do that here."""
    try:
        compiled = replace(decoder, kernels=decoder.kernels.compiled())
        with console.status("compiling"):
            for requests in (1, 2):  # PyTorch compiles for one token alone, and for any number above
                logits(compiled, random_batch(compiled, BatchShape(0, 0, requests, 1)))
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        _say(
            console,
            "PyTorch cannot compile here, so that what lies between the matrix products takes more kernels "
            f"than on a server, and the times are too long: {reason}",
        )
        return decoder
    return compiled


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal, with what is being timed."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=total)
    with bar:
        yield lambda number, text: bar.update(task, completed=number - 1, description=text)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class Timing(NamedTuple):
    """How long iterations of one batch took.

    Attributes:
        times_s: of each in seconds.
        eager: launched kernel by kernel, not as a CUDA graph.
    """

    times_s: list[float]
    eager: bool


def time_batch(decoder: Decoder, shape: BatchShape, repeats: int) -> Timing:
    """Time ``repeats`` iterations of a batch, after some that are not timed."""
    batch = random_batch(decoder, shape)

    def iterate() -> Tensor:
        return logits(decoder, batch).argmax(dim=-1)

    if decoder.device.type == "cuda":
        return _time_on_cuda(iterate, repeats)
    for _ in range(_WARM_UP):
        iterate()
    return Timing([_seconds(iterate) for _ in range(repeats)], eager=True)


def _seconds(iterate: Callable[[], object]) -> float:
    started = time.perf_counter()
    iterate()
    return time.perf_counter() - started


def _time_on_cuda(iterate: Callable[[], object], repeats: int) -> Timing:
    """Time on the GPU, between two events around each iteration."""
    import torch

    # One stream from warm-up to replay, as capturing wants it; what was allocated on another is ready.
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            iterate()
        graph = torch.cuda.CUDAGraph()
        play: Callable[[], object] = graph.replay
        try:
            with torch.cuda.graph(graph, stream=stream):
                iterate()
        except RuntimeError:
            play = iterate
        for _ in range(_WARM_UP):
            play()
        events = []
        for _ in range(repeats):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            play()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
    return Timing([1e-3 * start.elapsed_time(end) for start, end in events], eager=play is iterate)
