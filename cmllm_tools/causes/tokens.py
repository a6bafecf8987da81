"""Which tokens a cause is looked for at: those of `Prompt.positions`, and the image, regions and the answer's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import CaptureError
from ..inputs.regions import Region
from ..models.mllm import Mllm
from ..models.prompt import Prompt, Queries
from ..referring.target import Target
from ..strict import shown

Tokens = Queries | Region | Sequence[Region]

# Groups by name, beside "text", "after_image" and "last".
ALL, IMAGE, BEFORE, ANSWERING = "all", "image", "before_image", "answering"
# Groups that the answer's tokens belong to, however many there will be.
_ONWARDS = (ALL, "after_image", ANSWERING)
# Share of a visual token that a region must cover for the token to be the region's.
COVERED = 0.5


@dataclass(frozen=True)
class Places:
    """Tokens of a prompt.

    Args:
        positions: in the sequence, or among what takes the text's place; ascending.
        onwards: whether the answer's tokens are meant too, which come after the prompt.
    """

    positions: tuple[int, ...]
    onwards: bool = False

    @property
    def first(self) -> int:
        """Position of the first."""
        return self.positions[0]

    def upto(self, total: int, length: int) -> list[int]:
        """Positions among `total` tokens, of which the prompt has the first `length`."""
        return [*self.positions, *(range(length, total) if self.onwards else ())]


def queries_of(mllm: Mllm, prompt: Prompt, tokens: Tokens) -> Places:
    """The tokens that look.

    Args:
        tokens: "all", "before_image", "image", "after_image" (with the answer's tokens), "text" (the question's), "last"
            (the prompt's last one, which the answer's first is said at), "answering" (that one and the answer's), a word of
            the question, a position, several of these two; or one or several regions, whose visual tokens are meant: of
            each that a region covers by half at least the token, or the one that it covers most.

    Raises:
        PromptError: for a word or a position that is not there.
        RegionError: for a region the model does not see.
        CaptureError: for tokens that do not look, as those of an image beside the text's sequence.
    """
    regions = regions_of(tokens)
    if mllm.family.beside and (regions or _is(tokens, IMAGE, BEFORE)):
        raise CaptureError(
            f"The visual tokens of {mllm.family.name} are no part of the text's sequence ({mllm.family.way_in}), and "
            f"those that look at them are the text's or learned ones; got {shown(tokens)}. Give 'text' or 'all'."
        )
    if prompt.learned or mllm.model.config.is_encoder_decoder:
        if _is(tokens, ANSWERING):
            raise CaptureError(
                f"The answer's tokens of {mllm.family.name} are not among those that look at visual states; got "
                f"{ANSWERING!r}. Give 'text' or 'all'."
            )
        return Places(_positions(prompt, tokens, regions))
    return Places(_positions(prompt, tokens, regions), _is(tokens, *_ONWARDS))


def keys_of(mllm: Mllm, prompt: Prompt, tokens: Tokens) -> tuple[int, ...]:
    """Positions of the tokens that are looked at, of the prompt, among the keys; see `queries_of`.

    Raises:
        PromptError, RegionError: as `queries_of`.
        CaptureError: for words, where the layers that are known look at visual states beside the sequence alone.
    """
    regions = regions_of(tokens)
    if mllm.family.beside and not regions and not _is(tokens, IMAGE):
        raise CaptureError(
            f"In {mllm.family.name} only the attention to visual states is known ({mllm.family.way_in}); got "
            f"{shown(tokens)} to look at. Give 'image' or regions."
        )
    return _positions(prompt, tokens, regions)


def visual_numbers(prompt: Prompt, regions: Iterable[Region]) -> tuple[int, ...]:
    """Numbers of the visual tokens of regions: each that one covers by half, or the one that it covers most.

    Raises:
        RegionError: for a region the model does not see.
    """
    found: set[int] = set()
    for region in regions:
        weights = Target.of(prompt.layout, region).weights()
        covered = torch.nonzero(weights >= COVERED).flatten().tolist()
        found.update(covered or [int(weights.argmax())])
    return tuple(sorted(found))


def tokens_text(tokens: Any) -> str:
    """A choice of tokens in words."""
    names = {IMAGE: "the image", "text": "the question", "last": "the last token", ANSWERING: "the answering tokens"}
    names |= {"after_image": "what follows the image", BEFORE: "what stands before the image", ALL: "all tokens"}
    if isinstance(tokens, str):
        return names.get(tokens, shown(tokens))
    regions = regions_of(tokens)
    if regions:
        return "the region" if len(regions) == 1 else f"{len(regions)} regions"
    return shown(tokens)


def _is(tokens: Any, *names: str) -> bool:
    """Whether tokens are given by one of these names; an array has no single answer to whether it equals one."""
    return isinstance(tokens, str) and tokens in names


def regions_of(tokens: Any) -> tuple[Region, ...]:
    """The regions that are meant; none where tokens are given otherwise."""
    several = (tokens,) if isinstance(tokens, Region) else tuple(tokens) if isinstance(tokens, list | tuple) else ()
    regions = tuple(each for each in several if isinstance(each, Region))
    if regions and len(regions) < len(several):
        raise CaptureError(f"Tokens must be given by regions, or by words and positions, not both; got {shown(tokens)}.")
    return regions


def _positions(prompt: Prompt, tokens: Any, regions: tuple[Region, ...]) -> tuple[int, ...]:
    if regions:
        return tuple(prompt.visual[number] for number in visual_numbers(prompt, regions))
    everything = range(prompt.learned or len(prompt.tokens))
    groups = {
        ALL: everything,
        IMAGE: prompt.visual,
        BEFORE: range(min(prompt.visual)),
        ANSWERING: everything[-1:],
    }
    named = groups.get(tokens) if isinstance(tokens, str) else None
    found = tuple(sorted(prompt.positions(tokens) if named is None else named))
    if not found:
        raise CaptureError(f"At least one token is needed; there is none of {shown(tokens)}.")
    return found
