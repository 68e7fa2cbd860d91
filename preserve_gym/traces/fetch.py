"""Downloading a data set: resumed where it broke off, and checked before it is put in place."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from preserve_gym.errors import InputError
from preserve_gym.traces.servegen import client_file, clients_sha256

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30.0
Report = Callable[[int, int | None], object]
PART = ".part"
"""What the name of an unfinished file ends in."""


def download(
    url: str,
    path: Path,
    sha256: str | None,
    *,
    report: Report = lambda done, total: None,
    attempts: int = 5,
    pause_s: float = 1.0,
) -> None:
    """Fetch ``url`` to ``path``.

    What has come is kept beside it, under a name that ends in ``.part``: a later call, or another attempt
    after a broken connection, goes on from there. The file gets its name when it is whole and its checksum
    is right.

    Args:
        url: http or https.
        path: where it goes; its folder is made.
        sha256: of the whole file, hexadecimal; None: not known, nothing is compared.
        report: called with the bytes that are there and those that there will be (None: not known).
        attempts: connections to try in a row without a byte coming, before giving up.
        pause_s: before the second attempt; twice as long before each further one.

    Raises:
        InputError: if the server has no such file, cannot be reached, or sends another file; the message
            names the address and what to do. KeyboardInterrupt and OSError pass; what has come is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    tries = 0
    while True:
        before = _size(part)
        try:
            _append(url, part, report)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise InputError(
                    f"{url}: expected the file, the server says {error.code} {error.reason}"
                ) from None
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        tries = tries + 1 if _size(part) == before else 1
        if tries >= attempts:
            raise InputError(
                f"{url}: broke off after {_size(part):,} bytes: {reason}; the same command goes on from there"
            )
        time.sleep(pause_s * 2 ** (tries - 1))
    if sha256 is not None and (found := _sha256(part)) != sha256:
        part.unlink()
        raise _other_content(url, sha256, found)
    part.replace(path)


def download_clients(
    url: str,
    clients: int,
    path: Path,
    sha256: str,
    *,
    report: Report = lambda done, total: None,
    attempts: int = 5,
    pause_s: float = 1.0,
) -> None:
    """Fetch the file of each of ServeGen's clients, and put them into one tar file at ``path``.

    The files that have come are kept in a folder beside it, whose name ends in ``.part``, until they are
    all there and their checksum is right: a later call goes on from there.

    Args:
        url: with ``{client}`` in the place of the number of the client.
        clients: how many, numbered from 0.
        path: of the tar file; its folder is made.
        sha256: ``clients_sha256`` of the files.
        report, attempts, pause_s: as of ``download``; the bytes are those of all files together.

    Raises:
        InputError: as ``download``; after the last file, if they are not the right ones.
    """
    folder = path.with_name(path.name + PART)
    files = [folder / client_file(client) for client in range(clients)]
    done = 0
    for client, file in enumerate(files):
        if not file.exists():
            download(
                url.format(client=client),
                file,
                None,
                report=_after(done, report),
                attempts=attempts,
                pause_s=pause_s,
            )
        done += _size(file)
        report(done, None)
    found = clients_sha256((client, file.read_bytes()) for client, file in enumerate(files))
    if found != sha256:
        shutil.rmtree(folder)
        raise _other_content(url, sha256, found)
    archive = folder / path.name
    with tarfile.open(archive, "w") as tar:
        for file in files:
            tar.add(file, file.name)
    archive.replace(path)
    shutil.rmtree(folder)


def _after(before: int, report: Report) -> Report:
    """``report`` for one of several files, of which ``before`` bytes were there when it began."""
    return lambda done, total: report(before + done, None)


def _other_content(url: str, expected: str, found: str) -> InputError:
    return InputError(
        f"{url}: expected the SHA-256 {expected}, got {found}; what had come was thrown away: try again, and "
        "if that does not help, the source has changed it"
    )


def _append(url: str, part: Path, report: Report) -> None:
    """Fetch what is missing; ConnectionError if less comes than was announced."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing, or the file there is shorter
            return
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        have = have if resumed else 0
        total = have + int(length) if length is not None else None
        with part.open("ab" if resumed else "wb") as file:
            report(have, total)
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                report(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"{total - have:,} bytes are missing")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
