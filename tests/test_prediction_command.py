"""``python -m preserve_gym.prediction``, and the way of its predictions into an environment."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preserve_gym import Trace, Workload, WorkloadConfig, load_trace
from preserve_gym.errors import InputError
from preserve_gym.prediction import predict_length_bounds, predict_lengths
from preserve_gym.prediction.__main__ import main
from preserve_gym.prediction.prompt_file import read_prompts
from preserve_gym.traces import mix_traces, scale_rate
from tests.prompt_requests import prompt_requests, tiny_encoder, write_prompts

TRACE, PROMPTS = prompt_requests(600)
HEADER = "arrival_s,prompt_tokens,output_tokens,prompt\n"


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.csv"
    write_prompts(path, TRACE, PROMPTS)
    return path


def predicted(seed: int = 0) -> Trace:
    tokens = np.random.default_rng(seed).integers(1, 500, len(TRACE))
    return Trace(
        TRACE.arrival_s,
        TRACE.prompt_tokens,
        TRACE.output_tokens,
        name="predicted",
        predicted_tokens=tokens,
        predicted_upper_tokens=tokens + 100,
    )


def test_from_prompts_to_an_environment(
    one_thread_of_torch: None, requests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "predicted.csv"
    encoder = tiny_encoder(tmp_path / "encoder")
    capsys.readouterr()
    command = ["fit", str(requests), "--encoder", str(encoder), "--out", str(model), "--epochs", "2"]
    assert main(command) == 0
    trained = TRACE.row_range(0.0, 0.6 * TRACE.span_s // 1).stop
    said, aside = capsys.readouterr()
    assert "shards" not in aside
    assert f"{len(TRACE) - trained} requests after the training part: MAE" in said
    assert main(["predict", str(requests), "--model", str(model), "--out", str(out)]) == 0
    assert "prompt," not in out.read_text()
    trace = load_trace(out)
    np.testing.assert_array_equal(trace.arrival_s, TRACE.arrival_s)
    np.testing.assert_array_equal(trace.output_tokens, TRACE.output_tokens)
    np.testing.assert_array_equal(trace.request_class, TRACE.request_class)
    assert len(set(trace.predicted_tokens.tolist())) > 50  # type: ignore[union-attr]
    config = WorkloadConfig(
        trace=str(out), predictor="column", forecaster="naive", horizon_s=60.0, warmup_s=0.0
    )
    np.testing.assert_array_equal(Workload(config).predicted_tokens, trace.predicted_tokens)


def test_only_the_training_part_teaches(one_thread_of_torch: None, requests: Path, tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "encoder")
    end_s, outs = float(TRACE.arrival_s[200]), []
    for name, later in (("as it was", 1), ("another future", 9)):
        changed = np.where(np.arange(len(TRACE)) < 200, TRACE.output_tokens, later * TRACE.output_tokens)
        write_prompts(requests, Trace(TRACE.arrival_s, TRACE.prompt_tokens, changed), PROMPTS)
        model = tmp_path / name
        command = ["fit", str(requests), "--encoder", str(encoder), "--out", str(model), "--epochs", "1"]
        assert main([*command, "--train-s", repr(end_s)]) == 0
        out = tmp_path / f"{name}.csv"
        assert main(["predict", str(requests), "--model", str(model), "--out", str(out)]) == 0
        outs.append(load_trace(out))
    first, second = outs
    assert not np.array_equal(first.output_tokens, second.output_tokens)
    np.testing.assert_array_equal(first.predicted_tokens, second.predicted_tokens)
    np.testing.assert_array_equal(first.predicted_upper_tokens, second.predicted_upper_tokens)


def test_prompts_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv.gz"
    text = '0.5,3,10,"Say ""hi"",\nplease"\n1,4,20,\n1,5,30,Grüße\n\n'
    path.write_bytes(gzip.compress((HEADER + text).encode()))
    trace, prompts = read_prompts(path)
    assert prompts == ['Say "hi",\nplease', "", "Grüße"]
    assert trace.output_tokens.tolist() == [10, 20, 30]
    assert trace.name == "requests"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("arrival_s,prompt_tokens,output_tokens\n0,1,1\n", "row 1: expected one column prompt among"),
        ("", "row 1: expected one column prompt"),
        (
            "prompt,arrival_s,output_tokens\nx,0,1\n",
            r"row 1: expected the columns .*missing: 'prompt_t",
        ),
        (HEADER, "expected at least one row"),
        (HEADER + "0,1,1,a\n1,1,0,b\n", r"row 3: output_tokens: expected an integer in \[1, .*got '0'"),
        (HEADER + "0,1,1,a\n1,1,b\n", r"row 3: expected 4 fields \(.*\), got 3"),
        (HEADER + "0,1,1,a\n\n1,1,1,b\n", "row 3: expected 3 fields, got a blank line"),
        (HEADER + '0,1,1,"a\nb"\n5,1,1,c\n4,1,1,d\n', "row 4: arrival_s: expected a time at or after"),
        (HEADER + '0,1,1,"a" b\n', "line 2: expected comma-separated fields"),
        (HEADER.encode() + b"0,1,1,\xff\n", "line 1 or later: expected UTF-8"),
    ],
)
def test_bad_files_are_named(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=rf"requests\.csv: {message}"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nothing.csv", "--encoder", "e", "--out", "m"], "nothing.csv: no such file"),
        (["fit", "FILE", "--encoder", "e", "--out", "no/m"], "--out: no/m: expected a folder that exists"),
        (["fit", "FILE", "--encoder", "e", "--out", "."], "--out: .: expected a new folder, or one that"),
        (["fit", "FILE", "--encoder", "e", "--out", "m", "--train-s", "0"], "--train-s: expected a number"),
        (["predict", "FILE", "--model", "m", "--out", "FILE"], "expected another file than the one to read"),
        (["predict", "FILE", "--model", "m", "--out", "."], "expected another file"),
        (["teach"], "teach"),
    ],
)
def test_bad_options_are_named(
    arguments: list[str],
    message: str,
    requests: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(requests.parent)
    assert main([str(requests) if a == "FILE" else a for a in arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_the_column_predictor_takes_what_the_trace_says() -> None:
    trace = predicted()
    bounds = predict_length_bounds("column", trace)
    np.testing.assert_array_equal(bounds.tokens, trace.predicted_tokens)
    np.testing.assert_array_equal(bounds.upper_tokens, trace.predicted_upper_tokens)
    with pytest.raises(InputError, match="'column': expected a trace with predicted_tokens, got 'prompts'"):
        predict_lengths("column", TRACE)


def test_an_upper_quantile_is_found_where_the_trace_has_none() -> None:
    trace = Trace(TRACE.arrival_s, TRACE.prompt_tokens, TRACE.output_tokens, predicted_tokens=[50] * 600)
    bounds = predict_length_bounds("column", trace, train=slice(0, 300))
    expected = np.quantile(TRACE.output_tokens[:300], 0.9, method="higher")
    assert set(bounds.upper_tokens) == {expected}


def test_predictions_go_with_their_requests() -> None:
    trace = predicted()
    of = dict(zip(trace.arrival_s.tolist(), zip(*_columns(trace), strict=True), strict=True))
    half = scale_rate(trace, 0.5, np.random.default_rng(0))
    assert [of[t] for t in half.arrival_s.tolist()] == list(zip(*_columns(half), strict=True))
    config = WorkloadConfig(
        predictor="column", rate_scale=1.5, split="test", split_gap_s=0.0, warmup_s=0.0, horizon_s=10.0
    )
    workload = Workload(config, trace)
    assert len(workload.trace) > 800
    np.testing.assert_array_equal(workload.predicted_tokens, workload.trace.predicted_tokens)
    known = set(zip(*_columns(trace), strict=True))
    assert set(zip(*_columns(workload.trace), strict=True)) <= known


def test_a_mix_has_no_predictions() -> None:
    assert mix_traces(predicted(), predicted(1)).predicted_tokens is None


def _columns(trace: Trace) -> tuple[list[int], ...]:
    columns = (
        trace.prompt_tokens,
        trace.output_tokens,
        trace.predicted_tokens,
        trace.predicted_upper_tokens,
    )
    return tuple(column.tolist() for column in columns if column is not None)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"predicted_tokens": [5, 0]}, r"row \d: predicted_tokens: expected an integer in \[1,"),
        ({"predicted_upper_tokens": [5, 5]}, "predicted_upper_tokens: expected predicted_tokens too"),
        (
            {"predicted_tokens": [5, 6], "predicted_upper_tokens": [5, 5]},
            r"row \d: predicted_upper_tokens: expected at least the predicted_tokens of the row, got 5",
        ),
    ],
)
def test_bad_predictions_in_a_file_are_named(
    suffix: str, columns: dict[str, list[int]], message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"trace.{suffix}"
    frame = pd.DataFrame(
        {"arrival_s": [0.0, 1.0], "prompt_tokens": [1, 1], "output_tokens": [1, 1], **columns}
    )
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    with pytest.raises(InputError, match=message):
        load_trace(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"predicted_tokens": [1]}, r"predicted_tokens: expected one value per arrival, shape \(2,\)"),
        (
            {"predicted_upper_tokens": [1, 1]},
            "predicted_upper_tokens: expected predicted_tokens too, got none",
        ),
        (
            {"predicted_tokens": [5, 6], "predicted_upper_tokens": [5, 5]},
            r"row 1: predicted_upper_tokens: expected at least predicted_tokens \(6\), got 5",
        ),
    ],
)
def test_bad_predictions_of_a_trace_are_named(columns: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Trace([0.0, 1.0], [1, 1], [1, 1], **columns)  # type: ignore[arg-type]
