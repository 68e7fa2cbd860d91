from __future__ import annotations

import contextlib
import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.traces import Trace, azure, burstgpt, csv_table, files, own_format, read_trace
from preserve_gym.traces.files import line_chunks, open_content
from preserve_gym.traces.readers import read_text

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
def test_azure(tmp_path: Path, name: str) -> None:
    content = gzip.compress(AZURE_ROWS) if name.endswith(".gz") else AZURE_ROWS
    trace = read_trace(write(tmp_path, content, name))
    np.testing.assert_allclose(trace.arrival_s, [0.0, 4.314579, 4.541877], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(trace.prompt_tokens, [374, 396, 879])
    np.testing.assert_array_equal(trace.output_tokens, [44, 109, 55])
    assert trace.clock_s == pytest.approx(18 * 3600 + 15 * 60 + 46.68059, abs=1e-9)
    assert trace.name == "trace"
    assert trace.request_class is None


def test_own_format(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, OWN + b"2.5,10,1\n2.5,11,2\n7e2,12,3\n"))
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
LENGTH = r"expected an integer in \[0, 2147483647\], got "
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
        (AZURE + b"2023-11-16 18:15:46.5+0,1,1\n", f"row 2: {STAMP}"),
        (AZURE + b"2023-11-16 18:15:46.5+99:00,1,1\n", f"row 2: {STAMP}"),
        (
            AZURE + b"2023-10-29 02:59:59,1,1\n2023-10-29 02:00:01,1,1\n",  # the clock is put back
            "row 3: TIMESTAMP: expected a time at or after that of the row before",
        ),
        (
            AZURE + b"2024-03-31 01:59:59+01:00,1,1\n2024-03-31 03:00:00+02:00,1,1\n",
            r"row 3: TIMESTAMP: expected the time zone of the first row \(\+01:00\), got '2024-03-31 03",
        ),
        (
            AZURE + b"2024-05-12 00:00:00,1,1\n2024-05-12 00:00:01+00:00,1,1\n",
            r"row 3: TIMESTAMP: expected the time zone of the first row \(none\)",
        ),
        (
            AZURE + b"2024-05-12 00:00:00+00:00,1,1\n2024-05-12 00:00:01,1,1\n",
            r"row 3: TIMESTAMP: expected the time zone of the first row \(\+00:00\)",
        ),
        (AZURE + b"2024-05-12 00:00:00,1,1\n" + AZURE, f"row 3: {STAMP}'TIMESTAMP'"),  # files put together
        (AZURE + b"0001-01-01 00:00:00,1,1\n", f"row 2: {STAMP}"),
        (AZURE + b"9999-01-01 00:00:00,1,1\n", f"row 2: {STAMP}"),
        (AZURE + b",1,1\n", f"row 2: {STAMP}''"),
        (
            AZURE + b"2023-11-16 18:15:46.2,1,1\n2023-11-16 18:15:46.1,1,1\n",
            "row 3: TIMESTAMP: expected a time at or after that of the row before, got '2023-11-16 18",
        ),
        (AZURE + b"2023-11-16 18:15:46.2,-1,1\r\n", f"row 2: ContextTokens: {LENGTH}'-1'"),
        (AZURE + b"2023-11-16 18:15:46.2,1,2147483648\r\n", f"row 2: GeneratedTokens: {LENGTH}'2147"),
        (AZURE + b"2023-11-16 18:15:46.2,0,1\r\n", "expected at least one request with prompt and output"),
        (AZURE + b"2023-11-16 18:15:46.2,1,x\r\n", f"row 2: GeneratedTokens: {LENGTH}'x'"),
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


def parsers(columns: dict[str, csv_table.Column], content: bytes) -> tuple[object, object]:
    """What the fast parser makes of the rows, and the strict one if the fast one takes them."""
    fast = csv_table._Table(Path("x.csv"), columns)._parse_fast(content)
    return fast, fast and csv_table._Table(Path("x.csv"), columns)._parse_strictly(content)


FIELDS = st.sampled_from(
    ["0", "1", "2", "17", "2.5", "-1", "", "nan", "inf", "NA", "1e2", " 3", "+4", "007", '"5"', "0x1", "x"]
)


@settings(max_examples=300)
@given(
    st.lists(st.lists(FIELDS, min_size=2, max_size=4), max_size=4), st.sampled_from(["\n", "\r\n", "\n\n"])
)
def test_the_fast_parser_accepts_only_what_the_strict_one_does(rows: list[list[str]], end: str) -> None:
    content = "".join(",".join(row) + end for row in rows).encode()
    fast, strict = parsers(own_format.COLUMNS, content)
    assert_equal_columns(fast, strict)


def assert_equal_columns(fast: object, strict: object) -> None:
    assert isinstance(fast, dict | None)
    if fast is not None:
        assert isinstance(strict, dict)
        assert set(fast) == set(strict)
        for name, column in strict.items():
            np.testing.assert_array_equal(fast[name], column)
            assert fast[name].dtype == column.dtype


DAYS = st.sampled_from(["2023-11-16", "2023-11-17", "20231118", "1.5"])
TIMES = st.sampled_from(
    ["", " 18:15:46.6805900", "T18:15:47", " 01", " 01:02", " 24:00:00", " 00:00:00.", "t01:02:03", " +01"]
)
ZONES = st.sampled_from(["", "Z", "z", "+00:00", "+02:00", "-05:30", "+02", "+0200", "+24:00"])


@settings(max_examples=400)
@given(st.lists(st.tuples(DAYS, TIMES, ZONES).map("".join), min_size=1, max_size=3), ZONES)
def test_the_fast_parser_reads_the_time_stamps_that_the_strict_one_does(stamps: list[str], zone: str) -> None:
    for ends in ("", zone):
        content = "".join(f"{stamp}{ends},1,1\r\n" for stamp in stamps).encode()
        assert_equal_columns(*parsers(azure.COLUMNS, content))


WORDS = st.sampled_from(["Conversation log", "API log", " API log", "Api log", "", "1", "a,b", '"API log"'])


@given(st.lists(st.tuples(st.sampled_from(["0", "5", "7.5", "x"]), WORDS, WORDS), max_size=3))
def test_the_fast_parser_reads_the_words_that_the_strict_one_does(rows: list[tuple[str, str, str]]) -> None:
    content = "".join(f"{time},{model},1,2,3,{log}\n" for time, model, log in rows).encode()
    assert_equal_columns(*parsers(burstgpt.COLUMNS, content))


@given(st.binary(max_size=60))
def test_random_bytes_never_escape_as_another_error(content: bytes) -> None:
    for head in (OWN, AZURE, BURSTGPT, b""):
        with contextlib.suppress(InputError):
            read_text(Path("x.csv"), iter([head + content]), 0, "x")


@pytest.mark.parametrize("chunk_bytes", [1, 37, 100, 10**6])
def test_the_size_of_chunks_changes_nothing(
    tmp_path: Path, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", chunk_bytes)
    rows = [f"2024-05-12 00:00:{s:02}{'.25' * (s % 2)}+00:00,{1 + s},{60 - s}" for s in range(60)]
    rows[40] = rows[40].replace("41", " 41")  # only the strict parser takes it
    path = write(tmp_path, AZURE + "\n".join(rows).encode())
    trace = read_trace(path)
    np.testing.assert_array_equal(trace.arrival_s, np.arange(60) + np.arange(60) % 2 / 4)
    np.testing.assert_array_equal(trace.prompt_tokens, np.arange(60) + 1)
    for bad, row, message in (
        (59, "2024-05-12 00:00:30+00:00,1,1", "row 61: TIMESTAMP: expected a time at or after"),
        (50, "2024-05-12 00:00:50+00:00,x,1", "row 52: ContextTokens: "),
        (50, "2024-05-12 00:00:50+01:00,1,1", "row 52: TIMESTAMP: expected the time zone of the first row"),
        (50, "", "row 52: expected 3 fields, got a blank line"),
        (50, "2025-06-12 00:00:50+00:00,1,1", "row 52: TIMESTAMP: expected a time within 366 days"),
    ):
        content = [*rows[:bad], row, *rows[bad + 1 :]]
        if "2025" in row:
            content = content[: bad + 1]
        with pytest.raises(InputError, match=message):
            read_trace(write(tmp_path, AZURE + "\n".join(content).encode()))


@pytest.mark.parametrize("zone", ["", "Z", "+00:00", "+05:30", "-08:00"])
def test_time_stamps_may_have_a_time_zone(tmp_path: Path, zone: str) -> None:
    """As in the files of 2024, some of whose stamps have no fraction; the clock is the local one."""
    rows = f"2024-05-12 06:00:00.001163{zone},1452,3\n2024-05-12 06:00:01{zone},584,3\n"
    trace = read_trace(write(tmp_path, AZURE + rows.encode()))
    np.testing.assert_allclose(trace.arrival_s, [0.0, 0.998837], rtol=0, atol=1e-9)
    assert trace.clock_s == pytest.approx(6 * 3600 + 0.001163, abs=1e-9)


def test_equal_rows_are_kept(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, AZURE + b"2024-05-12 00:00:00,3,4\n" * 3))
    assert (len(trace), trace.repairs) == (3, ())


def test_requests_without_tokens_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = b"2024-05-12 00:00:00,0,4\n2024-05-12 00:00:02,5,6\n2024-05-12 00:00:03,7,0\n"
    trace = read_trace(write(tmp_path, AZURE + rows))
    assert trace.repairs == ("dropped 2 requests with 0 prompt or output tokens",)
    assert trace.arrival_s.tolist() == [2.0]
    assert trace.span_s == 3.0  # the recording goes on
    assert trace.clock_s == 0.0


BURSTGPT = b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
BURSTGPT_ROWS = (
    b"5,ChatGPT,472,18,490,Conversation log\n"
    b"45,ChatGPT,1087,0,1087,Conversation log\n"
    b"45,GPT-4,417,505,922,API log\n"
    b"86400,GPT-4,1360,1,1361,API log\n"
)


@pytest.mark.parametrize("packed", [False, True])
def test_burstgpt(tmp_path: Path, packed: bool) -> None:
    content = BURSTGPT + BURSTGPT_ROWS
    trace = read_trace(
        write(tmp_path, gzip.compress(content) if packed else content, "BurstGPT_1.csv" + ".gz" * packed)
    )
    assert trace.name == "BurstGPT_1"
    assert trace.repairs == ("dropped 1 request with 0 prompt or output tokens",)
    assert trace.arrival_s.tolist() == [5.0, 45.0, 86400.0]
    assert trace.prompt_tokens.tolist() == [472, 417, 1360]
    assert trace.output_tokens.tolist() == [18, 505, 1]
    assert trace.request_class is not None
    assert trace.request_class.tolist() == [0, 1, 1]
    assert "3 requests" in repr(trace)
    assert repr(trace).endswith("; dropped 1 request with 0 prompt or output tokens>")


def test_burstgpt_with_sessions_that_begins_in_the_eighth_month(tmp_path: Path) -> None:
    content = (
        b"Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        b"19440110.0,1722ac82-0a46-4bf0-aa08-89794e7a2b3f,43,GPT-4,906,446,1352,Conversation log\n"
        b"19440161.5,,2,ChatGPT,36,29,65,API log\n"
    )
    trace = read_trace(write(tmp_path, content))
    assert trace.arrival_s.tolist() == [110.0, 161.5]  # 225 days are 19,440,000 s
    assert trace.request_class is not None
    assert trace.request_class.tolist() == [0, 1]
    assert trace.repairs == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BURSTGPT, "expected at least one row after the header, got none"),
        (BURSTGPT.replace(b"Model,", b"") + b"5,1,2,3,API log\n", r"row 1: .* \(missing: 'Model'\)"),
        (BURSTGPT + b"5,GPT-4,-1,2,3,API log\n", f"row 2: Request tokens: {LENGTH}'-1'"),
        (BURSTGPT + b"5,GPT-4,1,2147483648,3,API log\n", f"row 2: Response tokens: {LENGTH}'2147483648'"),
        (BURSTGPT + b"5,GPT-4,1,2.5,3,API log\n", f"row 2: Response tokens: {LENGTH}'2.5'"),
        (BURSTGPT + b"5,GPT-4,1,2,3,Api log\n", "row 2: Log Type: expected one of Conversation log, API log"),
        (BURSTGPT + b"5,GPT-4,1,2,3,\n", "row 2: Log Type: expected one of .*, got ''"),
        (BURSTGPT + b"5,GPT-4,1,2,3\n", "row 2: expected 6 fields"),
        (BURSTGPT + b"-5,GPT-4,1,2,3,API log\n", f"row 2: Timestamp: {TIME}'-5'"),
        (BURSTGPT + b"nan,GPT-4,1,2,3,API log\n", f"row 2: Timestamp: {TIME}'nan'"),
        (
            BURSTGPT + b"1700158546,GPT-4,1,2,3,API log\n",
            "row 2: Timestamp: expected seconds since the start of the recording",
        ),
        (
            BURSTGPT + BURSTGPT_ROWS + b"5,GPT-4,1,2,3,API log\n",
            "row 6: Timestamp: expected a time at or after that of the row before, got '5'",
        ),
        (
            BURSTGPT + b"5,GPT-4,1,0,1,API log\n",
            "expected at least one request with prompt and output tokens",
        ),
    ],
)
def test_malformed_burstgpt_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, content, "bad.csv")
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_released_files_take_the_fast_path(data_dir: Path) -> None:
    with open_content(data_dir / "traces" / "azure_llm_2023_conv.csv.gz") as stream:
        content = next(line_chunks(stream))
    rows = content[content.find(b"\n") + 1 :]
    assert csv_table._Table(Path("x.csv"), azure.COLUMNS)._parse_fast(rows) is not None


def test_burstgpt_takes_the_fast_path() -> None:
    columns = csv_table._Table(Path("x.csv"), burstgpt.COLUMNS)._parse_fast(BURSTGPT_ROWS)
    assert columns is not None
    assert columns["Log Type"].tolist() == [0, 0, 1, 1]


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


MEASURE = """
import resource, sys
from preserve_gym.traces import read_trace

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

read_trace(sys.argv[1])
before = peak_mib()
trace = read_trace(sys.argv[2])
print(len(trace), trace.span_s, peak_mib() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in other units elsewhere")
def test_millions_of_rows_need_little_more_than_their_columns(tmp_path: Path) -> None:
    """Four million rows: 160 MB of text, 61 MiB of columns."""
    small = write(tmp_path, AZURE + b"2024-05-12 00:00:00+00:00,1452,3\n", "small.csv")
    large = tmp_path / "large.csv.gz"
    with gzip.open(large, "wb", compresslevel=1) as file:
        file.write(AZURE)
        for second in range(40):
            file.write(f"2024-05-12 00:00:{second:02}.001163+00:00,1452,3\n".encode() * 100_000)
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows, span_s, more_mib = map(float, output.split())
    assert (rows, span_s) == (4e6, 39.0)
    assert more_mib < 61 + 90
