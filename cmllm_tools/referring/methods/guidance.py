"""Guidance: the answer is decoded against what the model says without the region, of its pixels or of its tokens."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ...attention.highlight import Highlight
from ...inputs.pixels import hidden, pixels_of_all
from ...inputs.regions import Region
from ...layout.visual_tokens import Rule
from ...models.contrast import Contrast
from ...models.interventions import Intervention
from ...models.mllm import Mllm
from ...models.other_image import AgainstImage
from ...models.prompt import Prompt
from ..kinds import SIGMA, choice, real
from ..method import Method
from ..registry import register
from ..settings import setting
from ..target import Target

CUT = setting(
    0.0, "tokens are left out whose probability is below this share of the highest; 0 leaves out none", real(0, 1)
)


@register
@dataclass(frozen=True)
class RegionGuidance(Method):
    """Contrastive region guidance (CRG; Wan et al., ECCV 2024, arXiv 2403.02325).

    Each token is picked by (1 + alpha) times its logit, less alpha times that of the same question about the image whose
    region is blacked out: what the region adds counts twice at the published alpha of 1. One forward in place of another,
    in a batch of two.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.RegionGuidance()).answer)
        red cross at the right
    """

    label: ClassVar[str] = "region guidance"
    source: ClassVar[tuple[str, ...]] = ("wan2024crg",)

    strength: float = setting(
        1.0, "how much the answer without the region is subtracted (alpha)", real(above=0), asked=True, strength=True
    )
    fill: str = setting("black", "what is put in the region's place", choice("black", "mean", "blur"))
    cut: float = CUT
    reach: float = setting(
        0.1,
        "how far around a scribble or point the region goes, as a share of the image's longer side",
        real(above=0, most=1),
    )

    def intervention(self, mllm: Mllm, prompt: Prompt, regions: tuple[Region, ...]) -> Intervention:
        image = prompt.image
        without = hidden(image, pixels_of_all(regions, image.size, self.reach), self.fill, 0.1 * max(image.size))
        return AgainstImage(torch.from_numpy(np.array(without)), contrast=Contrast(self.strength, self.cut))


@register
@dataclass(frozen=True)
class PromptHighlighter(Method):
    """Highlighted visual tokens (Prompt Highlighter; Zhang et al., CVPR 2024, arXiv 2312.04302).

    Attention to the region's tokens is raised in one branch; in the other it is lowered and their embeddings are all but
    erased; the answer is picked from the first, away from the second. The published guidance scale is `strength` + 1.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.PromptHighlighter()).answer)
        red cross at the right
    """

    label: ClassVar[str] = "prompt highlighter"
    source: ClassVar[tuple[str, ...]] = ("zhang2024prompthighlighter",)

    activation: float = setting(5.0, "factor on attention to the region, before the softmax", real(above=0), asked=True)
    strength: float = setting(
        1.0, "how much the branch without it is subtracted; 0 decodes plainly", real(least=0), asked=True, strength=True
    )
    scale: float = setting(0.01, "what is left of the region's tokens in the other branch", real(0, 1))
    cut: float = CUT
    sigma: float = setting(0.1, "width of the Gaussian of scribbles and points", SIGMA)
    rule: Rule = setting("area", "how regions become token weights", choice("area", "reference"))

    def intervention(self, mllm: Mllm, prompt: Prompt, regions: tuple[Region, ...]) -> Intervention:
        weights = Target.of(prompt.layout, regions, self.sigma, self.rule).weights().float().clamp(0, 1)
        contrast = Contrast(self.strength, self.cut) if self.strength else None
        return Highlight(weights, self.activation, self.scale, contrast=contrast)
