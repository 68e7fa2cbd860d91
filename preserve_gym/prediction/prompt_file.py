"""Files of requests with the text of their prompts, and of traces with predictions."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.prediction.lengths import LengthPrediction
from preserve_gym.traces import Trace
from preserve_gym.traces.files import open_content, shown, stem
from preserve_gym.traces.own_format import read_own_csv

PROMPT = "prompt"
_LONGEST_PROMPT = 2**27


def read_prompts(path: str | Path) -> tuple[Trace, list[str]]:
    """Requests and their prompts from a CSV file of the project's own format with a column ``prompt``.

    The file is UTF-8, plain or gzip-compressed; a prompt with commas, quotes or line breaks is quoted. A
    request is one row, however many lines its prompt has; the header is row 1.

    Raises:
        InputError: one line naming file, row, column and what was expected.
    """
    path = Path(path)
    prompts: list[str] = []
    # The columns of numbers go through the reader of traces, row by row.
    numbers = io.StringIO()
    writer = csv.writer(numbers, lineterminator="\n")
    with (
        open_content(path) as stream,
        io.TextIOWrapper(stream, "utf-8-sig", newline="") as text,
        closing(_rows(path, text)) as rows,
    ):
        header = [name.strip() for name in next(rows, [])]
        if header.count(PROMPT) != 1:
            raise InputError(
                f"{path}: row 1: expected one column {PROMPT} among those of a trace, got "
                f"{shown(','.join(header))}"
            )
        place = header.index(PROMPT)
        writer.writerow(header[:place] + header[place + 1 :])
        for row, fields in enumerate(rows, start=2):
            if fields and len(fields) != len(header):
                raise InputError(
                    f"{path}: row {row}: expected {len(header)} fields ({','.join(header)}), got "
                    f"{len(fields)}"
                )
            # The reader of traces knows where a blank line may be.
            if fields:
                prompts.append(fields.pop(place))
            writer.writerow(fields)
    return read_own_csv(path, iter([numbers.getvalue().encode()]), stem(path)), prompts


def write_predictions(path: str | Path, trace: Trace, prediction: LengthPrediction) -> None:
    """A CSV file of the trace with its predictions, for the predictor ``column``; it holds no text."""
    columns = {
        "arrival_s": trace.arrival_s,
        "prompt_tokens": trace.prompt_tokens,
        "output_tokens": trace.output_tokens,
        "class": trace.request_class,
        "predicted_tokens": prediction.tokens,
        "predicted_upper_tokens": prediction.upper_tokens,
    }
    known = {name: column for name, column in columns.items() if column is not None}
    pd.DataFrame(known).to_csv(path, index=False)


def _rows(path: Path, text: io.TextIOWrapper) -> Generator[list[str]]:
    """The fields of each row, none of a blank line."""
    limit = csv.field_size_limit(_LONGEST_PROMPT)
    reader = csv.reader(text, strict=True)
    try:
        yield from reader
    except UnicodeDecodeError:
        raise InputError(f"{path}: line {reader.line_num + 1} or later: expected UTF-8 text") from None
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num}: expected comma-separated fields ({error})"
        ) from None
    finally:
        csv.field_size_limit(limit)
