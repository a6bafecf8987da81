"""Masks: any set of pixels, from arrays and files."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from ...errors import RegionError
from ...shown import Fact
from ...strict import pair_of_sides, shown, whole_number
from ..images import ImageSource, array_of, grey_values, open_image
from .base import LARGEST, Region, Size, between_pixels, image_size, marked_before, shift

# Rows that are gone through at once.
_ROWS = 255
# Most that pixels of one brightness differ by, as a share of the highest, and the most that a dark ground has of it.
_NOISE, _DARK = 1 / 8, 3 / 8
_MOST_OF_IT = 0.9
# Lines of an outline: many more than a picture can show.
_MOST_BORDERS = 2**14


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Mask(Region):
    """Any set of pixels.

    Only its bounding box is kept, so that a small object in a large photograph takes little.

    Args:
        pixels: array or tensor (height, width) of the image's size; non-zero marks the region. A PIL image is read as
            `from_file` reads it.

    Raises:
        RegionError: unless it is two-dimensional, of finite numbers or booleans, with at least one marked pixel.

    Examples:
        >>> import numpy as np
        >>> pixels = np.zeros((192, 192), bool)
        >>> pixels[79:127, 146:192] = True
        >>> cm.Mask(pixels)
        Mask(2208 of 192 x 192 px)
    """

    size: Size
    corner: tuple[int, int]
    part: np.ndarray

    def __init__(self, pixels: Any, *, image: int | None = None, frames: tuple[int, int] | int | None = None):
        self._keep_place(image, frames)
        marked = _read_image_mask(pixels, None) if isinstance(pixels, Image.Image) else _as_marked(pixels)
        self._keep(marked, (0, 0), marked.shape[::-1])

    def _keep(self, marked: np.ndarray, corner: tuple[int, int], size: Size) -> None:
        """Keep what `marked`, with this upper left corner, marks of an image of this size."""
        rows, columns = (np.flatnonzero(marked.any(axis)) for axis in (1, 0))
        if not len(rows):
            raise RegionError(f"A mask needs at least one marked pixel; got none in shape {(size[1], size[0])}.")
        part = marked[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        part.setflags(write=False)
        object.__setattr__(self, "size", (int(size[0]), int(size[1])))
        object.__setattr__(self, "corner", (corner[0] + int(columns[0]), corner[1] + int(rows[0])))
        object.__setattr__(self, "part", part)

    @classmethod
    def from_file(cls, source: ImageSource, size: Size | None = None) -> "Mask":
        """The region that an image file marks.

        Where opacity varies, opaque pixels are the region; otherwise bright ones on dark. A pixel belongs to it from half
        of the highest value in the file on, so that 0 and 1, 0 and 255, soft rims and a JPEG's noise are all read right.
        Two colors of which none is dark (red on blue) do not say which of them is meant.

        Args:
            source: path, PIL image or anything else that `read_image` takes.
            size: (width, height) of the image that the mask is for; not checked when None.

        Raises:
            ImageError: when the file cannot be read.
            RegionError: when nothing is marked, the ground is not dark, or it holds labels of several objects; for another
                size.

        Warns:
            UserWarning: where all along the image's edge is marked, and something within is not: a dark mark on bright.
        """
        return cls(_read_image_mask(source, size))

    @property
    def pixels(self) -> np.ndarray:
        """(height, width) bool, not to be written to."""
        if self.part.shape == self.size[::-1]:
            return self.part
        pixels = np.zeros(self.size[::-1], bool)
        (left, top), (height, width) = self.corner, self.part.shape
        pixels[top : top + height, left : left + width] = self.part
        pixels.setflags(write=False)
        return pixels

    def _key(self) -> tuple[Any, ...]:
        return self.size, self.corner, self.part.shape, self.image, self.frames

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self._key() == other._key() and np.array_equal(self.part, other.part)

    def __hash__(self) -> int:
        return hash((self._key(), self.part.tobytes()))

    def facts(self) -> list[Fact]:
        return [("", f"{np.count_nonzero(self.part)} of {self.size[0]} x {self.size[1]} px"), *self._number]

    def check(self, width: int, height: int) -> None:
        width, height = image_size(width, height)
        if self.size != (width, height):
            raise RegionError(f"A mask needs the image's shape (height, width) = {(height, width)}; got {self.size[::-1]}.")

    def cover(self, width: int, height: int) -> np.ndarray:
        self.check(width, height)
        return self.pixels.astype(np.float32)

    def areas(self, xs: np.ndarray, ys: np.ndarray, size: Size) -> np.ndarray:
        def counts(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return marked_before([self.part], self.corner, self.part.shape, columns, rows)

        return between_pixels(counts, xs, ys, size)

    def at(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether pixels are marked: (row, column) bool, for whole positions on the image."""
        (left, top), (height, width) = self.corner, self.part.shape
        inside = np.logical_and.outer((rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width))
        clipped = np.clip(rows - top, 0, height - 1), np.clip(columns - left, 0, width - 1)
        result: np.ndarray = self.part[np.ix_(*clipped)] & inside
        return result

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        (left, top), (height, width) = self.corner, self.part.shape
        return float(left), float(top), float(left + width), float(top + height)

    def outline(self) -> list[list[tuple[float, float]]]:
        return self._edges

    @cached_property
    def _edges(self) -> list[list[tuple[float, float]]]:
        """Borders between marked and unmarked pixels, as runs along rows and columns.

        Where they would be more than can be drawn, those of squares of pixels that are marked in part.
        """
        step = 1
        while (lines := _borders(self._squares(step))) is None:
            step *= 2
        left, top = self.corner
        height, width = self.part.shape
        return [
            [(float(left + min(x * step, width)), float(top + min(y * step, height))) for x, y in line] for line in lines
        ]

    def _squares(self, step: int) -> np.ndarray:
        """Which squares of `step` pixels a side are marked in part: (row, column) bool."""
        if step == 1:
            return self.part
        down, across = (np.arange(0, side, step) for side in self.part.shape)
        result: np.ndarray = np.logical_or.reduceat(np.logical_or.reduceat(self.part, down, 0), across, 1)
        return result

    def moved(self, right: float, down: float) -> "Mask":
        moved = self.placed(*shift(right, down), self.size)
        moved._keep_place(self.image, self.frames)
        return moved

    def placed(self, right: float, down: float, size: Size) -> "Mask":
        (left, top), (width, height) = self.corner, size
        left, top = left + round(right), top + round(down)
        kept = self.part[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
        placed = object.__new__(Mask)
        placed._keep(kept, (max(left, 0), max(top, 0)), size)
        return placed

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "mask",
            "size": [self.size[1], self.size[0]],
            "counts": run_lengths(self.part, self.corner, self.size),
            **self._image_data,
        }


def _as_marked(pixels: Any) -> np.ndarray:
    """(height, width) bool of an array or a tensor, which may be the caller's own."""
    try:
        pixels = array_of(pixels) if hasattr(pixels, "is_floating_point") else np.asarray(pixels)
    except ValueError as error:
        raise RegionError(f"A mask needs shape (height, width); got rows of several lengths: {error}.") from None
    except (MemoryError, TypeError, RuntimeError) as error:
        raise RegionError(f"A mask needs values (height, width) that can be read; got {shown(pixels)}.") from error
    if pixels.ndim != 2:
        raise RegionError(f"A mask needs shape (height, width); got {pixels.shape}.")
    if pixels.dtype.kind not in "biuf":
        raise RegionError(f"A mask needs booleans or numbers; got {pixels.dtype} of shape {pixels.shape}.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise RegionError("A mask needs finite values; got NaN or infinity.")
    result: np.ndarray = pixels.astype(bool, copy=False)
    return result


def _read_image_mask(source: ImageSource, size: Size | None) -> np.ndarray:
    """(height, width) bool, by the rule of `Mask.from_file`."""
    size = None if size is None else pair_of_sides(size, "The size of a mask's image", RegionError)
    image = open_image(source)
    if size is not None and image.size != size:
        raise RegionError(
            f"A mask must have the size of its image, {size[0]} x {size[1]} px; got {image.width} x {image.height} px."
        )
    values, by_opacity = _mask_values(image)
    highest = values.max(initial=0)
    if highest <= 0:
        raise RegionError(f"A mask needs at least one marked pixel; got none in {image.width} x {image.height} px.")
    marked = values >= (highest / 2 if values.dtype.kind == "f" else -(-int(highest) // 2))
    if not by_opacity:
        _check_ground(image, values, marked)
    if not marked.all() and all(edge.all() for edge in (marked[0], marked[-1], marked[:, 0], marked[:, -1])):
        warnings.warn(
            f"A mask's file marks its region bright on dark, or opaque; this one marks all along the edge of the image, "
            f"{marked.mean():.0%} of it. If the dark part is meant: Mask(~mask.pixels).",
            stacklevel=4,
        )
    return marked


def _check_ground(image: Image.Image, values: np.ndarray, marked: np.ndarray) -> None:
    """Refuse a file without a dark ground, red on blue for one, of which brightness says too little."""
    highest = float(values.max())
    if marked.mean() < _MOST_OF_IT:
        clear = float(np.median(values[~marked])) <= _DARK * highest
    else:
        # What is marked must be of one color; a lossy file's edges are not.
        several = image.mode == "P" or len(image.getbands()) > 1
        colors = np.asarray(image.convert("RGB")) / 255 if several else values[..., None] / highest
        low, high = np.percentile(colors[marked], (0, 100) if marked.all() else (1, 99), axis=0)
        clear = (high - low).max() <= _NOISE
    if not clear:
        raise RegionError(
            "A mask's file must mark its region bright on dark, or opaque on transparent; the ground of this one is not "
            "dark. Make a mask of the color that is meant, as in "
            "Mask((numpy.asarray(PIL.Image.open(file).convert('RGB')) == (255, 0, 0)).all(2))."
        )


def _mask_values(image: Image.Image) -> tuple[np.ndarray, bool]:
    """(height, width): opacity where that tells pixels apart, else how bright each is; and whether it is opacity."""
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBa", "RGBA"):
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        opacity = np.asarray(straight.convert("RGBA").getchannel("A"))
        if 2 * int(opacity.min(initial=255)) < int(opacity.max(initial=0)):
            return opacity.astype(np.uint16), True
    if image.mode == "P" and len(colors := _colors_used(image)) > 2 and any(len(set(color)) > 1 for color in colors):
        raise RegionError(_LABELS.format(count=len(colors), what="colours of a palette"))
    if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        values = grey_values(image)
        if values.min(initial=0) < 0:
            raise RegionError(f"A mask needs values of at least 0; got {shown(values.min())} in {image.mode} mode.")
    else:
        # A pure blue is as bright a mark as a white.
        values = np.asarray(image.convert("RGB")).max(2).astype(np.uint16)
    # Numbers from 0 on in an image that is all but black are names, and half of the highest would leave some out.
    if values.dtype.kind == "u" and 1 < values.max(initial=0) < 64 and len(labels := np.unique(values)) > 2:
        raise RegionError(_LABELS.format(count=len(labels), what=f"values up to {labels[-1]}"))
    return values, False


_LABELS = (
    "A mask's file must mark one region, bright on dark; got {count} {what}, which look like labels of several objects. "
    "Choose one, as in Mask(numpy.asarray(PIL.Image.open(file)) == label)."
)


def _colors_used(image: Image.Image) -> list[tuple[int, ...]]:
    found = image.convert("RGB").getcolors(256) or []
    return [color for _, color in found]  # type: ignore[misc]


def run_lengths(pixels: np.ndarray, corner: tuple[int, int] = (0, 0), size: Size | None = None) -> list[int]:
    """Lengths of the runs of equal pixels, row by row; the first run is unmarked and may be 0.

    Args:
        pixels: (height, width) bool; outside it nothing is marked.
        corner: where on the image its upper left corner is.
        size: (width, height) of the image; that of `pixels` when None.
    """
    width, height = size or pixels.shape[::-1]
    ends = [np.zeros(0, int)]
    for start in range(0, len(pixels), _ROWS):
        # Some rows at a time, as a photograph's mask is large and its changes are few.
        padded = np.pad(pixels[start : start + _ROWS], ((0, 0), (1, 1)))
        rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
        ends.append((rows + start + corner[1]) * width + columns + corner[0])
    changes = np.concatenate(ends)
    # A run that goes on in the next row ends and begins in one place.
    same = np.append(changes[1:] == changes[:-1], False) | np.append(False, changes[1:] == changes[:-1])
    changes = changes[~same & (changes < width * height)]
    result: list[int] = np.diff(np.append(changes, width * height), prepend=0).tolist()
    return result


def from_run_lengths(counts: Sequence[int], height: int, width: int) -> np.ndarray:
    """The boolean (height, width) array that `run_lengths` described.

    Raises:
        RegionError: for a size that is none or larger than LARGEST, or run lengths that do not add up to it.
    """
    height, width = (whole_number(side, "A mask's side", 1, LARGEST, RegionError) for side in (height, width))
    if height * width > LARGEST:
        raise RegionError(f"A mask must have at most {LARGEST} pixels; got {height} x {width}.")
    if not isinstance(counts, list | tuple) or not all(type(count) is int and count >= 0 for count in counts):
        raise RegionError(
            f"A stored region needs a kind and, of a mask, run lengths of at least 0 as whole numbers; got {shown(counts)}."
        )
    if sum(counts) != height * width:
        raise RegionError(f"The run lengths must add up to {height * width} pixels; got {shown(sum(counts))}.")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(height, width)


def _borders(marked: np.ndarray) -> list[list[tuple[int, int]]] | None:
    """Ends (x, y) of the borders of what is marked, first those along rows; None where they are more than _MOST_BORDERS."""
    found: list[list[tuple[int, int]]] = []
    for flip, lines in ((False, marked), (True, marked.T)):
        for first in range(0, len(lines) + 1, _ROWS):
            some = np.pad(lines[max(first - 1, 0) : first + _ROWS], ((not first, first + _ROWS > len(lines)), (0, 0)))
            changed = np.pad(some[1:] != some[:-1], ((0, 0), (1, 1)))
            at, ends = np.nonzero(changed[:, 1:] != changed[:, :-1])
            if len(found) + len(at) // 2 > _MOST_BORDERS:
                return None
            for line, start, end in zip((at[::2] + first).tolist(), ends[::2].tolist(), ends[1::2].tolist(), strict=True):
                found.append([(line, start), (line, end)] if flip else [(start, line), (end, line)])
    return found
