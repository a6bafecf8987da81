"""Which part of the user's image each visual token sees, and how much of a region each of them covers."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from .display import Fact, card, one_line, picture
from .errors import RegionError, UnsupportedModelError
from .regions import Region

Rule = Literal["area", "reference"]

CENTRE_CROP = "fixed grid, centre crop"
# The reference code cuts every mask from a 224 px crop, whatever the model's own resolution.
REFERENCE_CROP = 224
# Distances are measured on at most this many pixels a side; finer than any model's visual tokens.
DISTANCE_PIXELS = 1024


class RegionWarning(UserWarning):
    """Part of a region lies outside what the model sees."""


@dataclass(frozen=True, eq=False)
class VisualTokenLayout:
    """Where each visual token looks.

    Several tokens may look at the same area (a tile and the thumbnail): a region weights each of them, and a map to look
    at sums what they hold there.

    Args:
        image_size: (width, height) of the user's image in pixels.
        boxes: (visual token, 4), corners x0, y0, x1, y1 of what each token sees, in pixels of that image.
        grid: (rows, columns) to show a map on.
        rule: name of the layout rule that made it.
        merged: whether the grid is for looking only. When False, the tokens are its cells, in row-major order.
    """

    image_size: tuple[int, int]
    boxes: np.ndarray
    grid: tuple[int, int]
    rule: str
    merged: bool = False

    def __post_init__(self) -> None:
        if not self.merged and len(self.boxes) != self.grid[0] * self.grid[1]:
            raise UnsupportedModelError(
                f"A layout needs one box for each cell of its grid {self.grid}; got {len(self.boxes)} boxes."
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return one_line("VisualTokenLayout", self._facts())

    def _repr_html_(self) -> str:
        return card("VisualTokenLayout", self._facts(), picture(self.image_size, boxes=self.boxes))

    def _facts(self) -> list[Fact]:
        width, height = self.image_size
        x0, y0, x1, y1 = self.seen
        shown = f"shown on {_by(self.grid)}, merged by area" if self.merged else f"as {_by(self.grid)}"
        return [
            ("", f"{len(self)} visual tokens {shown}"),
            ("image", f"{width} x {height} px"),
            ("seen", f"x {x0:.0f}..{x1:.0f} y {y0:.0f}..{y1:.0f}"),
            ("rule", self.rule),
        ]

    @cached_property
    def cells(self) -> np.ndarray:
        """(row, column, 4): corners of the cells to show a map on, in pixels of the image."""
        boxes = grid_boxes(self.seen, self.grid) if self.merged else self.boxes
        return boxes.reshape(*self.grid, 4)

    def raster(self, values: np.ndarray) -> np.ndarray:
        """Maps (..., visual token) as (..., row, column), sums kept: each token's value is spread evenly over its box.

        What a token sees beyond the image (padding) counts for the part that lies on it.
        """
        values = np.asarray(values)
        if not self.merged:
            return values.reshape(*values.shape[:-1], *self.grid)
        return (values @ self._spread.T).reshape(*values.shape[:-1], *self.grid).astype(values.dtype)

    @cached_property
    def _spread(self) -> np.ndarray:
        """(cell, visual token): share of each token's box, as far as it is on the image, in each cell."""
        cells, boxes = self.cells.reshape(-1, 4), _clipped(self.boxes, self.image_size)
        low = np.maximum(cells[:, None, :2], boxes[None, :, :2])
        high = np.minimum(cells[:, None, 2:], boxes[None, :, 2:])
        overlap = np.clip(high - low, 0, None).prod(-1)
        return overlap / np.maximum(overlap.sum(0), 1e-12)

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """Corners x0, y0, x1, y1 of the part of the image that the model sees."""
        (x0, y0), (x1, y1) = self.boxes[:, :2].min(0), self.boxes[:, 2:].max(0)
        width, height = self.image_size
        return max(float(x0), 0.0), max(float(y0), 0.0), min(float(x1), float(width)), min(float(y1), float(height))

    def inside(self, region: Region, rule: Rule = "area") -> np.ndarray:
        """Share of each visual token's area inside the region: (visual token,) float32 in 0..1.

        Args:
            region: any kind; for a scribble or point, the drawn pixels.
            rule: "area" measures the overlap with each token's box; "reference" repeats the nearest-neighbour resizing
                of the published code (square grids on a centre crop only).

        Raises:
            RegionError: for a region outside the image, or wholly outside what the model sees.

        Warns:
            RegionWarning: for a region partly outside what the model sees, with the fraction that is lost.
        """
        cover = self._checked_cover(region)
        if _is_reference(rule):
            values = self._nearest(np.where(cover > 0, 255, 0).astype(np.uint8))
            if not values.any():
                raise RegionError(
                    f"No visual token's sample falls into {region!r} under the reference's nearest-neighbour mask. "
                    "Use rule='area', which counts any overlap."
                )
            return values
        return self._mean_in_boxes(cover)

    def distance(self, region: Region, rule: Rule = "area") -> np.ndarray:
        """Distance D of each visual token to what was drawn: (visual token,) float32.

        "area" gives the mean over the token's box, as a share of the largest distance in view; "reference" the
        published code's: over the whole image, in steps of 1/255, sampled by nearest neighbour.

        Raises and warns like `inside`.
        """
        cover = self._checked_cover(region)
        if _is_reference(rule):
            distance = distance_transform_edt(cover == 0)
            return self._nearest(np.round(distance * (255 / max(distance.max(), 1e-12))).astype(np.uint8))
        return self._mean_in_boxes(self._distance_in_view(cover))

    def _checked_cover(self, region: Region) -> np.ndarray:
        region.check(*self.image_size)
        cover = region.cover(*self.image_size)
        total = float(cover.sum())
        inside = float(_box_sums(cover, np.array([self.seen]))[0])
        lost = 1 - inside / total
        if lost > 1 - 1e-6:
            x0, y0, x1, y1 = self.seen
            raise RegionError(
                f"The region lies outside what the model sees: its crop is x {x0:.0f}..{x1:.0f}, y {y0:.0f}..{y1:.0f} of "
                f"an image of {self.image_size[0]} x {self.image_size[1]} px; got {region!r}. "
                "Crop or pad the image so that the region is in view."
            )
        if lost > 1e-3:
            warnings.warn(
                f"{lost:.0%} of {region!r} lies outside what the model sees and is lost.", RegionWarning, stacklevel=4
            )
        return cover

    def _mean_in_boxes(self, values: np.ndarray) -> np.ndarray:
        """Mean of a (height, width) array over the part of each token's box that is on the image; 0 where none is."""
        width, height = self.image_size
        scale = np.array([values.shape[1] / width, values.shape[0] / height] * 2)
        boxes = _clipped(self.boxes, self.image_size) * scale
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return np.divide(_box_sums(values, boxes), area, out=np.zeros(len(boxes)), where=area > 0).astype(np.float32)

    def _distance_in_view(self, cover: np.ndarray) -> np.ndarray:
        """Distance to the drawn pixels, in 0..1 over the part of the image in view; reduced for large images."""
        height, width = cover.shape
        step = -(-max(height, width) // DISTANCE_PIXELS)
        if step > 1:
            padded = np.pad(cover, ((0, -height % step), (0, -width % step)))
            cover = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).max((1, 3))
        distance = distance_transform_edt(cover == 0)
        x0, y0, x1, y1 = (value / step for value in self.seen)
        view = distance[int(y0) : max(int(np.ceil(y1)), int(y0) + 1), int(x0) : max(int(np.ceil(x1)), int(x0) + 1)]
        return distance / max(view.max(), 1e-12)

    def _nearest(self, pixels: np.ndarray) -> np.ndarray:
        """The published resizing of an 8-bit (height, width) array to one value in 0..1 for each visual token."""
        if self.rule != CENTRE_CROP or self.grid[0] != self.grid[1]:
            raise RegionError(
                "The reference's nearest-neighbour mask exists for square grids on a centre crop only; "
                f"this layout is {self!r}. Use rule='area'."
            )
        width, height = self.image_size
        scale = REFERENCE_CROP / min(width, height)
        size = (max(int(width * scale), REFERENCE_CROP), max(int(height * scale), REFERENCE_CROP))
        left, top = (round((side - REFERENCE_CROP) / 2) for side in size)
        nearest = Image.Resampling.NEAREST
        crop = Image.fromarray(pixels).resize(size, nearest)
        crop = crop.crop((left, top, left + REFERENCE_CROP, top + REFERENCE_CROP))
        return np.asarray(crop.resize(self.grid[::-1], nearest), np.float32).ravel() / 255

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes an equal layout."""
        return {
            "image_size": list(self.image_size),
            "boxes": self.boxes.tolist(),
            "grid": list(self.grid),
            "rule": self.rule,
            "merged": self.merged,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "VisualTokenLayout":
        return cls(
            (int(data["image_size"][0]), int(data["image_size"][1])),
            np.asarray(data["boxes"], float),
            (int(data["grid"][0]), int(data["grid"][1])),
            str(data["rule"]),
            bool(data.get("merged", False)),
        )


def fixed_grid(
    image_size: tuple[int, int], resized: tuple[int, int], crop: tuple[int, int] | None, grid: tuple[int, int]
) -> VisualTokenLayout:
    """Layout of a model that resizes the image, crops its centre, and cuts a fixed grid of patches.

    Args:
        image_size: (width, height) of the user's image.
        resized: (width, height) after the resize.
        crop: (width, height) of the centre crop, or None for no crop; larger than `resized` means padding.
        grid: (rows, columns).
    """
    rule = CENTRE_CROP if crop else "fixed grid"
    crop = crop or resized
    # transformers' center_crop rounds the corner down, also where the image is smaller than the crop and is padded.
    left, top = ((full - part) // 2 for full, part in zip(resized, crop, strict=True))
    scale = np.array([image_size[0] / resized[0], image_size[1] / resized[1]] * 2)
    return VisualTokenLayout(image_size, grid_boxes((left, top, left + crop[0], top + crop[1]), grid) * scale, grid, rule)


def grid_boxes(area: Sequence[float] | np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(rows * columns, 4): an area x0, y0, x1, y1 cut into equal cells, row-major."""
    rows, columns = grid
    xs, ys = np.linspace(area[0], area[2], columns + 1), np.linspace(area[1], area[3], rows + 1)
    x0, y0 = (corner.ravel() for corner in np.meshgrid(xs[:-1], ys[:-1]))
    x1, y1 = (corner.ravel() for corner in np.meshgrid(xs[1:], ys[1:]))
    return np.stack([x0, y0, x1, y1], 1)


def _clipped(boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    return np.clip(boxes, 0, [*image_size] * 2)


def _by(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]}"


def _is_reference(rule: Rule) -> bool:
    if rule not in ("area", "reference"):
        raise RegionError(f"A weighting rule must be 'area' or 'reference'; got {rule!r}.")
    return rule == "reference"


def _box_sums(values: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Integral of a (height, width) array, constant within each pixel, over boxes (n, 4) given in its pixels."""
    integral = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(np.cumsum(values, 0, dtype=float), 1, out=integral[1:, 1:])

    def at(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        column = np.clip(np.floor(x).astype(int), 0, values.shape[1] - 1)
        row = np.clip(np.floor(y).astype(int), 0, values.shape[0] - 1)
        right, down = x - column, y - row
        upper = integral[row, column] * (1 - right) + integral[row, column + 1] * right
        lower = integral[row + 1, column] * (1 - right) + integral[row + 1, column + 1] * right
        return upper * (1 - down) + lower * down

    x0, y0, x1, y1 = boxes.T
    return at(x1, y1) - at(x0, y1) - at(x1, y0) + at(x0, y0)
