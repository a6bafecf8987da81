"""A conversation: turns of text and images, in the words of transformers' chat format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ImageError, PromptError
from ..shown import Fact, Shown
from ..strict import several, shown
from .images import ImageSource, read_image

# In the chat format.
Messages = Sequence[Mapping[str, Any]]
# A part of a turn: a text, or the number of an image.
Part = str | int
# Where a part of the chat format has its image, by the names that are in use.
_SOURCES = ("image", "url", "path", "base64", "image_url")


@dataclass(frozen=True)
class Turn:
    """What one of them says.

    Args:
        role: "system", "user", "assistant", or what else the template knows.
        parts: texts and numbers of images, in their order.
    """

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Timing:
    """When the frames of a video are.

    Args:
        fps: frames in a second of what they were taken from.
        numbers: of each frame in that, ascending.
        total: how many that has.
    """

    fps: float
    numbers: tuple[int, ...]
    total: int

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each frame."""
        return tuple(number / self.fps for number in self.numbers)


@dataclass(frozen=True, eq=False, repr=False)
class Conversation(Shown):
    """Turns of text and images; the question is the last words of the last turn, which is the user's.

    Args:
        turns: one or more.
        images: upright RGB images, in the order in which they are shown; none where a file kept a smaller copy of them.
        chat_template: a template of Jinja in the place of the processor's and the tokenizer's; None for these.
        sizes: (width, height) of each image; those of `images` where they are there.
        timing: of a video, whose frames the images are, shown as one; None for images.

    Raises:
        ImageError: for frames of several sizes.
    """

    turns: tuple[Turn, ...]
    images: tuple[Image.Image, ...] = field(repr=False)
    chat_template: str | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    timing: Timing | None = None

    def __post_init__(self) -> None:
        if self.images:
            object.__setattr__(self, "sizes", tuple(image.size for image in self.images))
        if self.timing is not None and len(sizes := set(self.sizes)) > 1:
            given = ", ".join(f"{width} x {height} px" for width, height in sorted(sizes))
            raise ImageError(
                f"The frames of a video must have one size; got {given}. A method that crops makes an image of another one."
            )

    @property
    def question(self) -> str:
        """The last text that has words."""
        return str(self.turns[-1].parts[self._asked])

    @property
    def _asked(self) -> int:
        parts = self.turns[-1].parts
        return max(number for number, part in enumerate(parts) if has_words(part))

    def facts(self) -> list[Fact]:
        said = [
            (turn.role, " ".join(f"<image {p}>" if isinstance(p, int) else repr(p) for p in self.shown_in(turn)))
            for turn in self.turns
        ]
        if self.timing is not None:
            width, height = self.sizes[0]
            said = [(role, words.replace("<image 0>", "<video>")) for role, words in said]
            return [("", f"a video of {len(self.sizes)} frames ({width} x {height} px)"), *said]
        sizes = ", ".join(f"{width} x {height} px" for width, height in self.sizes)
        return [("", f"{len(self.sizes)} images ({sizes})"), *said]

    def shown_in(self, turn: Turn) -> tuple[Part, ...]:
        """A turn's parts as a template has them: the frames of a video are one, at the place of the first."""
        return (
            turn.parts if self.timing is None else tuple(part for part in turn.parts if isinstance(part, str) or not part)
        )

    def asking(self, question: str) -> Conversation:
        """The same with another question."""
        last = list(self.turns[-1].parts)
        last[self._asked] = question
        return replace(self, turns=(*self.turns[:-1], replace(self.turns[-1], parts=tuple(last))))

    def showing(self, images: Sequence[Image.Image]) -> Conversation:
        """The same with as many other images."""
        return replace(self, images=tuple(images))

    def to_json(self) -> dict[str, Any]:
        """Plain data of the turns, without the images' pixels."""
        turns = [[turn.role, list(turn.parts)] for turn in self.turns]
        timing = None if self.timing is None else asdict(self.timing) | {"numbers": list(self.timing.numbers)}
        sizes = [list(size) for size in self.sizes]
        return {"turns": turns, "sizes": sizes, "chat_template": self.chat_template, "timing": timing}


def has_words(part: Part) -> bool:
    """Whether a part of a turn is a text that is not blank."""
    return isinstance(part, str) and bool(part.strip())


def is_messages(given: object) -> bool:
    """Whether it is in the chat format, and no image."""
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(each, Mapping) for each in given)


def read_messages(
    messages: Any, images: Sequence[ImageSource] | None = None, chat_template: str | None = None
) -> Conversation:
    """A conversation in the chat format: `[{"role": "user", "content": [{"type": "image", "image": ...}, "what is it?"]}]`.

    Content is a text, or a list of texts, images, and parts as `{"type": "text", "text": ...}` and `{"type": "image", ...}`
    with the image under "image", "url" or "path", as all that `read_image` takes. A part without one takes the next of
    `images`.

    Raises:
        PromptError: for anything else, a conversation without images or that does not end with a user's words, and images
            that are left.
        ImageError: for an image that cannot be read.
    """
    if not is_messages(messages):
        raise PromptError(f"A conversation must be a list of messages with role and content; got {shown(messages)}.")
    if chat_template is not None and not isinstance(chat_template, str):
        raise PromptError(f"A chat template must be a text; got {shown(chat_template)}.")
    given = several(() if images is None else images, "images must be several", PromptError)
    waiting, found = iter(given), list[Image.Image]()
    turns = tuple(_turn(message, waiting, found) for message in messages)
    left = sum(1 for _ in waiting)
    if left or not found:
        raise PromptError(
            f"A conversation must show every image that is given with it, and at least one; {left} of {len(given)} are "
            f"left, and it shows {len(found)}."
        )
    last = turns[-1]
    if last.role != "user" or not any(map(has_words, last.parts)):
        raise PromptError(f"A conversation must end with a user's question in words; its last turn is {last!r:.200}.")
    return Conversation(turns, tuple(found), chat_template)


def _turn(message: Mapping[str, Any], waiting: Iterator[ImageSource], found: list[Image.Image]) -> Turn:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or set(message) - {"role", "content"}:
        raise PromptError(f"A message must have a role and a content, and nothing else; got {shown(dict(message))}.")
    contents = content if isinstance(content, list | tuple) else [content]
    parts = tuple(part for each in contents if (part := _part(each, waiting, found)) != "")
    if not parts:
        raise PromptError(f"A message's content must be a text, or texts and images; got {shown(content)}.")
    return Turn(role, parts)


def _part(part: Any, waiting: Iterator[ImageSource], found: list[Image.Image]) -> Part:
    if isinstance(part, str):
        return part
    if isinstance(part, Image.Image | np.ndarray):
        part = {"type": "image", "image": part}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind not in ("image", "image_url"):
        raise PromptError(f"A part of a message must be a text or an image; got {shown(part)}.")
    source = next((part[name] for name in _SOURCES if part.get(name) is not None), None)
    if source is None and (source := next(waiting, None)) is None:
        raise PromptError("A message's image must be in it, or in images=, in their order; one has none.")
    found.append(read_image(source["url"] if isinstance(source, Mapping) and "url" in source else source))
    return len(found) - 1
