from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.traces import Trace, read_azure, read_csv, read_trace, readers

AZURE = b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
AZURE_ROWS = AZURE + (
    b"2023-11-16 18:15:46.6805900,374,44\r\n"
    b"2023-11-16 18:15:50.9951690,396,109\r\n"
    b"2023-11-16 18:15:51.2224670,879,55"
)
OWN = b"arrival_s,prompt_tokens,output_tokens\n"


def write(folder: Path, content: bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
@pytest.mark.parametrize("read", [read_azure, read_trace])
def test_azure(tmp_path: Path, name: str, read: object) -> None:
    content = gzip.compress(AZURE_ROWS) if name.endswith(".gz") else AZURE_ROWS
    trace = read(write(tmp_path, content, name))  # type: ignore[operator]
    np.testing.assert_allclose(trace.arrival_s, [0.0, 4.314579, 4.541877], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(trace.prompt_tokens, [374, 396, 879])
    np.testing.assert_array_equal(trace.output_tokens, [44, 109, 55])
    assert trace.clock_s == pytest.approx(18 * 3600 + 15 * 60 + 46.68059, abs=1e-9)
    assert trace.name == "trace"
    assert trace.request_class is None


def test_own_format(tmp_path: Path) -> None:
    trace = read_csv(write(tmp_path, OWN + b"2.5,10,1\n2.5,11,2\n7e2,12,3\n"))
    np.testing.assert_array_equal(trace.arrival_s, [2.5, 2.5, 700.0])
    np.testing.assert_array_equal(trace.prompt_tokens, [10, 11, 12])
    assert trace.request_class is None
    assert trace.clock_s == 0.0


def test_own_format_with_classes_in_any_order_of_columns(tmp_path: Path) -> None:
    content = b"class,output_tokens,arrival_s,prompt_tokens\n0,1,0.5,3\n7,2,0.75,4\n"
    trace = read_trace(write(tmp_path, content))
    np.testing.assert_array_equal(trace.request_class, [0, 7])
    np.testing.assert_array_equal(trace.arrival_s, [0.5, 0.75])
    np.testing.assert_array_equal(trace.prompt_tokens, [3, 4])


@pytest.mark.parametrize(
    "content",
    [
        OWN + b"0,1,2\n1,3,4\n\n\n",  # blank lines at the end
        b"\xef\xbb\xbf" + OWN + b"0,1,2\n1,3,4\n",  # a byte order mark
        OWN.replace(b"\n", b"\r\n") + b"0,1,2\r\n1,3,4",
        b'"arrival_s","prompt_tokens","output_tokens"\n"0","1","2"\n"1","3","4"\n',
        b"arrival_s, prompt_tokens, output_tokens\n0, 1, 2\n+1.0, 3, 4\n",
        OWN.replace(b"\n", b"\r") + b"0,1,2\r1,3,4\r",
    ],
)
def test_other_spellings_of_the_same_table(tmp_path: Path, content: bytes) -> None:
    trace = read_trace(write(tmp_path, content))
    np.testing.assert_array_equal(trace.arrival_s, [0.0, 1.0])
    np.testing.assert_array_equal(trace.prompt_tokens, [1, 3])
    np.testing.assert_array_equal(trace.output_tokens, [2, 4])


INTEGER = r"expected an integer in \[1, 2147483647\], got "
TIME = "expected a finite number of seconds >= 0, got "
STAMP = "TIMESTAMP: expected a time like 2023-11-16 18:15:46.6805900, got "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b" \n\n", "got an empty file"),
        (b"\xef\xbb\xbf", "row 1: expected the columns"),
        (OWN, "expected at least one row after the header, got none"),
        (AZURE, "expected at least one row after the header, got none"),
        (b"a,b\n1,2\n", r"row 1: expected the columns arrival_s,.*\[,class\] or TIMESTAMP,.*, got 'a,b'"),
        (b"\xff\xfe,b\n1,2\n", "row 1: expected the columns .*not UTF-8"),
        (b"arrival_s,prompt_tokens\n0,1\n", r"row 1: expected the columns .* \(missing: 'output_tokens'\)"),
        (
            b"TIMESTAMP,GeneratedTokens\n0,1\n",
            r"row 1: .*, got 'TIMESTAMP,GeneratedTokens' \(missing: 'ContextTokens'\)",
        ),
        (OWN[:-1] + b",clas\n0,1,1,1\n", r"row 1: .* \(unknown: 'clas'\)"),
        (OWN[:-1] + b",arrival_s\n0,1,1,1\n", r"row 1: .* \(repeated: 'arrival_s'\)"),
        (OWN + b"0,1,1\n1,0,1\n", f"row 3: prompt_tokens: {INTEGER}'0'"),
        (OWN + b"0,1,1\n1,1,-4\n", f"row 3: output_tokens: {INTEGER}'-4'"),
        (OWN + b"0,1.5,1\n", f"row 2: prompt_tokens: {INTEGER}'1.5'"),
        (OWN + b"0,1,1e3\n", f"row 2: output_tokens: {INTEGER}'1e3'"),
        (OWN + b"0,1,\n", f"row 2: output_tokens: {INTEGER}''"),
        (OWN + b"0,NaN,1\n", f"row 2: prompt_tokens: {INTEGER}'NaN'"),
        (OWN + b"0,0x10,1\n", f"row 2: prompt_tokens: {INTEGER}'0x10'"),
        (OWN + b"0,1_0,1\n", f"row 2: prompt_tokens: {INTEGER}'1_0'"),
        (OWN + "0,٣,1\n".encode(), f"row 2: prompt_tokens: {INTEGER}'.u0663'"),
        (OWN + b"0,2147483648,1\n", f"row 2: prompt_tokens: {INTEGER}'2147483648'"),
        (OWN + b"0,99999999999999999999,1\n", f"row 2: prompt_tokens: {INTEGER}'9+'"),
        (OWN + b"0,1,1\n0,1,\xff\n", f"row 3: output_tokens: {INTEGER}'.*' .bytes that are not UTF-8"),
        (OWN + b"0,1,1\n" + b"x" * 200 + b",1,1\n", f"row 3: arrival_s: {TIME}'x+...'$"),
        (OWN + b"-0.5,1,1\n", f"row 2: arrival_s: {TIME}'-0.5'"),
        (OWN + b"0,1,1\nnan,1,1\n", f"row 3: arrival_s: {TIME}'nan'"),
        (OWN + b"0,1,1\ninf,1,1\n", f"row 3: arrival_s: {TIME}'inf'"),
        (OWN + b"0,1,1\n1e999,1,1\n", f"row 3: arrival_s: {TIME}'1e999'"),
        (OWN + b"0,1,1\n,1,1\n", f"row 3: arrival_s: {TIME}''"),
        (
            OWN + b"0,1,1\n1700158546.68,1,1\n",
            r"row 3: arrival_s: expected seconds since the start of the recording, at most 31622400 .*'1700",
        ),
        (
            OWN + b"0,1,1\n2,1,1\n1,1,1\n",
            "row 4: arrival_s: expected a time at or after that of the row before, got '1'",
        ),
        (OWN + b"0,1,1\n1,1\n", r"row 3: expected 3 fields \(arrival_s,prompt_tokens,output_tokens\), got 2"),
        (OWN + b"0,1,1\n1,1,1,1\n", "row 3: expected 3 fields .*, got 4"),
        (OWN + b"0,1,1\n\n1,1,1\n", "row 3: expected 3 fields, got a blank line"),
        (OWN + b'0,1,"1\n', r"row 2: expected comma-separated fields \(unexpected end of data\)"),
        (OWN + b"0,1," + b"1" * 200_000, r"row 2: expected comma-separated fields \(field larger"),
        (
            OWN[:-1] + b",class\n0,1,1,-1\n",
            r"row 2: class: expected an integer in \[0, 2147483647\], got '-1'",
        ),
        (
            AZURE + b"2021-11-16 18:15:46,1,1\n2023-11-16 18:15:46,1,1\n",
            "row 3: TIMESTAMP: expected a time within 366 days of the first row",
        ),
        (AZURE + b"yesterday,1,1\n", f"row 2: {STAMP}'yesterday'"),
        (AZURE + b"2023-02-30 00:00:00,1,1\n", f"row 2: {STAMP}'2023-02-30"),
        (AZURE + b"2023-11-16 18:15:46.1234567890,1,1\n", f"row 2: {STAMP}"),
        (AZURE + b"2023-11-16 18:15:46.5+00:00,1,1\n", f"row 2: {STAMP}"),
        (AZURE + b"0001-01-01 00:00:00,1,1\n", f"row 2: {STAMP}"),
        (AZURE + b"9999-01-01 00:00:00,1,1\n", f"row 2: {STAMP}"),
        (AZURE + b",1,1\n", f"row 2: {STAMP}''"),
        (
            AZURE + b"2023-11-16 18:15:46.2,1,1\n2023-11-16 18:15:46.1,1,1\n",
            "row 3: TIMESTAMP: expected a time at or after that of the row before, got '2023-11-16 18",
        ),
        (AZURE + b"2023-11-16 18:15:46.2,0,1\r\n", f"row 2: ContextTokens: {INTEGER}'0'"),
        (AZURE + b"2023-11-16 18:15:46.2,1,x\r\n", f"row 2: GeneratedTokens: {INTEGER}'x'"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_malformed_content_is_named(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    path = write(
        tmp_path, gzip.compress(content) if packed else content, "bad.csv.gz" if packed else "bad.csv"
    )
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    str(caught.value).encode("ascii")


def test_the_named_readers_refuse_the_other_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing: 'arrival_s', 'prompt_tokens', 'output_tokens'"):
        read_csv(write(tmp_path, AZURE_ROWS))
    with pytest.raises(InputError, match="missing: 'TIMESTAMP', 'ContextTokens', 'GeneratedTokens'"):
        read_azure(write(tmp_path, OWN + b"0,1,1\n"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv: no such file"):
        read_trace(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="expected a file, got a directory"):
        read_trace(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(write(tmp_path, b"x") / "below_a_file.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_trace("a\0b.csv")
    with pytest.raises(InputError, match="expected a gzip file"):
        read_trace(write(tmp_path, AZURE_ROWS, "plain.csv.gz"))
    packed = gzip.compress(AZURE_ROWS)
    for broken in (packed[:-10], packed[:40], packed[:20] + b"\0\0\0\0" + packed[24:], packed + b"junk"):
        with pytest.raises(InputError, match="expected a whole gzip file, got a broken one"):
            read_trace(write(tmp_path, broken, "broken.csv.gz"))


FIELDS = st.sampled_from(
    ["0", "1", "2", "17", "2.5", "-1", "", "nan", "1e2", " 3", "+4", "007", '"5"', "0x1", "x"]
)


@settings(max_examples=300)
@given(
    st.lists(st.lists(FIELDS, min_size=2, max_size=4), max_size=4), st.sampled_from(["\n", "\r\n", "\n\n"])
)
def test_the_fast_parser_accepts_only_what_the_strict_one_does(rows: list[list[str]], end: str) -> None:
    content = (OWN.decode() + "".join(",".join(row) + end for row in rows)).encode()
    fast = readers._parse_fast(content, list(readers.CSV_COLUMNS))
    if fast is None:
        return
    strict = readers._parse_strictly(Path("x.csv"), content, list(readers.CSV_COLUMNS))
    for name, column in strict.items():
        np.testing.assert_array_equal(fast[name], column)
        assert fast[name].dtype == column.dtype


STAMPS = st.sampled_from(
    [
        "2023-11-16 18:15:46.6805900",
        "2023-11-16T18:15:47",
        "2023-11-17",
        "2023-11-17 01",
        "2023-11-17 01:02",
        "20231118",
        "2023-11-18 24:00:00",
        "2023-11-18 00:00:00.",
        "2023-11-18 23:59:60",
        "2023-11-18 +01",
        "1.5",
    ]
)


@settings(max_examples=200)
@given(st.lists(STAMPS, min_size=1, max_size=4))
def test_the_fast_parser_reads_the_time_stamps_that_the_strict_one_does(stamps: list[str]) -> None:
    content = (AZURE.decode() + "".join(f"{stamp},1,1\r\n" for stamp in stamps)).encode()
    fast = readers._parse_fast(content, list(readers.AZURE_COLUMNS))
    if fast is not None:
        strict = readers._parse_strictly(Path("x.csv"), content, list(readers.AZURE_COLUMNS))
        np.testing.assert_array_equal(fast["TIMESTAMP"], strict["TIMESTAMP"])


@given(st.binary(max_size=60))
def test_random_bytes_never_escape_as_another_error(content: bytes) -> None:
    for head in (OWN, AZURE, b""):
        with contextlib.suppress(InputError):
            readers.read_trace_bytes(Path("x.csv"), head + content)


def test_released_files_take_the_fast_path(data_dir: Path) -> None:
    content = readers.read_bytes(data_dir / "traces" / "azure_llm_2023_conv.csv.gz")
    assert readers._parse_fast(content, list(readers.AZURE_COLUMNS)) is not None


@pytest.mark.parametrize(
    ("file", "rows", "span_s", "prompt_mean", "output_mean", "windows", "prompt_range", "output_range"),
    [
        ("conv", 19_366, 3501.721937, 1154.70, 211.13, 5, (3.29e6, 5.68e6), (659e3, 766e3)),
        ("code", 8_819, 3435.948056, 2047.85, 27.88, 5, (1.26e6, 4.33e6), (17.3e3, 59.9e3)),
    ],
)
def test_released_files(
    data_dir: Path,
    file: str,
    rows: int,
    span_s: float,
    prompt_mean: float,
    output_mean: float,
    windows: int,
    prompt_range: tuple[float, float],
    output_range: tuple[float, float],
) -> None:
    trace: Trace = read_trace(data_dir / "traces" / f"azure_llm_2023_{file}.csv.gz")
    assert len(trace) == rows
    assert trace.span_s == pytest.approx(span_s, abs=1e-7)
    assert trace.prompt_tokens.mean() == pytest.approx(prompt_mean, abs=0.01)
    assert trace.output_tokens.mean() == pytest.approx(output_mean, abs=0.01)
    prompt, output = (tokens[:windows] for tokens in trace.window_tokens(600.0))
    assert (prompt.min(), prompt.max()) == pytest.approx(prompt_range, rel=0.005)
    assert (output.min(), output.max()) == pytest.approx(output_range, rel=0.005)
    if file == "conv":
        np.testing.assert_allclose(trace.arrival_s[:3], [0.0, 4.314579, 4.541877], rtol=0, atol=1e-9)
