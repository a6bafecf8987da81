"""A prompt: image and question as the model's tokens, where they stand, and where each visual token looks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image

from ..errors import CaptureError, CmllmError, PromptError
from ..inputs.conversation import Conversation
from ..layout.sheet import SheetLayout, cut_up
from ..layout.visual_tokens import VisualTokenLayout
from ..shown import Fact, Shown
from ..strict import flag, several, shown, whole_number, whole_numbers
from .origin import Origin
from .replay import LanguageCall, implementation
from .spelling import find_word
from .undisturbed import locked, unaffected

if TYPE_CHECKING:
    from .look import Look
    from .mllm import Mllm

# Copies of a prompt in one batch: more is a mistyped number, and gigabytes.
MOST_COPIES = 1000

Queries = Literal["text", "after_image", "last"] | str | int | Sequence[int] | Sequence[str]


@dataclass(frozen=True, eq=False, repr=False)
class Prompt(Shown):
    """One image and one question, or a conversation about one or several, ready for the model.

    Args:
        image: upright RGB image as the user gave it.
        question: the user's words.
        text: what the processor was given, template and placeholder included.
        inputs: the processor's tensors, batch of one.
        tokens: every token of the text's sequence as a string; see `Mllm.words`.
        visual: positions of the visual tokens: in the sequence, or among the states that its tokens attend to.
        image_end: position in the sequence after the image's last placeholder.
        text_span: positions of the question's tokens.
        layout: where each visual token looks.
        call: the recorded call.
        learned: number of learned queries that look at the image in the text's place (Q-Former, perceiver); 0 when the
            text does.
        offsets: for each of the question's tokens, the characters [from, to) of the question that it covers.
        origin: the model that prepared it, and its state then; None is not checked.
        look: the look that it shares image and prefix with; None where it has its own.
        answered: how many of the last tokens are an answer's; see `batch.followed_by`.
        conversation: what was said, where the prompt is made of one; None for one image and one question, and where its
            tensors were given. Of several images `image` is the sheet on which they stand side by side, and `layout` a
            `SheetLayout`.
        ready_made: whether its tensors were given as they are, so that none can be made of another picture.

    Examples:
        >>> prompt.question, len(prompt.tokens), prompt.layout.grid
        ('describe the object.', 73, (8, 8))
        >>> len(prompt.visual), prompt.positions("object")
        (64, (69,))
    """

    image: Image.Image
    question: str
    text: str
    inputs: dict[str, torch.Tensor]
    tokens: tuple[str, ...]
    visual: tuple[int, ...]
    image_end: int
    text_span: tuple[int, ...]
    layout: VisualTokenLayout
    call: LanguageCall
    learned: int = 0
    offsets: tuple[tuple[int, int], ...] = ()
    origin: Origin | None = None
    look: "Look | None" = None
    answered: int = 0
    conversation: Conversation | None = None
    ready_made: bool = False

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """Upright RGB images as the user gave them, in their order."""
        return tuple(cut_up(self.image, self.layout.sizes)) if isinstance(self.layout, SheetLayout) else (self.image,)

    @property
    def layouts(self) -> tuple[VisualTokenLayout, ...]:
        """Where each visual token of each image looks, in that image's own pixels."""
        return self.layout.layouts if isinstance(self.layout, SheetLayout) else (self.layout,)

    def showing(self, picture: Image.Image) -> "tuple[Image.Image | Conversation, str | None]":
        """What `Mllm.prepare` makes the same prompt of with another picture of this size: a sheet, of several images.

        Raises:
            PromptError: for a prompt whose tensors were given.
        """
        if self.ready_made:
            raise PromptError(
                "Another picture can be put into a prompt that is made of images and words; the tensors of this one were "
                "given. Prepare it with text= in the place of inputs=."
            )
        if self.conversation is None:
            return picture, self.question
        return self.conversation.showing(cut_up(picture, self.layout.sizes)), None

    def check(self, mllm: "Mllm", replayed: bool = False) -> None:
        """Refuse to be used with another model than that which prepared the prompt, or after it was moved or cast.

        Args:
            replayed: whether the recorded call is made again, whose masks fit one attention implementation.

        Raises:
            UnsupportedModelError: for what is no `Mllm`.
            PromptError: for another model, dtype or device, or a language model that was put in place of the recorded one.
            CaptureError: for another attention implementation.
        """
        # A model knows prompts, so that its module cannot be imported where this one begins.
        from .mllm import require

        require(mllm)
        replayed = flag(replayed, "replayed", PromptError)
        # While another thread captures, the model shows a name of this package's for its implementation.
        with locked(mllm.model):
            if self.origin is not None:
                self.origin.check(mllm)
            if self.call.module is not mllm.decoder:
                raise PromptError(
                    f"A prompt must be used with the parts of the model that it was prepared with; {self.call.site.call!r} "
                    f"of {mllm.name} has been replaced since. Prepare it again."
                )
            attention = implementation(mllm.model, mllm.family.site) if replayed else None
        if replayed and self.call.attention != attention:
            raise CaptureError(
                f"A prompt's masks fit the attention implementation it was prepared for, {self.call.attention!r}; "
                f"the model now has {attention!r}. Prepare the prompt again."
            )

    def __repr__(self) -> str:
        facts = "\n".join(f"  {label:<7} {value}" for label, value in self.facts())
        return f"Prompt({self.question!r}\n{facts})"

    def facts(self) -> list[Fact]:
        words = " ".join(self.tokens[position] for position in self.text_span)
        where = "" if self.call.site.in_sequence else f" of {self.call.site.states}"
        queries = f", seen by {self.learned} learned queries" if self.learned else ""
        return [
            ("text", repr(self.text)),
            ("tokens", f"{len(self.tokens)}, question at {self.text_span[0]}..{self.text_span[-1]}: {words}"),
            ("visual", f"{len(self.visual)} at {self.visual[0]}..{self.visual[-1]}{where}{queries}"),
            ("layout", repr(self.layout)),
        ]

    @unaffected(gradient=True)
    def zero_latent(self) -> torch.Tensor:
        """A latent that changes nothing: zeros (visual token, width), float32, ready to be differentiated."""
        states = self.call.states
        return torch.zeros(
            len(self.visual), states.shape[-1], dtype=torch.float32, device=states.device, requires_grad=True
        )

    def repeated(self, count: int) -> dict[str, torch.Tensor]:
        """The inputs of `count` copies of the prompt as one batch.

        Repeating along the first axis serves both processors with a batch axis and those that concatenate patches.
        """
        count = whole_number(count, "The number of copies", 1, MOST_COPIES, error=PromptError)
        return {name: torch.cat([tensor] * count) for name, tensor in self.inputs.items()}

    def words(self, positions: Sequence[int]) -> tuple[str, ...]:
        """Query tokens as strings."""
        places = whole_numbers(positions, "positions", 0, (self.learned or len(self.tokens)) - 1, PromptError)
        return tuple(f"query {position}" if self.learned else self.tokens[position] for position in places)

    def positions(self, queries: Queries) -> tuple[int, ...]:
        """Positions of the tokens whose attention is asked for.

        Args:
            queries: "text" (the question's tokens; the paper's choice), "after_image" (every token after the image, the
                template's closing words included; the reference code's), "last" (the last token; ControlMLLM++), or
                highlight tokens: a word of the question (or words, as "red cross"), a position, or several of either. A
                word is found as a whole at its first place, whatever its case, and takes every token that covers a part of
                it; see `spelling.find_word`. Where learned queries look at the image, the three names stand for all of
                these, and positions are theirs.

        Raises:
            PromptError: for a word that is not in the question, or a position outside the sequence.
        """
        wanted = as_queries(queries)
        if self.learned and wanted in ("text", "after_image", "last"):
            return tuple(range(self.learned))
        if wanted == "text":
            return self.text_span
        if wanted == "after_image":
            return tuple(range(self.image_end, len(self.tokens)))
        if wanted == "last":
            return (len(self.tokens) - 1,)
        found: list[int] = []
        for query in [wanted] if isinstance(wanted, str | int) else wanted:
            found += self._word(query) if isinstance(query, str) else [self._position(query)]
        return tuple(dict.fromkeys(found))

    def seeing(self, queries: Queries) -> tuple[int, ...]:
        """The positions of `queries`, each of which can look at the image.

        Raises:
            PromptError: for a token before the image, which cannot attend to what comes after it; for those that
                `positions` does not find.
        """
        found = self.positions(queries)
        first = min(self.visual)
        blind = [position for position in found if position < first]
        if blind and self.call.site.in_sequence and not self.learned:
            raise PromptError(
                f"Query tokens must not stand before the image, to which they cannot attend; it begins at position "
                f"{first}; got {shown(queries)}, of which {blind} stand before it."
            )
        return found

    def _position(self, position: int) -> int:
        length = self.learned or len(self.tokens)
        if not -length <= position < length:
            raise PromptError(f"A query's position must lie in {-length}..{length - 1}; got {position}.")
        return position % length

    def _word(self, word: str) -> list[int]:
        """Positions of the tokens that have a part in `word`, at its first place in the question."""
        if self.learned:
            raise PromptError(
                f"The image is looked at by {self.learned} learned queries, which are not words; got {word!r}. "
                "Give their numbers, or 'text' for all."
            )
        place = find_word(self.question, word)
        low, high = place or (0, 0)
        pairs = zip(self.text_span, self.offsets, strict=False)
        if found := [position for position, (begin, end) in pairs if begin < high and end > low]:
            return found
        words = " ".join(self.tokens[position] for position in self.text_span)
        raise PromptError(
            f"A highlight word must be in the question; got {shown(word)}, the question's tokens are: {words}. "
            "It is looked for as a whole word, and a part of one can be given by its tokens' positions. "
            "'text', 'after_image' and 'last' stand for groups of tokens."
        )


def as_queries(queries: Any, error: type[CmllmError] = PromptError) -> str | int | tuple[str | int, ...]:
    """A choice of queries as plain values that can be read again and saved: a text, a position, or several of either.

    Raises:
        error: for anything else: no queries, a mask of booleans, positions that are no whole numbers.
    """
    if isinstance(queries, str):
        return queries
    if isinstance(queries, bytes) or not isinstance(queries, Iterable) or getattr(queries, "shape", None) == ():
        return whole_number(queries, "A query token that is no word", error=error)
    found = tuple(
        query if isinstance(query, str) else whole_number(query, "Each query token that is no word", error=error)
        for query in several(queries, "Query tokens must be words or positions", error)
    )
    if not found:
        raise error("At least one query token is needed; got none.")
    return found


def queries_name(queries: Queries | None) -> str:
    """A choice of queries in words."""
    return " ".join(map(str, queries)) if isinstance(queries, tuple | list) else str(queries)
