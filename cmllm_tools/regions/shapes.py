"""Regions the user refers to: box, mask, scribble, point; in pixels of the image, origin top left."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from math import isfinite
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import shift

from .display import Fact, Outline, card, one_line, picture
from .errors import RegionError


@dataclass(frozen=True)
class Region(ABC):
    """What the user drew. `soft` regions attract by distance (scribble, point), the others by area (box, mask)."""

    soft: ClassVar[bool] = False

    @abstractmethod
    def check(self, width: int, height: int) -> None:
        """Raise RegionError unless the region lies on an image of `width` x `height` px."""

    @abstractmethod
    def cover(self, width: int, height: int) -> np.ndarray:
        """Share of each pixel that is drawn on: float32 (height, width) in 0..1."""

    @abstractmethod
    def outline(self) -> list[list[tuple[float, float]]]:
        """Polylines (x, y) that show the region on the image."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain data from which `region_from_json` makes an equal region."""

    @abstractmethod
    def moved(self, right: float, down: float) -> "Region":
        """The same shape elsewhere; of a mask, whole pixels, and what leaves the image is lost."""

    @property
    def drawing(self) -> Outline:
        """The outline, and whether its points are to be marked, as `display.picture` takes it."""
        return self.outline(), self.soft

    def _facts(self) -> list[Fact]:
        return [(field.name, repr(getattr(self, field.name))) for field in fields(self)]

    def _canvas(self) -> tuple[int, int]:
        """Size of a picture of the region alone: from the image's corner to a little beyond the region."""
        points = [point for line in self.outline() for point in line]
        width, height = (max(1.15 * max(point[axis] for point in points), 1) for axis in (0, 1))
        # A region along an edge of the image would make a strip; the shorter side is at least a third.
        return round(max(width, height / 3)), round(max(height, width / 3))

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self._facts(), picture(self._canvas(), outlines=[self.drawing]))


@dataclass(frozen=True)
class Box(Region):
    """A rectangle from corner (x0, y0) to corner (x1, y1), in pixels; fractions count.

    Raises:
        RegionError: unless all four are finite and x0 < x1, y0 < y1.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        corners = (self.x0, self.y0, self.x1, self.y1)
        if not all(_is_number(value) for value in corners):
            raise RegionError(f"A box needs four finite numbers x0, y0, x1, y1; got {corners}.")
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise RegionError(
                f"A box needs x0 < x1 and y0 < y1; got x {self.x0:g}..{self.x1:g}, y {self.y0:g}..{self.y1:g}. "
                "Give the top left corner first."
            )

    def check(self, width: int, height: int) -> None:
        if self.x0 < 0 or self.y0 < 0 or self.x1 > width or self.y1 > height:
            raise RegionError(
                f"A box must lie within the image of {width} x {height} px; "
                f"got x {self.x0:g}..{self.x1:g}, y {self.y0:g}..{self.y1:g}."
            )

    def cover(self, width: int, height: int) -> np.ndarray:
        columns = np.clip(np.minimum(self.x1, np.arange(width) + 1) - np.maximum(self.x0, np.arange(width)), 0, 1)
        rows = np.clip(np.minimum(self.y1, np.arange(height) + 1) - np.maximum(self.y0, np.arange(height)), 0, 1)
        return (rows[:, None] * columns[None, :]).astype(np.float32)

    def outline(self) -> list[list[tuple[float, float]]]:
        x0, y0, x1, y1 = self.x0, self.y0, self.x1, self.y1
        return [[(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]]

    def moved(self, right: float, down: float) -> "Box":
        return Box(self.x0 + right, self.y0 + down, self.x1 + right, self.y1 + down)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "box", "corners": [float(value) for value in (self.x0, self.y0, self.x1, self.y1)]}


@dataclass(frozen=True, eq=False)
class Mask(Region):
    """Any set of pixels.

    Args:
        pixels: array (height, width) of the image's size; non-zero marks the region.

    Raises:
        RegionError: unless it is two-dimensional with at least one marked pixel.
    """

    pixels: np.ndarray

    def __post_init__(self) -> None:
        pixels = np.asarray(self.pixels)
        if pixels.ndim != 2:
            raise RegionError(f"A mask needs shape (height, width); got {pixels.shape}.")
        if np.issubdtype(pixels.dtype, np.floating) and not np.isfinite(pixels).all():
            raise RegionError("A mask needs finite values; got NaN or infinity.")
        if not pixels.any():
            raise RegionError(f"A mask needs at least one marked pixel; got none in shape {pixels.shape}.")
        pixels = pixels.astype(bool)
        pixels.setflags(write=False)
        object.__setattr__(self, "pixels", pixels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.pixels, other.pixels)

    def __hash__(self) -> int:
        return hash(self.pixels.tobytes())

    def __repr__(self) -> str:
        return one_line("Mask", self._facts())

    def _facts(self) -> list[Fact]:
        height, width = self.pixels.shape
        return [("", f"{int(self.pixels.sum())} of {width} x {height} px")]

    def _canvas(self) -> tuple[int, int]:
        height, width = self.pixels.shape
        return width, height

    def check(self, width: int, height: int) -> None:
        if self.pixels.shape != (height, width):
            raise RegionError(
                f"A mask needs the image's shape (height, width) = {(height, width)}; got {self.pixels.shape}."
            )

    def cover(self, width: int, height: int) -> np.ndarray:
        return self.pixels.astype(np.float32)

    def outline(self) -> list[list[tuple[float, float]]]:
        return self._edges

    @cached_property
    def _edges(self) -> list[list[tuple[float, float]]]:
        """Borders between marked and unmarked pixels, as runs along rows and columns."""
        padded = np.pad(self.pixels, 1)
        lines: list[list[tuple[float, float]]] = []
        for edges, flip in ((padded[1:] != padded[:-1], False), ((padded[:, 1:] != padded[:, :-1]).T, True)):
            for line, row in enumerate(edges):
                for start, end in _runs(row):
                    ends = [(float(start - 1), float(line)), (float(end - 1), float(line))]
                    lines.append([(y, x) if flip else (x, y) for x, y in ends])
        return lines

    def moved(self, right: float, down: float) -> "Mask":
        return Mask(shift(self.pixels, (round(down), round(right)), order=0))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "mask", "size": list(self.pixels.shape), "counts": run_lengths(self.pixels)}


@dataclass(frozen=True, init=False)
class Scribble(Region):
    """A freehand line through points.

    Args:
        points: (x, y) pairs in pixels, at least one; consecutive points are joined by straight lines.

    Raises:
        RegionError: for no points or points that are not pairs of finite numbers.
    """

    points: tuple[tuple[float, float], ...]
    soft: ClassVar[bool] = True

    def __init__(self, points: Iterable[Sequence[float]]):
        pairs = [tuple(point) for point in points]
        if not pairs:
            raise RegionError("A scribble needs at least one (x, y) point; got none.")
        for pair in pairs:
            if len(pair) != 2 or not all(_is_number(value) for value in pair):
                raise RegionError(f"A scribble needs pairs of finite numbers (x, y); got {pair}.")
        object.__setattr__(self, "points", tuple((float(x), float(y)) for x, y in pairs))

    def check(self, width: int, height: int) -> None:
        for x, y in self.points:
            _check_inside(x, y, width, height, "A scribble's points")

    def cover(self, width: int, height: int) -> np.ndarray:
        pixels = [(int(min(x, width - 1)), int(min(y, height - 1))) for x, y in self.points]
        canvas = Image.new("L", (width, height), 0)
        draw = ImageDraw.Draw(canvas)
        draw.point(pixels, fill=1)
        if len(pixels) > 1:
            draw.line(pixels, fill=1)
        return np.asarray(canvas, np.float32)

    def outline(self) -> list[list[tuple[float, float]]]:
        return [list(self.points)]

    def moved(self, right: float, down: float) -> "Scribble":
        return Scribble([(x + right, y + down) for x, y in self.points])

    def to_json(self) -> dict[str, Any]:
        return {"kind": "scribble", "points": [list(point) for point in self.points]}


@dataclass(frozen=True)
class Point(Region):
    """One position (x, y) in pixels.

    Raises:
        RegionError: unless both are finite.
    """

    x: float
    y: float
    soft: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (_is_number(self.x) and _is_number(self.y)):
            raise RegionError(f"A point needs two finite numbers x, y; got {(self.x, self.y)}.")

    def check(self, width: int, height: int) -> None:
        _check_inside(self.x, self.y, width, height, "A point")

    def cover(self, width: int, height: int) -> np.ndarray:
        pixels = np.zeros((height, width), np.float32)
        pixels[int(min(self.y, height - 1)), int(min(self.x, width - 1))] = 1
        return pixels

    def outline(self) -> list[list[tuple[float, float]]]:
        return [[(self.x, self.y)]]

    def moved(self, right: float, down: float) -> "Point":
        return Point(self.x + right, self.y + down)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "point", "position": [float(self.x), float(self.y)]}


Regions = Region | Sequence[Region]


def as_regions(regions: Regions) -> tuple[Region, ...]:
    """One region or several, as a tuple.

    Raises:
        RegionError: for none, or for something that is not a region.
    """
    several = tuple(regions) if isinstance(regions, list | tuple) else (regions,)
    if not several:
        raise RegionError("At least one region is needed; got none.")
    for region in several:
        if not isinstance(region, Region):
            raise RegionError(f"A region must be a Box, Mask, Scribble or Point; got {type(region).__name__}.")
    return several


def region_from_json(data: dict[str, Any]) -> Region:
    """The region that `to_json` described.

    Raises:
        RegionError: for data of another form.
    """
    try:
        match data["kind"]:
            case "box":
                return Box(*data["corners"])
            case "mask":
                return Mask(from_run_lengths(data["counts"], *data["size"]))
            case "scribble":
                return Scribble(data["points"])
            case "point":
                return Point(*data["position"])
    except RegionError:
        raise  # it says more
    except (KeyError, TypeError, ValueError) as error:
        raise RegionError(f"A stored region needs a kind and its coordinates; got {data!r:.200}.") from error
    raise RegionError(f"A stored region's kind must be box, mask, scribble or point; got {data['kind']!r}.")


def run_lengths(pixels: np.ndarray) -> list[int]:
    """Lengths of the runs of equal pixels, row by row; the first run is unmarked and may be 0."""
    flat = np.concatenate([[False], pixels.ravel()])
    ends = np.concatenate([np.flatnonzero(flat[1:] != flat[:-1]), [pixels.size]])
    return np.diff(ends, prepend=0).tolist()


def from_run_lengths(counts: Sequence[int], height: int, width: int) -> np.ndarray:
    """The boolean (height, width) array that `run_lengths` described."""
    if sum(counts) != height * width:
        raise RegionError(f"The run lengths must add up to {height * width} pixels; got {sum(counts)}.")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(height, width)


def _runs(row: np.ndarray) -> list[tuple[int, int]]:
    changes = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in changes.reshape(-1, 2)]


def _is_number(value: Any) -> bool:
    try:
        return isfinite(value)
    except TypeError:
        return False


def _check_inside(x: float, y: float, width: int, height: int, what: str) -> None:
    if not (0 <= x <= width and 0 <= y <= height):
        raise RegionError(f"{what} must lie within the image of {width} x {height} px; got ({x:g}, {y:g}).")
