"""Attention editing: the region's logits are raised inside the attention function, while the model answers."""

from dataclasses import dataclass
from typing import ClassVar

from ...attention.bias import AttentionBias
from ...attention.heads import pairs_within
from ...errors import SettingsError
from ...inputs.regions import Region
from ...layout.visual_tokens import Rule
from ...models.interventions import Intervention
from ...models.mllm import Mllm
from ...models.prompt import Prompt
from ..kinds import HEADS, SIGMA, WINDOW, choice, real
from ..method import Method
from ..registry import register
from ..settings import setting
from ..target import Target


@register
@dataclass(frozen=True)
class AttentionEdit(Method):
    """`strength` times each visual token's weight in the region is added to its attention logits, before the softmax.

    The weights of a region's tokens become exp(strength) times what they were, before all are divided by their sum. A token
    counts by its share inside a box or mask, by exp(-D^2 / 2 sigma^2) for a scribble or point.
    """

    label: ClassVar[str] = "attention edit"

    strength: float = setting(2.0, "added to the region's attention logits; negative looks away", real(), asked=True)
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
    sigma: float = setting(0.1, "width of the Gaussian of scribbles and points", SIGMA, asked=True)
    rule: Rule = setting("area", "how regions become token weights", choice("area", "reference"))

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
        weights = Target.of(prompt.layout, regions, self.sigma, self.rule).weights()
        return AttentionBias(self.strength * weights.float(), self._layers(mllm), self.heads)

    def _layers(self, mllm: Mllm) -> tuple[int, ...]:
        low, high = self.layers or (0, mllm.layers)
        chosen = tuple(layer for layer in mllm.attention_layers if low <= layer < high)
        if high > mllm.layers or not chosen:
            raise SettingsError(
                f"layers must be a window (a, b) with 0 <= a < b <= {mllm.layers} that takes in one of "
                f"{list(mllm.attention_layers)}, or () for all; got {self.layers!r}."
            )
        return chosen
