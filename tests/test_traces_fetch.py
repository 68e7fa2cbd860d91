"""Downloads from a server of our own, which breaks off, ignores ranges and sends the wrong file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.traces.fetch import PART, download, download_clients
from preserve_gym.traces.servegen import client_files, clients_sha256
from tests.file_server import Server

CONTENT = np.random.default_rng(0).bytes(1_000_003)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(CONTENT)
    yield running
    running.close()


def test_whole_file_with_progress(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "traces" / "trace.csv"
    seen: list[tuple[int, int | None]] = []
    download(server.url, path, SHA256, report=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["trace.csv"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert server.asked == [None]


def test_broken_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    server.most_bytes = 300_000
    path = tmp_path / "trace.csv"
    download(server.url, path, SHA256, attempts=2, pause_s=0.0)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.with_name(path.name + PART).write_bytes(CONTENT[:400_000])
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=400000-"]


def test_what_is_whole_is_only_checked(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.with_name(path.name + PART).write_bytes(CONTENT)
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    path = tmp_path / "trace.csv"
    path.with_name(path.name + PART).write_bytes(b"x" * 400_000)
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_gives_up_where_nothing_comes(server: Server, tmp_path: Path) -> None:
    server.most_bytes = 0
    path = tmp_path / "trace.csv"
    with pytest.raises(InputError, match=r"broke off after 0 bytes: 1,000,003 bytes are missing; the same"):
        download(server.url, path, SHA256, attempts=3, pause_s=0.0)
    assert len(server.asked) == 3
    assert not path.exists()


def test_server_in_trouble_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 500]
    path = tmp_path / "trace.csv"
    download(server.url, path, SHA256, pause_s=0.0)
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_missing_file_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(InputError, match=r"trace\.csv: expected the file, the server says 404"):
        download(server.url, tmp_path / "trace.csv", SHA256)
    assert len(server.asked) == 1


@pytest.mark.parametrize("part", [b"", b"y" * 500_000, b"z" * 2_000_000])
def test_wrong_checksum_leaves_nothing(part: bytes, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    if part:
        path.with_name(path.name + PART).write_bytes(part)
    else:
        server.content = CONTENT[:-1] + b"!"
    with pytest.raises(InputError, match=f"expected the SHA-256 {SHA256}, got [0-9a-f]{{64}}"):
        download(server.url, path, SHA256)
    assert list(tmp_path.iterdir()) == []


def test_no_server(tmp_path: Path) -> None:
    gone = Server(CONTENT)
    gone.close()
    with pytest.raises(InputError, match=r"broke off after 0 bytes: .*refused"):
        download(gone.url, tmp_path / "trace.csv", SHA256, attempts=2, pause_s=0.0)


def test_interrupt_keeps_what_has_come(server: Server, tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done > 0:
            raise KeyboardInterrupt

    path = tmp_path / "trace.csv"
    with pytest.raises(KeyboardInterrupt):
        download(server.url, path, SHA256, report=stop)
    assert 0 < path.with_name(path.name + PART).stat().st_size < len(CONTENT)
    download(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT


CLIENTS = {client: np.random.default_rng(client).bytes(1_000 * (client + 1)) for client in range(12)}
CLIENTS_SHA256 = clients_sha256(CLIENTS.items())


@pytest.fixture
def clients() -> Iterator[Server]:
    running = Server(b"", {f"/chunk-{client}-trace.csv": content for client, content in CLIENTS.items()})
    yield running
    running.close()


def fetch_clients(server: Server, path: Path, sha256: str = CLIENTS_SHA256, attempts: int = 1) -> list[int]:
    """Fetch the clients; the bytes that were reported."""
    seen: list[int] = []
    download_clients(
        server.folder + "/chunk-{client}-trace.csv",
        len(CLIENTS),
        path,
        sha256,
        report=lambda done, total: seen.append(done),
        attempts=attempts,
        pause_s=0.0,
    )
    return seen


def test_files_of_clients_become_one_tar_file(clients: Server, tmp_path: Path) -> None:
    path = tmp_path / "traces" / "service.tar"
    seen = fetch_clients(clients, path)
    assert {client: content for client, _, content in client_files(path)} == CLIENTS
    assert list(path.parent.iterdir()) == [path]
    assert clients.paths == [f"/chunk-{client}-trace.csv" for client in CLIENTS]
    assert (seen[0], seen[-1]) == (0, sum(map(len, CLIENTS.values())))
    assert seen == sorted(seen)


def test_finished_clients_are_not_fetched_again(clients: Server, tmp_path: Path) -> None:
    path = tmp_path / "service.tar"
    clients.most_bytes = 7_500  # the file of client 7 has 8,000
    with pytest.raises(InputError, match=r"chunk-7-trace\.csv: broke off after 7,500 bytes: .* goes on from"):
        fetch_clients(clients, path)
    assert not path.exists()
    clients.most_bytes = None
    clients.paths.clear()
    clients.asked.clear()
    fetch_clients(clients, path)
    assert clients.paths == [f"/chunk-{client}-trace.csv" for client in range(7, 12)]
    assert clients.asked == ["bytes=7500-", None, None, None, None]
    assert {client: content for client, _, content in client_files(path)} == CLIENTS


def test_broken_connection_to_a_client_is_resumed(clients: Server, tmp_path: Path) -> None:
    clients.most_bytes = 10_000
    fetch_clients(clients, tmp_path / "service.tar", attempts=2)
    assert clients.asked == [*[None] * 11, "bytes=10000-", None, "bytes=10000-"]


def test_wrong_content_of_a_client_leaves_nothing(clients: Server, tmp_path: Path) -> None:
    assert clients.files is not None
    clients.files["/chunk-3-trace.csv"] = b"0,0,0,,0,0\n"
    with pytest.raises(InputError, match=f"expected the SHA-256 {CLIENTS_SHA256}, got [0-9a-f]{{64}}"):
        fetch_clients(clients, tmp_path / "service.tar")
    assert list(tmp_path.iterdir()) == []


def test_missing_client_is_named_and_the_others_kept(clients: Server, tmp_path: Path) -> None:
    assert clients.files is not None
    content = clients.files.pop("/chunk-5-trace.csv")
    path = tmp_path / "service.tar"
    with pytest.raises(InputError, match=r"chunk-5-trace\.csv: expected the file, the server says 404"):
        fetch_clients(clients, path)
    assert not path.exists()
    clients.files["/chunk-5-trace.csv"] = content
    clients.paths.clear()
    fetch_clients(clients, path)
    assert clients.paths[0] == "/chunk-5-trace.csv"


def test_checksum_of_clients_does_not_depend_on_how_they_are_packed() -> None:
    assert clients_sha256(reversed(CLIENTS.items())) == CLIENTS_SHA256
    assert clients_sha256([*CLIENTS.items()][:-1]) != CLIENTS_SHA256
    swapped = {**CLIENTS, 0: CLIENTS[1], 1: CLIENTS[0]}
    assert clients_sha256(swapped.items()) != CLIENTS_SHA256
