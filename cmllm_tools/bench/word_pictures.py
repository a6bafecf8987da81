"""Pictures made of words: a grid of cells, each of which is a word to `smol`'s language model, without any trained eyes.

A visual token is then that word's row of the language model's own input embeddings. So what a real language model does with
attention can be seen where no vision encoder can be at fault.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from transformers import SwinConfig
from transformers.modeling_outputs import BaseModelOutput

from ..data.example import Example
from ..data.formats.roc import ReferringExample
from ..errors import ImageError, UnsupportedModelError
from ..inputs.regions import Mask, Region
from ..loading import load
from ..models.mllm import Mllm, require
from ..models.smol import CELLS, EYES, NAME, build_processor
from ..strict import one_of, several, whole_number, whole_seed
from .sentences import with_article
from .smol_sets import smol_names

# What a cell is where nothing is.
EMPTY = "."
# Pixels of a cell: its word can be read.
CELL = 48
# Cells of a thing, on each side.
SIDE = 2


def word_picture(cells: Sequence[Sequence[str]]) -> Image.Image:
    """A picture of 8 x 8 words, for the model of `word_reader`.

    Args:
        cells: row by row: names of `smol`'s things, or "." where nothing is.

    Raises:
        ImageError: for another number of rows or columns, or a word that is no name.

    Examples:
        >>> cells = [["."] * 8 for _ in range(8)]
        >>> cells[2][5] = cells[2][6] = "giraffe"
        >>> cm.bench.word_picture(cells).size
        (384, 384)
    """
    rows = [
        several(row, "Each row of cells must be several words", ImageError)
        for row in several(cells, "cells must be several rows", ImageError)
    ]
    if [len(row) for row in rows] != [CELLS] * CELLS:
        raise ImageError(f"A picture of words must have {CELLS} rows of {CELLS}; got rows of {[len(row) for row in rows]}.")
    known = _words()
    image = Image.new("RGB", (CELL * CELLS,) * 2, "white")
    draw = ImageDraw.Draw(image)
    for y, row in enumerate(rows):
        for x, word in enumerate(row):
            number = known.index(one_of(word, "Each word", known, ImageError))
            draw.text((CELL * (x + 0.5), CELL * (y + 0.5)), word, fill="black" if number else "lightgrey", anchor="mm")
            # A pixel says which word it is, nearly as white as what is around it.
            image.putpixel((CELL * x, CELL * y), (255 - number // 256, 255 - number % 256, 255))
    return image


def word_reader(mllm: Mllm | None = None) -> Mllm:
    """`smol` with a reader of word pictures in the place of its eyes; the model that was given is left as it is.

    Args:
        mllm: `load("smol")` when None.

    Raises:
        UnsupportedModelError: for another model than `smol`.

    Examples:
        >>> reader = cm.bench.word_reader()  # doctest: +SKIP
        >>> scene = cm.bench.word_scenes(2)[1]
        >>> print(reader.generate(reader.prepare(scene.image, scene.question)))  # doctest: +SKIP
        The thing in the picture is a camera.
    """
    mllm = load(NAME) if mllm is None else mllm
    require(mllm)
    config = mllm.model.config
    if getattr(getattr(config, "vision_config", None), "model_type", "") != SwinConfig.model_type or _reads(mllm.model):
        raise UnsupportedModelError(
            f"Words are read by {NAME} alone, which knows its things by a token each; got {mllm.name}."
        )
    tokenizer = mllm.processor.tokenizer
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in _words()]
    if any(len(each) != 1 for each in ids):
        raise UnsupportedModelError(
            f"Each of {NAME}'s things must be one token of a model that reads words; got {mllm.name}."
        )
    # Modules, flags, hooks and config of its own, on the same numbers.
    weights = {id(each): nn.Parameter(each.detach(), each.requires_grad) for each in mllm.model.parameters()}
    model = deepcopy(mllm.model, weights | {id(each): each for each in mllm.model.buffers()})
    # Of its patches three mergers make a cell.
    model.config.vision_config = SwinConfig(**EYES | {"image_size": CELL * CELLS, "patch_size": CELL // 4})
    model.model.vision_tower = _Reader(mllm.model.get_input_embeddings().weight[[each for (each,) in ids]].detach())
    model.model.multi_modal_projector = nn.Identity()
    processor = build_processor(tokenizer)
    processor.image_processor.size = {"height": CELL * CELLS, "width": CELL * CELLS}
    processor.patch_size = CELL
    return Mllm(model, processor, f"{mllm.name} reading words", mllm.revision)


class _Reader(nn.Module):
    """A vision encoder that looks each cell's word up."""

    words: torch.Tensor

    def __init__(self, words: torch.Tensor):
        super().__init__()
        self.register_buffer("words", words)

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutput:
        # The processor takes 0..255 to -1..1.
        pixels = ((pixel_values.float() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        states = self.words[torch.from_numpy(np.stack([_numbers(each) for each in pixels]))].flatten(1, 2)
        return BaseModelOutput(last_hidden_state=states, hidden_states=(states,))


def _numbers(pixels: np.ndarray) -> np.ndarray:
    """Which word each cell of a picture is.

    Raises:
        ImageError: for what `word_picture` did not draw, whole and as it is.
    """
    known = _words()
    marks = 255 - pixels[::CELL, ::CELL].astype(int)
    numbers: np.ndarray = marks[..., 0] * 256 + marks[..., 1]
    if numbers.shape == (CELLS, CELLS) and numbers.max() < len(known):
        # What is drawn beside the marks would be seen by people alone.
        drawn = word_picture([[known[each] for each in row] for row in numbers])
        if np.array_equal(np.asarray(drawn), pixels):
            return numbers
    raise ImageError(
        "A reader of words must be shown what bench.word_picture gave, with nothing drawn on it or cut off; "
        "ways that change the picture do not go with it."
    )


def _reads(model: Any) -> bool:
    return isinstance(getattr(model.model, "vision_tower", None), _Reader)


@dataclass(frozen=True, repr=False)
class _WordScene(ReferringExample):
    """A question about one of two things in a picture of words.

    Args:
        root: unused, as there are no files.
        data: as a line of ROC has it.
        picture: of the scene.
    """

    picture: Image.Image = field(kw_only=True)

    @property
    def image(self) -> Image.Image:
        """The picture."""
        return self.picture

    def region(self, kind: str) -> Region:
        """The thing's cells as a "box" or "mask", or a "scribble" or "point" within."""
        return Mask(super().region("box").cover(*self.picture.size) > 0) if kind == "mask" else super().region(kind)

    def example(self, kind: str = "box") -> Example:
        """As it is measured."""
        right, other = self.names[0], next(each for each in self.objects if each not in self.names)
        return Example(self.picture, self.question, self.region(kind), right, (other,), names=self.names, id=self.id)


def word_scenes(count: int, seed: int = 0) -> list[ReferringExample]:
    """Pictures of two things, 2 x 2 cells each, with the question which of them it is; the same for a seed.

    Args:
        count: of scenes.
        seed: of what is where, and of what is asked.

    Raises:
        SettingsError: for a count or seed that is none.

    Examples:
        >>> scene = cm.bench.word_scenes(1)[0]
        >>> scene.question
        'Is the thing in the picture a squid or an owl?'
    """
    random = np.random.default_rng(whole_seed(seed))
    return [_scene(number, random) for number in range(whole_number(count, "count", 0))]


def _scene(number: int, random: np.random.Generator) -> ReferringExample:
    names = random.choice(smol_names(), 2, replace=False).tolist()
    places = random.choice((CELLS // SIDE) ** 2, 2, replace=False)
    corners = [[int(each) * SIDE for each in divmod(place, CELLS // SIDE)] for place in places]
    cells = [[EMPTY] * CELLS for _ in range(CELLS)]
    for name, (top, left) in zip(names, corners, strict=True):
        for row in cells[top : top + SIDE]:
            row[left : left + SIDE] = [name] * SIDE
    boxes = [[left * CELL, top * CELL, SIDE * CELL, SIDE * CELL] for top, left in corners]
    asked = [with_article(names[each]) for each in random.permutation(2)]
    objects = [{"name": name, "bbox": box} for name, box in zip(names, boxes, strict=True)]
    middle = [corner + CELL * SIDE // 2 for corner in boxes[0][:2]]
    data = {
        "id": number,
        "text": f"Is the thing in the picture {' or '.join(asked)}?",
        "synonyms": [],
        "objects": objects,
        **objects[0],
        "center_point": middle,
        "scribble": [[middle[0] - CELL // 2, middle[1]], [middle[0] + CELL // 2, middle[1]]],
    }
    return _WordScene(Path(), data, picture=word_picture(cells))


def _words() -> list[str]:
    return [EMPTY, *smol_names()]
