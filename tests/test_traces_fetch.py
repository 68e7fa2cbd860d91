"""Downloads from a server of our own, which breaks off, ignores ranges and sends the wrong file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.traces.fetch import PART, download
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
