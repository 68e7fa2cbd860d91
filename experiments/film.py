"""A film: pictures one after another, written as GIF or mp4, or the last one of them as PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.replacing import replacing
from preserve_gym.envs.canvas import BLUE, GREY, INK, PALETTE, VERMILLION, WHITE
from preserve_gym.errors import InputError

Picture = NDArray[np.uint8]
"""uint8 of shape (height, width, 3), both even."""

LAST_PICTURE_S = 2.0
"""How long a film stands still at its end."""

_BLENDS = (0.25, 0.5, 0.75)


def check_writable(path: Path) -> None:
    """Refuse a file that ``write_film`` cannot write.

    Raises:
        InputError: on another ending than those of ``WRITERS``, or an mp4 without an encoder.
    """
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"out: expected a name that ends in {', '.join(WRITERS)}, got {str(path)!r}")
    if path.suffix.lower() == ".mp4":
        _encoder()


def write_film(path: Path, pictures: Iterable[Picture], fps: int) -> None:
    """Write pictures, which are drawn when they are needed.

    Args:
        path: of the file, replaced if it is there.
        pictures: at least one, all of one size.
        fps: pictures per second.

    Raises:
        InputError: as ``check_writable``.
    """
    check_writable(path)
    with replacing(path) as partial:
        WRITERS[path.suffix.lower()](partial, iter(pictures), fps)


def _write_gif(path: Path, pictures: Iterator[Picture], fps: int) -> None:
    palette = _palette()

    def quantized() -> Iterator[Image.Image]:
        shown_ms, last = round(1000.0 / fps), None
        for picture in pictures:
            if last is not None:
                yield last
            last = Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
            last.info["duration"] = shown_ms
        assert last is not None
        last.info["duration"] = round(1000.0 * LAST_PICTURE_S)
        yield last

    film = quantized()
    next(film).save(path, format="GIF", save_all=True, append_images=film, loop=0)


def _write_mp4(path: Path, pictures: Iterator[Picture], fps: int) -> None:
    picture = next(pictures)
    height, width, _ = picture.shape
    # Blocks of 2, as the sizes that players want to be multiples of 16 would be scaled to.
    writer = _encoder().write_frames(
        str(path), (width, height), fps=fps, macro_block_size=2, output_params=["-f", "mp4"]
    )
    writer.send(None)
    try:
        writer.send(np.ascontiguousarray(picture))
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture))
        for _ in range(round(fps * LAST_PICTURE_S)):
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()


def _write_png(path: Path, pictures: Iterator[Picture], fps: int) -> None:
    for picture in pictures:
        last = picture
    Image.fromarray(last).save(path, format="PNG", optimize=True)


WRITERS: dict[str, Callable[[Path, Iterator[Picture], int], None]] = {
    ".gif": _write_gif,
    ".mp4": _write_mp4,
    ".png": _write_png,
}
"""Of each kind of file, by its ending."""


def _encoder() -> ModuleType:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise InputError(
            "an mp4 needs the encoder ffmpeg, which comes with the extra 'video': "
            "pip install 'preserve-gym[video]'; a GIF needs none"
        ) from None
    module: ModuleType = imageio_ffmpeg
    return module


def _palette() -> Image.Image:
    """The colours of pictures and of the edges of letters; one for all, so that what stands still is free."""
    letters = np.array([INK, GREY, BLUE, VERMILLION], np.float64)
    blends = [WHITE + share * (letters - WHITE) for share in _BLENDS]
    image = Image.new("P", (1, 1))
    image.putpalette(np.vstack([PALETTE, *blends]).astype(np.uint8).tobytes())
    return image
