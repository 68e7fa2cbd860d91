"""A canvas with the fonts and colours of the pictures, and a chart on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
ORANGE: Colour = (230, 159, 0)
BLUE: Colour = (0, 114, 178)
VERMILLION: Colour = (213, 94, 0)
PURPLE: Colour = (204, 121, 167)
INK: Colour = (34, 40, 49)
GREY: Colour = (106, 115, 125)
LINE: Colour = (225, 229, 234)
PALE: Colour = (241, 243, 246)
PALE_BLUE: Colour = (178, 212, 235)
PALE_ORANGE: Colour = (249, 226, 175)
YELLOW: Colour = (255, 240, 168)
WHITE: Colour = (255, 255, 255)
PALETTE = (
    *(INK, GREY, LINE, PALE, WHITE),
    *(ORANGE, BLUE, VERMILLION, PURPLE, PALE_BLUE, PALE_ORANGE, YELLOW),
)
"""All colours of a picture, but for the edges of letters."""

Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle in pixels, right and bottom edge included."""

    left: float
    top: float
    right: float
    bottom: float


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that pictures look alike on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)


@lru_cache(maxsize=4096)
def _written(text: str, size: int, bold: bool) -> Image.Image:
    """A line of text as a mask, remembered since drawing letters is slow."""
    drawn = font(size, bold)
    ascent, descent = drawn.getmetrics()
    mask = Image.new("L", (math.ceil(drawn.getlength(text)) + 2, ascent + descent))
    ImageDraw.Draw(mask).text((0, ascent), text, fill=255, font=drawn, anchor="ls")
    return mask


@lru_cache(maxsize=4096)
def _width(text: str, size: int, bold: bool) -> float:
    return font(size, bold).getlength(text)


class Canvas:
    """A white picture to draw on."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width, height), WHITE)
        self._draw = ImageDraw.Draw(self._image)

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, uint8 of shape (height, width, 3), a fresh array."""
        return np.array(self._image, np.uint8)

    def fill(self, box: Box, colour: Colour) -> None:
        """A filled rectangle; nothing if it has no width or no height."""
        if box.right >= box.left and box.bottom >= box.top:
            self._draw.rectangle(box, fill=colour)

    def frame(self, box: Box, colour: Colour) -> None:
        """The outline of a rectangle."""
        self._draw.rectangle(box, outline=colour)

    def line(self, points: Sequence[Point], colour: Colour, width: int = 1) -> None:
        """A line through points."""
        self._draw.line(points, fill=colour, width=width)

    def text(
        self,
        at: Point,
        text: str,
        colour: Colour = INK,
        *,
        size: int = 12,
        bold: bool = False,
        align: Literal["left", "middle", "right"] = "left",
        room: float = math.inf,
    ) -> float:
        """Write one line, cut to ``room`` pixels, and return its width in pixels.

        ``align`` says whether ``at`` is its left end, middle or right end; vertically it is the middle.
        """
        while (width := _width(text, size, bold)) > room and len(text) > 1:
            text = text[: -2 if text.endswith("…") else -1].rstrip() + "…"
        mask = _written(text, size, bold)
        left = at[0] - {"left": 0.0, "middle": 0.5, "right": 1.0}[align] * width
        self._image.paste(colour, (round(left), round(at[1] - 0.5 * mask.height)), mask)
        return width

    def legend(self, at: Point, entries: Sequence[tuple[Colour, str, str]], right: bool = False) -> None:
        """Marks with their meanings in one line, from ``at`` on, or up to it if ``right``.

        Args:
            at: left or right end and the middle.
            entries: colour, kind of mark (``area``, ``line``, ``frame`` or ``tick``), and meaning.
            right: ``at`` is the right end.
        """
        x, y = at
        if right:
            x -= sum(17 + _width(text, 11, False) for _, _, text in entries) + 12 * (len(entries) - 1)
        for colour, kind, text in entries:
            if kind == "area":
                self.fill(Box(x, y - 5, x + 10, y + 5), colour)
            elif kind == "frame":
                self.frame(Box(x, y - 5, x + 10, y + 5), colour)
            elif kind == "tick":
                self.fill(Box(x + 4, y - 6, x + 5, y + 6), colour)
            else:
                self.fill(Box(x - 1, y - 1, x + 11, y + 1), colour)
            x += 17 + self.text((x + 17, y), text, GREY, size=11) + 12


class Chart:
    """Axes in a box of a canvas.

    Args:
        canvas: to draw on.
        box: of the data; labels go to its left and below it.
        x: values at its left and right edge.
        y: values at its bottom and top edge.
    """

    def __init__(self, canvas: Canvas, box: Box, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.canvas, self.box = canvas, box
        self._x, self._y = x, y

    def at_x(self, value: float) -> float:
        """The pixel of a value, inside the box."""
        share = (value - self._x[0]) / (self._x[1] - self._x[0])
        return self.box.left + min(max(share, 0.0), 1.0) * (self.box.right - self.box.left)

    def at_y(self, value: float) -> float:
        """The pixel of a value, inside the box."""
        share = (value - self._y[0]) / (self._y[1] - self._y[0])
        return self.box.bottom - min(max(share, 0.0), 1.0) * (self.box.bottom - self.box.top)

    def y_axis(self, values: Sequence[float], unit: str = "") -> None:
        """Lines across at values, with their numbers."""
        left, _, right, _ = self.box
        for value in values:
            y = round(self.at_y(value))
            self.canvas.line([(left, y), (right, y)], LINE)
            self.canvas.text((left - 6, y), f"{value:g}{unit}", GREY, size=10, align="right")

    def x_label(self, x: float, text: str) -> None:
        """A label under the pixel ``x``."""
        self.canvas.text((x, self.box.bottom + 10), text, GREY, size=10, align="middle")

    def bar(self, left: float, right: float, low: float, high: float, colour: Colour) -> None:
        """A rectangle between values of x and y; one pixel high at least unless it is empty."""
        if high <= low or right <= self._x[0]:
            return
        x0, x1 = round(self.at_x(left)), round(self.at_x(right))
        y0, y1 = round(self.at_y(high)), round(self.at_y(low))
        self.canvas.fill(Box(x0, min(y0, y1 - 1), max(x1 - 1, x0), y1 - 1), colour)

    def steps(
        self, spans: Sequence[tuple[float, float]], values: Sequence[float], colour: Colour, width: int = 2
    ) -> None:
        """A line of level stretches, each over a span of x that begins where the last one ended."""
        points: list[Point] = []
        for (start, end), value in zip(spans, values, strict=True):
            if end > self._x[0]:
                y = round(self.at_y(value))
                points += [(round(self.at_x(start)), y), (round(self.at_x(end)), y)]
        if points:
            self.canvas.line(points, colour, width)


def round_ticks(highest: float, most: int = 5) -> list[float]:
    """0 and further round numbers in equal steps, at most ``most`` steps, the last at least ``highest``."""
    step = 10.0 ** math.floor(math.log10(max(highest, 1e-9) / most))
    for factor in (1.0, 2.0, 5.0, 10.0):
        if factor * step * most >= highest:
            step *= factor
            break
    return [k * step for k in range(math.ceil(highest / step - 1e-9) + 1)]
