"""A conversation as the text that a processor is given: turns in their template, a placeholder for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from ..errors import PromptError
from ..inputs.conversation import Conversation, Turn
from ..strict import shown
from .answer import encodable
from .template import MARK, WRITTEN_OUT, check_words, placeholders

if TYPE_CHECKING:
    from .mllm import Mllm


def conversation_text(mllm: Mllm, conversation: Conversation) -> str:
    """The turns in their template: that of the conversation, of the processor, or of its tokenizer.

    Content is given as a list of parts, or as one text with the placeholders in it, whichever the template takes so that
    all of the turns' words and images stand in it, in their order. Without any template the family's own stands for a
    single turn whose images come first.

    Raises:
        PromptError: for words that contain a placeholder, and a template that leaves out, changes or moves what was said,
            naming what; for several images of a family that takes one.
    """
    image, *marks = filter(None, placeholders(mllm, video=conversation.timing is not None))
    added = "{image}" not in mllm.family.template
    if mllm.family.several and len(conversation.images) > 1 and conversation.timing is None:
        raise PromptError(
            f"A prompt for {mllm.family.name} holds one image: {mllm.family.several}; got {len(conversation.images)}."
        )
    for part in (part for turn in conversation.turns for part in turn.parts if isinstance(part, str)):
        if not encodable(part):
            raise PromptError(f"What is said must be a text of whole characters; got {shown(part)}.")
        check_words(mllm, part, "What is said")
    processor = mllm.processor
    source = next((part for part in (processor, processor.tokenizer) if getattr(part, "chat_template", None)), None)
    if source is None and conversation.chat_template is None:
        return _by_family(mllm, conversation, image)
    reasons = []
    for way in (_as_parts, _as_text, _as_text_part):
        messages = [{"role": turn.role, "content": way(mllm, conversation, turn, image)} for turn in conversation.turns]
        template = {} if conversation.chat_template is None else {"chat_template": conversation.chat_template}
        try:
            text = str(
                (source or processor.tokenizer).apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=False, **template
                )
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            reasons.append(str(error))
            continue
        if not (reason := _lost(text, conversation, [] if added else [image, *marks])):
            return text
        reasons.append(reason)
    why = "; or ".join(dict.fromkeys(reasons))
    raise PromptError(
        f"The chat template for {mllm.name} must keep all that was said, in its order: {why}. Give another one as "
        "chat_template=, or leave out what it cannot take."
    )


def _by_family(mllm: Mllm, conversation: Conversation, image: str) -> str:
    *before, last = conversation.turns
    *shown_first, question = conversation.shown_in(last)
    template = mllm.family.template
    if before or not isinstance(question, str) or any(isinstance(part, str) for part in shown_first):
        raise PromptError(
            f"A conversation needs a chat template, and neither processor nor tokenizer of {mllm.name} has one. Give it as "
            "chat_template=."
        )
    return template.format(image=image * len(shown_first), question=last.parts[-1])


def _as_parts(mllm: Mllm, conversation: Conversation, turn: Turn, image: str) -> Any:
    kind = "image" if conversation.timing is None else "video"
    parts = conversation.shown_in(turn)
    return [{"type": kind} if isinstance(part, int) else {"type": "text", "text": part} for part in parts]


def _as_text(mllm: Mllm, conversation: Conversation, turn: Turn, image: str) -> Any:
    # What stands between image and words in the family's own prompt.
    glue = mllm.family.content.removeprefix("{image}").removesuffix("{question}")
    parts = conversation.shown_in(turn)
    return "".join(f"{image}{glue}" if isinstance(part, int) else part for part in parts)


def _as_text_part(mllm: Mllm, conversation: Conversation, turn: Turn, image: str) -> Any:
    return [{"type": "text", "text": _as_text(mllm, conversation, turn, image)}]


def _lost(text: str, conversation: Conversation, marks: list[str]) -> str:
    """What a template did to the turns: "" where all of them are there, in their order; images where they have marks."""
    parts = [part for turn in conversation.turns for part in conversation.shown_in(turn)]
    said = [part for part in parts if marks or isinstance(part, str)]
    bare = text
    for part in said:
        bare = bare.replace(part, "", 1) if isinstance(part, str) else bare
    if WRITTEN_OUT.search(bare):
        return "it writes out the parts of a message as they are"
    at = 0
    for part in said:
        if isinstance(part, str):
            found, length = text.find(part.strip(), at), len(part.strip())
            what = f"it left out, changed or moved {shown(part)}"
        else:
            found, length = min(((text.find(mark, at), len(mark)) for mark in marks if mark in text[at:]), default=(-1, 0))
            what = f"image {part} has no placeholder of its own"
        if found < 0:
            return what
        at = found + length
    count = sum(isinstance(part, int) for part in said)
    most = max((text.count(mark) for mark in marks), default=0)
    return "" if most <= count else f"it wrote {most} placeholders for {count} images"


def marked_text(mllm: Mllm, conversation: Conversation) -> str:
    """The same with a mark in the question's place."""
    return conversation_text(mllm, conversation.asking(MARK))
