"""Where the visual tokens of a prompt look: those of one image by its family's rule, of several image by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..errors import UnsupportedModelError
from ..inputs.regions import Size
from ..layout.placement import LayoutInputs, LayoutRule, Placement
from ..layout.probe import probe
from ..layout.sheet import SheetLayout
from ..layout.visual_tokens import VisualTokenLayout
from .replay import record
from .template import STAND_IN, prompt_text

if TYPE_CHECKING:
    from .mllm import Mllm

# For each image, the numbers of its states among those that may be visual, and where each of them looks.
Placements = list[tuple[np.ndarray, Placement]]


def placements(
    mllm: Mllm, images: list[Image.Image], text: str, inputs: dict[str, Any], found: torch.Tensor, options: dict[str, Any]
) -> Placements:
    """Where each state that may be visual looks, image by image.

    The rule of a family tells of one image: of several, each is laid out as it is alone where together they have as many
    states as in the prompt; else, as where a processor cuts one image into tiles but not several, they are probed.

    Args:
        found: positions of these states in the prompt.

    Raises:
        UnsupportedModelError: where the rule does not fit the states, or images cannot be told apart.
    """
    count = len(found)
    if rule := mllm.family.layout:
        if len(images) == 1:
            return [(np.arange(count), _by_rule(mllm, rule, images[0].size, inputs, count))]
        alone = [_alone(mllm, rule, image, options) for image in images]
        if sum(len(each.boxes) for each in alone) == count:
            begins = np.cumsum([0, *(len(each.boxes) for each in alone)])
            return [(np.arange(low, high), each) for low, high, each in zip(begins, begins[1:], alone, strict=False)]
    return [_probed(mllm, images, number, text, count, options) for number in range(len(images))]


def laid_out(mllm: Mllm, places: Placements, sizes: Sequence[Size]) -> tuple[np.ndarray, VisualTokenLayout]:
    """Numbers of the visual tokens among the states that may be visual, ascending, and their layout.

    Raises:
        UnsupportedModelError: where images cannot be told apart, or one has no visual token.
    """
    chosen = [numbers[each.placed(size)] for (numbers, each), size in zip(places, sizes, strict=True)]
    together = np.concatenate(chosen)
    if not all(map(len, chosen)) or (np.diff(together) <= 0).any():
        raise UnsupportedModelError(
            f"Each of a prompt's {len(sizes)} images must have visual tokens of its own, one image's after the other's; in "
            f"{mllm.name} they cannot be told apart. Give one image."
        )
    layouts = [each.layout(size) for (_, each), size in zip(places, sizes, strict=True)]
    return together, layouts[0] if len(layouts) == 1 else SheetLayout.of(layouts)


def _by_rule(mllm: Mllm, rule: LayoutRule, size: Size, inputs: dict[str, Any], count: int) -> Placement:
    placement = rule(LayoutInputs(mllm.model, mllm.processor, size, inputs, count))
    if len(placement.boxes) != count:
        raise UnsupportedModelError(
            f"The layout rule of {mllm.family.name} must give a box for each of the {count} states that may be "
            f"visual; it gave {len(placement.boxes)} ({placement.rule}). Check that processor and model belong "
            "together, and that the processor has its own settings."
        )
    return placement


def _alone(mllm: Mllm, rule: LayoutRule, image: Image.Image, options: dict[str, Any]) -> Placement:
    # What is prepared is laid out here, so that its module cannot be imported where this one begins.
    from .prepare import candidates, tensors

    inputs = tensors(mllm, [image], prompt_text(mllm, STAND_IN), options)
    return _by_rule(mllm, rule, image.size, inputs, len(candidates(mllm, inputs)[0]))


def _probed(
    mllm: Mllm, images: list[Image.Image], number: int, text: str, count: int, options: dict[str, Any]
) -> tuple[np.ndarray, Placement]:
    """Of one of the images: which states it moves, and from where."""
    from .prepare import candidates, tensors

    sizes = tuple(image.size for image in images)
    key = (sizes, number, count, repr(options))

    def states(picture: Image.Image) -> np.ndarray:
        probed = tensors(mllm, [*images[:number], picture, *images[number + 1 :]], text, options)
        found, _, call = candidates(mllm, probed)
        call = call or record(mllm.model, mllm.family.site, probed, found)
        return call.with_visual(found).visual_states.float().cpu().numpy()

    if key not in mllm.probed:
        mllm.probed[key] = probe(states, sizes[number])
    placement = mllm.probed[key]
    if len(images) == 1:
        return np.arange(count), placement
    moved = np.flatnonzero(placement.placed(sizes[number]))
    return moved, Placement(placement.boxes[moved], placement.rule)
