"""Where each token looks: tokens to click, a layer x head grid, and the map of the head that is chosen in it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import traitlets

from ..attention.capture import Attention, capture_attention
from ..attention.context_map import ContextMap, context_map
from ..errors import CaptureError
from ..inputs.regions import Regions, where_text
from ..models.batch import answer_of, followed_by
from ..models.latent import Latent, read_latent
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, Queries
from ..referring.target import Target
from ..referring.trace_file import COPY_SIZE
from ..show.cards.analysis import head_picture
from ..show.html import card
from ..show.picture import map_picture
from ..shown import Fact, one_line
from ..strict import flag, shown, whole_number_or_none
from .checked import Checked
from .modules import script, style
from .picture import MapWidget, base64_of, page, picture_data

_NOT_LOOKING = "The answer's tokens are not shown: learned queries look at the image in their place."
_EMPTY = "The model's answer is empty."


class AttentionExplorer(MapWidget):
    """Tokens to click, a layer x head grid, and on the image the map of the head clicked in it.

    A cell of the grid is the share of the head's attention on the image that lies in the region; without a region, the
    share of all its attention that is on the image. The first row and column are those of the mean over layers and heads.

    The attention of all tokens stays in Python, in float32: 94 MB for 40 tokens of a model with 32 x 32 heads and 576
    visual tokens. The browser is sent the mean over the chosen tokens for every layer and head, 1.3 MB for that model, so
    that another head is shown without the kernel, and another token after one round trip.

    Args:
        mllm: the model that prepared the prompt.
        prompt: from `prepare`. Tokens before the image see nothing of it and are left out.
        region: one or several, outlined on the image.
        queries: the tokens chosen first; see `Prompt.positions`.
        layer: layer number, or None for the mean over layers.
        head: head number, or None for the mean over heads.
        answer: ask for the model's answer, and show its tokens too; only where text looks at the image itself, and not
            learned queries. A token of the answer looks as a query in the prompt followed by the answer; the token that
            it led to is the next one.
        sigma: width of the Gaussian by which a scribble's or point's share is weighted.
        latent: added to the visual tokens, to see where a steered model looks and what it answers: a run, or a tensor or
            array (visual token, width); see `Mllm.generate`.

    Attributes:
        queries: positions of the chosen tokens, as `queries=` of `capture_attention` and of methods takes them. May be
            set to whatever these take. The answer's follow those of the prompt, and belong to `attention.prompt`.
        attention: of all tokens that can be chosen.
        answer: the model's answer, None where it is not shown.
        map: the `ContextMap` that is shown.

    Raises:
        CaptureError: for a layer or head that the model does not have, or tokens that are not after the image.
        PromptError: for words that are not in the question.
        RegionError: for a region the model does not see.

    Examples:
        >>> explorer = cm.widgets.AttentionExplorer(mllm, prompt, box, layer=3)
        >>> explorer.map.values.shape
        torch.Size([64])
    """

    _esm = script("attention_explorer")
    _css = style("picture", "attention_explorer")

    data = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    queries: Any = Checked().tag(sync=True)
    layer = traitlets.Int(None, allow_none=True).tag(sync=True)
    head = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        mllm: Mllm,
        prompt: Prompt,
        region: Regions | None = None,
        *,
        queries: Queries = "text",
        layer: int | None = None,
        head: int | None = None,
        answer: bool = True,
        sigma: float = 0.1,
        latent: Latent | None = None,
        **options: Any,
    ):
        require(mllm, prompt)
        layer = whole_number_or_none(layer, "The explorer's layer", error=CaptureError)
        head = whole_number_or_none(head, "The explorer's head", error=CaptureError)
        answer = flag(answer, "answer", CaptureError)
        self.prompt = prompt
        self._copy = prompt.image.copy()
        self._copy.thumbnail((COPY_SIZE, COPY_SIZE))
        self.regions = () if region is None else prompt.layout.on_sheet(region)
        self._target = Target.of(prompt.layout, self.regions, sigma) if self.regions else None
        looking = not (prompt.learned or mllm.model.config.is_encoder_decoder)
        self.answer = mllm.generate(prompt, latent) if answer and looking else None
        # The very tokens that were said.
        said = () if self.answer is None else answer_of(mllm, self.answer).ids
        self._note = "" if said or not answer else _EMPTY if looking else _NOT_LOOKING
        self.attention = _all_attention(mllm, prompt, said, latent)
        super().__init__(data=self._data(), queries=queries, layer=layer, head=head, **options)

    def __repr__(self) -> str:
        return one_line("AttentionExplorer", self._facts())

    @property
    def map(self) -> ContextMap:
        """The map that is shown: the mean over the chosen tokens, of the chosen layer and head."""
        return context_map(self.attention, self.queries, layers=_one(self.layer), heads=_one(self.head))

    def to_html(self) -> str:
        """One page that opens from disk without a network: the chosen tokens' maps of all layers and heads."""
        state = {name: getattr(self, name) for name in ("data", "queries", "layer", "head")}
        maps = np.frombuffer(self.shown["maps"], np.uint8)
        state |= {"shown": self.shown | {"maps": base64_of(maps)}, "fixed": True}
        return page("attention_explorer", self.prompt.question, self._static(), state)

    @traitlets.validate("queries")
    def _check_queries(self, proposal: Any) -> tuple[int, ...]:
        queries = proposal["value"]
        positions = (self.prompt if isinstance(queries, str) else self.attention.prompt).positions(queries)
        missing = [position for position in positions if position not in self.attention.queries]
        if missing:
            raise CaptureError(
                f"Tokens to explore must stand after the image, at one of {list(self.attention.queries)}; got {missing}."
            )
        return positions

    @traitlets.validate("layer")
    def _check_layer(self, proposal: Any) -> int | None:
        return _existing(proposal["value"], self.attention.layers, "layer")

    @traitlets.validate("head")
    def _check_head(self, proposal: Any) -> int | None:
        return _existing(proposal["value"], self.attention.heads, "head")

    @traitlets.observe("queries")
    def _show(self, change: Any) -> None:
        values = self._means()
        on_image = values.sum(-1)
        percent = self.prompt.layout.raster((100 * values / on_image.clamp_min(1e-30)[..., None]).numpy())
        percent = percent.reshape(*values.shape[:2], -1).astype(float)
        peaks = np.maximum(percent.max(-1), 1e-30)
        self.shown = {
            "queries": list(self.queries),
            "on_image": on_image.flatten().tolist(),
            "inside": self._inside(values),
            "maps": np.round(percent / peaks[..., None] * 65535).astype("<u2").tobytes(),
            "peaks": peaks.flatten().tolist(),
        }

    @traitlets.observe("shown", "layer", "head")
    def _renew(self, change: Any) -> None:
        self.keep()

    def _inside(self, values: torch.Tensor) -> list[float] | None:
        if self._target is None:
            return None
        # A head may have nothing left for the image; JSON has no NaN.
        return self._target.to(values).share(values).nan_to_num(0).flatten().tolist()

    def _means(self) -> torch.Tensor:
        """(1 + layer, 1 + head, visual token): mean over the chosen tokens; the first of each axis is its mean."""
        index = [self.attention.queries.index(position) for position in self.queries]
        values = self.attention.values[:, :, index].mean(2)
        for axis in (1, 0):
            values = torch.cat([values.mean(axis, keepdim=True), values], axis)
        return values

    def _data(self) -> dict[str, Any]:
        """What stays the same: image, tokens, layers and heads, as plain JSON data."""
        prompt, attention = self.prompt, self.attention
        presets: dict[str, Queries] = {"question": "text", "all after the image": "after_image", "last": "last"}
        if prompt.learned:
            presets = {"all": "text"}
        return {
            **picture_data(self._copy, prompt.layout, self.regions),
            "tokens": [
                {"position": position, "text": word, "part": self._part(position)}
                for position, word in zip(attention.queries, attention.words, strict=True)
            ],
            "note": self._note,
            "presets": [[name, list(prompt.positions(queries))] for name, queries in presets.items()],
            "layers": list(attention.layers),
            "heads": list(attention.heads),
            "where": where_text(self.regions),
            "uniform": None if self._target is None else self._target.share(torch.ones(len(prompt.layout))).item(),
        }

    def _part(self, position: int) -> str:
        if position in self.prompt.positions("text"):
            return "question"
        return "template" if position < len(self.prompt.tokens) else "answer"

    def _facts(self) -> list[Fact]:
        """Of the map that is shown."""
        row, column = (
            0 if number is None else 1 + existing.index(number)
            for number, existing in ((self.layer, self.attention.layers), (self.head, self.attention.heads))
        )
        cell = row * (1 + len(self.attention.heads)) + column
        chosen = [f"{what} {number}" for what, number in (("layer", self.layer), ("head", self.head)) if number is not None]
        facts = [
            ("context token", repr(" ".join(self.attention.prompt.words(self.queries)))),
            ("", ", ".join(chosen) or "mean over layers and heads"),
            ("", f"{self.shown['on_image'][cell]:.1%} of its attention on the image"),
        ]
        if self.shown["inside"] is not None:
            inside, uniform = self.shown["inside"][cell], self.data["uniform"]
            facts.append(("", f"{inside:.1%} of that {where_text(self.regions)} (uniform attention: {uniform:.1%})"))
        return facts

    def _static(self) -> str:
        grid = self.map.grid / max(self.map.values.sum().item(), 1e-30)
        layout, layers, heads = self.prompt.layout, self.attention.layers, self.attention.heads
        on_image = map_picture(
            grid,
            layout,
            self._copy,
            regions=self.regions,
            caption=f"0 to {grid.max():.1%} of the attention on the image",
        )
        shares = np.reshape(self.shown["inside"] or self.shown["on_image"], (1 + len(layers), 1 + len(heads)))[1:, 1:]
        by_head = head_picture(shares, layers, heads, where_text(self.regions) if self.regions else "on the image")
        return card("AttentionExplorer", self._facts(), on_image, by_head)


def _all_attention(mllm: Mllm, prompt: Prompt, answer: tuple[int, ...], latent: Latent | None) -> Attention:
    """Attention of all tokens after the image, those of an answer included, in memory of the CPU."""
    # The attention is looked at only, so that a latent's gradient is not kept.
    values = None if latent is None else read_latent(latent, prompt.call).detach()
    attention = capture_attention(mllm, prompt, queries="after_image", latent=values)
    attention = replace(attention, values=attention.values.cpu())
    if not answer:
        return attention
    longer = followed_by(mllm, prompt, answer)
    # Of the answer alone: where the prompt's tokens see all of the sequence, they would see the answer.
    said = capture_attention(mllm, longer, queries=range(len(prompt.tokens), len(longer.tokens)), latent=values)
    both = torch.cat([attention.values, said.values.cpu()], 2)
    return replace(attention, values=both, queries=attention.queries + said.queries, prompt=longer)


def _one(number: int | None) -> list[int] | None:
    return None if number is None else [number]


def _existing(number: int | None, existing: Iterable[int], what: str) -> int | None:
    if number is not None and number not in existing:
        raise CaptureError(
            f"The explorer's {what} must be one of {list(existing)}, or None for the mean over {what}s; "
            f"got {shown(number)}."
        )
    return number
