"""Prompts that are made already: a text in its template, or the tensors that the model's own processor gave."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CmllmError, PromptError
from ..inputs.conversation import Conversation, Turn
from ..inputs.images import ImageSource, read_image
from ..strict import kind_of, shown
from .spelling import places
from .template import placeholders

if TYPE_CHECKING:
    from .mllm import Mllm

# What processors and models raise of what they cannot take.
REFUSALS = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError)


def ready_made(
    mllm: Mllm, image: ImageSource | Sequence[ImageSource], question: str | None, text: str | None
) -> Conversation:
    """The turn of one user who shows the images and asks the question, in a template that writes out the text.

    Args:
        image: one, or a list of several in their order.
        question: words of the text, which are found where they stand last.
        text: what the processor is given; the template of the processor when None.

    Raises:
        PromptError: for a text without the question, or with another number of placeholders than of images.
    """
    images = tuple(map(read_image, image if isinstance(image, list | tuple) and image else [image]))
    kind_of(question, str, "A question must be given with a prompt that is made already, to be found in it", PromptError)
    asked = str(question).strip()
    turn = Turn("user", (*range(len(images)), asked))
    if text is None:
        return Conversation((turn,), images)
    kind_of(text, str, "text must be what the processor is given", PromptError)
    if not asked or asked not in text:
        raise PromptError(f"A text must have the question in it, word by word; got {shown(question)} and {shown(text)}.")
    marks = [mark for mark in placeholders(mllm) if mark]
    count = max(map(text.count, marks), default=0)
    if "{image}" in mllm.family.template and count != len(images):
        raise PromptError(
            f"A text must have a placeholder, {marks[0]!r}, for each image; got {count} for {len(images)} in {shown(text)}."
        )
    before, _, after = text.rpartition(asked)
    if any(mark in after for mark in marks):
        raise PromptError(
            f"A question must stand after the image, as text before it cannot attend to it; got {shown(text)}, where "
            f"{shown(question)} stands before one."
        )
    says = "{% set said = messages[-1]['content'] %}{{ said if said is string else said[-1]['text'] }}"
    return Conversation((turn,), images, f"{_literal(before)}{says}{_literal(after)}")


def _literal(text: str) -> str:
    """An expression of Jinja that writes a text as it is; a template trims what stands beside its own marks."""
    quoted = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'{{{{ "{quoted}" }}}}'


def read_inputs(mllm: Mllm, given: Any) -> dict[str, Any]:
    """The tensors of one prompt as the model takes them, on its device.

    Raises:
        PromptError: for what is no dictionary of tensors of one prompt with its image, has what the model does not take, or
            lacks what it needs.
    """
    if not isinstance(given, Mapping):
        raise PromptError(
            f"inputs must be what the model's processor gave, as a dictionary of tensors; got {shown(given)}."
        )
    inputs: dict[str, Any] = dict(given)
    ids = inputs.get("input_ids")
    if not torch.is_tensor(ids) or ids.dim() != 2 or ids.is_floating_point() or not ids.shape[1] or len(ids) != 1:
        what = f"shape {tuple(ids.shape)}" if torch.is_tensor(ids) else shown(ids)
        raise PromptError(
            f"inputs must hold one prompt, input_ids (1, token), as a processor gives with return_tensors='pt'; got {what}."
        )
    needed = set(getattr(mllm.processor, "model_input_names", ()))
    known = needed | set(inspect.signature(mllm.model.forward).parameters)
    if strange := sorted(str(name) for name in inputs if name not in known):
        raise PromptError(f"inputs must be what {type(mllm.model).__name__} takes; it does not take {', '.join(strange)}.")
    if others := [f"{name} as {type(value).__name__}" for name, value in inputs.items() if not torch.is_tensor(value)]:
        raise PromptError(
            f"inputs must be tensors, as a processor gives with return_tensors='pt'; got {', '.join(others)}."
        )
    if "mm_token_type_ids" in needed and "mm_token_type_ids" not in inputs:
        raise PromptError(
            f"inputs for {mllm.name} must have mm_token_type_ids; give the processor return_mm_token_type_ids=True."
        )
    if not any(value.is_floating_point() for name, value in inputs.items() if name != "attention_mask"):
        raise PromptError(f"inputs must hold the image's pixels too; got {', '.join(sorted(inputs))}.")
    mask = inputs.get("attention_mask", ids)
    if mask.shape != ids.shape:
        # A model may leave out a mask of ones, and so not tell.
        raise PromptError(
            f"attention_mask must have a number for each of input_ids, {tuple(ids.shape)}; got {tuple(mask.shape)}."
        )
    size = mllm.model.get_input_embeddings().num_embeddings
    if not bool(((ids >= 0) & (ids < size)).all()):
        raise PromptError(f"input_ids must be tokens of the model, 0..{size - 1}; got {int(ids.min())}..{int(ids.max())}.")
    return on_model(mllm, inputs)


@contextmanager
def usable(mllm: Mllm, inputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While open, what a model raises of given tensors is told as theirs.

    Raises:
        PromptError: for tensors that the model cannot use: one that it needs is not there, or they do not fit one another.
    """
    try:
        yield
    except (CmllmError, torch.OutOfMemoryError):
        raise
    except REFUSALS as error:
        given = ", ".join(f"{name} {tuple(value.shape)}" for name, value in sorted(inputs.items()))
        raise PromptError(
            f"inputs must have all that {type(mllm.model).__name__} needs, of one prompt and its images; got {given}: "
            f"{type(error).__name__}: {error}"
        ) from error


def on_model(mllm: Mllm, batch: Mapping[str, Any]) -> dict[str, Any]:
    """A processor's tensors on the model's device, numbers in its dtype."""
    return {
        name: value.to(mllm.device, mllm.model.dtype if value.is_floating_point() else None)
        if torch.is_tensor(value)
        else value
        for name, value in batch.items()
    }


def decoded(mllm: Mllm, ids: Sequence[int], images: int) -> str:
    """The text of token ids, with a placeholder for each run of an image's tokens, and as many in all as there are images.

    Images side by side are one run. Where some are and others are not, lengths tell which runs have several.
    """
    runs = [(token, len(list(run))) for token, run in groupby(ids)]
    length = {number: count for number, (token, count) in enumerate(runs) if token == mllm.image_token_id}
    written = dict.fromkeys(length, 1)
    for _ in range(images - len(length) if length else 0):
        written[max(length, key=lambda number: length[number] / written[number])] += 1
    several = [token for number, (token, count) in enumerate(runs) for _ in range(written.get(number, count))]
    text: str = mllm.processor.tokenizer.decode(several, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def found_span(
    mllm: Mllm, ids: Sequence[int], begin: int, question: str
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Positions of the question's tokens, from `begin` on, and the characters of it that each covers; see `text_span`.

    Spaces do not count, as a tokenizer may not keep them.

    Raises:
        PromptError: where the question does not stand there.
    """
    tokenizer, after = mllm.processor.tokenizer, list(ids[begin:])
    text = tokenizer.decode(after, skip_special_tokens=True).strip()
    # Where each character that is no space stands, in the text and in the question.
    within, own = ([at for at, sign in enumerate(said) if not sign.isspace()] for said in (text, question))
    at = "".join(text[each] for each in within).rfind("".join(question[each] for each in own))
    if at < 0 or not own:
        raise PromptError(
            f"The question must stand in the inputs, after the image; got {shown(question)}, and after the image they say "
            f"{shown(text)}."
        )
    question_at = dict(zip(within[at : at + len(own)], own, strict=True))
    found = {}
    for position, (low, high) in enumerate(places(tokenizer, after, text), begin):
        if covered := [question_at[each] for each in range(low, high) if each in question_at]:
            found[position] = (covered[0], covered[-1] + 1)
    return tuple(found), tuple(found.values())
