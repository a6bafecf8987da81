"""Regions drawn with a few coordinates: box, scribble, point."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from ...errors import RegionError
from ...shown import Fact
from ...strict import several, shown
from .base import Region, Size, between_pixels, coordinates, image_size, marked_before, raster_size, shift

# Pixels that lines are drawn on at once.
_AT_ONCE = 2**23
# Points of a scribble that are written out; of more, how many and where they are.
_MOST_SHOWN = 100


@dataclass(frozen=True, repr=False)
class Box(Region):
    """A rectangle from corner (x0, y0) to corner (x1, y1), in pixels; fractions count.

    Numbers of Python and numpy and tensors of one number are taken, and kept as Python's.

    Raises:
        RegionError: unless all four are finite and x0 < x1, y0 < y1.

    Examples:
        >>> cm.Box(146, 79, 192, 127)
        Box(x0=146, y0=79, x1=192, y1=127)
        >>> cm.Box(146, 79, 192, 127).moved(-20, 0)
        Box(x0=126, y0=79, x1=172, y1=127)
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        self._keep_place(self.image, self.frames)
        corners = coordinates((self.x0, self.y0, self.x1, self.y1), "A box needs four finite numbers x0, y0, x1, y1")
        for name, value in zip(("x0", "y0", "x1", "y1"), corners, strict=True):
            object.__setattr__(self, name, value)
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise RegionError(
                f"A box needs x0 < x1 and y0 < y1; got x {self.x0:g}..{self.x1:g}, y {self.y0:g}..{self.y1:g}. "
                "Give the top left corner first."
            )

    def __repr__(self) -> str:
        return self._as_made()

    def check(self, width: int, height: int) -> None:
        width, height = image_size(width, height)
        if self.x0 < 0 or self.y0 < 0 or self.x1 > width or self.y1 > height:
            raise RegionError(
                f"A box must lie within the image of {width} x {height} px; "
                f"got x {self.x0:g}..{self.x1:g}, y {self.y0:g}..{self.y1:g}."
            )
        # No picture of people's is as small as that.
        if max(self.bounds) <= 1 and min(width, height) > 8 and any(each % 1 for each in self.bounds):
            in_pixels = ", ".join(f"{each * side:g}" for each, side in zip(self.bounds, (width, height) * 2, strict=True))
            raise RegionError(
                f"A box must be in pixels of the image of {width} x {height} px; got x {self.x0:g}..{self.x1:g}, "
                f"y {self.y0:g}..{self.y1:g}, within its first pixel. Where these are shares, give Box({in_pixels})."
            )

    def cover(self, width: int, height: int) -> np.ndarray:
        width, height = raster_size(width, height)
        columns = np.clip(np.minimum(self.x1, np.arange(width) + 1) - np.maximum(self.x0, np.arange(width)), 0, 1)
        rows = np.clip(np.minimum(self.y1, np.arange(height) + 1) - np.maximum(self.y0, np.arange(height)), 0, 1)
        result: np.ndarray = (rows[:, None] * columns[None, :]).astype(np.float32)
        return result

    def areas(self, xs: np.ndarray, ys: np.ndarray, size: Size) -> np.ndarray:
        return np.outer(np.clip(ys, self.y0, self.y1) - self.y0, np.clip(xs, self.x0, self.x1) - self.x0)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1

    def outline(self) -> list[list[tuple[float, float]]]:
        x0, y0, x1, y1 = self.bounds
        return [[(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]]

    def moved(self, right: float, down: float) -> "Box":
        right, down = shift(right, down)
        return replace(self, x0=self.x0 + right, y0=self.y0 + down, x1=self.x1 + right, y1=self.y1 + down)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "box", "corners": [float(value) for value in self.bounds], **self._image_data}


class _Marks(Region):
    """A region of drawn points."""

    soft: ClassVar[bool] = True

    def given(self, width: int, height: int) -> np.ndarray:
        """(n, 2): column and row of the pixel that each of its own points is on.

        Raises:
            RegionError: for a point off the image.
        """
        self.check(width, height)
        result: np.ndarray = np.minimum(self._positions().astype(int), [width - 1, height - 1])
        return result

    def _positions(self) -> np.ndarray:
        return np.array(self.outline()[0], float)

    def check(self, width: int, height: int) -> None:
        width, height = image_size(width, height)
        positions = self._positions()
        off = positions[~((positions >= 0) & (positions <= [width, height])).all(1)]
        if len(off):
            what = "A point" if isinstance(self, Point) else "A scribble's points"
            (x, y), *_ = off
            raise RegionError(f"{what} must lie within the image of {width} x {height} px; got ({x:g}, {y:g}).")

    def cover(self, width: int, height: int) -> np.ndarray:
        size = raster_size(width, height)
        return _raster(self.given(*size), size).astype(np.float32)

    def areas(self, xs: np.ndarray, ys: np.ndarray, size: Size) -> np.ndarray:
        points = self.given(*size)
        width, height = np.ptp(points, axis=0) + 1

        def counts(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return marked_before(_drawn(points), points.min(0), (height, width), columns, rows)

        return between_pixels(counts, xs, ys, size)

    def touched(self, step: int, size: Size) -> np.ndarray:
        """As of any region; with squares of several pixels the lines are drawn in squares, to within one of them."""
        if step == 1:
            return super().touched(step, size)
        width, height = (-(-side // step) for side in size)
        return _raster(self.given(*size) // step, (width, height))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        xs, ys = zip(*self.outline()[0], strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True, init=False, repr=False)
class Scribble(_Marks):
    """A freehand line through points.

    Args:
        points: (x, y) pairs in pixels, at least one; consecutive points are joined by straight lines.

    Raises:
        RegionError: for no points or points that are not pairs of finite numbers.

    Examples:
        >>> cm.Scribble([(150, 100), (185, 105)])
        Scribble(points=((150.0, 100.0), (185.0, 105.0)))
    """

    points: tuple[tuple[float, float], ...]

    def __init__(
        self, points: Iterable[Sequence[float]], *, image: int | None = None, frames: tuple[int, int] | int | None = None
    ):
        self._keep_place(image, frames)
        needs = "A scribble needs pairs of finite numbers (x, y)"
        if isinstance(points, np.ndarray):
            points = points.tolist()
        pairs = [several(point, needs, RegionError) for point in several(points, needs, RegionError)]
        if not pairs:
            raise RegionError("A scribble needs at least one (x, y) point; got none.")
        for pair in pairs:
            if len(pair) != 2:
                raise RegionError(f"{needs}; got {shown(pair)}.")
        try:
            found = coordinates([value for pair in pairs for value in pair], needs)
        except RegionError:
            for pair in pairs:
                coordinates(pair, needs)
            raise
        xs, ys = map(float, found[::2]), map(float, found[1::2])
        object.__setattr__(self, "points", tuple(zip(xs, ys, strict=True)))

    def __repr__(self) -> str:
        return super().__repr__() if len(self.points) > _MOST_SHOWN else self._as_made()

    def facts(self) -> list[Fact]:
        if len(self.points) <= _MOST_SHOWN:
            return super().facts()
        x0, y0, x1, y1 = self.bounds
        return [("", f"{len(self.points)} points"), ("x", f"{x0:g}..{x1:g}"), ("y", f"{y0:g}..{y1:g}"), *self._number]

    def outline(self) -> list[list[tuple[float, float]]]:
        return [list(self.points)]

    def moved(self, right: float, down: float) -> "Scribble":
        right, down = shift(right, down)
        return Scribble([(x + right, y + down) for x, y in self.points], image=self.image, frames=self.frames)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "scribble", "points": [list(point) for point in self.points], **self._image_data}


@dataclass(frozen=True, repr=False)
class Point(_Marks):
    """One position (x, y) in pixels.

    Raises:
        RegionError: unless both are finite.

    Examples:
        >>> cm.Point(169, 103)
        Point(x=169, y=103)
        >>> f"{cm.region_share(cmap, cm.Point(169, 103), sigma=0.1):.2f}"
        '0.05'
    """

    x: float
    y: float

    def __post_init__(self) -> None:
        self._keep_place(self.image, self.frames)
        x, y = coordinates((self.x, self.y), "A point needs two finite numbers x, y")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __repr__(self) -> str:
        return self._as_made()

    def outline(self) -> list[list[tuple[float, float]]]:
        return [[(self.x, self.y)]]

    def moved(self, right: float, down: float) -> "Point":
        right, down = shift(right, down)
        return replace(self, x=self.x + right, y=self.y + down)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "point", "position": [float(self.x), float(self.y)], **self._image_data}


def _drawn(points: np.ndarray) -> Iterator[np.ndarray]:
    """The lines from each pixel (n, 2) to the next, drawn within their bounds: (row, column) bool, some rows at a time."""
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    width = right - left + 1
    rows = max(_AT_ONCE // width, 1)
    for first in range(top, bottom + 1, rows):
        canvas = Image.new("L", (width, min(rows, bottom + 1 - first)))
        ends = (points - [left, first]).ravel().tolist()
        draw = ImageDraw.Draw(canvas)
        draw.point(ends, fill=1)
        draw.line(ends, fill=1)
        yield np.asarray(canvas).view(bool)


def _raster(points: np.ndarray, size: Size) -> np.ndarray:
    """The same on the whole of an image of (width, height): (row, column) bool."""
    raster = np.zeros(size[::-1], bool)
    left, top = points.min(0)
    for strip in _drawn(points):
        raster[top : top + len(strip), left : left + strip.shape[1]] = strip
        top += len(strip)
    return raster
