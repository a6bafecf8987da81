"""What all regions share: checks, measures on the image, a picture of themselves."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from ...errors import RegionError
from ...shown import Fact, Shown
from ...strict import number, pair_of_sides, several, shown

Size = tuple[int, int]
# Pixels, more than any image has that Pillow opens; a few run lengths, or two sides, can stand for more.
LARGEST = 2**28


@dataclass(frozen=True, repr=False)
class Region(Shown, ABC):
    """What the user drew. `soft` regions attract by distance (scribble, point), the others by area (box, mask)."""

    soft: ClassVar[bool] = False

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

    def facts(self) -> list[Fact]:
        return [(field.name, repr(getattr(self, field.name))) for field in fields(self)]


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
