from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preserve_gym.errors import InputError
from preserve_gym.traces import own_format, read_trace


def table(**changes: Any) -> pd.DataFrame:
    columns = {"arrival_s": [0.5, 0.5, 700.0], "prompt_tokens": [10, 11, 12], "output_tokens": [1, 2, 3]}
    return pd.DataFrame({**columns, **changes})


def write(folder: Path, frame: pd.DataFrame | pa.Table, name: str = "mine.parquet") -> Path:
    path = folder / name
    frame = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(frame, path, row_group_size=2)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_parquet_has_the_columns_of_the_csv(tmp_path: Path, packed: bool) -> None:
    path = write(
        tmp_path, table(**{"class": [0, 7, 0]})[["class", "output_tokens", "arrival_s", "prompt_tokens"]]
    )
    if packed:
        path = path.with_suffix(".parquet.gz")
        path.write_bytes(gzip.compress((tmp_path / "mine.parquet").read_bytes()))
    trace = read_trace(path)
    assert trace.name == "mine"
    assert trace.arrival_s.tolist() == [0.5, 0.5, 700.0]
    assert trace.prompt_tokens.tolist() == [10, 11, 12]
    assert trace.output_tokens.tolist() == [1, 2, 3]
    assert trace.request_class is not None
    assert trace.request_class.tolist() == [0, 7, 0]
    assert trace.prompt_tokens.dtype == np.int32


def test_the_class_is_optional_and_the_name_does_not_matter(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, table(arrival_s=np.array([1, 2, 3], np.int32)), "mine.csv"))
    assert trace.request_class is None
    assert trace.arrival_s.tolist() == [1.0, 2.0, 3.0]


TOKENS = r"expected an integer in \[1, 2147483647\], got "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": [1, 2, 3]}, r"row 1: expected the columns .* \(unknown: 'extra'\)"),
        ({"prompt_tokens": [10, 11, 0]}, f"row 3: prompt_tokens: {TOKENS}0"),
        ({"prompt_tokens": [10, 11, 2**31]}, f"row 3: prompt_tokens: {TOKENS}2147483648"),
        ({"output_tokens": [1, -2, 3]}, f"row 2: output_tokens: {TOKENS}-2"),
        ({"output_tokens": [1.0, 2.0, 3.0]}, f"output_tokens: {TOKENS}a column of type double"),
        ({"output_tokens": ["1", "2", "3"]}, f"output_tokens: {TOKENS}a column of type "),
        ({"output_tokens": pd.array([1, 2, None], "Int64")}, f"row 3: output_tokens: {TOKENS}nothing"),
        ({"class": [0, 1, -1]}, r"row 3: class: expected an integer in \[0, 2147483647\], got -1"),
        (
            {"arrival_s": [0.0, 2.0, 1.0]},
            "row 3: arrival_s: expected a time at or after that of the row before, got 1.0",
        ),
        (
            {"arrival_s": [0.0, 2.0, -1.0]},
            r"row 3: arrival_s: expected a number in \[0, 31622400\], got -1.0",
        ),
        (
            {"arrival_s": [0.0, 2.0, 1.7e9]},
            r"row 3: arrival_s: expected a number in \[0, 31622400\], got 1700000000.0",
        ),
        (
            {"arrival_s": [0.0, np.inf, 1.0]},
            r"row 2: arrival_s: expected a number in \[0, 31622400\], got inf",
        ),
        (
            {"arrival_s": pd.to_datetime([1, 2, 3])},
            "arrival_s: expected a number .*, got a column of type timestamp",
        ),
    ],
)
@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_malformed_parquet_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_format, "BATCH_ROWS", batch_rows)
    path = write(tmp_path, table(**changes))
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_nan_empty_and_broken_parquet(tmp_path: Path) -> None:
    nan = pa.table({"arrival_s": [0.0, np.nan], "prompt_tokens": [1, 1], "output_tokens": [1, 1]})
    with pytest.raises(InputError, match=r"row 2: arrival_s: expected a number .*, got nan"):
        read_trace(write(tmp_path, nan))
    with pytest.raises(InputError, match="expected at least one request"):
        read_trace(write(tmp_path, table().iloc[:0]))
    with pytest.raises(InputError, match=r"missing: 'output_tokens'"):
        read_trace(write(tmp_path, table().drop(columns="output_tokens")))
    path = write(tmp_path, table())
    whole = path.read_bytes()
    for broken in (whole[:-8], whole[: len(whole) // 2], b"PAR1", b"PAR1" + bytes(200) + b"PAR1"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="expected a whole Parquet file, got a broken one"):
            read_trace(path)
