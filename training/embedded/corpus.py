"""Training scenes on disk: drawn once in chunks, kept as arrays that a training step can slice."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from cmllm_tools.files import make_folder, write_whole

from .architecture import GRID, IMAGE_SIZE
from .scenes import COLORS, KINDS, PLACES, SIZE, Scene, load_digits, make_scene

MAX_OBJECTS = 4
CHUNK = 2000
# Share of a visual token's area that an object must cover to be its label.
COVER = 0.12


@dataclass(frozen=True)
class Corpus:
    """Scenes as arrays; the object axis is padded with -1.

    pixels (scene, 96, 96, 3) uint8; colors, kinds, places (scene, 4) int8, indices into the lists of `scenes`;
    marked (scene,) int8, index of the marked object or -1; tokens (scene, 64) int8, the object that covers most of each
    visual token or -1.
    """

    pixels: np.ndarray
    colors: np.ndarray
    kinds: np.ndarray
    places: np.ndarray
    marked: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


FIELDS = tuple(Corpus.__dataclass_fields__)


def load_corpus(cache: Path, count: int, seed: int, split: str = "train", workers: int = 2, marks: bool = True) -> Corpus:
    """Read `count` scenes from `cache`, drawing the chunks that are not there yet; the same scenes bare if not `marks`."""
    make_folder(cache)
    chunks = range(-(-count // CHUNK))
    paths = [cache / f"{split}{'' if marks else '-bare'}-{seed}-{chunk:04d}.npz" for chunk in chunks]
    missing = [chunk for chunk in chunks if not paths[chunk].exists()]
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            draw = partial(_draw_chunk, seed=seed, split=split, marks=marks)
            for chunk, arrays in zip(missing, tqdm(pool.map(draw, missing), "scenes", len(missing)), strict=True):
                write_whole(paths[chunk], partial(np.savez, **arrays))
    # Filled chunk by chunk: concatenating would hold every pixel twice.
    whole: dict[str, np.ndarray] = {}
    for number, path in enumerate(paths):
        with np.load(path) as data:
            for field in FIELDS:
                values = data[field]
                array = whole.setdefault(field, np.empty((len(paths) * CHUNK, *values.shape[1:]), values.dtype))
                array[number * CHUNK : (number + 1) * CHUNK] = values
    return Corpus(**{field: array[:count] for field, array in whole.items()})


def _draw_chunk(chunk: int, seed: int, split: str, marks: bool) -> dict[str, Any]:
    digits = load_digits(split)
    marked = None if marks else False
    rows = [encode(make_scene(np.random.default_rng([seed, chunk, i]), digits, marked=marked)) for i in range(CHUNK)]
    return {field: np.stack([row[field] for row in rows]) for field in FIELDS}


def encode(scene: Scene) -> dict[str, np.ndarray]:
    """One scene as the rows of a `Corpus`."""

    def padded(values: list[int]) -> np.ndarray:
        return np.array(values + [-1] * (MAX_OBJECTS - len(values)), np.int8)

    objects = scene.objects
    return {
        "pixels": np.asarray(scene.image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)),
        "colors": padded([list(COLORS).index(o.color) for o in objects]),
        "kinds": padded([KINDS.index(o.kind) for o in objects]),
        "places": padded([PLACES.index(o.place) for o in objects]),
        "marked": np.array(-1 if scene.marked is None else scene.marked, np.int8),
        "tokens": _token_owners(scene),
    }


def _token_owners(scene: Scene) -> np.ndarray:
    cell = SIZE // GRID
    cover = np.stack([o.mask.reshape(GRID, cell, GRID, cell).mean((1, 3)).ravel() for o in scene.objects])
    return np.where(cover.max(0) >= COVER, cover.argmax(0), -1).astype(np.int8)
