"""The text around a question: what the processor is given, and which of its tokens are the question's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from ..errors import PromptError, UnsupportedModelError
from ..strict import shown
from .answer import encodable
from .family import UNKNOWN
from .spelling import apart

if TYPE_CHECKING:
    from .mllm import Mllm

# Stands for a question, in no template and no language.
MARK = "\ufffc"
# Stands for a question where there is none yet, or an image is looked at alone: no token up to the image depends on it.
STAND_IN = "What is this?"
# A part of a message that a template wrote out as it came, in Python's way or JSON's.
WRITTEN_OUT = re.compile(r"""['"]type['"]\s*:\s*['"](image|video|text)['"]""")


def prompt_text(mllm: Mllm, question: str) -> str:
    """The question in its template, with the image's placeholder.

    The chat template is the processor's, or its tokenizer's; the family's own stands for a missing one. A message is a list
    of parts or, for templates that write such a list out, drop the image, or fail on it, one text, with the placeholder
    unless the template writes that itself.

    Raises:
        PromptError: for a question that is empty, or contains a placeholder.
        UnsupportedModelError: for a chat template that can use neither.
    """
    processor, family = mllm.processor, mllm.family
    if not isinstance(question, str) or not question.strip() or not encodable(question):
        raise PromptError(f"A question must be a text of whole characters with at least one word; got {shown(question)}.")
    image, *marks = placeholders(mllm)
    check_words(mllm, question, "A question")
    source = next((part for part in (processor, processor.tokenizer) if getattr(part, "chat_template", None)), None)
    if source is None:
        return family.template.format(image=image, question=question)
    given = family.content.format(image=image, question=question)
    parts = [{"type": "image"}, {"type": "text", "text": question}]
    rendered, reason = [], "it writes out the parts of a message as they are"
    for content in (parts, given, [{"type": "text", "text": given}], question):
        try:
            text = _rendered(source, content)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            reason = str(error)
            continue
        if not WRITTEN_OUT.search(text.replace(question, "")):
            rendered.append(text)
    if not rendered:
        raise UnsupportedModelError(
            f"The chat template of {mllm.name} must take a message with an image and a text, or one text; {reason}. Set "
            f"{type(source).__name__}.chat_template to one that does."
        )
    marked = [text for text in rendered if max(map(text.count, filter(None, (image, *marks)))) == 1]
    return (marked or rendered)[0]


def placeholders(mllm: Mllm, video: bool = False) -> tuple[str, ...]:
    """What stands for an image, or a video, in the family's prompts, then all that may stand for one in a text."""
    processor, family = mllm.processor, mllm.family
    image = str(getattr(processor, "image_token", family.image)) if family.way_in == UNKNOWN else family.image
    if video:
        token = str(processor.video_token)
        return image.replace(str(processor.image_token), token), token
    return image, *sorted({"<image>", str(getattr(processor, "image_token", "<image>"))})


def check_words(mllm: Mllm, words: str, what: str) -> None:
    """Refuse words with the placeholder of an image or a video, whichever is shown: they would be taken for one.

    Raises:
        PromptError: naming it.
    """
    own = {kind: getattr(mllm.processor, f"{kind}_token", None) for kind in ("image", "video")}
    kinds = {"<image>": "image"} | {str(mark): kind for kind, mark in own.items() if mark}
    if mark := next((mark for mark in kinds if mark in words), None):
        raise PromptError(
            f"{what} must not contain the {kinds[mark]} placeholder {mark!r}, which the template adds; got {shown(words)}."
        )


def _rendered(source: Any, content: Any) -> str:
    return str(
        source.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    )


def text_span(
    mllm: Mllm, text: str, marked: str, question: str, ids: list[int]
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Positions of the question's tokens among `ids`, and the characters [from, to) of the question that each covers.

    The placeholder before them is expanded, and tokens may be added after.

    Args:
        marked: the text with MARK in the question's place, as the template's own words may be the same.

    Raises:
        UnsupportedModelError: for a slow tokenizer, or a template that changes the question.
    """
    tokenizer = mllm.processor.tokenizer
    if not tokenizer.is_fast:
        raise UnsupportedModelError(
            f"{mllm.name} must have a fast tokenizer, to know which tokens are the question's; "
            f"got {type(tokenizer).__name__}."
        )
    start = marked.find(MARK)
    start = text.find(question.strip(), start) if start >= 0 else -1
    end = start + len(question.strip())
    encoded = tokenizer(text, return_offsets_mapping=True, truncation=False)
    raw, covered = encoded["input_ids"], apart(encoded["offset_mapping"], text)
    chosen = [i for i, (low, high) in enumerate(covered) if low < end and high > start and high > low]
    asked = [raw[i] for i in chosen]
    found = [i for i in range(len(ids) - len(asked) + 1) if ids[i : i + len(asked)] == asked]
    if start < 0 or not chosen or not found:
        raise UnsupportedModelError(
            f"The question must stand unchanged in the prompt of {mllm.name}; its template made {text!r}."
        )
    # What follows the question keeps its length, but for a token or two that a processor adds.
    expected = len(ids) - len(raw) + chosen[0]
    first = min(found, key=lambda i: abs(i - expected))
    origin = start - question.index(question.strip())
    # A token may begin before the question, or end after it: of a space, or of a word that the question is a part of.
    offsets = tuple((max(low - origin, 0), min(high - origin, len(question))) for low, high in (covered[i] for i in chosen))
    return tuple(range(first, first + len(asked))), offsets
