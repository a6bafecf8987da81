"""Layout rules of models that see an image in one grid."""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np

from ..errors import ImageError, UnsupportedModelError
from ..inputs.regions import Size
from .placement import Grid, LayoutInputs, LayoutRule, Placement, check_count, pictures, vision_config
from .visual_tokens import fixed_grid, grid_boxes


def clip_grid(seen: LayoutInputs) -> Placement:
    """CLIP-like processors (padding to a square, resize, centre crop; each optional) and an encoder with square patches.

    An image that kept its own shape (`image_sizes`, as for Pixtral's encoder) is laid out by `sized_grid`.
    """
    if "image_sizes" in seen.inputs:
        return sized_grid(seen)
    images = seen.images
    source, margins, padded = seen.image_size, (0, 0), ""
    if hasattr(images, "pad_to_square") and images.do_pad:
        side = max(seen.image_size)
        source, margins = (side, side), ((side - seen.image_size[0]) // 2, (side - seen.image_size[1]) // 2)
        padded = "padded to a square, "
    resized, crop = _view(images, source)
    width, height = crop or resized
    patch = _patch_size(seen)
    grid = (height // patch, width // patch)
    check_count(seen, grid, f"patches of {patch} px on {width} x {height} px")
    layout = fixed_grid(source, resized, crop, grid)
    return Placement(layout.boxes - np.tile(margins, 2), padded + layout.rule, grid)


def padded_square(seen: LayoutInputs) -> Placement:
    """The whole image resized until its longer side fits a square, then centred on that square."""
    height, width = seen.inputs["pixel_values"].shape[-2:]
    patch = _patch_size(seen)
    grid = (height // patch, width // patch)
    check_count(seen, grid, f"patches of {patch} px on {width} x {height} px")
    scale = max(height, width) / max(seen.image_size)
    resized = [max(round(side * scale), seen.images.min_size) for side in seen.image_size]
    margins = [(full - part) // 2 for full, part in zip((width, height), resized, strict=True)]
    pixels = np.array([side / part for side, part in zip(seen.image_size, resized, strict=True)])
    cells = grid_boxes((0, 0, grid[1] * patch, grid[0] * patch), grid) - np.tile(margins, 2)
    return Placement(cells * np.tile(pixels, 2), "fixed grid, padded to a square", grid)


def padded_corner(seen: LayoutInputs) -> Placement:
    """The image shrunk where it is larger than the processor's size, in patches that are padded at the right and bottom."""
    size, patch = seen.images.size, seen.images.patch_size
    scale = min(1.0, size["width"] / seen.image_size[0], size["height"] / seen.image_size[1])
    resized = [int(side * scale) for side in seen.image_size]
    cell = (patch["width"], patch["height"])
    columns, rows = (-(-side // step) for side, step in zip(resized, cell, strict=True))
    check_count(seen, (rows, columns), f"patches of {cell[0]} x {cell[1]} px on {resized[0]} x {resized[1]} px")
    pixels = [side / part for side, part in zip(seen.image_size, resized, strict=True)]
    area = (columns * cell[0] * pixels[0], rows * cell[1] * pixels[1])
    return Placement(grid_boxes((0, 0, *area), (rows, columns)), "patches, padded at right and bottom", (rows, columns))


def crop_grid(seen: LayoutInputs) -> Placement:
    """CLIP-like processors before an encoder that makes a square grid of a square."""
    side = isqrt(seen.count)
    check_count(seen, (side, side), "a square grid")
    layout = fixed_grid(seen.image_size, *_view(seen.images, seen.image_size), (side, side))
    return Placement(layout.boxes, layout.rule, (side, side))


def _view(images: Any, image_size: Size) -> tuple[Size, Size | None]:
    """(width, height) after a CLIP-like processor's resize, and of its centre crop, if it crops."""
    resized = resized_size(images.size, image_size) if images.do_resize else image_size
    crop = images.crop_size if getattr(images, "do_center_crop", False) else None
    return resized, crop and (crop["width"], crop["height"])


def square_grid(seen: LayoutInputs) -> Placement:
    """The whole image stretched onto a square grid of tokens, pooled or not."""
    side = isqrt(seen.count)
    check_count(seen, (side, side), "a square grid")
    _check_whole(seen, "Turn its cropping (pan and scan) off.")
    return whole_image(seen, (side, side), "fixed grid")


def merged_grid(seen: LayoutInputs) -> Placement:
    """The whole image in patches of its own resolution (`image_grid_thw`), of which merge_size squared become one token."""
    (_, rows, columns), merge = seen.inputs["image_grid_thw"][0].tolist(), merge_size(seen)
    grid = (rows // merge, columns // merge)
    check_count(seen, grid, f"{rows} x {columns} patches merged by {merge}")
    return whole_image(seen, grid, f"dynamic grid, {merge} x {merge} patches a token")


def sized_grid(seen: LayoutInputs) -> Placement:
    """The whole image resized to a shape of its own (`image_sizes`), spatial_merge_size squared patches a token."""
    height, width = (int(side) for side in seen.inputs["image_sizes"][0])
    merge = getattr(seen.model.config, "spatial_merge_size", 1)
    step = vision_config(seen.model).patch_size * merge
    grid = (height // step, width // step)
    check_count(seen, grid, f"tokens of {step} px on {width} x {height} px")
    area = (grid[1] * step * seen.image_size[0] / width, grid[0] * step * seen.image_size[1] / height)
    return Placement(grid_boxes((0, 0, *area), grid), f"dynamic grid, {merge} x {merge} patches a token", grid)


def pooled_positions(seen: LayoutInputs) -> Placement:
    """The whole image in patches with positions (`image_position_ids`, x and y), pooled by pooling_kernel_size a side."""
    columns, rows = (seen.inputs["image_position_ids"][0].amax(0) + 1).tolist()
    kernel, most = vision_config(seen.model).pooling_kernel_size, vision_config(seen.model).position_embedding_size
    if max(rows, columns) > most:
        width, height = seen.image_size
        raise ImageError(
            f"An image for {seen.model.config.model_type} must give at most {most} patches a side; one of "
            f"{width} x {height} px gives {rows} x {columns}. Crop or pad it."
        )
    grid = (rows // kernel, columns // kernel)
    check_count(seen, grid, f"{rows} x {columns} patches pooled by {kernel}")
    return whole_image(seen, grid, f"dynamic grid, {kernel} x {kernel} patches a token")


def pixel_grid(seen: LayoutInputs) -> Placement:
    """The whole image in patches of its own resolution, as `pixel_values` has it; what fills no patch is left out."""
    height, width = seen.inputs["pixel_values"].shape[-2:]
    patch = vision_config(seen.model).patch_size
    grid = (height // patch, width // patch)
    _check_whole(seen, "Set processor.image_processor.do_image_splitting to False.")
    check_count(seen, grid, f"patches of {patch} px on {width} x {height} px")
    right = seen.image_size[0] * grid[1] * patch / width
    bottom = seen.image_size[1] * grid[0] * patch / height
    return Placement(grid_boxes((0, 0, right, bottom), grid), "dynamic grid", grid)


def merged_rows(seen: LayoutInputs) -> Placement:
    """A merged grid with one placeholder before it, one after each row and one at the end, which look nowhere."""
    (_, rows, columns), merge = seen.inputs["image_grid_thw"][0].tolist(), merge_size(seen)
    grid = (rows // merge, columns // merge)
    marks = grid[0] + 2
    inner = merged_grid(replace(seen, count=seen.count - marks))
    nowhere = np.full((1, 4), np.nan)
    return Placement(np.concatenate([nowhere, row_ends(inner.boxes, grid), nowhere]), f"{inner.rule}, row ends", grid)


def row_ends(boxes: np.ndarray, grid: Grid) -> np.ndarray:
    """A grid's boxes with one placeholder that looks nowhere after each row."""
    rows = boxes.reshape(*grid, 4)
    return np.concatenate([rows, np.full((grid[0], 1, 4), np.nan)], 1).reshape(-1, 4)


def padded_grid(seen: LayoutInputs) -> Placement:
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
    """`rule` for states that begin with a token for the whole image (CLS, or the mean)."""

    def place(seen: LayoutInputs) -> Placement:
        inner = rule(replace(seen, count=seen.count - 1))
        return Placement(np.concatenate([np.full((1, 4), np.nan), inner.boxes]), f"{inner.rule}, CLS", inner.grid)

    place.__name__ = f"{rule.__name__}_after_cls"
    return place


def pooled(rule: LayoutRule, kernel: int = 2) -> LayoutRule:
    """A grid of which kernel x kernel cells become one token; what fills no such square is left out."""

    def place(seen: LayoutInputs) -> Placement:
        side = isqrt(seen.count)
        check_count(seen, (side, side), "a square grid")
        # With what the pooling leaves out, the grid may be up to kernel - 1 cells wider.
        fine = _patches(seen)
        inner = rule(replace(seen, count=fine**2))
        cells = inner.boxes.reshape(fine, fine, 4)[: side * kernel, : side * kernel]
        boxes = np.concatenate([cells[::kernel, ::kernel, :2], cells[kernel - 1 :: kernel, kernel - 1 :: kernel, 2:]], -1)
        return Placement(boxes.reshape(-1, 4), f"{inner.rule}, {kernel} x {kernel} pooled", (side, side))

    place.__name__ = f"pooled_{rule.__name__}"
    return place


def _patches(seen: LayoutInputs) -> int:
    """Patches to a side of what the encoder is given."""
    return int(seen.inputs["pixel_values"].shape[-1]) // _patch_size(seen)


def whole_image(seen: LayoutInputs, grid: Grid, rule: str) -> Placement:
    """A grid that covers the image."""
    return Placement(grid_boxes((0, 0, *seen.image_size), grid), rule, grid)


def _check_whole(seen: LayoutInputs, remedy: str) -> None:
    if pictures(seen) != 1:
        raise UnsupportedModelError(
            f"A {seen.model.config.model_type} model must be given the image whole; its processor made {pictures(seen)} "
            f"images of it. {remedy}"
        )


def _patch_size(seen: LayoutInputs) -> int:
    """Side of a token in pixels; a convolutional encoder has no patches, and leaves it to the processor."""
    config = vision_config(seen.model)
    # Encoders in stages, as Swin's, merge two by two patches between them.
    merged: int = 2 ** (len(getattr(config, "depths", None) or "-") - 1)
    return int((getattr(config, "patch_size", None) or 0) * merged or seen.processor.patch_size)


def merge_size(seen: LayoutInputs) -> int:
    """Patches that become one token, to a side."""
    return int(seen.images.merge_size)


def resized_size(size: Mapping[str, int], image_size: Size) -> Size:
    """(width, height) after a processor's resize to `size`."""
    width, height = image_size
    if "shortest_edge" in size:
        short, long = sorted(image_size)
        target = size["shortest_edge"]
        other = int(target * long / short)
        return (target, other) if width <= height else (other, target)
    if not size.get("width"):
        raise UnsupportedModelError(f"A processor must resize to a width and height, or a shortest edge; got {dict(size)}.")
    return size["width"], size["height"]
