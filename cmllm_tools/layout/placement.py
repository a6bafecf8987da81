"""What a layout rule is given, and what it gives: from what a processor did with an image, the box that each token sees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnsupportedModelError
from ..inputs.regions import Size
from .visual_tokens import VisualTokenLayout

Grid = tuple[int, int]


@dataclass(frozen=True)
class LayoutInputs:
    """What a layout rule may look at.

    Args:
        model: the transformers model.
        processor: its processor.
        image_size: (width, height) of the user's image.
        inputs: the processor's tensors for one image.
        count: number of placeholders of the image in the text, or of visual states.
        part: which part of the processor made them.
    """

    model: Any
    processor: Any
    image_size: Size
    inputs: Mapping[str, Any]
    count: int
    part: str = "image_processor"

    @property
    def images(self) -> Any:
        """The image processor, or that of videos."""
        return getattr(self.processor, self.part)


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

    def placed(self, image_size: Size) -> np.ndarray:
        """(placeholder,) bool: which of them are visual tokens, as they see some of the image, not padding alone."""
        clipped = np.clip(self.boxes, 0, [*image_size] * 2)
        result: np.ndarray = ((clipped[:, 2:] - clipped[:, :2]) > 1e-6 * max(image_size)).all(1)
        return result

    def layout(self, image_size: Size) -> VisualTokenLayout:
        """The layout of the visual tokens."""
        placed = self.placed(image_size)
        boxes = self.boxes[placed]
        if self.grid is not None and len(boxes) == self.grid[0] * self.grid[1]:
            return VisualTokenLayout(image_size, boxes, self.grid, self.rule)
        return VisualTokenLayout(image_size, boxes, display_grid(boxes, image_size), self.rule, merged=True)


LayoutRule = Callable[[LayoutInputs], Placement]


def display_grid(boxes: np.ndarray, image_size: Size) -> Grid:
    """(rows, columns) in which the smallest token fills about one cell."""
    clipped = np.clip(boxes, 0, [*image_size] * 2)
    spans = clipped[:, 2:] - clipped[:, :2]
    whole = spans[(spans > 0).all(1)]
    width, height = np.percentile(whole, 30, axis=0)
    seen = clipped[:, 2:].max(0) - clipped[:, :2].min(0)
    return max(1, round(seen[1] / height)), max(1, round(seen[0] / width))


def check_count(seen: LayoutInputs, grid: Grid, what: str) -> None:
    """Refuse a grid of another number of tokens than the model has."""
    _check(seen, grid[0] * grid[1], what)


def check_boxes(seen: LayoutInputs, boxes: np.ndarray, what: str) -> None:
    """Refuse boxes of another number than the model has tokens."""
    _check(seen, len(boxes), what)


def _check(seen: LayoutInputs, expected: int, what: str) -> None:
    if expected != seen.count:
        raise UnsupportedModelError(
            f"A {seen.model.config.model_type} model with {what} must have {expected} visual tokens; the prompt "
            f"has {seen.count}. Check that processor and model belong together."
        )


def pictures(seen: LayoutInputs) -> int:
    """Number of tiles and whole images that the processor made."""
    return int(seen.inputs["pixel_values"].shape[:-3].numel())


def vision_config(model: Any) -> Any:
    """The config of the vision encoder."""
    return model.config.vision_config
