"""Attention sinks: visual tokens that are looked at whatever is asked."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from ..attention.capture import capture_attention
from ..attention.context_map import ContextMap, context_map
from ..attention.heads import Heads, pairs_within
from ..errors import CaptureError, SettingsError
from ..inputs.images import ImageSource
from ..layout.visual_tokens import VisualTokenLayout
from ..models.mllm import Mllm, require
from ..models.prompt import Queries
from ..models.undisturbed import unaffected
from ..shown import Fact, Shown
from ..strict import kind_of, number, several, whole_numbers


@dataclass(frozen=True, eq=False, repr=False)
class Sinks(Shown):
    """Visual tokens that attract attention regardless of the question; iterated, their numbers.

    Leave them out with `context_map(attention, without=sinks)`, or `ControlMLLM(without=sinks.tokens)`.

    Args:
        tokens: numbers of the sinks, the strongest first.
        excess: (question, visual token), each token's attention as a multiple of the median token's.
        factor: the excess that a sink has for every question.
        layout: where each visual token looks.
        questions: what was asked, in the order of `excess`.
        blank: the one of them that asks nothing; "" for none.
        image: what the visual tokens look at.

    Examples:
        >>> found = cm.analysis.sinks(mllm, scene.image, ["describe the object.", scene.question])
        >>> len(found.tokens), found.excess.shape
        (0, (3, 64))
    """

    tokens: tuple[int, ...]
    excess: np.ndarray
    factor: float
    layout: VisualTokenLayout = field(repr=False)
    questions: tuple[str, ...]
    image: Image.Image | None = field(default=None, repr=False)
    blank: str = ""

    @property
    def least(self) -> np.ndarray:
        """(visual token,): the excess over all questions at its least, which makes a sink."""
        result: np.ndarray = self.excess.min(0)
        return result

    @property
    def grid(self) -> np.ndarray:
        """`least` as (row, column): the mean over the tokens that look at a cell, as multiples are not to be summed."""
        result: np.ndarray = self.layout.raster(self.least) / np.maximum(
            self.layout.raster(np.ones(len(self.layout))), 1e-12
        )
        return result

    def __iter__(self) -> Iterator[int]:
        return iter(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def facts(self) -> list[Fact]:
        share = (self.excess / self.excess.sum(1, keepdims=True))[:, list(self.tokens)].sum(1).mean()
        asked = len(self.questions) - (self.blank in self.questions)
        beside = f", and for {self.blank!r}, which asks nothing" if self.blank else ""
        return [
            ("", f"{len(self)} of {len(self.layout)} visual tokens, with {share:.1%} of the attention on the image"),
            ("above", f"{self.factor:g} x the median token for each of {asked} questions{beside}"),
            ("highest", f"{self.least.max():.1f} x"),
        ]


@unaffected(gradient=False)
def sinks(
    mllm: Mllm,
    image: ImageSource,
    questions: Sequence[str],
    *,
    blank: str = ".",
    queries: Queries = "text",
    layers: Iterable[int] | None = None,
    heads: Heads | None = None,
    factor: float = 5.0,
) -> Sinks:
    """Find the visual tokens of an image that attract attention whatever is asked.

    Language models park attention on tokens that mean little (attention sinks, Xiao et al., arXiv 2309.17453), and on
    visual tokens too (Kang et al., arXiv 2503.03321). The latter are found there by massive activations of their hidden
    states; here, for any model, by attention alone: a token is a sink when it gets more than `factor` times the attention
    of the median token for every one of several questions, one of which asks nothing. Ask about different things: what
    every question means is no sink.

    Args:
        mllm: the model.
        image: path, PIL image or array.
        questions: about different parts of the image, at least one.
        blank: a question that asks nothing, compared with too; "" for none.
        queries, layers, heads: as in `capture_attention`.
        factor: above 1.

    Raises:
        SettingsError: for questions that are one text, fewer than two with the blank one, or a factor that is not above 1.
        PromptError: for queries that are not in every question.

    Examples:
        >>> found = cm.analysis.sinks(mllm, scene.image, ["describe the object.", scene.question], factor=3)
        >>> cmap = cm.context_map(attention, without=found)
    """
    require(mllm)
    asked = several(questions, "Questions must be a sequence of texts", SettingsError)
    blank, factor = kind_of(blank, str, "blank must be a text"), number(factor, "factor", above=1)
    layers = None if layers is None else whole_numbers(layers, "the layers", error=CaptureError)
    pairs, numbers = pairs_within(heads, layers)
    asked = (*asked, *([blank] if blank else []))
    maps = []
    for question in asked:
        prompt = mllm.prepare(image, question)
        maps.append(context_map(capture_attention(mllm, prompt, layers, pairs or numbers, queries)))
    return replace(sinks_in(maps, factor, asked), blank=blank)


def sinks_in(maps: Sequence[ContextMap], factor: float = 5.0, questions: Sequence[str] | None = None) -> Sinks:
    """The visual tokens above `factor` times the median in every one of several maps of one image; see `sinks`.

    Args:
        maps: from `context_map`, for different questions.
        factor: above 1.
        questions: names of the maps; their query tokens when None.

    Raises:
        SettingsError: for fewer than two maps, maps of several images, or a factor that is not above 1.

    Examples:
        >>> maps = [cm.context_map(attention, layers=[layer]) for layer in (2, 3)]
        >>> cm.analysis.sinks_in(maps, factor=2).factor
        2.0
    """
    maps = several(maps, "Sinks need several maps from context_map(attention)", SettingsError)
    for cmap in maps:
        kind_of(cmap, ContextMap, "Sinks need maps from context_map(attention)", SettingsError)
    factor = number(factor, "factor", above=1)
    if len(maps) < 2 or any(not np.array_equal(cmap.layout.boxes, maps[0].layout.boxes) for cmap in maps):
        raise SettingsError(f"Sinks need the maps of at least two questions about one image; got {len(maps)}.")
    values = np.stack([cmap.values.detach().float().cpu().numpy() for cmap in maps])
    excess = values / np.maximum(np.median(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    least = excess.min(0)
    found = [int(token) for token in np.argsort(-least) if least[token] > factor]
    names = (
        [" ".join(cmap.words) for cmap in maps] if questions is None else several(questions, "Names of maps", SettingsError)
    )
    if len(names) != len(maps):
        raise SettingsError(f"Each of {len(maps)} maps must have a name; got {len(names)}.")
    return Sinks(tuple(found), excess, factor, maps[0].layout, tuple(names), maps[0].image)
