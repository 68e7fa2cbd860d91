from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.traces import files, load_trace, mooncake, read_trace
from preserve_gym.traces.readers import read_text
from preserve_gym.traces.spread import spread_stamps


def line(timestamp: object = 0, prompt: object = 600, output: object = 5, ids: object = (0, 1)) -> bytes:
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    return json.dumps(dict(zip(keys, (timestamp, prompt, output, ids), strict=True))).encode() + b"\n"


ROWS = (
    line() + line(0, 700, 6, [0, 2]) + line(3000, 512, 7, [3]) + line(6000, 1, 8, [4]) + line(6000, 2, 9, [5])
)


def write(folder: Path, content: bytes, name: str = "trace.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("chunk_bytes", [1, 50, 10**6])
def test_mooncake(tmp_path: Path, packed: bool, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", chunk_bytes)
    trace = read_trace(
        write(tmp_path, gzip.compress(ROWS) if packed else ROWS, "trace.jsonl" + ".gz" * packed)
    )
    assert trace.name == "trace"
    assert trace.prompt_tokens.tolist() == [600, 700, 512, 1, 2]
    assert trace.output_tokens.tolist() == [5, 6, 7, 8, 9]
    assert trace.repairs == ("spread 4 arrivals that shared a time stamp over the gap to the next one",)
    first, second, third, fourth, fifth = trace.arrival_s
    assert 0.0 < first < second < 3.0
    assert third == 3.0  # it has its stamp to itself
    assert 6.0 < fourth < fifth < 9.0  # the last stamp has the usual gap
    assert trace.span_s == fifth
    assert trace.prefix_blocks is not None
    assert [ids.tolist() for ids in trace.prefix_blocks] == [[0, 1], [0, 2], [3], [4], [5]]
    assert trace.prefix_blocks.ids.dtype == np.int32
    assert trace.prefix_blocks.block_tokens == 512


def test_the_seed_decides_where_arrivals_are_spread(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    np.testing.assert_array_equal(read_trace(path).arrival_s, read_trace(path, seed=0).arrival_s)
    np.testing.assert_array_equal(load_trace(path, seed=3).arrival_s, read_trace(path, seed=3).arrival_s)
    assert (read_trace(path, seed=0).arrival_s != read_trace(path, seed=3).arrival_s).sum() == 4


def test_requests_without_tokens_are_dropped_with_their_blocks(tmp_path: Path) -> None:
    content = line(0, 5, 0, [9]) + line(1000, 600, 1, [7, 8]) + line(2000, 0, 5, []) + line(2000, 5, 5, [6])
    trace = read_trace(write(tmp_path, content))
    assert trace.arrival_s.tolist() == [1.0, 2.0]
    assert trace.repairs == ("dropped 2 requests with 0 prompt or output tokens",)
    assert trace.prefix_blocks is not None
    assert [ids.tolist() for ids in trace.prefix_blocks] == [[7, 8], [6]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}\n", "row 1: expected a JSON object with the keys timestamp, input_length, .*, got '{}'"),
        (line() + b"[1]\n", "row 2: expected a JSON object with the keys"),
        (line() + b'[["timestamp", 0]]\n', "row 2: expected a JSON object with the keys"),
        (line() + line()[:-9], "row 2: expected a JSON object, got"),
        (line() + b"\n" + b"x\n", "row 3: expected a JSON object, got 'x'"),
        (b"{" + b"[" * 100_000, r"row 1: expected a JSON object, got '\{\[+...'"),
        (line() + b"{\xff}\n", "row 2: expected a JSON object, got .*not UTF-8"),
        (line()[:-2] + b', "turn": 1}\n', "row 1: expected a JSON object with the keys"),
        (line()[:-2] + b', "timestamp": 1}\n', "row 1: expected a JSON object with the keys"),
        (line(-1), r"row 1: timestamp: expected an integer in \[0, 31622400000\], got '-1'"),
        (line(1_700_158_546_000), "row 1: timestamp: expected an integer in .*, got '1700158546000'"),
        (line(0.5), "row 1: timestamp: expected an integer"),
        (line(True), "row 1: timestamp: expected an integer"),
        (line("0"), "row 1: timestamp: expected an integer"),
        (line(float("nan")), "row 1: timestamp: expected an integer in .*, got 'nan'"),
        (line(0, -4), "row 1: input_length: expected an integer in .*, got '-4'"),
        (line(0, 2**31), "row 1: input_length: expected an integer in .*, got '2147483648'"),
        (line(0, 4, None), "row 1: output_length: expected an integer in .*, got 'None'"),
        (line(0, 4, 4, 7), r"row 1: hash_ids: expected a list of integers in \[0, 2147483647\], got '7'"),
        (line(0, 4, 4, [1, -1]), "row 1: hash_ids: expected a list of integers"),
        (line(0, 4, 4, [2**31]), "row 1: hash_ids: expected a list of integers"),
        (line(0, 4, 4, [0.0]), "row 1: hash_ids: expected a list of integers"),
        (
            line(7) + line(5),
            r"row 2: timestamp: expected a time at or after that of the row before \(7\), got 5",
        ),
        (line(0, 0), "expected at least one request with prompt and output tokens"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_malformed_lines_are_named(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    name = "bad.jsonl" + ".gz" * packed
    path = write(tmp_path, gzip.compress(content) if packed else content, name)
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


LINES = st.sampled_from(
    [
        *(
            line(k, 5, 6, ids)
            for k, ids in ((1, [3]), (2, []), (9, [1, 2]), (-1, [3]), (3, [None]), (3, None))
        ),
        *(line(4, 5.0), line(4, 2**31), line(4, True), line(4, 5, 6, [2**31]), line(4, 5, 6, [-1])),
        line()[:-1],
        line()[:-2] + b', "timestamp": 1}\n',
        line()[:-2] + b', "more": 1}\n',
        line().replace(b", ", b",\n"),
        line().replace(b"input_", b"input\\u005f"),
        line().replace(b"\n", b"\r\n"),
        b"\n",
        b"{}\n",
        b"x\n",
    ]
)


@given(st.lists(LINES, min_size=1, max_size=4), st.integers(0, 3))
def test_the_fast_parser_accepts_only_what_the_strict_one_does(lines: list[bytes], last_ms: int) -> None:
    content = b"".join(lines)
    fast = mooncake._parse_fast(content, last_ms)
    if fast is not None:
        strict = mooncake._parse_strictly(Path("x.jsonl"), content, 1, last_ms)
        for ours, theirs in zip(fast, strict, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_released_files_take_the_fast_path(data_dir: Path) -> None:
    with files.open_content(data_dir / "traces" / "mooncake_conversation.jsonl.gz") as stream:
        assert mooncake._parse_fast(next(files.line_chunks(stream)), 0) is not None


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = b"".join(line(k, int(n)) for k, n in enumerate(rng.integers(1, 10**9, 20_000)))
    path = write(tmp_path, gzip.compress(rows)[:-100], "cut.jsonl.gz")
    with pytest.raises(InputError, match="expected a whole gzip file, got a broken one"):
        read_trace(path)


@given(st.binary(max_size=60))
def test_random_bytes_never_escape_as_another_error(content: bytes) -> None:
    for head in (line(), line() + b"{", b"{"):
        with contextlib.suppress(InputError):
            read_text(Path("x.jsonl"), iter([head + content]), 0, "x")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60).map(sorted), st.integers(0, 99))
def test_spread_arrivals_stay_in_their_gap_and_in_order(stamps: list[int], seed: int) -> None:
    stamp_s = np.array(stamps, float)
    arrival_s, spread = spread_stamps(stamp_s, np.random.default_rng(seed))
    assert (np.diff(arrival_s) >= 0).all()
    different = np.unique(stamp_s)
    gap_s = np.median(np.diff(different)) if len(different) > 1 else 0.0
    later = np.append(different, different[-1] + gap_s + 1e-9)
    for stamp, arrival, moved in zip(stamp_s, arrival_s, spread, strict=True):
        alone = (stamp_s == stamp).sum() == 1
        assert moved == (not alone and len(different) > 1)
        following = later[np.searchsorted(different, stamp, side="right")]
        assert stamp <= arrival < min(following, stamp + gap_s + 1e-9) if moved else arrival == stamp


def test_spread_arrivals_are_uniform_and_a_silence_stays_silent() -> None:
    stamp_s = np.repeat([0.0, 3.0, 6.0, 3600.0], 5000)
    arrival_s, spread = spread_stamps(stamp_s, np.random.default_rng(0))
    assert spread.all()
    within = (arrival_s - stamp_s) / 3.0
    assert within.max() < 1.0
    counts = np.histogram(within, bins=10, range=(0, 1))[0]
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize(
    (
        "file",
        "rows",
        "prompt",
        "output",
        "minutes",
        "peak",
        "windows",
        "prompt_range",
        "output_range",
        "spread",
    ),
    [
        (
            "conversation",
            12_031,
            144_793_823,
            4_122_048,
            58.95,
            247,
            5,
            (24.0e6, 24.6e6),
            (620e3, 748e3),
            12_031,
        ),
        ("synthetic", 3_993, 61_194_628, 595_432, 17.03, 273, 1, (28.3e6, 28.3e6), (428e3, 428e3), 22),
    ],
)
def test_released_files(
    data_dir: Path,
    file: str,
    rows: int,
    prompt: int,
    output: int,
    minutes: float,
    peak: int,
    windows: int,
    prompt_range: tuple[float, float],
    output_range: tuple[float, float],
    spread: int,
) -> None:
    trace = read_trace(data_dir / "traces" / f"mooncake_{file}.jsonl.gz")
    assert len(trace) == rows
    assert (trace.prompt_tokens.sum(), trace.output_tokens.sum()) == (prompt, output)
    assert minutes <= trace.span_s / 60 <= minutes + 3.0 / 60
    assert np.bincount((trace.arrival_s // 60).astype(int)).max() == peak
    for tokens, extremes in zip(trace.window_tokens(600.0), (prompt_range, output_range), strict=True):
        assert (tokens[:windows].min(), tokens[:windows].max()) == pytest.approx(extremes, rel=0.005)
    assert trace.repairs == (
        f"spread {spread:,} arrivals that shared a time stamp over the gap to the next one",
    )
    gap_s = np.diff(trace.arrival_s)
    assert gap_s.std() / gap_s.mean() == pytest.approx(1.01, abs=0.02)
    # Every prompt has its blocks, and a block has always the same one before it.
    blocks = trace.prefix_blocks
    assert blocks is not None
    np.testing.assert_array_equal(np.diff(blocks.offsets), -(-trace.prompt_tokens // blocks.block_tokens))
    inside = np.delete(np.arange(1, len(blocks.ids)), blocks.offsets[1:-1] - 1)
    before = np.stack((blocks.ids[inside], blocks.ids[inside - 1]))
    assert np.unique(before, axis=1).shape[1] == len(np.unique(before[0]))
