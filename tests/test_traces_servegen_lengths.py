from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.traces import ClientLengths, ClientWindows, client_lengths, servegen_trace
from tests import fit_servegen_lengths as fit
from tests.test_traces_servegen import NONE, example, tar

# Levels 0, 0.5 and 1; client 3 moves from block to block, client 8 does not.
TABLE = """client,field,p0,p50,p100,block_means_percent
3,prompt_tokens,100,200,800,100 50
8,prompt_tokens,5000,5000,5000,
3,output_tokens,10,40,40,
8,output_tokens,1000,1000,1000,300 100
"""


@pytest.fixture
def _small_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_lengths, "FOLDER", tmp_path)
    (tmp_path / "m-large.csv").write_text(TABLE)


def recording(first: list[int], second: list[int]) -> ClientWindows:
    """Clients 3, 5 and 8 in two blocks of 36 windows; only the first window of each has requests."""
    requests = np.zeros((72, 3), int)
    requests[0], requests[36] = first, second
    return example(requests.tolist())


def draw(windows: ClientWindows, client: int, arrival_s: float, count: int = 20_000) -> np.ndarray:
    lengths = ClientLengths("m-large", windows)
    tokens = lengths(
        np.full(count, client, np.int32), np.full(count, arrival_s), np.random.default_rng([7, client])
    )
    assert [column.dtype for column in tokens] == [np.int32, np.int32]
    return np.array(tokens)


@pytest.mark.usefixtures("_small_table")
def test_lengths_follow_the_quantiles_of_the_client() -> None:
    prompt, output = draw(recording([1, 1, 1], [1, 1, 1]), client=3, arrival_s=5.0)
    # Halfway between two levels lies the geometric mean of their tokens.
    np.testing.assert_allclose(
        np.quantile(prompt, [0.0, 0.25, 0.5, 0.75, 1.0]), [100, 141, 200, 400, 800], rtol=0.02
    )
    np.testing.assert_allclose(np.quantile(output, [0.0, 0.25, 0.5, 1.0]), [10, 20, 40, 40], rtol=0.02)
    assert abs(np.corrcoef(prompt, output)[0, 1]) < 0.02


@pytest.mark.usefixtures("_small_table")
def test_lengths_move_with_the_block() -> None:
    windows = recording([1, 1, 1], [1, 1, 1])
    for client, arrival_s, median in (
        (3, 21_599.0, [200, 40]),
        (3, 21_600.0, [100, 40]),
        (8, 21_599.0, [5000, 3000]),
        (8, 43_199.0, [5000, 1000]),
    ):
        np.testing.assert_allclose(
            np.median(draw(windows, client, arrival_s), axis=1), median, rtol=0.02, err_msg=str(arrival_s)
        )


@pytest.mark.usefixtures("_small_table")
def test_a_client_that_is_not_in_the_table_borrows_by_the_requests_of_the_block() -> None:
    windows = recording([30, 500, 10], [0, 500, 20])
    first = draw(windows, client=5, arrival_s=0.0)
    assert (first[0] == 5000).mean() == pytest.approx(0.25, abs=0.01)
    # Prompt and output are those of one client.
    np.testing.assert_array_equal(first[0] == 5000, first[1] == 3000)
    assert (draw(windows, client=5, arrival_s=21_600.0)[0] == 5000).all()
    # In a block without any other client, by the requests of the whole recording.
    silent = draw(recording([30, 500, 10], [0, 500, 0]), client=5, arrival_s=21_600.0)
    assert (silent[0] == 5000).mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.usefixtures("_small_table")
def test_lengths_are_at_least_one_token(tmp_path: Path) -> None:
    (tmp_path / "m-large.csv").write_text(TABLE.replace("100 50", "0.1 1"))
    assert draw(recording([1, 1, 1], [1, 1, 1]), client=3, arrival_s=0.0)[0].max() == 1
    assert draw(recording([1, 1, 1], [1, 1, 1]), client=3, arrival_s=0.0)[0].min() == 1


@pytest.mark.usefixtures("_small_table")
def test_recordings_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"^model: expected one of m-large, m-mid, m-small, got 'm-huge'$"):
        ClientLengths("m-huge", recording([1, 1, 1], [1, 1, 1]))
    message = (
        "example: expected clients 0 to 8 and at most 43200 s of m-large, got clients {} to {} and {} s$"
    )
    with pytest.raises(InputError, match=message.format(3, 5, 600)):
        ClientLengths("m-large", example([[1, 1]]))
    with pytest.raises(InputError, match=message.format(3, 8, 43_800)):
        ClientLengths("m-large", example([[1, 1, 1]] * 73))


@pytest.mark.usefixtures("_small_table")
def test_a_trace_ties_arrivals_and_lengths_together(tmp_path: Path) -> None:
    lines = f"0,5.0,1.0,Gamma,1.0,0.2\n600,{NONE}\n1200,5.0,1.0,Gamma,1.0,0.2\n"
    path = tar(tmp_path / "any.tar.gz", {f"chunk-{client}-trace.csv": lines for client in (3, 8, 9, 10)})
    trace = servegen_trace("m-large", path, seed=3)
    assert (trace.name, len(trace), trace.span_s, trace.clock_s) == ("servegen-m-large", 24_000, 1800.0, 0.0)
    assert trace.repairs == (
        "1 of 3 windows without any request left empty",
        "lengths of 50 % of the recorded requests drawn from other clients",
    )
    assert (trace.prompt_tokens == 5000).mean() == pytest.approx(0.5, abs=0.02)
    again = servegen_trace("m-large", path, seed=3, start_s=300.0, end_s=900.0)
    rows = trace.row_range(300.0, 900.0)
    assert (again.span_s, again.clock_s) == (600.0, 300.0)
    np.testing.assert_array_equal(again.arrival_s, trace.arrival_s[rows] - 300.0)
    np.testing.assert_array_equal(again.prompt_tokens, trace.prompt_tokens[rows])
    np.testing.assert_array_equal(again.output_tokens, trace.output_tokens[rows])
    assert len(servegen_trace("m-large", path, service_scale=0.1)) == pytest.approx(2400, abs=200)
    other = servegen_trace("m-large", path, seed=4)
    assert (other.prompt_tokens != trace.prompt_tokens).mean() > 0.3
    for message, arguments in (
        ("model: expected one of m-large", {"model": "x"}),
        (
            "servegen-m-large: service_scale: expected a number in ",
            {"model": "m-large", "service_scale": 0.0},
        ),
        ("servegen-m-large: expected 0 <= start_s", {"model": "m-large", "end_s": 1801.0}),
    ):
        with pytest.raises(InputError, match=message):
            servegen_trace(path=path, **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def traces(data_dir: Path) -> Path:
    return data_dir / "traces"


@pytest.fixture(scope="module", params=client_lengths.MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def windows(model: str, traces: Path) -> ClientWindows:
    return fit.windows_of(model, traces)


def test_the_recipe_gives_the_committed_tables(model: str, windows: ClientWindows, traces: Path) -> None:
    table = fit.fit_table(model, windows, fit.published_lengths(traces))
    assert table == (client_lengths.FOLDER / f"{model}.csv").read_text()


def test_the_means_of_windows_follow_the_recording(model: str, windows: ClientWindows, traces: Path) -> None:
    lengths = ClientLengths(model, windows)
    estimated = fit.estimated_means(model, traces)
    seen = windows.requests.any(axis=1)
    for agreement in fit.agreements(fit.window_means(windows, lengths)[:, seen], estimated[:, seen], windows):
        assert agreement.explained > 0.97
        assert abs(agreement.total_error) < 0.005
        assert agreement.median_error < 0.012
    # The mix of clients alone does not carry it.
    lengths.drift = np.ones_like(lengths.drift)
    still = fit.agreements(fit.window_means(windows, lengths)[:, seen], estimated[:, seen], windows)
    assert min(agreement.explained for agreement in still) < 0.7


def test_generated_tokens_are_those_of_the_recording(
    model: str, windows: ClientWindows, traces: Path
) -> None:
    lengths = ClientLengths(model, windows)
    expected = fit.window_means(windows, lengths)
    estimated = fit.estimated_means(model, traces)
    assert lengths.has(windows.clients).sum() == {"m-large": 147, "m-mid": 73, "m-small": 38}[model]
    for window in (0, 500, 1000, 1500, 2000):
        trace = windows.generate(600.0 * window, 600.0 * (window + 1), lengths)
        means = np.array([trace.prompt_tokens.mean(), trace.output_tokens.mean()])
        np.testing.assert_allclose(means, expected[:, window], rtol=0.015, err_msg=str(window))
        np.testing.assert_allclose(means, estimated[:, window], rtol=0.06, err_msg=str(window))
