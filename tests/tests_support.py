"""Pictures for the tests, and oracles that do not use the code under test."""

import numpy as np
from PIL import Image


def noise(size):
    """An image (width, height) of random colours, always the same. `Image.effect_noise` depends on what ran before."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def probe_boxes(processor, size, grid, probe=None):
    """Boxes (token, 4) of what each patch of the processor's output depends on, found by moving a patch."""
    width, height = size
    step = probe or max(1, round((width * height) ** 0.5 / 20))
    base = _pixels(processor, Image.new("RGB", size))
    cell = base.shape[-1] // grid
    seen = [[] for _ in range(grid * grid)]
    for y in range(0, height, step):
        for x in range(0, width, step):
            image = Image.new("RGB", size)
            image.paste((255, 255, 255), (x, y, min(x + step, width), min(y + step, height)))
            change = np.abs(_pixels(processor, image) - base).sum(0)
            change = change.reshape(grid, cell, grid, cell).sum((1, 3)).ravel()
            if change.max() > 0:
                for token in np.flatnonzero(change > 0.5 * change.max()):
                    seen[token].append((x, y, min(x + step, width), min(y + step, height)))
    return [
        (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
        for boxes in seen
    ]


def _pixels(processor, image):
    return processor.image_processor(image, return_tensors="np")["pixel_values"][0]
