"""Layout rules of models that cut an image into tiles."""

from fractions import Fraction
from math import isqrt

import numpy as np
import torch
from PIL import Image

from ..inputs.regions import Size
from .grid_rules import row_ends
from .placement import Grid, LayoutInputs, Placement, check_boxes, check_count, pictures, vision_config
from .visual_tokens import grid_boxes


def stretched_tiles(seen: LayoutInputs, before: float = 0.0) -> Placement:
    """InternVL: tiles of the image stretched to the canvas that fits its shape best, then the whole image."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    # Of how many tiles is for the processor to say, whatever its settings; of these, the arrangement follows.
    count, tile = max(1, pictures(seen) - 1), seen.inputs["pixel_values"].shape[-2:]
    columns, rows = get_optimal_tiled_canvas(seen.image_size[::-1], tuple(tile), count, count)
    return _tiles_and_whole(seen, (rows, columns), before)


def convolved_tiles(seen: LayoutInputs) -> Placement:
    """GOT-OCR2: stretched tiles, in which two convolutions (kernel 3, stride 2) make a token of 7 x 7 patches.

    These are the 4 x 4 of its cell, and 3 more before them both ways.
    """
    return stretched_tiles(seen, before=3 / 4)


def split_tiles(seen: LayoutInputs) -> Placement:
    """Idefics3: tiles of the image stretched to a multiple of the tile's size, then the whole image."""
    if pictures(seen) == 1:
        return _tiles_and_whole(seen, (1, 1))
    # The processor does not hand on into how many rows and columns it split: a blank picture of that size tells.
    split = seen.images(Image.new("RGB", seen.image_size), return_row_col_info=True)
    return _tiles_and_whole(seen, (split["rows"][0][0], split["cols"][0][0]))


def refined_slices(seen: LayoutInputs) -> Placement:
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


def _tiles_and_whole(seen: LayoutInputs, tiles: Grid, before: float = 0.0) -> Placement:
    """Tiles row by row, then the whole image when there are several, in an equal square of tokens each.

    Tokens see their cells and `before` of a cell more on the left and above, within their tile.
    """
    parts = grid_boxes(_corners(seen), tiles)
    if len(parts) > 1:
        parts = np.concatenate([parts, [_corners(seen)]])
    side = isqrt(seen.count // pictures(seen))
    cells = [grid_boxes(part, (side, side)) for part in parts]
    for boxes in cells:
        boxes[:, :2] = np.maximum(boxes[:, :2] - before * (boxes[0, 2:] - boxes[0, :2]), boxes[0, :2])
    boxes = np.concatenate(cells)
    what = f"{tiles[0]} x {tiles[1]} tiles of {side} x {side} tokens"
    check_boxes(seen, boxes, what)
    return Placement(boxes, what, (side, side)) if len(parts) == 1 else Placement(boxes, f"{what}, and the whole image")


def _corners(seen: LayoutInputs) -> np.ndarray:
    return np.array([0.0, 0.0, *seen.image_size])


def anyres_tiles(seen: LayoutInputs) -> Placement:
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
    boxes = row_ends(grid_boxes(area, kept), kept)
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


def tiles_then_whole(seen: LayoutInputs) -> Placement:
    """Command A Vision: tiles of the image stretched onto them, then the whole image where there are several."""
    from transformers.models.cohere2_vision.image_processing_cohere2_vision import get_optimal_tiled_canvas

    images, (width, height) = seen.images, seen.image_size
    tiles = (1, 1)
    if images.crop_to_patches:
        side = (images.size["height"], images.size["width"])
        columns, rows = get_optimal_tiled_canvas((height, width), side, images.min_patches, images.max_patches)
        tiles = (rows, columns)
    whole = tiles != (1, 1)
    grid = _tile_grid(seen, tiles[0] * tiles[1] + whole)
    boxes = [_tiled((0, 0, width, height), tiles, grid)]
    if whole:
        boxes.append(grid_boxes((0, 0, width, height), grid))
    return Placement(np.concatenate(boxes), f"{tiles[0]} x {tiles[1]} tiles and the whole image")


def whole_then_tiles(seen: LayoutInputs) -> Placement:
    """PerceptionLM: the whole image, then tiles of it stretched onto them."""
    images, box = seen.images, (0, 0, *seen.image_size)
    if images.vision_input_type != "thumb+tile":
        return Placement(grid_boxes(box, _tile_grid(seen, 1)), "the whole image", _tile_grid(seen, 1))
    empty = torch.empty(1, 3, *seen.image_size[::-1])
    _, (columns, rows) = images.resize(empty, images.tile_size, images.max_num_tiles, resample=images.resample)
    grid = _tile_grid(seen, 1 + rows * columns)
    boxes = np.concatenate([grid_boxes(box, grid), _tiled(box, (rows, columns), grid)])
    return Placement(boxes, f"the whole image and {rows} x {columns} tiles")


def tiles_then_shaped(seen: LayoutInputs) -> Placement:
    """LFM2-VL: tiles of a large image stretched onto them, then the whole image in a grid of its own shape."""
    images, box = seen.images, (0, 0, *seen.image_size)
    shapes = [tuple(side // images.downsample_factor for side in shape) for shape in seen.inputs["spatial_shapes"].tolist()]
    empty = torch.empty(1, 3, *seen.image_size[::-1], dtype=torch.uint8)
    cut = images(empty, return_row_col_info=True)
    rows, columns = cut["image_rows"][0], cut["image_cols"][0]
    tiles = rows * columns
    # Without tiles the whole image stands alone; a processor may leave it out after several.
    boxes = [_tiled(box, (rows, columns), shapes[0])] if tiles > 1 else []
    boxes += [grid_boxes(box, shape) for shape in (shapes[tiles:] if tiles > 1 else shapes)]
    found = np.concatenate(boxes)
    check_count(seen, (1, len(found)), f"{rows} x {columns} tiles in {len(shapes)} views")
    return Placement(found, f"{rows} x {columns} tiles and the whole image in its own shape")


def padded_tiles_then_whole(seen: LayoutInputs) -> Placement:
    """Llama 4: tiles of the image in the upper left of a canvas, then the whole image where there are several."""
    from transformers.models.llama4.image_processing_llama4 import get_max_res_without_distortion

    images, (width, height) = seen.images, seen.image_size
    rows, columns = images(torch.empty(3, height, width, dtype=torch.uint8))["aspect_ratios"][0].tolist()
    side = images.size["height"]
    canvas = (rows * side, columns * side)
    # Enlarged up to one tile's side, unless the processor is told to fill the canvas.
    room = canvas if images.resize_to_max_canvas else (min(max(height, side), canvas[0]), min(max(width, side), canvas[1]))
    filled = get_max_res_without_distortion((height, width), room)
    whole = rows * columns > 1
    grid = _tile_grid(seen, rows * columns + whole)
    boxes = [_tiled((0, 0, width * canvas[1] / filled[1], height * canvas[0] / filled[0]), (rows, columns), grid)]
    if whole:
        boxes.append(grid_boxes((0, 0, width, height), grid))
    return Placement(np.concatenate(boxes), f"{rows} x {columns} tiles, padded, and the whole image")


def pooled_views(seen: LayoutInputs) -> Placement:
    """Molmo 2: the whole image, then the whole of a larger one (put together from overlapping crops), patches pooled."""
    from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry

    images, (width, height) = seen.images, seen.image_size
    patch, side = images.patch_size, images.size["height"]
    *_, tall, wide = compute_crop_geometry(height, width, images.max_crops, images.overlap_margins, side, patch)
    views = [(side // patch, side // patch), (tall // patch, wide // patch)]
    boxes = np.concatenate([_pooled(seen.image_size, view, images.pooling_size) for view in views])
    check_count(seen, (1, len(boxes)), f"two views of {views} patches pooled by {images.pooling_size}")
    return Placement(boxes, "the whole image twice, patches pooled")


def _tile_grid(seen: LayoutInputs, tiles: int) -> Grid:
    """The square grid of each of `tiles` tiles."""
    side = isqrt(seen.count // tiles)
    check_count(seen, (tiles * side, side), f"{tiles} tiles of square grids")
    return side, side


def _tiled(box: tuple[float, float, float, float], tiles: Grid, grid: Grid) -> np.ndarray:
    """Boxes of a grid over each of the tiles that cover `box`, tile by tile."""
    boxes = grid_boxes(box, (tiles[0] * grid[0], tiles[1] * grid[1]))
    return boxes.reshape(tiles[0], grid[0], tiles[1], grid[1], 4).swapaxes(1, 2).reshape(-1, 4)


def _pooled(image_size: Size, patches: Grid, pool: Grid) -> np.ndarray:
    """Boxes of windows of `pool` patches, centred on a grid over the image: those at its ends may hold fewer."""
    edges = []
    for length, count, window in zip(image_size[::-1], patches, pool, strict=True):
        windows = -(-count // window)
        start = -((windows * window - count) // 2)
        edges.append(np.clip(start + window * np.arange(windows + 1), 0, count) * length / count)
    (top, left), (bottom, right) = [[e[:-1] for e in edges], [e[1:] for e in edges]]
    corners = [np.broadcast_arrays(x[None], y[:, None]) for x, y in ((left, top), (right, bottom))]
    return np.stack([axis for corner in corners for axis in corner], -1).reshape(-1, 4)


def indicated_tiles(seen: LayoutInputs) -> Placement:
    """The whole image and, where it is cut, tiles of it after; indicator tokens between them tell rows and columns."""
    config = seen.model.config
    vision = config.vision_config
    tokens = vision.image_size // vision.patch_size // vision.hidden_stride
    ids = seen.inputs["input_ids"][0].tolist()
    rows = ids.count(config.visual_indicator_token_ids[3]) + 1
    columns = ids.count(config.visual_indicator_token_ids[2]) // rows + 1
    tiles = [(0, 0, *seen.image_size)]
    if (rows, columns) != (1, 1):
        tiles.extend(grid_boxes((0, 0, *seen.image_size), (rows, columns)).tolist())
    check_count(seen, (len(tiles) * tokens, tokens), f"{len(tiles)} tiles of {tokens} x {tokens} tokens")
    boxes = [grid_boxes(tile, (tokens, tokens)) for tile in tiles]
    return Placement(np.concatenate(boxes), "thumbnail and tiles")


def canvas_tiles(seen: LayoutInputs) -> Placement:
    """Mllama: the image in the upper left of a canvas, cut into tiles that each begin with a CLS token."""
    from transformers.models.mllama.image_processing_pil_mllama import get_image_size_fit_to_canvas

    vision = vision_config(seen.model)
    rows, columns = vision.supported_aspect_ratios[int(seen.inputs["aspect_ratio_ids"].flatten()[0]) - 1]
    side, patches = vision.image_size, vision.image_size // vision.patch_size
    check_count(
        seen, (vision.max_num_tiles, patches**2 + 1), f"{vision.max_num_tiles} tiles of {patches} x {patches} and CLS"
    )
    width, height = seen.image_size
    shown = get_image_size_fit_to_canvas(height, width, rows * side, columns * side, side)
    canvas = (0, 0, columns * side * width / shown[1], rows * side * height / shown[0])
    cells = grid_boxes(canvas, (rows * patches, columns * patches)).reshape(rows, patches, columns, patches, 4)
    boxes = np.full((vision.max_num_tiles, 1 + patches**2, 4), np.nan)
    boxes[: rows * columns, 1:] = cells.transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1, 4)
    return Placement(boxes.reshape(-1, 4), f"{rows} x {columns} tiles on a padded canvas, CLS")
