"""Files of traces as streams: plain or gzip-compressed, read in chunks of whole lines."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from preserve_gym.errors import InputError

CHUNK_BYTES = 4 * 2**20
_GZIP_MAGIC = b"\x1f\x8b"
_SUFFIXES = re.compile(r"(\.csv|\.jsonl|\.parquet|\.tar)?(\.gz)?$")


@contextmanager
def open_content(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, decompressed if it is a gzip file, as a stream that can be read and sought.

    Raises:
        InputError: if it is missing, not a file, unreadable, empty, or a broken gzip file; the last also
            where the stream is read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a file, got a directory") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    with file:
        try:
            start = file.peek(2)[:2]
            if start == _GZIP_MAGIC:
                yield cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=file)))
            elif path.suffix == ".gz" and start:
                raise InputError(f"{path}: expected a gzip file (or a name without .gz), got other content")
            else:
                yield file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: expected a whole gzip file, got a broken one ({error})") from None
        except OSError as error:
            raise _unreadable(path, error) from None


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's content, decompressed if it is a gzip file; errors as in ``open_content``."""
    digest = hashlib.sha256()
    with open_content(path) as stream:
        while block := stream.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def line_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """The content in chunks of whole lines, each of about ``CHUNK_BYTES``."""
    rest = b""
    while block := stream.read(CHUNK_BYTES):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
    if rest:
        yield rest


def stem(path: Path) -> str:
    """The name of a file without the suffixes that tell its format."""
    return _SUFFIXES.sub("", path.name)


def shown(text: str) -> str:
    """``text`` quoted on one line, cut if long, with what is not printable ASCII escaped."""
    quoted = ascii(text if len(text) <= 80 else text[:77] + "...")
    return f"{quoted} (bytes that are not UTF-8)" if re.search("[\udc80-\udcff]", text) else quoted


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})")
