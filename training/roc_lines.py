"""Lines of a set in the public ROC format, from an object's mask."""

from typing import Any

import numpy as np

from cmllm_tools.inputs.overlays import bezier


def referred(mask: np.ndarray, mask_name: str, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """What a line says of the object that is referred to.

    Args:
        mask: (row, column) boolean.
        mask_name: of its file.
        names: the name, and synonyms.
        rng: draws the scribble.
    """
    ys, xs = np.nonzero(mask)
    nearest = np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2)
    picks = rng.integers(0, len(xs), 4)
    curve = bezier(np.stack([xs[picks], ys[picks]], 1).astype(float)).round().astype(int)
    height, width = mask.shape
    curve = curve.clip(0, [width - 1, height - 1])
    return {
        "name": names[0],
        "synonyms": names,
        "bbox": xywh(mask),
        "seg_mask": mask_name,
        "center_point": [int(xs[nearest]), int(ys[nearest])],
        "scribble": [[int(x), int(y)] for x, y in curve if mask[y, x]],
    }


def xywh(mask: np.ndarray) -> list[int]:
    """The box around a mask: left, top, width, height."""
    ys, xs = np.nonzero(mask)
    return [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
