"""Downloading a data set: resumed where it broke off, and checked before it is put in place."""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from preserve_gym.errors import InputError

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30.0
PART = ".part"
"""What the name of an unfinished file ends in."""


def download(
    url: str,
    path: Path,
    sha256: str,
    *,
    report: Callable[[int, int | None], object] = lambda done, total: None,
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
        sha256: of the whole file, hexadecimal.
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
            if error.code < 500:
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
    found = _sha256(part)
    if found != sha256:
        part.unlink()
        raise InputError(
            f"{url}: expected the SHA-256 {sha256}, got {found}; the file was thrown away: try again, and if "
            "that does not help, the source has changed it"
        )
    part.replace(path)


def _append(url: str, part: Path, report: Callable[[int, int | None], object]) -> None:
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
