from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces import ClientWindows, read_client_windows, read_trace, scale_rate

NONE = "0,0,,0,0"
FIRST = f"0,{NONE}\n600,{12 / 600!r},1.5,Gamma,0.4444,112.5\n"
SECOND = f"0,{1 / 600!r},2.0,Weibull,0.5,300.0\n600,{NONE}\n"


def tar(path: Path, members: dict[str, str | bytes], packed: bool = True) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in members.items():
            content = text if isinstance(text, bytes) else text.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    path.write_bytes(gzip.compress(buffer.getvalue()) if packed else buffer.getvalue())
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_the_windows_of_all_clients_are_one_table(tmp_path: Path, packed: bool) -> None:
    members: dict[str, str | bytes] = {
        "data/m/chunk-10-trace.csv": FIRST,
        "data/m/chunk-9-trace.csv": SECOND,
        "data/m/chunk-9-dataset.json": "{}",
    }
    windows = read_client_windows(tar(tmp_path / ("m.tar" + ".gz" * packed), members, packed))
    assert windows.name == "m"
    assert windows.clients.tolist() == [9, 10]
    assert windows.requests.tolist() == [[1, 0], [0, 12]]
    assert windows.cv.tolist() == [[2.0, 0.0], [0.0, 1.5]]
    assert windows.family.tolist() == [[2, 0], [0, 1]]
    assert windows.shape.tolist() == [[0.5, 0.0], [0.0, 0.4444]]
    assert windows.scale_s.tolist() == [[300.0, 0.0], [0.0, 112.5]]
    assert windows.span_s == 1200.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected at least one row, got an empty file"),
        ("0,0,0\n", "row 1: expected second,rate,CV,Gamma or Weibull or nothing,shape,scale, got '0,0,0'"),
        (f"0,{NONE}\n\n600,{NONE}\n", "row 2: expected second,rate,CV"),
        ("0,0.5,1,Normal,1,1\n", "row 1: expected second,rate,CV"),
        ("0,-0.5,1,Gamma,1,1\n", "row 1: expected second,rate,CV"),
        ("0,nan,1,Gamma,1,1\n", "row 1: expected second,rate,CV"),
        (b"0,0.5,1,\xff,1,1\n", "row 1: expected second,rate,CV.*not UTF-8"),
        (f"600,{NONE}\n", "row 1: expected second 0, got 600"),
        (f"0,{NONE}\n1200,{NONE}\n", "row 2: expected second 600, got 1200"),
        (f"0,{NONE}\n0,{NONE}\n", "row 2: expected second 600, got 0"),
        (f"0,{NONE}\n600,0.0025,1,Gamma,1,1\n", "row 2: expected a rate of k/600 requests/s, .* got 0.0025"),
        ("0,1e300,1,Gamma,1,1\n", "row 1: expected a rate of k/600 requests/s, at most 2147483647"),
        ("0,0.5,1,,1,1\n", "row 1: expected a family with CV, shape and scale > 0"),
        ("0,0.5,1,Gamma,0,1\n", "row 1: expected a family with CV, shape and scale > 0"),
        ("0,0.5,0,Gamma,1,1\n", "row 1: expected a family with CV, shape and scale > 0"),
        ("0,0.5,1,Gamma,1,1e999\n", "row 1: expected a family with CV, shape and scale > 0"),
        ("0,0,0,Gamma,1,1\n", "row 1: expected a family with .* none elsewhere, got '0,0,0,Gamma,1,1'"),
    ],
)
def test_malformed_windows_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tar(tmp_path / "m.tar.gz", {"chunk-0-trace.csv": FIRST, "chunk-1-trace.csv": content})
    with pytest.raises(InputError, match=message) as caught:
        read_client_windows(path)
    assert str(caught.value).startswith(f"{path}: chunk-1-trace.csv: ")
    assert len(str(caught.value).splitlines()) == 1


def test_malformed_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.tar.gz"
    for members, message in (
        ({"a.csv": FIRST}, "expected members chunk-<client>-trace.csv, got none"),
        (
            {"a/chunk-1-trace.csv": FIRST, "b/chunk-01-trace.csv": FIRST},
            "expected each client once, got 01 again",
        ),
        (
            {"chunk-1-trace.csv": FIRST, "chunk-2-trace.csv": FIRST + f"1200,{NONE}\n"},
            "expected as many windows of each client, got 2 to 3",
        ),
    ):
        with pytest.raises(InputError, match=message):
            read_client_windows(tar(path, dict(members)))
    path.write_bytes(gzip.compress(FIRST.encode() * 50))
    with pytest.raises(InputError, match="expected a tar file, got other content"):
        read_client_windows(path)
    whole = tar(path, {f"chunk-{k}-trace.csv": FIRST for k in range(2000)}).read_bytes()
    path.write_bytes(whole[:-300])
    with pytest.raises(InputError, match=r"expected a whole gzip file, got a broken one|expected a tar file"):
        read_client_windows(path)
    plain = tar(tmp_path / "m.tar", {f"chunk-{k}-trace.csv": FIRST for k in range(20)}, packed=False)
    plain.write_bytes(plain.read_bytes()[:5000])
    with pytest.raises(InputError, match="expected a tar file, got other content"):
        read_client_windows(plain)
    with pytest.raises(InputError, match=r"m\.tar: expected requests, got a tar file; .*read_client_windows"):
        read_trace(tar(tmp_path / "m.tar", {"chunk-1-trace.csv": FIRST}, packed=False))


class Sampler:
    """Lengths that tell which client sent the request: its number + 1, and a draw."""

    def __init__(self) -> None:
        self.calls: list[tuple[NDArray[np.int32], NDArray[np.float64]]] = []

    def __call__(
        self, client: NDArray[np.int32], arrival_s: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        self.calls.append((client, arrival_s))
        return client + 1, rng.integers(1, 10**9, len(client)).astype(np.int32)


def example(
    requests: list[list[int]], shape: float = 0.5, family: int = 1, clients: tuple[int, ...] = (3, 5, 8)
) -> ClientWindows:
    count = np.array(requests, np.int32)
    used = count > 0
    return ClientWindows(
        "example",
        np.array(clients[: count.shape[1]], np.int32),
        count,
        used * 1.0,
        (used * family).astype(np.int8),
        used * shape,
        used * 1.0,
    )


COUNTS = [[5, 0, 2000], [1, 300, 0], [0, 0, 0], [7, 2, 40]]


@pytest.mark.parametrize(
    ("family", "shape"), [(1, 0.5), (1, 0.007), (2, 0.7), (2, 0.007), (2, 50.0), (1, 4e4), (1, 1e-5)]
)
def test_each_client_sends_what_it_did_in_each_window(family: int, shape: float) -> None:
    sampler = Sampler()
    windows = example(COUNTS, shape, family)
    trace = windows.generate(0.0, windows.span_s, sampler)
    assert (trace.span_s, trace.clock_s, trace.name) == (2400.0, 0.0, "example")
    for k, client in enumerate(windows.clients):
        sent = np.bincount(
            (trace.arrival_s[trace.prompt_tokens == client + 1] // 600).astype(int), minlength=4
        )
        np.testing.assert_array_equal(sent, windows.requests[:, k])
    np.testing.assert_array_equal(
        np.concatenate([arrival_s for _, arrival_s in sampler.calls]), trace.arrival_s
    )


def test_slices_are_parts_of_the_whole() -> None:
    windows = example(COUNTS)
    whole = windows.generate(0.0, 2400.0, Sampler(), seed=4)
    for start_s, end_s in ((0.0, 600.0), (100.0, 700.0), (599.5, 601.0), (1200.0, 1800.0), (2399.0, 2400.0)):
        part = windows.generate(start_s, end_s, Sampler(), seed=4)
        rows = whole.row_range(start_s, end_s)
        np.testing.assert_array_equal(part.arrival_s, whole.arrival_s[rows] - start_s)
        np.testing.assert_array_equal(part.output_tokens, whole.output_tokens[rows])
        assert (part.span_s, part.clock_s) == (end_s - start_s, start_s)
    other = windows.generate(0.0, 2400.0, Sampler(), seed=5)
    assert len(other) == len(whole)
    assert (other.arrival_s != whole.arrival_s).mean() > 0.9


@pytest.mark.parametrize(("start_s", "end_s"), [(-1.0, 5.0), (5.0, 5.0), (0.0, 2401.0), (float("nan"), 5.0)])
def test_slices_outside_the_recording_are_refused(start_s: float, end_s: float) -> None:
    with pytest.raises(InputError, match=r"example: expected 0 <= start_s < end_s <= 2400, got "):
        example(COUNTS).generate(start_s, end_s, Sampler())


@pytest.mark.parametrize(
    ("family", "shape", "cv"),
    # Gamma: 1/sqrt(shape); Weibull: sqrt(G(1 + 2/shape) / G(1 + 1/shape)^2 - 1).
    [(1, 0.25, 2.0), (1, 1.0, 1.0), (1, 16.0, 0.25), (2, 0.5, 2.236), (2, 1.0, 1.0), (2, 2.0, 0.5227)],
)
def test_gaps_have_the_family_and_its_variation(family: int, shape: float, cv: float) -> None:
    trace = example([[40_000]], shape, family, clients=(0,)).generate(0.0, 600.0, Sampler())
    gap_s = np.diff(trace.arrival_s)
    assert gap_s.mean() == pytest.approx(600 / 40_000, rel=0.01)
    assert gap_s.std() / gap_s.mean() == pytest.approx(cv, rel=0.04)
    # Gamma and Weibull of one CV differ in their median.
    median = {(1, 0.25): 0.1746, (2, 0.5): 0.2402, (1, 16.0): 0.979, (2, 2.0): 0.9394}.get(
        (family, shape), 0.6931
    )
    assert np.median(gap_s) / gap_s.mean() == pytest.approx(median, rel=0.04)


def test_a_scaled_rate_thins_each_client_in_each_window() -> None:
    windows = example([[40_000, 0, 4000], [0, 0, 0], [10, 40_000, 0]])
    trace = windows.generate(0.0, 1800.0, Sampler(), service_scale=0.1)
    sent = np.zeros((3, 3))
    np.add.at(
        sent, ((trace.arrival_s // 600).astype(int), np.searchsorted([4, 6, 9], trace.prompt_tokens)), 1
    )
    expected = 0.1 * windows.requests
    np.testing.assert_array_less(abs(sent - expected), 4.0 * np.sqrt(0.9 * expected) + 1e-9)
    # Binomial, so that few requests are not rounded away and the counts vary.
    few = np.array(
        [
            len(example([[7]], clients=(0,)).generate(0.0, 600.0, Sampler(), seed, service_scale=0.2))
            for seed in range(2000)
        ]
    )
    assert few.mean() == pytest.approx(1.4, abs=0.1)
    assert few.var() == pytest.approx(1.4 * 0.8, rel=0.1)
    # Windows alike in the recording are thinned each for itself.
    alike = example([[1000]] * 20, clients=(0,)).generate(0.0, 12_000.0, Sampler(), service_scale=0.5)
    assert len(set(np.bincount((alike.arrival_s // 600).astype(int)))) > 5


def test_a_scaled_rate_keeps_slices_parts_of_the_whole() -> None:
    windows = example(COUNTS)
    whole = windows.generate(0.0, 2400.0, Sampler(), seed=4, service_scale=0.3)
    for start_s, end_s in ((0.0, 600.0), (599.5, 601.0), (1900.0, 2400.0)):
        part = windows.generate(start_s, end_s, Sampler(), seed=4, service_scale=0.3)
        rows = whole.row_range(start_s, end_s)
        np.testing.assert_array_equal(part.arrival_s, whole.arrival_s[rows] - start_s)
        np.testing.assert_array_equal(part.output_tokens, whole.output_tokens[rows])
    unscaled = windows.generate(0.0, 2400.0, Sampler(), seed=4, service_scale=1)
    assert len(unscaled) == windows.requests.sum()


def test_a_scaled_rate_keeps_the_variation_of_the_gaps() -> None:
    windows = example([[100_000]], 0.25, 1, clients=(0,))  # CV 2
    slower = windows.generate(0.0, 600.0, Sampler(), service_scale=0.1).arrival_s
    whole = windows.generate(0.0, 600.0, Sampler())
    thinned = scale_rate(whole, 0.1, np.random.default_rng(0)).arrival_s
    for arrival_s, cv in ((slower, 2.0), (thinned, 1.14)):
        gap_s = np.diff(arrival_s)
        assert gap_s.std() / gap_s.mean() == pytest.approx(cv, rel=0.04)


@pytest.mark.parametrize("service_scale", [0.0, -0.1, 1.01, float("nan"), "0.5", None])
def test_scales_outside_0_to_1_are_refused(service_scale: object) -> None:
    with pytest.raises(InputError, match=r"example: service_scale: expected a number in \(0, 1\], got "):
        example(COUNTS).generate(0.0, 600.0, Sampler(), service_scale=service_scale)  # type: ignore[arg-type]


def test_more_requests_than_fit_are_refused() -> None:
    windows = example([[2_000_000_000], [10]], clients=(0,))
    message = r"service_scale: expected at most 0.05 .*2,000,000,010 requests from 0 s to 1200 s"
    with pytest.raises(InputError, match=message):
        windows.generate(0.0, 1200.0, Sampler())
    assert len(windows.generate(600.0, 1200.0, Sampler())) == 10
    assert 5 < len(windows.generate(0.0, 1200.0, Sampler(), service_scale=1e-8)) < 50


def test_empty_windows_are_counted() -> None:
    windows = example(COUNTS)
    assert windows.generate(0.0, 1200.0, Sampler()).repairs == ()
    trace = windows.generate(700.0, 1900.0, Sampler())
    assert trace.repairs == ("1 of 3 windows without any request left empty",)


def test_windows_with_the_same_figures_differ() -> None:
    trace = example([[50], [50]], clients=(0,)).generate(0.0, 1200.0, Sampler())
    assert not np.isin(np.round(trace.arrival_s[50:] - 600.0, 6), np.round(trace.arrival_s[:50], 6)).any()


def test_all_parts_of_a_window_are_alike() -> None:
    """The start of a window must not be an event, however bursty the client."""
    counts = np.zeros(6)
    for seed in range(400):
        trace = example([[20]], 0.05, 1, clients=(0,)).generate(0.0, 600.0, Sampler(), seed)
        counts += np.histogram(trace.arrival_s, bins=6, range=(0, 600))[0]
    assert counts.sum() == 8000
    assert abs(counts / counts.mean() - 1.0).max() < 0.2


@pytest.mark.parametrize(
    ("model", "clients", "requests", "peak_rate", "mean_cv", "largest_share"),
    [
        ("m-large", 162, 236_892_826, 34_980, 3.45, 0.16),
        ("m-mid", 109, 2_165_253_970, 206_686, 12.0, 0.52),
        ("m-small", 43, 1_420_558_786, 232_770, 3.58, 0.30),
    ],
)
def test_released_files(
    data_dir: Path,
    model: str,
    clients: int,
    requests: int,
    peak_rate: float,
    mean_cv: float,
    largest_share: float,
) -> None:
    windows = read_client_windows(data_dir / "traces" / f"servegen_{model}_traces.tar.gz")
    assert windows.requests.shape == (2016, clients)
    assert windows.clients.tolist() == list(range(clients))
    counts = windows.requests.astype(np.int64)
    assert counts.sum() == requests
    assert counts.sum(axis=1).max() / 10 == pytest.approx(peak_rate, abs=1)
    assert (counts * windows.cv).sum() / requests == pytest.approx(mean_cv, rel=0.005)
    assert counts.sum(axis=0).max() / requests == pytest.approx(largest_share, abs=0.006)
    # An hour with counts of the recording, client by client.
    sampler = Sampler()
    trace = windows.generate(72_300.0, 73_500.0, sampler)
    assert trace.clock_s == 72_300.0
    for window, (client, _) in zip(range(120, 123), sampler.calls, strict=True):
        np.testing.assert_array_equal(np.bincount(client, minlength=clients), windows.requests[window])
    inside = np.bincount(((trace.arrival_s + 300.0) // 600).astype(int))
    assert inside[1] == counts[121].sum()


@pytest.mark.parametrize("service_scale", [1.0, 0.05])
def test_gaps_of_busy_clients_vary_as_recorded(data_dir: Path, service_scale: float) -> None:
    windows = read_client_windows(data_dir / "traces" / "servegen_m-large_traces.tar.gz")
    ratio = []
    for window in range(60, 132, 6):
        trace = windows.generate(600.0 * window, 600.0 * (window + 1), Sampler(), service_scale=service_scale)
        gamma = windows.family[window] == 1
        for place in np.flatnonzero(gamma & (windows.requests[window] >= 300 / service_scale)):
            gap_s = np.diff(trace.arrival_s[trace.prompt_tokens == windows.clients[place] + 1])
            ratio.append(gap_s.std() / gap_s.mean() / windows.cv[window, place])
    assert len(ratio) >= 25
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
    assert np.quantile(ratio, [0.1, 0.9]) == pytest.approx([1.0, 1.0], abs=0.2)


def test_the_table_of_totals_agrees(data_dir: Path) -> None:
    totals = pd.read_csv(data_dir / "traces" / "servegen_10min.csv.gz")
    for model in ("m-large", "m-mid", "m-small"):
        windows = read_client_windows(data_dir / "traces" / f"servegen_{model}_traces.tar.gz")
        expected = totals[totals["model"] == model].sort_values("window_start_s")["requests"]
        np.testing.assert_array_equal(windows.requests.sum(axis=1), expected)
