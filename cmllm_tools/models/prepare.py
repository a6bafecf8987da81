"""From an image and a question to a prompt: the processor's tensors, the recorded call, the visual tokens' places."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ..errors import ImageError, PromptError, UnsupportedModelError
from ..inputs.conversation import Conversation, Timing
from ..inputs.images import ImageSource, read_image
from ..layout.sheet import sheet_of
from ..strict import shown
from .conversation_text import conversation_text, marked_text
from .origin import Origin
from .places import laid_out, placements
from .processor_options import checked, cut_at
from .prompt import Prompt
from .ready_made import REFUSALS, decoded, found_span, on_model, read_inputs, usable
from .replay import LanguageCall, record
from .template import MARK, prompt_text, text_span
from .video import check_takes_video, frame_token_id, video_arguments, video_laid_out

if TYPE_CHECKING:
    from .look import Look
    from .mllm import Mllm


def prepare(
    mllm: Mllm,
    image: ImageSource | Conversation,
    question: str,
    options: dict[str, Any],
    look: Look | None = None,
    keep_before: bool = False,
    given: Any = None,
) -> Prompt:
    """See `Mllm.prepare`.

    Args:
        image: or a conversation, which has its question.
        look: at the same image with the same options; what it has is not computed again where it still holds.
        keep_before: keep what ran before the call; see `record`.
        given: the tensors of a prompt that is made already; `image` is then a conversation of one turn.
    """
    talk = image if isinstance(image, Conversation) else None
    timing = talk.timing if talk is not None else None
    if timing is not None:
        check_takes_video(mllm)
    if isinstance(image, Conversation):
        images, question = list(image.images), image.question
    if given is not None:
        inputs = read_inputs(mllm, given)
        text, marked = decoded(mllm, inputs["input_ids"][0].tolist(), len(images)), ""
        _check_length(mllm, inputs["input_ids"].shape[1], None)
    elif talk is not None:
        text, marked = conversation_text(mllm, talk), marked_text(mllm, talk)
        inputs = tensors(mllm, images, text, options, timing)
    else:
        images = [read_image(image)]
        text, marked = prompt_text(mllm, question), prompt_text(mllm, MARK)
        inputs = tensors(mllm, images, text, options)
    ids = inputs["input_ids"][0].tolist()
    with usable(mllm, inputs) if given is not None else nullcontext():
        padding = _padding(inputs)
        if timing is None:
            _check_size(mllm, images[0], ids)
        look = look if look is not None and look.serves(mllm) and look.fits(inputs) else None
        again: Any = {"keep_before": keep_before, "known": look.before if look is not None else None}
        found, image_end, call = candidates(mllm, inputs, timing is not None, **again)
        if timing is None:
            places = placements(mllm, images, text, inputs, found, options)
            chosen, layout = laid_out(mllm, places, [each.size for each in images])
        else:
            chosen, layout = video_laid_out(mllm, images[0].size, len(images), inputs, len(found))
        visual = found[torch.from_numpy(chosen)]
        if given is None:
            span, offsets = text_span(mllm, text, marked, question, ids[padding:])
        else:
            span, offsets = found_span(mllm, ids[padding:], max(image_end - padding, 0), question)
        if padding + span[0] < image_end and not mllm.family.learned:
            raise PromptError(
                f"A question must stand after the image, as text before it cannot attend to it; the template of "
                f"{mllm.name} made {shown(text)}. Set processor.chat_template to one that puts the image first."
            )
        call = (call and call.with_visual(visual)) or record(mllm.model, mllm.family.site, inputs, visual, **again)
    return Prompt(
        image=sheet_of(images),
        question=question,
        text=text,
        inputs=inputs,
        tokens=mllm.words(ids),
        visual=tuple(visual.tolist()),
        image_end=image_end,
        text_span=tuple(padding + position for position in span),
        layout=layout,
        call=call,
        learned=int(attrgetter(mllm.family.learned)(mllm.model.config)) if mllm.family.learned else 0,
        offsets=offsets,
        origin=Origin.of(mllm),
        look=look,
        # Given tensors may say anything beside the question: what would be made of the turns is another prompt.
        conversation=talk if given is None else None,
        ready_made=given is not None,
    )


def tensors(
    mllm: Mllm, shown_images: list[Image.Image], text: str, options: dict[str, Any], timing: Timing | None = None
) -> dict[str, Any]:
    """What the processor makes of images, or the frames of a video, and text, where the model takes it.

    Raises:
        ImageError: for an image that the processor cannot take.
        PromptError: for options that are no processor's, and a prompt that is cut or longer than the model's positions.
    """
    processor, tokenizer = mllm.processor, mllm.processor.tokenizer
    flat = checked(mllm, options)
    # A cut prompt has lost its question, or part of its image: it is made whole, and refused if it is too long.
    given = {name: value for name, value in options.items() if name != "truncation"} | {"truncation": False}
    if "text_kwargs" in given:
        given["text_kwargs"] = {name: value for name, value in given["text_kwargs"].items() if name != "truncation"}
    if "mm_token_type_ids" in getattr(processor, "model_input_names", ()):
        # Not every processor whose model needs them returns them of its own accord.
        given = {"return_mm_token_type_ids": True} | given
    bos = tokenizer.bos_token
    if bos and text.startswith(bos) and "add_special_tokens" not in flat:
        ids = tokenizer(text, truncation=False)["input_ids"]
        # The template has written what the tokenizer adds.
        if ids[:2] == [tokenizer.bos_token_id] * 2:
            given["add_special_tokens"] = False
    images = getattr(processor, "image_processor", None)
    takes = inspect.signature(processor.__call__).parameters.values()
    named = inspect.signature(getattr(images, "preprocess", checked)).parameters
    if "input_data_format" in named and any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        # It would take a side of 1 or 3 pixels for the channels.
        given["input_data_format"] = "channels_last"
    try:
        # One image as it is, as some processors take a list of one for something else.
        given_images = shown_images[0] if len(shown_images) == 1 else shown_images
        visual = {"images": given_images} if timing is None else video_arguments(shown_images, timing)
        batch = processor(**visual, text=text, return_tensors="pt", **given)
    except REFUSALS as error:
        if options:
            raise PromptError(
                f"Options of a prompt must be such that {type(processor).__name__} takes them; "
                f"got {shown(options)}: {error}"
            ) from error
        sizes = ", ".join(f"{image.width} x {image.height} px" for image in shown_images)
        raise ImageError(
            f"An image must be such that {type(processor).__name__} takes it and the prompt {shown(text)}; "
            f"got {sizes}: {error}"
        ) from error
    _check_length(mllm, batch["input_ids"].shape[1], cut_at(tokenizer, flat))
    return on_model(mllm, batch)


def _check_length(mllm: Mllm, length: int, limit: int | None) -> None:
    if limit is not None and length > limit:
        raise PromptError(
            f"A prompt must not be cut, as its question or image would be gone in part; it has {length} tokens, and "
            f"truncation leaves {limit}. Leave out truncation and max_length, or shorten the question."
        )
    config = mllm.model.config
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text_config, "max_position_embeddings", None)
    if isinstance(positions, int) and length > positions > 0:
        raise PromptError(
            f"A prompt must not be longer than the model's positions; {mllm.name} has {positions}, the prompt {length} "
            "tokens. Shorten the question, or make the image smaller where it is cut into tiles."
        )


def _check_size(mllm: Mllm, image: Image.Image, ids: list[int]) -> None:
    """Refuse an image of which processor and model, though they belong together, make too few visual tokens."""
    token = mllm.processor.tokenizer.convert_tokens_to_ids(str(getattr(mllm.processor, "image_token", "")))
    count = ids.count(mllm.image_token_id)
    if mllm.family.site.in_sequence and token == mllm.image_token_id and count < mllm.family.least:
        raise ImageError(
            f"An image for {mllm.family.name} must be large enough to fill at least {mllm.family.least} visual tokens; one "
            f"of {image.width} x {image.height} px fills {count}. Enlarge it."
        )


def candidates(
    mllm: Mllm, inputs: dict[str, Any], video: bool = False, **recorded: Any
) -> tuple[torch.Tensor, int, LanguageCall | None]:
    """Positions that may hold visual tokens, where the text goes on after the image, and the call if known by then.

    Args:
        video: whether what is shown is one; in a prompt of images a video's token is a word as any other.
        **recorded: for `record`.

    Raises:
        UnsupportedModelError: for a prompt without any.
    """
    ids, site = inputs["input_ids"][0], mllm.family.site
    image_id = frame_token_id(mllm, inputs) if video else mllm.image_token_id
    placeholders = (ids == image_id).nonzero()[:, 0].cpu()
    image_end = int(placeholders[-1]) + 1 if len(placeholders) else 0
    if not site.in_sequence:
        call = record(mllm.model, site, inputs, placeholders, **recorded)
        return torch.arange(call.states.shape[:-1].numel()), image_end, call
    if not len(placeholders):
        raise UnsupportedModelError(
            f"A prompt must hold visual tokens (token id {image_id}); {mllm.name} was given none. "
            "Check that processor and model belong together."
        )
    return placeholders, image_end, None


def _padding(inputs: dict[str, Any]) -> int:
    """Number of padding tokens before the prompt."""
    mask = inputs.get("attention_mask")
    if mask is None or bool(mask.all()):
        return 0
    if not mask[0, -1]:
        raise PromptError("A prompt must be padded on the left, so that it ends with its last token; set padding_side.")
    return int((mask[0] == 0).sum())
