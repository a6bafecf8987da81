"""Attention editing: the region is looked at more, inside the attention function, while the model answers."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...attention.bias import AttentionBias
from ...attention.capture import capture_attention
from ...attention.heads import pairs_within
from ...errors import SettingsError
from ...inputs.regions import Region
from ...layout.visual_tokens import Rule
from ...models.interventions import Intervention
from ...models.mllm import Mllm
from ...models.prompt import Prompt
from ..kinds import HEADS, NUMBERS, SIGMA, WINDOW, choice, real, whole
from ..method import Method
from ..registry import register
from ..settings import setting
from ..target import Target


@register
@dataclass(frozen=True)
class AttentionEdit(Method):
    """The region's visual tokens are looked at more, by every token after the image, while the model answers.

    With `edit` "logits", `strength` times a token's weight in the region is added to its attention logits before the
    softmax: its attention becomes exp(strength) times what it was, before all is divided by its sum. With "weights" the
    attention itself is multiplied by 1 + strength times the weight, and divided by its sum. A token counts by its share
    inside a box or mask, by exp(-D^2 / 2 sigma^2) for a scribble or point.

    ControlMLLM's paper argues against the first, at a strength of 10 (arXiv 2407.21534, section 4.3); a strength of 2 to 3
    is a serious rival. `best` edits those heads alone that look most at the region by themselves (as Gaze Heads, arXiv
    2606.14703); `follow` goes from one region to the next while the answer goes on.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.AttentionEdit(3)).answer)
        red cross at the right
    """

    label: ClassVar[str] = "attention edit"
    source: ClassVar[tuple[str, ...]] = ("wu2024controlmllm",)

    strength: float = setting(
        2.0, "how much more the region is looked at; negative looks away", real(), asked=True, strength=True
    )
    edit: str = setting(
        "logits", "what is changed: logits by adding, or weights by multiplying", choice("logits", "weights")
    )
    layers: tuple[int, ...] = setting(
        (), "window [a, b) of decoder layers that are changed, range(a, b) for the same, or () for all", WINDOW, asked=True
    )
    heads: tuple[int, ...] | tuple[tuple[int, int], ...] | None = setting(
        None,
        "head numbers, all when None; or (layer, head) pairs, of which those in layers count",
        HEADS,
        asked=True,
        left_open=False,
    )
    best: int = setting(
        0,
        "how many of these heads are changed: those whose attention from the question's tokens is most in the region; 0 "
        "for all",
        whole(0),
    )
    follow: tuple[int, ...] = setting(
        (),
        "with several regions, the numbers of the answer's tokens with which the second and each further one takes over; "
        "none for all regions at once",
        NUMBERS,
    )
    sigma: float = setting(0.1, "width of the Gaussian of scribbles and points", SIGMA, asked=True)
    rule: Rule = setting("area", "how regions become token weights", choice("area", "reference"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.edit == "weights" and self.strength <= -1:
            raise SettingsError(
                f"strength must be above -1 where weights are edited, as they are multiplied by 1 + strength; got "
                f"{self.strength:g}."
            )
        if list(self.follow) != sorted(set(self.follow)) or min(self.follow, default=1) < 1:
            raise SettingsError(f"follow must be rising numbers of at least 1; got {self.follow}.")

    def resolve(self, mllm: Mllm) -> "AttentionEdit":
        """The same method, if the model has its layers and heads.

        Raises:
            SettingsError: for layers or heads that the model does not have.
        """
        layers = self._layers(mllm)
        pairs, heads = pairs_within(self.heads, layers)
        if any(head >= mllm.heads for head in [*(head for _, head in pairs or ()), *(heads or ())]):
            raise SettingsError(f"heads must be numbers in 0..{mllm.heads - 1}; got {self.heads!r}.")
        return self

    def intervention(self, mllm: Mllm, prompt: Prompt, regions: tuple[Region, ...]) -> Intervention:
        groups = [(region,) for region in regions] if self.follow else [regions]
        if len(groups) != len(self.follow) + 1:
            raise SettingsError(
                f"follow must say when each region after the first takes over: {len(groups) - 1} numbers for "
                f"{len(groups)} regions; got {self.follow}."
            )
        weights = torch.stack([self._weights(prompt, group) for group in groups])
        bias = self.strength * weights if self.edit == "logits" else torch.log1p(self.strength * weights)
        heads = self._best(mllm, prompt, weights.amax(0)) if self.best else self.heads
        return AttentionBias(bias if self.follow else bias[0], self._layers(mllm), heads, (0, *self.follow))

    def _weights(self, prompt: Prompt, regions: tuple[Region, ...]) -> torch.Tensor:
        return Target.of(prompt.layout, regions, self.sigma, self.rule).weights().float()

    def _best(self, mllm: Mllm, prompt: Prompt, weights: torch.Tensor) -> tuple[tuple[int, int], ...]:
        """The (layer, head) pairs with the most attention to the region, of the ones that are chosen, nothing changed."""
        attention = capture_attention(mllm, prompt, self._layers(mllm), self.heads)
        values = attention.values.mean(2) @ weights.to(attention.values)
        pairs = [(layer, head) for layer in attention.layers for head in attention.heads]
        most = sorted(zip(values.flatten().tolist(), pairs, strict=True), key=lambda each: -each[0])
        allowed = [pair for _, pair in most if attention.pairs is None or pair in attention.pairs]
        return tuple(allowed[: self.best])

    def _layers(self, mllm: Mllm) -> tuple[int, ...]:
        low, high = self.layers or (0, mllm.layers)
        chosen = tuple(layer for layer in mllm.attention_layers if low <= layer < high)
        if high > mllm.layers or not chosen:
            raise SettingsError(
                f"layers must be a window (a, b) with 0 <= a < b <= {mllm.layers} that takes in one of "
                f"{list(mllm.attention_layers)}, or () for all; got {self.layers!r}."
            )
        return chosen
