"""What scenes are made of: the things, their pictures in several styles, and photographs for backgrounds."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F

# Name of each thing, a single word that is one token of SmolLM2, and the code points of its pictures.
THINGS = Path(__file__).with_name("things.json")
STYLES = (
    "noto",
    "fluent",
    "fluent-flat",
    "fluent-contrast",
    "noto-v1",
    "emojione",
    "firefox",
    "fluent-color",
    "noto-lines",
    "streamline",
    "material",
    "game",
    "huge",
    "park",
    "twemoji",
)
# The last one is held out whole.
TRAINED, HELD_OUT = STYLES[:-1], STYLES[-1]
# Of those trained on, what figures and the held-out scenes are drawn in.
SHOWN = STYLES[:2]


@cache
def things() -> dict[str, tuple[str, ...]]:
    """Names of the things, in order, and the code points of their pictures."""
    return {name: tuple(codes) for name, codes in json.loads(THINGS.read_text(encoding="utf-8")).items()}


def owners() -> torch.Tensor:
    """(picture,): number of the thing that each picture of a style shows."""
    return torch.tensor([at for at, codes in enumerate(things().values()) for _ in codes])


def read_pictures(file: Path) -> dict[str, np.ndarray]:
    """The pictures of each style, (picture, 4, height, width) uint8, in the order of `things()` and their code points.

    All transparent where a style has none.
    """
    return load_file(file)


def photographs(side: int = 256) -> torch.Tensor:
    """Photographs without any of the things, (photograph, 3, side, side) in 0..1, out of focus."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    found = [load_sample_images().images[0], data.grass(), data.gravel(), data.brick(), data.hubble_deep_field()]
    ready = []
    for each in found:
        one = torch.from_numpy(np.ascontiguousarray(each)).float() / 255
        one = one[..., None].expand(-1, -1, 3) if one.dim() == 2 else one
        short = min(one.shape[:2])
        square = one[:short, :short].permute(2, 0, 1)[None]
        ready.append(F.interpolate(square, (side, side), mode="area")[0])
    return torch.stack(ready)
