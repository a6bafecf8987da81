"""From an image and a question to a prompt: the processor's tensors, the recorded call, the visual tokens' places."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..errors import PromptError, UnsupportedModelError
from ..images import refusing_small_images
from .geometry import Placement, Seen
from .origin import Origin
from .probe import probe
from .prompt import Prompt
from .replay import LanguageCall, record
from .template import prompt_text, text_span

if TYPE_CHECKING:
    from .mllm import Mllm


@refusing_small_images
def prepare(mllm: Mllm, image: Image.Image, question: str, options: dict[str, Any]) -> Prompt:
    """See `Mllm.prepare`."""
    text = prompt_text(mllm, question)
    inputs = tensors(mllm, image, text, options)
    ids = inputs["input_ids"][0].tolist()
    padding = _padding(inputs)
    found, image_end, call = candidates(mllm, inputs)
    placement = _placement(mllm, image, text, inputs, len(found), options)
    visual = found[torch.from_numpy(placement.placed(image.size))]
    call = call.at(visual) if call is not None else record(mllm.model, mllm.family.site, inputs, visual)
    span, offsets = text_span(mllm, text, question, ids[padding:])
    return Prompt(
        image=image,
        question=question,
        text=text,
        inputs=inputs,
        tokens=mllm.words(ids),
        visual=tuple(visual.tolist()),
        image_end=image_end,
        text_span=tuple(padding + position for position in span),
        layout=placement.layout(image.size),
        call=call,
        learned=int(attrgetter(mllm.family.learned)(mllm.model.config)) if mllm.family.learned else 0,
        offsets=offsets,
        origin=Origin.of(mllm),
    )


def tensors(mllm: Mllm, image: Image.Image, text: str, options: dict[str, Any]) -> dict[str, Any]:
    """What the processor makes of both, where the model takes it.

    Raises:
        PromptError: for settings of the image processor.
    """
    processor = mllm.processor
    images = getattr(processor, "image_processor", None)
    named = {**options, **options.get("images_kwargs", {})}
    changed = [name for name, value in named.items() if hasattr(images, name) and getattr(images, name) != value]
    if changed and mllm.family.layout is not None:
        raise PromptError(
            f"Settings of the image processor must be set on it, where the layout rule reads them "
            f"(mllm.processor.image_processor.{changed[0]} = ...); got {sorted(changed)} for one prompt."
        )
    if "mm_token_type_ids" in getattr(processor, "model_input_names", ()):
        # Not every processor whose model needs them returns them of its own accord.
        options = {"return_mm_token_type_ids": True} | options
    batch = processor(images=image, text=text, return_tensors="pt", **options)
    return {
        name: value.to(mllm.device, mllm.model.dtype if value.is_floating_point() else None)
        if torch.is_tensor(value)
        else value
        for name, value in batch.items()
    }


def candidates(mllm: Mllm, inputs: dict[str, Any]) -> tuple[torch.Tensor, int, LanguageCall | None]:
    """Positions that may hold visual tokens, where the text goes on after the image, and the call if known by then.

    Raises:
        UnsupportedModelError: for a prompt without any.
    """
    ids, site = inputs["input_ids"][0], mllm.family.site
    image_id = mllm.image_token_id
    placeholders = (ids == image_id).nonzero()[:, 0].cpu()
    image_end = int(placeholders[-1]) + 1 if len(placeholders) else 0
    if not site.in_sequence:
        call = record(mllm.model, site, inputs, placeholders)
        return torch.arange(call.states.shape[:-1].numel()), image_end, call
    if not len(placeholders):
        raise UnsupportedModelError(
            f"A prompt must hold visual tokens (token id {image_id}); {mllm.name} was given none. "
            "Check that processor and model belong together."
        )
    return placeholders, image_end, None


def _placement(
    mllm: Mllm, image: Image.Image, text: str, inputs: dict[str, Any], count: int, options: dict[str, Any]
) -> Placement:
    if mllm.family.layout is not None:
        placement = mllm.family.layout(Seen(mllm.model, mllm.processor, image.size, inputs, count))
        if len(placement.boxes) != count:
            raise UnsupportedModelError(
                f"The layout rule of {mllm.family.name} must give a box for each of the {count} states that may be "
                f"visual; it gave {len(placement.boxes)} ({placement.rule}). Check that processor and model belong "
                "together, and that the processor has its own settings."
            )
        return placement
    key = (image.size, count, repr(options))
    if key not in mllm.probed:

        def states(probe_image: Image.Image) -> np.ndarray:
            probed = tensors(mllm, probe_image, text, options)
            found, _, call = candidates(mllm, probed)
            call = call or record(mllm.model, mllm.family.site, probed, found)
            return call.at(found).visual_states.float().cpu().numpy()

        mllm.probed[key] = probe(states, image.size)
    return mllm.probed[key]


def _padding(inputs: dict[str, Any]) -> int:
    """Number of padding tokens before the prompt."""
    mask = inputs.get("attention_mask")
    if mask is None or bool(mask.all()):
        return 0
    if not mask[0, -1]:
        raise PromptError("A prompt must be padded on the left, so that it ends with its last token; set padding_side.")
    return int((mask[0] == 0).sum())
