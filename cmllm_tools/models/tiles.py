"""Layout rules of models that cut an image into tiles."""

from fractions import Fraction
from math import isqrt

import numpy as np
from PIL import Image

from ..layout import grid_boxes
from .geometry import Grid, Placement, Seen, Size, check_boxes, check_count


def stretched_tiles(seen: Seen, before: float = 0.0) -> Placement:
    """InternVL: tiles of the image stretched to the canvas that fits its shape best, then the whole image."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    # Of how many tiles is for the processor to say, whatever its settings; of these, the arrangement follows.
    count, tile = max(1, _pictures(seen) - 1), seen.inputs["pixel_values"].shape[-2:]
    columns, rows = get_optimal_tiled_canvas(seen.image_size[::-1], tuple(tile), count, count)
    return _tiles_and_whole(seen, (rows, columns), before)


def convolved_tiles(seen: Seen) -> Placement:
    """GOT-OCR2: stretched tiles, in which two convolutions (kernel 3, stride 2) make a token of 7 x 7 patches.

    These are the 4 x 4 of its cell, and 3 more before them both ways.
    """
    return stretched_tiles(seen, before=3 / 4)


def split_tiles(seen: Seen) -> Placement:
    """Idefics3: tiles of the image stretched to a multiple of the tile's size, then the whole image."""
    if _pictures(seen) == 1:
        return _tiles_and_whole(seen, (1, 1))
    # The processor does not hand on into how many rows and columns it split: a blank picture of that size tells.
    split = seen.images(Image.new("RGB", seen.image_size), return_row_col_info=True)
    return _tiles_and_whole(seen, (split["rows"][0][0], split["cols"][0][0]))


def refined_slices(seen: Seen) -> Placement:
    """MiniCPM-V: the whole image, then slices of an enlarged one, each in patches of its own shape (`target_sizes`)."""
    sizes, images = seen.inputs["target_sizes"].tolist(), seen.images
    merge = isqrt(sum(rows * columns for rows, columns in sizes) // seen.count)
    whole, grids = _corners(seen), [(rows // merge, columns // merge) for rows, columns in sizes]
    if len(sizes) == 1:
        check_count(seen, grids[0], "one picture")
        return Placement(grid_boxes(whole, grids[0]), "the whole image", grids[0])
    slices = images.get_sliced_grid(seen.image_size[::-1], images.max_slice_nums, images.scale_resolution)
    what = f"the whole image, and {slices[0]} x {slices[1]} slices"
    boxes = [grid_boxes(whole, grids[0]), *(grid_boxes(part, grids[1]) for part in grid_boxes(whole, slices))]
    check_boxes(seen, np.concatenate(boxes), what)
    return Placement(np.concatenate(boxes), what)


def _tiles_and_whole(seen: Seen, tiles: Grid, before: float = 0.0) -> Placement:
    """Tiles row by row, then the whole image when there are several, in an equal square of tokens each.

    Tokens see their cells and `before` of a cell more on the left and above, within their tile.
    """
    parts = grid_boxes(_corners(seen), tiles)
    if len(parts) > 1:
        parts = np.concatenate([parts, [_corners(seen)]])
    side = isqrt(seen.count // _pictures(seen))
    cells = [grid_boxes(part, (side, side)) for part in parts]
    for boxes in cells:
        boxes[:, :2] = np.maximum(boxes[:, :2] - before * (boxes[0, 2:] - boxes[0, :2]), boxes[0, :2])
    boxes = np.concatenate(cells)
    what = f"{tiles[0]} x {tiles[1]} tiles of {side} x {side} tokens"
    check_boxes(seen, boxes, what)
    return Placement(boxes, what, (side, side)) if len(parts) == 1 else Placement(boxes, f"{what}, and the whole image")


def _pictures(seen: Seen) -> int:
    """Number of tiles and whole images that the processor made."""
    return int(seen.inputs["pixel_values"].shape[:-3].numel())


def _corners(seen: Seen) -> np.ndarray:
    return np.array([0.0, 0.0, *seen.image_size])


def anyres_tiles(seen: Seen) -> Placement:
    """LLaVA-NeXT: the whole image, then tiles of an enlarged one without its padding, each row ended by a newline token."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

    config = seen.model.config
    height, width = (int(side) for side in seen.inputs["image_sizes"][0])
    side = config.vision_config.image_size
    patches = int(side // config.vision_config.patch_size * Fraction(getattr(config, "downsample_rate", None) or 1))
    tiles = get_anyres_image_grid_shape((height, width), config.image_grid_pinpoints, side)
    rows, columns = tiles[0] * patches, tiles[1] * patches
    area, kept = _unpadded(seen.image_size, (rows, columns))
    kept = _shrunk(kept, patches, getattr(config, "vision_aspect_ratio", ""))
    boxes = _row_ends(grid_boxes(area, kept), kept)
    whole = grid_boxes((0, 0, *seen.image_size), (patches, patches))
    rule = f"the whole image, and {tiles[0]} x {tiles[1]} tiles without padding, with row ends"
    boxes = np.concatenate([whole, boxes])
    check_boxes(seen, boxes, rule)
    return Placement(boxes, rule)


def _unpadded(image_size: Size, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Corners and grid that `unpad_image` leaves of a grid over an image that was fitted into it and padded."""
    (width, height), (rows, columns) = image_size, grid
    scale = min(columns / width, rows / height)
    # In tokens: transformers rounds down what the image fills, and takes equal margins off both sides.
    if width / height > columns / rows:
        margins = (0, (rows - int(round(height * scale, 7))) // 2)
    else:
        margins = ((columns - int(round(width * scale, 7))) // 2, 0)
    left, top = (columns - width * scale) / 2, (rows - height * scale) / 2
    kept = (rows - 2 * margins[1], columns - 2 * margins[0])
    x0, y0 = (margins[0] - left) / scale, (margins[1] - top) / scale
    return np.array([x0, y0, x0 + kept[1] / scale, y0 + kept[0] / scale]), kept


def _shrunk(grid: Grid, patches: int, aspect: str) -> Grid:
    """The grid that LLaVA-OneVision interpolates one to that has more tokens than `anyres_max_N` tiles."""
    if not aspect.startswith("anyres_max_"):
        return grid
    ratio = (grid[0] * grid[1] / (int(aspect.removeprefix("anyres_max_")) * patches**2)) ** 0.5
    return (int(grid[0] // ratio), int(grid[1] // ratio)) if ratio > 1.1 else grid


def _row_ends(boxes: np.ndarray, grid: Grid) -> np.ndarray:
    """A grid's boxes with one placeholder that looks nowhere after each row."""
    rows = boxes.reshape(*grid, 4)
    return np.concatenate([rows, np.full((grid[0], 1, 4), np.nan)], 1).reshape(-1, 4)
