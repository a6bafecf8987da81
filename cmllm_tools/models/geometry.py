"""Layout rules: from what a processor did with an image to the box that each visual token sees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from ..errors import UnsupportedModelError
from ..layout import VisualTokenLayout, fixed_grid, grid_boxes

# What each rule draws its boxes from: a placeholder without a box (a row break, a CLS token) is no visual token.
Grid = tuple[int, int]
Size = tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """What a layout rule may look at.

    Args:
        model: the transformers model.
        processor: its processor.
        image_size: (width, height) of the user's image.
        inputs: the processor's tensors for one image.
        count: number of placeholders of the image in the text, or of visual states.
    """

    model: Any
    processor: Any
    image_size: Size
    inputs: Mapping[str, Any]
    count: int

    @property
    def images(self) -> Any:
        """The image processor."""
        return self.processor.image_processor


@dataclass(frozen=True, eq=False)
class Placement:
    """What a layout rule found.

    Args:
        boxes: (placeholder, 4) corners in pixels of the user's image; NaN for one that looks at no place.
        rule: name of the rule.
        grid: (rows, columns) when the boxes are those of one grid, row-major; None otherwise.
    """

    boxes: np.ndarray
    rule: str
    grid: Grid | None = None

    @property
    def placed(self) -> np.ndarray:
        """(placeholder,) bool: which of them are visual tokens."""
        return ~np.isnan(self.boxes).any(1)

    def layout(self, image_size: Size) -> VisualTokenLayout:
        """The layout of the visual tokens."""
        boxes = self.boxes[self.placed]
        if self.grid is not None:
            return VisualTokenLayout(image_size, boxes, self.grid, self.rule)
        return VisualTokenLayout(image_size, boxes, _display_grid(boxes, image_size), self.rule, merged=True)


LayoutRule = Callable[[Seen], Placement]


def _display_grid(boxes: np.ndarray, image_size: Size) -> Grid:
    """(rows, columns) in which the smallest token fills about one cell."""
    clipped = np.clip(boxes, 0, [*image_size] * 2)
    spans = clipped[:, 2:] - clipped[:, :2]
    whole = spans[(spans > 0).all(1)]
    width, height = np.percentile(whole, 30, axis=0)
    seen = clipped[:, 2:].max(0) - clipped[:, :2].min(0)
    return max(1, round(seen[1] / height)), max(1, round(seen[0] / width))


def clip_grid(seen: Seen) -> Placement:
    """CLIP-like processors (resize, optional centre crop) before a vision tower with square patches."""
    images = seen.images
    resized = resized_size(images.size, seen.image_size) if images.do_resize else seen.image_size
    crop = None
    if getattr(images, "do_center_crop", False):
        crop = (images.crop_size["width"], images.crop_size["height"])
    view = crop or resized
    patch = vision_config(seen.model).patch_size
    grid = (view[1] // patch, view[0] // patch)
    check_count(seen, grid, f"patches of {patch} px on {view[0]} x {view[1]} px")
    layout = fixed_grid(seen.image_size, resized, crop, grid)
    return Placement(layout.boxes, layout.rule, grid)


def square_grid(seen: Seen) -> Placement:
    """The whole image stretched onto a square grid of tokens, pooled or not."""
    side = isqrt(seen.count)
    check_count(seen, (side, side), "a square grid")
    return whole_image(seen, (side, side), "fixed grid")


def merged_grid(seen: Seen) -> Placement:
    """The whole image in patches of its own resolution (`image_grid_thw`), of which merge_size squared become one token."""
    (_, rows, columns), merge = seen.inputs["image_grid_thw"][0].tolist(), merge_size(seen)
    grid = (rows // merge, columns // merge)
    check_count(seen, grid, f"{rows} x {columns} patches merged by {merge}")
    return whole_image(seen, grid, f"dynamic grid, {merge} x {merge} patches a token")


def padded_grid(seen: Seen) -> Placement:
    """Merged patches of an image that was scaled down where it is too large, then padded on the right and below."""
    from transformers.models.kimi_k25.image_processing_kimi_k25 import navit_resize

    images, merge = seen.images, merge_size(seen)
    (width, height), side = seen.image_size, images.size["max_height"]
    scaled, padded = navit_resize(height, width, images.patch_size, merge, images.max_patches, side)
    _, rows, columns = seen.inputs["image_grid_thw"][0].tolist()
    grid = (rows // merge, columns // merge)
    check_count(seen, grid, f"{rows} x {columns} patches merged by {merge}")
    canvas = (0, 0, width * padded[1] / scaled[1], height * padded[0] / scaled[0])
    return Placement(grid_boxes(canvas, grid), f"dynamic grid, {merge} x {merge} patches a token, padded", grid)


def with_cls(rule: LayoutRule) -> LayoutRule:
    """`rule` for states that begin with a CLS token."""

    def place(seen: Seen) -> Placement:
        inner = rule(Seen(seen.model, seen.processor, seen.image_size, seen.inputs, seen.count - 1))
        return Placement(np.concatenate([np.full((1, 4), np.nan), inner.boxes]), f"{inner.rule}, CLS", inner.grid)

    return place


def whole_image(seen: Seen, grid: Grid, rule: str) -> Placement:
    return Placement(grid_boxes((0, 0, *seen.image_size), grid), rule, grid)


def check_count(seen: Seen, grid: Grid, what: str) -> None:
    if grid[0] * grid[1] != seen.count:
        raise UnsupportedModelError(
            f"A {seen.model.config.model_type} model with {what} must have {grid[0] * grid[1]} visual tokens; the prompt "
            f"has {seen.count}. Check that processor and model belong together."
        )


def vision_config(model: Any) -> Any:
    return model.config.vision_config


def merge_size(seen: Seen) -> int:
    return int(seen.images.merge_size)


def resized_size(size: Mapping[str, int], image_size: Size) -> Size:
    """(width, height) after a processor's resize to `size`."""
    width, height = image_size
    if "shortest_edge" in size:
        short, long = sorted(image_size)
        target = size["shortest_edge"]
        other = int(target * long / short)
        return (target, other) if width <= height else (other, target)
    return size["width"], size["height"]
