"""The text around a question: what the processor is given, and which of its tokens are the question's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import PromptError, UnsupportedModelError
from .spelling import apart

if TYPE_CHECKING:
    from .mllm import Mllm

# Stands for a question, in no template and no language.
MARK = "\ufffc"


def prompt_text(mllm: Mllm, question: str) -> str:
    """The question in its template, with the image's placeholder.

    Raises:
        PromptError: for a question that is empty, or contains the placeholder.
    """
    processor = mllm.processor
    if not isinstance(question, str) or not question.strip():
        raise PromptError(f"A question must be a text with at least one word; got {question!r}.")
    placeholders = {"<image>", str(getattr(processor, "image_token", "<image>"))}
    for placeholder in sorted(placeholders):
        if placeholder in question:
            raise PromptError(
                f"A question must not contain the image placeholder {placeholder!r}, which the template adds; "
                f"got {question!r}."
            )
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    return mllm.family.template.format(question=question)


def text_span(mllm: Mllm, text: str, question: str, ids: list[int]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Positions of the question's tokens among `ids`, and the characters [from, to) of the question that each covers.

    The placeholder before them is expanded, and tokens may be added after.

    Raises:
        UnsupportedModelError: for a slow tokenizer, or a template that changes the question.
    """
    tokenizer = mllm.processor.tokenizer
    if not tokenizer.is_fast:
        raise UnsupportedModelError(
            f"{mllm.name} must have a fast tokenizer, to know which tokens are the question's; "
            f"got {type(tokenizer).__name__}."
        )
    # The template's own words may be those of the question: the place of a mark says which are meant.
    start = prompt_text(mllm, MARK).find(MARK)
    start = text.find(question.strip(), start) if start >= 0 else -1
    end = start + len(question.strip())
    encoded = tokenizer(text, return_offsets_mapping=True)
    raw, covered = encoded["input_ids"], apart(encoded["offset_mapping"], text)
    chosen = [i for i, (low, high) in enumerate(covered) if low < end and high > start and high > low]
    asked = [raw[i] for i in chosen]
    found = [i for i in range(len(ids) - len(asked) + 1) if ids[i : i + len(asked)] == asked]
    if start < 0 or not chosen or not found:
        raise UnsupportedModelError(
            f"The question must stand after the image and unchanged in the prompt of {mllm.name}; got {text!r}."
        )
    # What follows the question keeps its length, but for a token or two that a processor adds.
    expected = len(ids) - len(raw) + chosen[0]
    first = min(found, key=lambda i: abs(i - expected))
    origin = start - question.index(question.strip())
    offsets = tuple((low - origin, high - origin) for low, high in (covered[i] for i in chosen))
    return tuple(range(first, first + len(asked))), offsets
