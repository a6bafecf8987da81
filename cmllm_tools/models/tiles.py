"""Layout rules of models that cut an image into tiles."""

import numpy as np

from ..layout import grid_boxes
from .geometry import Grid, Placement, Seen, Size


def anyres_tiles(seen: Seen) -> Placement:
    """LLaVA-NeXT: the whole image, then tiles of an enlarged one without its padding, each row ended by a newline token."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

    config = seen.model.config
    height, width = (int(side) for side in seen.inputs["image_sizes"][0])
    side = config.vision_config.image_size
    patches = side // config.vision_config.patch_size
    tiles = get_anyres_image_grid_shape((height, width), config.image_grid_pinpoints, side)
    rows, columns = tiles[0] * patches, tiles[1] * patches
    boxes, kept = _unpadded(seen.image_size, (rows, columns))
    thumbnail = grid_boxes((0, 0, *seen.image_size), (patches, patches))
    return Placement(np.concatenate([thumbnail, _row_ends(boxes, kept)]), "tiles and thumbnail, unpadded, row ends")


def _unpadded(image_size: Size, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Boxes left of a grid over an image that was fitted into it and padded, after `unpad_image` took padding off."""
    (width, height), (rows, columns) = image_size, grid
    scale = min(columns / width, rows / height)
    # In tokens: transformers rounds down what the image fills, and takes equal margins off both sides.
    if width / height > columns / rows:
        margins = (0, (rows - int(round(height * scale, 7))) // 2)
    else:
        margins = ((columns - int(round(width * scale, 7))) // 2, 0)
    left, top = (columns - width * scale) / 2, (rows - height * scale) / 2
    kept = (rows - 2 * margins[1], columns - 2 * margins[0])
    inner = (margins[0] - left, margins[1] - top, columns - margins[0] - left, rows - margins[1] - top)
    return grid_boxes(inner, kept) / scale, kept


def _row_ends(boxes: np.ndarray, grid: Grid) -> np.ndarray:
    """A grid's boxes with one placeholder that looks nowhere after each row."""
    rows = boxes.reshape(*grid, 4)
    return np.concatenate([rows, np.full((grid[0], 1, 4), np.nan)], 1).reshape(-1, 4)
