"""The timed decoder against a naive one, the profile file, and the command's options."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tyro
from rich.console import Console

from preserve_gym import InputError
from preserve_gym.latency import measure
from preserve_gym.latency.decoder import (
    BatchShape,
    Decoder,
    SmallKernels,
    _decode_backends,
    batch_bytes,
    decoder_bytes,
    logits,
    make_batch,
    random_batch,
    random_caches,
    random_decoder,
    tp_share,
)
from preserve_gym.latency.measure import COLUMNS, MeasureOptions, ProfileFile, Timing, default_grid, run
from preserve_gym.latency.models import ModelShape, find_model
from tests.pages import ROOT, table_of

torch = pytest.importorskip("torch")
SDPBackend = pytest.importorskip("torch.nn.attention").SDPBackend

PAGE = ROOT / "docs" / "measure-a-gpu.md"
GQA = ModelShape(
    name="tiny",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate=96,
    vocabulary=128,
    max_model_len=64,
)
SHAPES = {
    "gqa": GQA,
    "mha": replace(GQA, kv_heads=4),
    "one-kv-head": replace(GQA, kv_heads=1),
    "qk-norm": replace(GQA, qk_norm=True, head_dim=32),
    "tied": replace(GQA, tied_embedding=True),
}
GRID = [
    BatchShape(0, 0, 2, 8),
    BatchShape(8, 0, 0, 0),
    BatchShape(8, 8, 0, 0),
    BatchShape(8, 4, 2, 16),
    BatchShape(0, 0, 4, 16),
]


# The decoder


def naive_logits(decoder: Decoder, tokens: Any) -> Any:
    """Logits after each token of a prompt, head by head and without a cache."""
    shape, n = decoder.shape, len(tokens)
    group = shape.heads // shape.kv_heads
    half = shape.head_dim // 2

    def norm(x: Any, weight: Any) -> Any:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * weight

    def rotated(x: Any) -> Any:
        turn = torch.outer(torch.arange(n), 10_000.0 ** (-torch.arange(half) / half))
        z = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(turn), turn)
        return torch.cat((z.real, z.imag), -1)

    x = decoder.embedding[tokens]
    for i in range(shape.layers):
        layer = decoder.layers[i % len(decoder.layers)]
        columns = (norm(x, layer.attention_norm) @ layer.qkv.T).split(shape.head_dim, dim=1)
        out = []
        for head in range(shape.heads):
            query, key = columns[head], columns[shape.heads + head // group]
            value = columns[shape.heads + shape.kv_heads + head // group]
            if shape.qk_norm:
                query, key = norm(query, layer.query_norm), norm(key, layer.key_norm)
            scores = rotated(query) @ rotated(key).T / shape.head_dim**0.5
            scores[torch.ones(n, n).triu(1).bool()] = -torch.inf
            out.append(torch.softmax(scores, -1) @ value)
        x = x + torch.cat(out, 1) @ layer.attention_output.T
        gate, up = (norm(x, layer.mlp_norm) @ layer.gate_up.T).split(shape.intermediate, dim=1)
        x = x + (gate / (1 + torch.exp(-gate)) * up) @ layer.down.T
    return norm(x, decoder.norm) @ decoder.head.T


def tiny_decoder(shape: ModelShape = GQA, distinct_layers: int = 2) -> Decoder:
    return random_decoder(shape, distinct_layers, device="cpu", dtype=torch.float32)


def prompt_of(n: int, seed: int) -> Any:
    return torch.randint(GQA.vocabulary, (n,), generator=torch.Generator().manual_seed(seed))


def prefill(decoder: Decoder, prompt: Any, caches: Any, start: int, end: int) -> Any:
    shape = BatchShape(end - start, start, 0, 0)
    return logits(decoder, make_batch(decoder, shape, prompt[start:end], prefill_caches=caches))


def assert_close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_whole_in_chunks_and_token_by_token(shape: ModelShape) -> None:
    decoder, prompt = tiny_decoder(shape), prompt_of(13, seed=1)
    expected = naive_logits(decoder, prompt)
    # Noise beyond the context must not be seen, so the caches are longer than the prompt.
    assert_close(prefill(decoder, prompt, random_caches(decoder, 1, 20), 0, 13), expected[-1:])
    caches = random_caches(decoder, 1, 20)
    assert_close(prefill(decoder, prompt, caches, 0, 5), expected[4:5])
    assert_close(prefill(decoder, prompt, caches, 5, 6), expected[5:6])
    assert_close(prefill(decoder, prompt, caches, 6, 13), expected[-1:])
    caches = random_caches(decoder, 1, 20)
    prefill(decoder, prompt, caches, 0, 4)
    for i in range(4, 13):
        batch = make_batch(decoder, BatchShape(0, 0, 1, i + 1), prompt[i : i + 1], decode_caches=caches)
        assert_close(logits(decoder, batch), expected[i : i + 1])


def test_requests_of_a_batch_do_not_see_each_other() -> None:
    decoder = tiny_decoder()
    prompts = [prompt_of(9, seed) for seed in range(3)]
    chunked = prompt_of(11, seed=7)
    decode_caches = random_caches(decoder, 3, 9)
    for request, prompt in enumerate(prompts):
        prefill(decoder, prompt, tuple(cache[:, request : request + 1] for cache in decode_caches), 0, 8)
    prefill_caches = random_caches(decoder, 1, 11)
    prefill(decoder, chunked, prefill_caches, 0, 6)
    tokens = torch.cat([*(prompt[8:] for prompt in prompts), chunked[6:]])
    batch = make_batch(decoder, BatchShape(5, 6, 3, 9), tokens, decode_caches, prefill_caches)
    expected = torch.cat([naive_logits(decoder, prompt)[-1:] for prompt in (*prompts, chunked)])
    assert_close(logits(decoder, batch), expected)


def test_fewer_distinct_layers_take_turns_through_the_full_depth() -> None:
    shape = replace(GQA, layers=5)
    decoder, prompt = tiny_decoder(shape, distinct_layers=2), prompt_of(7, seed=2)
    whole = prefill(decoder, prompt, random_caches(decoder, 1, 7), 0, 7)
    assert_close(whole, naive_logits(decoder, prompt)[-1:])


@pytest.mark.parametrize("tp", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-32b"])
def test_share_of_a_gpu(model: str, tp: int) -> None:
    shape = find_model(model)
    share = tp_share(shape, tp)
    for name, (n, k) in share.matrices.items():
        whole_n, whole_k = shape.matrices[name]
        if name == "qkv":
            kv_heads = max(shape.kv_heads // tp, 1)
            assert (n, k) == ((shape.heads // tp + 2 * kv_heads) * shape.head_dim, whole_k)
        elif name in ("attention_output", "down"):
            assert (n, k) == (whole_n, whole_k // tp)
        else:
            assert (n, k) == (whole_n // tp, whole_k)
    assert share.kv_bytes_per_token() == shape.kv_bytes_per_token(tp)


def test_share_that_heads_do_not_allow() -> None:
    with pytest.raises(InputError, match=r"^tp: expected a divisor of the 32 heads of llama-3.1-8b"):
        tp_share(find_model("llama-3.1-8b"), 3)


def test_share_computes() -> None:
    share = tp_share(GQA, 4)
    decoder = tiny_decoder(share)
    assert decoder.layers[0].qkv.shape == (3 * 16, 64)
    assert decoder.layers[0].attention_output.shape == (64, 16)
    assert logits(decoder, random_batch(decoder, BatchShape(3, 2, 2, 5))).shape == (3, 32)


@pytest.mark.parametrize("shape", [SHAPES["qk-norm"], replace(SHAPES["qk-norm"], tied_embedding=True)])
def test_bytes(shape: ModelShape) -> None:
    decoder = tiny_decoder(replace(shape, layers=3))
    tensors = {
        id(t): t
        for t in (
            decoder.embedding,
            decoder.head,
            decoder.norm,
            *(t for layer in decoder.layers for t in layer),
        )
    }
    assert sum(t.numel() for t in tensors.values()) * 4 == decoder_bytes(decoder.shape, 2, 4)
    short, long = (random_batch(decoder, BatchShape(3, 2, 2, context)) for context in (50, 60))
    caches = [
        sum(cache.numel() for cache in (*batch.decode_caches, *batch.prefill_caches)) * 4
        for batch in (short, long)
    ]
    estimates = [batch_bytes(shape, 2, batch.shape, 4) for batch in (short, long)]
    assert estimates[1] - estimates[0] == caches[1] - caches[0]
    assert estimates[0] > caches[0]


# The grid


def test_grid() -> None:
    grid = default_grid(131_072)
    assert len(grid) == len(set(grid)) == 203
    assert all(batch.tokens > 0 for batch in grid)
    kinds = {
        "decodes": lambda b: not b.prefill_tokens,
        "prefills": lambda b: not b.decode_requests,
        "mixed": lambda b: b.prefill_tokens and b.decode_requests,
    }
    # The first fifth of each kind spans what all of them span.
    for kind in kinds.values():
        for column in zip(*filter(kind, grid), strict=True):
            first = [
                value for value, batch in zip(column, filter(kind, grid), strict=True) if batch in grid[:36]
            ]
            assert (min(first), max(first)) == (min(column), max(column))


def test_grid_of_a_short_context() -> None:
    for batch in default_grid(4096):
        assert batch.prefill_context + batch.prefill_tokens <= 4096
        assert batch.decode_context <= 4096
    assert BatchShape(2048, 2048, 0, 0) in default_grid(4096)


# The file


def write_config(folder: Path, **changes: int) -> Path:
    config = {
        "_name_or_path": "someone/Tiny-Instruct",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 128,
        "max_position_embeddings": 32,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config | changes))
    return path


@pytest.fixture
def options(tmp_path: Path) -> MeasureOptions:
    return MeasureOptions(
        model=str(write_config(tmp_path)), out=tmp_path / "new" / "profile.csv", repeats=2, device="cpu"
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def batches_of(path: Path) -> list[BatchShape]:
    return [BatchShape(*(int(row[name]) for name in BatchShape._fields)) for row in rows_of(path)]


def timer(monkeypatch: pytest.MonkeyPatch, act: Callable[[BatchShape], list[float]]) -> None:
    def time_batch(decoder: Decoder, shape: BatchShape, repeats: int) -> Timing:
        return Timing(act(shape), eager=True)

    monkeypatch.setattr(measure, "time_batch", time_batch)


def test_command_on_a_cpu(options: MeasureOptions, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(options)
    assert path == options.out
    lines = path.read_text().splitlines()
    assert lines[0] == (
        "model,gpu,tp,prefill_tokens,prefill_context,decode_requests,decode_context,time_s,repeats"
    )
    grid = default_grid(32)
    assert batches_of(path) == grid
    for row in rows_of(path):
        assert [row[name] for name in ("model", "gpu", "tp", "repeats")] == ["tiny", "cpu", "1", "2"]
        assert 0.0 < float(row["time_s"]) < 1.0
    progress = capsys.readouterr().err.splitlines()
    assert progress[0].startswith(f"[1/{len(grid)}] 1 decode at 16: ")
    assert progress[-1] == f"{len(grid)} batches are in {path}"
    assert len(progress) == len(grid) + 1


def test_larger_batches_take_longer(options: MeasureOptions, tmp_path: Path) -> None:
    config = write_config(tmp_path, hidden_size=256, intermediate_size=1024, max_position_embeddings=1024)
    grid = [BatchShape(512, 0, 0, 0), BatchShape(0, 0, 1, 16)]
    rows = rows_of(run(replace(options, model=str(config), repeats=5), grid))
    assert float(rows[0]["time_s"]) > 2 * float(rows[1]["time_s"])


def test_default_name_of_the_file(
    options: MeasureOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(replace(options, out=None, tp=2), GRID[:1]) == Path("tiny_cpu_tp2.csv")
    assert rows_of(tmp_path / "tiny_cpu_tp2.csv")[0]["tp"] == "2"


def test_interrupted_run_is_resumed(
    options: MeasureOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert options.out is not None
    timed = []

    def interrupted(shape: BatchShape) -> list[float]:
        if len(timed) == 2:
            raise KeyboardInterrupt
        timed.append(shape)
        return [0.5, 0.25]

    timer(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(options, GRID)
    assert "2 batches are in" in capsys.readouterr().err
    begun = options.out.read_text()
    assert begun.endswith("tiny,cpu,1,8,0,0,0,0.375,2\n")
    again: list[BatchShape] = []
    timer(monkeypatch, lambda shape: again.append(shape) or [1.0])  # type: ignore[func-returns-value]
    run(options, GRID)
    assert again == GRID[2:]
    assert options.out.read_text().startswith(begun)
    assert batches_of(options.out) == GRID
    run(options, GRID)
    assert again == GRID[2:]


def test_median_is_written(options: MeasureOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    timer(monkeypatch, lambda shape: [9.0, 0.0012345678, 0.001])
    (row,) = rows_of(run(options, GRID[:1]))
    assert (row["time_s"], row["repeats"]) == ("0.00123457", "3")


def test_every_iteration_is_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 10.0, 13.0, 20.0, 22.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    assert measure.time_batch(tiny_decoder(), GRID[3], 3) == Timing([1.0, 3.0, 2.0], eager=True)


def test_batches_that_do_not_fit_are_left_out_and_counted(
    options: MeasureOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(shape: BatchShape) -> list[float]:
        if shape == GRID[1]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return [1.0]

    timer(monkeypatch, act)
    huge = BatchShape(0, 0, 10**6, 10**6)
    path = run(options, [huge, *GRID])
    assert batches_of(path) == [GRID[0], *GRID[2:]]
    assert "2 of 6 batches left out: they do not fit into the memory\n" in capsys.readouterr().err


def test_as_many_distinct_layers_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = replace(GQA, layers=10)
    weights = decoder_bytes(shape, 6, 2)
    monkeypatch.setattr(measure, "_CPU_BYTES", int(weights / 0.75 / 0.92) + 100)
    options = MeasureOptions(device="cpu")
    distinct, left = measure._plan_memory(shape, options)
    assert distinct == 6
    assert left == pytest.approx(weights / 3, rel=0.01)
    monkeypatch.setattr(measure, "_CPU_BYTES", decoder_bytes(shape, 2, 2))
    with pytest.raises(
        InputError, match=r"^measure: 2 layers, .* of tiny with tp 1 take .* GB, expected at most"
    ):
        measure._plan_memory(shape, options)


HEADER = ",".join(COLUMNS) + "\n"
ROW = "tiny,cpu,1,0,0,2,8,0.5,2\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "row 1: expected the columns model,gpu,"),
        ("arrival_s,prompt_tokens\n1,2\n", "row 1: expected the columns .*, got 'arrival_s,prompt_tokens'"),
        (HEADER + ROW + ROW.replace("tiny", "small"), "row 3: model: expected 'tiny', got 'small'"),
        (HEADER + ROW.replace("cpu", "NVIDIA L4"), "row 2: gpu: expected 'cpu', got 'NVIDIA L4'"),
        (HEADER + ROW.replace("cpu,1", "cpu,2"), "row 2: tp: expected '1', got '2'"),
        (HEADER + ROW.replace(",8,", ",x,"), "row 2: decode_context: expected an integer >= 0, got 'x'"),
        (HEADER + "tiny,cpu,1\n", "row 2: expected 9 fields, got 3"),
        (HEADER + ROW + ROW[:-1], "row 3: expected a whole line"),
        (b"\xff\xfe", "expected a profile"),
    ],
)
def test_other_files_are_refused(options: MeasureOptions, content: str | bytes, complaint: str) -> None:
    assert options.out is not None
    options.out.parent.mkdir()
    options.out.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = options.out.read_bytes()
    with pytest.raises(InputError, match=f"profile.csv: {complaint}"):
        run(options, GRID)
    assert options.out.read_bytes() == before


def test_name_with_a_comma(tmp_path: Path) -> None:
    key: dict[str, Any] = {"model": "a,b", "gpu": 'c "d"', "tp": 1}
    ProfileFile(tmp_path / "p.csv", **key).add(GRID[0], [1.0])
    assert ProfileFile(tmp_path / "p.csv", **key).done == {GRID[0]}


# The command


def test_command_line() -> None:
    arguments = ["--model", "qwen3-32b", "--tp", "2", "--out", "p.csv", "--repeats", "5", "--device", "cpu"]
    assert tyro.cli(MeasureOptions, args=arguments) == MeasureOptions(
        model="qwen3-32b", tp=2, out=Path("p.csv"), repeats=5, device="cpu"
    )
    assert tyro.cli(MeasureOptions, args=[]) == MeasureOptions()


def test_without_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^measure: no CUDA GPU found .*--device cpu") as error:
        run(MeasureOptions(out=tmp_path / "p.csv"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "p.csv").exists()


def test_gpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(InputError, match=r"compute capability 8\.0 .*; Tesla T4 has 7\.5$"):
        run(MeasureOptions())


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install 'preserve-gym\[rl\]"):
        run(MeasureOptions())


def test_options_are_checked(options: MeasureOptions) -> None:
    with pytest.raises(InputError, match=r"^--repeats: expected an integer in \[1, 10000\], got 0$"):
        run(replace(options, repeats=0))
    with pytest.raises(InputError, match=r"^tp: expected a divisor of the 4 heads of tiny"):
        run(replace(options, tp=3))


# Compiled kernels, and which ones attend


@pytest.fixture
def compile_options(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """PyTorch compiles without a C compiler; returns the options of each call."""
    compile_function, seen = torch.compile, []

    def without_compiler(function: Any, **options: Any) -> Any:
        seen.append(options)
        return compile_function(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", without_compiler)
    return seen


@pytest.mark.parametrize("name", ["gqa", "qk-norm"])
def test_compiled_kernels_compute_the_same(name: str, compile_options: list[dict[str, Any]]) -> None:
    decoder = tiny_decoder(SHAPES[name])
    compiled = measure._compiled(decoder, Console(stderr=True))
    assert compiled.kernels != decoder.kernels
    assert compile_options == [{"dynamic": True}] * len(SmallKernels._fields)
    for shape in GRID:
        assert_close(
            logits(compiled, random_batch(decoder, shape)), logits(decoder, random_batch(decoder, shape))
        )


@pytest.mark.parametrize("when", ["at once", "when called"])
def test_without_a_compiler(
    when: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.\nSet CC.")

    def no_compile(function: Any, **options: Any) -> Any:
        return fail if when == "when called" else fail()

    monkeypatch.setattr(torch, "compile", no_compile)
    decoder = tiny_decoder()
    assert measure._compiled(decoder, Console(stderr=True)) is decoder
    said = capsys.readouterr().err
    assert said.startswith("PyTorch cannot compile here")
    assert said.endswith(": Failed to find C compiler.\n")


def test_only_what_a_gpu_computes_is_compiled(
    options: MeasureOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compile_options: list[dict[str, Any]],
) -> None:
    run(options, GRID[:1])
    assert not compile_options
    drawn = measure.random_decoder
    monkeypatch.setattr(measure, "_find_device", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (8 * 2**30, 8 * 2**30))
    monkeypatch.setattr(
        measure, "random_decoder", lambda *given, device, dtype: drawn(*given, device="cpu", dtype=dtype)
    )
    run(replace(options, device="cuda", out=tmp_path / "gpu.csv"), GRID[:1])
    assert compile_options


@pytest.mark.parametrize(
    ("device", "caches", "shares"), [("cuda", 131, True), ("cuda", 132, False), ("cpu", 1, False)]
)
def test_few_caches_are_shared_out(
    device: str, caches: int, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=132)
    )
    backends = _decode_backends(caches, torch.device(device))
    assert SDPBackend.FLASH_ATTENTION in backends
    assert (SDPBackend.CUDNN_ATTENTION not in backends) is shares


# The part that needs a GPU, with a stand-in for torch.cuda: each iteration takes as long as the clock says.


class FakeCuda:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, captures: bool) -> None:
        self.now_ms = 0.0
        self.capturing: FakeGraph | None = None
        self.captures = captures
        for name, value in {
            "synchronize": lambda: None,
            "Stream": object,
            "stream": lambda stream: nullcontext(),
            "CUDAGraph": lambda: FakeGraph(self),
            "graph": self.graph,
            "Event": lambda enable_timing: FakeEvent(self),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    @contextmanager
    def graph(self, graph: FakeGraph, stream: object) -> Any:
        if not self.captures:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.capturing = graph
        yield
        self.capturing = None


class FakeGraph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.captured: list[float] = []

    def replay(self) -> None:
        self.cuda.now_ms += sum(self.captured)


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def record(self) -> None:
        self.at_ms = self.cuda.now_ms

    def elapsed_time(self, end: FakeEvent) -> float:
        return end.at_ms - self.at_ms


@pytest.mark.parametrize("captures", [True, False])
def test_timing_on_cuda(monkeypatch: pytest.MonkeyPatch, captures: bool) -> None:
    cuda = FakeCuda(monkeypatch, captures=captures)

    def iterate() -> None:
        if cuda.capturing is not None:
            cuda.capturing.captured.append(7.0)
        else:
            cuda.now_ms += 11.0

    timing = measure._time_on_cuda(iterate, 4)
    assert timing.eager is not captures
    assert timing.times_s == pytest.approx([0.007 if captures else 0.011] * 4)


# The page


def test_page_shows_the_columns_and_options() -> None:
    assert [row[0] for row in table_of(PAGE, "The file")] == list(COLUMNS)
    options = {row[0]: row[1] for row in table_of(PAGE, "Measure a GPU")}
    assert list(options) == [f"--{field.name}" for field in fields(MeasureOptions)]
    defaults = {f"--{field.name}": str(field.default) for field in fields(MeasureOptions)}
    assert options == defaults | {"--out": "<model>_<gpu>_tp<tp>.csv"}


def test_page_shows_the_grid() -> None:
    assert f"\n{len(default_grid(10**6))} batches for a model" in PAGE.read_text()
    shown = []
    for row in table_of(PAGE, "The grid"):
        for cell in row[1:]:
            values = [int(value) for value in cell.replace(" ...", "").split(",")]
            if "..." in cell:
                values = [values[0] * 2**k for k in range(values[-1].bit_length())]
                values = [value for value in values if value <= int(cell.split()[-1])]
            shown.append(tuple(values))
    assert shown == [axis for axes in (measure._DECODES, measure._PREFILLS, measure._MIXED) for axis in axes]
