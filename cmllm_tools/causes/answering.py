"""Where each token of an answer looks: its map, its share in regions, its heads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL import Image

from ..analysis.activation import activations, cams, check_held
from ..attention.capture import capture_attention
from ..attention.context_map import ContextMap
from ..attention.heads import Heads
from ..errors import CaptureError, PromptError
from ..inputs.regions import Region, Regions, as_regions
from ..layout.visual_tokens import VisualTokenLayout
from ..models.answer import Answer
from ..models.batch import answer_of, followed_by
from ..models.interventions import Intervention
from ..models.latent import Latent
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..models.undisturbed import unaffected
from ..referring.target import Target
from ..shown import Fact, Shown
from ..strict import one_of, whole_number

# What each token's map may be, and its name in words.
_OF = {"attention": "attention", "activation": "activation", "grad_cam": "Grad-CAM"}


@dataclass(frozen=True, eq=False, repr=False)
class AnswerTrace(Shown):
    """Where each token of an answer looks: the attention of the row that it is picked at, as with a cache, or another map.

    Args:
        answer: with its tokens.
        words: the tokens as strings.
        maps: (answer token, visual token), mean attention over the chosen layers and heads, or what `of` says.
        shares: (answer token, region), of the map, what lies in each region; 0..1.
        by_head: (answer token, layer, head), attention that each head pays to the regions, or to the image without any.
        layers, heads: numbers on these axes.
        layout: where each visual token looks.
        regions: what shares are of.
        image: what the visual tokens look at.
        pairs: the (layer, head) pairs that were asked for, where they were pairs.
        of: what the maps are of: "attention", "activation" or "Grad-CAM".

    Examples:
        >>> trace = cm.trace_answer(mllm, prompt, regions=box)
        >>> trace.words
        ('blue', 'zero', 'at', 'the', 'center')
        >>> trace.shares.shape, trace.maps.shape  # (answer token, region), (answer token, visual token)
        (torch.Size([5, 1]), torch.Size([5, 64]))
    """

    answer: Answer
    words: tuple[str, ...]
    maps: torch.Tensor = field(repr=False)
    shares: torch.Tensor = field(repr=False)
    by_head: torch.Tensor = field(repr=False)
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    layout: VisualTokenLayout = field(repr=False)
    regions: tuple[Region, ...]
    image: Image.Image = field(repr=False)
    pairs: tuple[tuple[int, int], ...] | None = None
    of: str = "attention"

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.words)

    @property
    def on_image(self) -> torch.Tensor:
        """(answer token,): what of a token's map is on the image, as a share of all that it pays; 0..1."""
        return self.maps.sum(-1)

    def map(self, token: int) -> ContextMap:
        """The map of one token, by its number in the answer.

        Raises:
            PromptError: for a token that there is not.
        """
        number = whole_number(token, "The number of an answer's token", 0, len(self) - 1, PromptError)
        return ContextMap(self.maps[number], self.layout, (self.words[number],), self.image)

    def top_heads(self, token: int, count: int = 5) -> list[tuple[int, int, float]]:
        """Layer, head and attention of the heads that look most at the regions, or the image, for one token.

        Raises:
            PromptError: for a token that there is not.
        """
        number = whole_number(token, "The number of an answer's token", 0, len(self) - 1, PromptError)
        pairs = self.pairs or [(layer, head) for layer in self.layers for head in self.heads]
        places = [(self.layers.index(layer), self.heads.index(head)) for layer, head in pairs]
        values = torch.stack([self.by_head[number][place] for place in places])
        best = values.topk(min(whole_number(count, "count", 1), len(values)))
        return [(*pairs[at], value) for at, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def facts(self) -> list[Fact]:
        least, most = self.on_image.min().item(), self.on_image.max().item()
        facts = [
            ("", repr(str(self.answer))),
            ("", f"{len(self)} tokens"),
            ("on the image", f"{least:.1%}..{most:.1%} of a token's {self.of}"),
        ]
        for number, _ in enumerate(self.regions):
            values = self.shares[:, number]
            word = self.words[int(values.argmax())]
            name = "in the region" if len(self.regions) == 1 else f"in region {number + 1}"
            facts.append((name, f"{values.min().item():.1%}..{values.max().item():.1%} of its map, most at {word!r}"))
        return facts


@unaffected(gradient=False)
def trace_answer(
    mllm: Mllm,
    prompt: Prompt,
    intervention: Intervention | Latent | None = None,
    *,
    regions: Regions | None = None,
    answer: str | Sequence[int] | None = None,
    layers: Iterable[int] | None = None,
    heads: Heads | None = None,
    maps: Literal["attention", "activation", "grad_cam"] = "attention",
    max_new_tokens: int = 64,
    **options: Any,
) -> AnswerTrace:
    """Answer a prompt, and see where each token of the answer looks.

    Of each token the attention that it was picked with: that of the token before it, the prompt's last for the first. All
    rows are computed in one forward over prompt and answer, which a cache does not change. Memory is linear in tokens.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        intervention: what is done to the model meanwhile, as for `Mllm.generate`; of a contrast, the branch with it.
        regions: whose shares are wanted, in pixels of the image; each by itself.
        answer: to follow in the place of the model's own: a text or token ids.
        layers, heads: of the attention; as for `capture_attention`.
        maps: "attention"; or what each token's map is in its place, and its share in the regions of: "activation" of
            `analysis.token_activation`, or "grad_cam" of `analysis.grad_cam`. Heads are those of the attention.
        max_new_tokens, **options: for `Mllm.generate`.

    Raises:
        CaptureError: for a family whose answer's tokens do not look at the image themselves; else as `capture_attention`.
        PromptError: for an answer of nothing.
        RegionError: for a region the model does not see.
        UnsupportedModelError: as `analysis.token_activation`.

    Examples:
        >>> trace = cm.trace_answer(mllm, prompt, outcome.intervention, regions=box)
        >>> [round(share, 2) for share in trace.shares[:, 0].tolist()][:2]
        [0.36, 0.63]
        >>> layer, head, attention = trace.top_heads(0)[0]
        >>> held = cm.trace_answer(mllm, prompt, regions=box, maps="grad_cam")  # what speaks for each token
        >>> held.of, held.maps.shape
        ('Grad-CAM', torch.Size([5, 64]))
    """
    require(mllm, prompt)
    one_of(maps, "maps", tuple(_OF))
    if prompt.learned or mllm.model.config.is_encoder_decoder:
        who = "learned queries do" if prompt.learned else "the encoder's do"
        raise CaptureError(
            f"The tokens of an answer of {mllm.family.name} do not look at the image themselves; {who}. Capture attention "
            "of 'text' in their place."
        )
    if maps != "attention":
        check_held(mllm, prompt, intervention, head=maps == "activation")
    if answer is None:
        said = mllm.generate(prompt, intervention, max_new_tokens=max_new_tokens, **options)
    else:
        said = answer_of(mllm, answer)
    if not said.ids:
        raise PromptError("An answer must have a token, to see where it looks; there is none.")
    followed = followed_by(mllm, prompt, said.ids)
    rows = list(range(len(prompt.tokens) - 1, len(prompt.tokens) - 1 + len(said.ids)))
    attention = capture_attention(mllm, followed, layers, heads, rows, intervention)
    several = () if regions is None else as_regions(regions)
    values = attention.values
    pairs = attention.pairs or [(layer, head) for layer in attention.layers for head in attention.heads]
    chosen = torch.zeros(len(attention.layers), len(attention.heads), dtype=values.dtype, device=values.device)
    for layer, head in pairs:
        chosen[attention.layers.index(layer), attention.heads.index(head)] = 1 / len(pairs)
    if maps == "attention":
        found = torch.einsum("lhqv,lh->qv", values, chosen)
    else:
        explain = activations if maps == "activation" else cams
        found = explain(mllm, prompt, said.ids, range(len(said.ids)), given=intervention).to(values)
    weights = [Target.of(prompt.layout, region).weights().to(found) for region in several]
    shares = torch.stack([found @ each for each in weights], -1) if weights else found.new_zeros(len(found), 0)
    looked = torch.stack(weights).amax(0) if weights else found.new_ones(found.shape[-1])
    return AnswerTrace(
        said,
        mllm.words(said.ids),
        found.cpu(),
        (shares / found.sum(-1, keepdim=True).clamp_min(1e-30)).cpu(),
        (values @ looked).permute(2, 0, 1).cpu(),
        attention.layers,
        attention.heads,
        prompt.layout,
        several,
        prompt.image,
        attention.pairs,
        _OF[maps],
    )
