"""What all regions share: checks, measures on the image, a picture of themselves."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from ...errors import RegionError
from ...shown import Fact, Shown
from ...strict import number, pair_of_sides, several, shown, whole_number

Size = tuple[int, int]
# Pixels, more than any image has that Pillow opens; a few run lengths, or two sides, can stand for more.
LARGEST = 2**28
# Numbers that need no reading, and that are finite for sure.
_PLAIN, _FAR = {float, int}, 2**53
# Rows that can be added up in eight bits.
_ROWS = 255


@dataclass(frozen=True, repr=False)
class Region(Shown, ABC):
    """What the user drew. `soft` regions attract by distance (scribble, point), the others by area (box, mask).

    Args:
        image: number of the image that it is on, from 0, where a prompt has several; its pixels are that image's. None
            where there is one image, or for pixels of the sheet on which several stand side by side (`prompt.image`).
        frames: first and last frame of a video that it is on, from 0, or one of them; its pixels are a frame's.

    Raises:
        RegionError: for both an image and frames, and for what are no numbers of these.
    """

    soft: ClassVar[bool] = False

    image: int | None = field(default=None, kw_only=True)
    frames: tuple[int, int] | None = field(default=None, kw_only=True)

    def _keep_place(self, image: Any, frames: Any) -> None:
        """Which image or frames it is on, checked."""
        object.__setattr__(self, "image", checked_number(image))
        object.__setattr__(self, "frames", checked_frames(frames))
        if image is not None and frames is not None:
            raise RegionError(f"A region is on an image or on frames of a video; got image={image} and frames={frames}.")

    @abstractmethod
    def check(self, width: int, height: int) -> None:
        """Raise RegionError unless the region lies on an image of `width` x `height` px."""

    @abstractmethod
    def cover(self, width: int, height: int) -> np.ndarray:
        """Share of each pixel that is drawn on: float32 (height, width) in 0..1."""

    @abstractmethod
    def areas(self, xs: np.ndarray, ys: np.ndarray, size: Size) -> np.ndarray:
        """Area of the region left of each x and above each y: (y, x), in square pixels.

        What lies between four such corners is their difference: exact, and without a raster of the image, however large.

        Args:
            xs: (x,), positions from the image's left edge, in pixels; fractions count.
            ys: (y,), from its top.
            size: (width, height) of the image.
        """

    def touched(self, step: int, size: Size) -> np.ndarray:
        """Which squares of `step` pixels a side of an image of (width, height) the region touches: (row, column) bool."""
        columns, rows = (np.append(np.arange(0, side, step), side) for side in size)
        result: np.ndarray = np.diff(np.diff(self.areas(columns, rows, size), axis=0), axis=1) > 1e-6
        return result

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float, float, float]:
        """Corners x0, y0, x1, y1 of the smallest box around the region."""

    @abstractmethod
    def outline(self) -> list[list[tuple[float, float]]]:
        """Polylines (x, y) that show the region on the image."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain data from which `region_from_json` makes an equal region."""

    @abstractmethod
    def moved(self, right: float, down: float) -> "Region":
        """The same shape elsewhere; of a mask, whole pixels, and what leaves the image is lost."""

    def placed(self, right: float, down: float, size: Size) -> "Region":
        """The same shape, moved, on a picture of (width, height), of no number; of a mask, what leaves it is lost."""
        return self.moved(right, down).on(None)

    def on(self, image: int | None) -> "Region":
        """The same on the image of this number."""
        return self.on_place(image, None)

    def during(self, frames: tuple[int, int] | int | None) -> "Region":
        """The same on these frames of a video: first and last, or one."""
        return self.on_place(None, frames)

    def on_place(self, image: int | None, frames: Any) -> "Region":
        """The same on an image, on frames of a video, or on neither."""
        other = copy(self)
        other._keep_place(image, frames)
        return self if (other.image, other.frames) == (self.image, self.frames) else other

    @property
    def numbered(self) -> bool:
        """Whether it says which image or frames it is on, so that its pixels are not those of a sheet."""
        return self.image is not None or self.frames is not None

    @property
    def _number(self) -> list[Fact]:
        return [(name, repr(getattr(self, name))) for name in self._image_data]

    @property
    def _image_data(self) -> dict[str, Any]:
        """Of `to_json`: the image's number, or the frames', where there are any."""
        frames = None if self.frames is None else list(self.frames)
        return {name: value for name, value in (("image", self.image), ("frames", frames)) if value is not None}

    def facts(self) -> list[Fact]:
        own = [(each.name, repr(getattr(self, each.name))) for each in fields(self) if each.name not in ("image", "frames")]
        return [*own, *self._number]

    def _as_made(self) -> str:
        """The call that makes it."""
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in Region.facts(self))})"


def checked_number(image: Any) -> int | None:
    """Which image a region is on, or None.

    Raises:
        RegionError: for what is no number of one.
    """
    return None if image is None else whole_number(image, "The number of a region's image", 0, error=RegionError)


def checked_frames(frames: Any) -> tuple[int, int] | None:
    """First and last frame that a region is on, or None.

    Raises:
        RegionError: for what are no numbers of two, in their order, or of one.
    """
    if frames is None:
        return None
    what = "A region's frames must be the first and the last of them, from 0, or one"
    pair = several(frames, what, RegionError) if isinstance(frames, list | tuple) else (frames, frames)
    if len(pair) != 2:
        raise RegionError(f"{what}; got {shown(frames)}.")
    first, last = (whole_number(number, "The number of a frame", 0, error=RegionError) for number in pair)
    if first > last:
        raise RegionError(f"{what}; got {shown(frames)}, the last before the first.")
    return first, last


def where_text(regions: Iterable[Region]) -> str:
    """Where attention is counted, in words: inside an area, or by its distance to a scribble or point."""
    soft = [region.soft for region in regions]
    if any(soft):
        return "near the mark" if all(soft) else "in the regions and near the marks"
    return "in the region"


def short(where: str) -> str:
    """The words of `where_text` for a repr or the head of a column."""
    return where.replace("the ", "")


def coordinates(values: Iterable[Any], needs: str) -> tuple[float, ...]:
    """Plain finite numbers, whole ones kept whole; RegionError with these words for anything else."""
    values = several(values, needs, RegionError)
    if all(type(value) in _PLAIN and -_FAR < value < _FAR for value in values):
        return values
    try:
        found = [(value, number(value, needs, error=RegionError)) for value in values]
    except RegionError as error:
        raise RegionError(f"{needs}; got {shown(values)}.") from error
    return tuple(int(as_float) if isinstance(value, Integral) else as_float for value, as_float in found)


def shift(right: Any, down: Any) -> tuple[float, float]:
    """How far a region is moved, in pixels.

    Raises:
        RegionError: for what are no finite numbers.
    """
    x, y = coordinates((right, down), "A region is moved by two finite numbers of pixels")
    return x, y


def image_size(width: Any, height: Any) -> Size:
    """The size of an image that a region is for.

    Raises:
        RegionError: for what are no whole numbers of at least 1.
    """
    return pair_of_sides((width, height), "The size of an image", RegionError)


def raster_size(width: Any, height: Any) -> Size:
    """The size of an image each of whose pixels is written down.

    Raises:
        RegionError: for what is no size, and one of more than LARGEST pixels.
    """
    size = image_size(width, height)
    if size[0] * size[1] > LARGEST:
        raise RegionError(f"An image must have at most {LARGEST} pixels to be gone through; got {size[0]} x {size[1]} px.")
    return size


def marked_before(
    strips: Iterable[np.ndarray], corner: Size, shape: tuple[int, int], columns: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Marked pixels left of and above whole positions: (row, column).

    Args:
        strips: (row, column) bool, one below the other: all that is marked, some rows at a time.
        corner: column and row of their upper left pixel.
        shape: (height, width) of them all.
        columns: ascending.
        rows: ascending.
    """
    height, width = shape
    columns, rows = np.clip(columns - corner[0], 0, width), np.clip(rows - corner[1], 0, height)
    counts = np.zeros((len(rows), len(columns)))
    above, top, found = np.zeros(width + 1, np.int64), 0, 0
    for strip in strips:
        reached = 0
        while found < len(rows) and rows[found] <= top + len(strip):
            above[1:] += _down(strip[reached : rows[found] - top])
            reached = rows[found] - top
            counts[found] = above.cumsum()[columns]
            found += 1
        if found == len(rows):
            break
        above[1:] += _down(strip[reached:])
        top += len(strip)
    return counts


def _down(marked: np.ndarray) -> np.ndarray:
    """Marked pixels of each column: bytes are added up many at a time, and no more at once than a byte can count."""
    parts = (marked[start : start + _ROWS].view(np.uint8).sum(0, np.uint8) for start in range(0, len(marked), _ROWS))
    return sum(parts, np.zeros(marked.shape[1], np.int64))


def between_pixels(counts: Any, xs: np.ndarray, ys: np.ndarray, size: Size) -> np.ndarray:
    """`Region.areas` of whole pixels, from `counts(columns, rows)`: how many are left of and above whole positions."""
    (columns, left, right, across), (rows, upper, lower, down) = (
        _whole_positions(values, limit) for values, limit in zip((xs, ys), size, strict=True)
    )
    found = counts(columns, rows)
    found = found[:, left] * (1 - across) + found[:, right] * across
    result: np.ndarray = found[upper] * (1 - down[:, None]) + found[lower] * down[:, None]
    return result


def _whole_positions(values: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixel edges around each value: all of them in order, where the lower and the upper are, and how far it is between."""
    values = np.clip(values, 0, limit)
    low = np.floor(values).astype(int)
    high = np.ceil(values).astype(int)
    edges = np.unique(np.concatenate([low, high]))
    return edges, np.searchsorted(edges, low), np.searchsorted(edges, high), values - low
