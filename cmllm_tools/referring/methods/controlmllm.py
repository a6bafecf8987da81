"""ControlMLLM and ControlMLLM++: a latent on the visual tokens, moved along the gradient of an energy."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ...models.contrast import Contrast
from ...models.prompt import Queries
from ...strict import one_of
from ..kinds import BETAS, FLAG, SHARE, real
from ..latent_method import LatentMethod
from ..registry import register
from ..settings import MODEL_DEFAULT, setting
from ..updates import AdamSteps, GradientSteps, Updates


@register
@dataclass(frozen=True)
class ControlMLLM(LatentMethod):
    """Gradient steps with a moving average (ControlMLLM, arXiv 2407.21534, section 3.3).

    `p <- p - alpha dE/dp`; the latent in use is `beta p + (1 - beta) (latent in use before)`.
    """

    variants: ClassVar[dict[str, str]] = {"reference": "reference"}
    defaults: ClassVar[str] = "ControlMLLM"

    ema: float = setting(
        MODEL_DEFAULT, "weight of the newest latent in the moving average (beta); 1 takes no average", SHARE
    )
    accumulate: bool = setting(
        False,
        "visual tokens are changed in place, as in the published code for LLaVA, so that the latents of all iterations add "
        "up; after an early stop the last latent is added once more, which is a step of its own; None stands for what was "
        "published for the model's family",
        FLAG,
        left_open=True,
    )
    scale_gradient: bool = setting(
        False, "every gradient after the first is scaled by beta, as the published code differentiates by p", FLAG
    )

    @classmethod
    def reference(cls, task: str = "roc", **settings: Any) -> "ControlMLLM":
        """The published code's variant, which docs/published.md describes setting by setting.

        Accumulation (not for InstructBLIP) with early stopping's extra latent, gradients scaled by beta, its masks, and
        every token after the image as context. How far and how often it steps are the model's defaults: for LLaVA-1.5-7B
        those published.

        Args:
            task: "roc", or "rtc", for which the published code takes T = 4.
            settings: others, or other values of these.
        """
        variant: dict[str, Any] = {
            "accumulate": MODEL_DEFAULT,
            "scale_gradient": True,
            "average": MODEL_DEFAULT,
            "floor": MODEL_DEFAULT,
            "rule": "reference",
            "queries": "after_image",
        }
        steps = {"steps": 4} if one_of(task, "task", ("roc", "rtc")) == "rtc" else {}
        return cls(**variant | steps | settings)

    def start(self, latent: Tensor) -> Updates:
        # Left open, it is as published for most models: where the visual tokens stand in the text's sequence.
        return GradientSteps(latent, self.step_size, self.ema, self.accumulate is not False, self.scale_gradient)


@register
@dataclass(frozen=True)
class ControlMLLMPlus(LatentMethod):
    """Adam on the latent, attention of the last token, a window of layers (ControlMLLM++, arXiv 2602.19505).

    The published T counts the final generation; `steps` counts updates, one fewer.
    Adam's state is float32, as in the paper; the published code's has the model's dtype.
    """

    label: ClassVar[str] = "ControlMLLM++"
    defaults: ClassVar[str] = "ControlMLLMPlus"

    queries: Queries = "last"
    sigma: float = 0.4
    contrast: float = setting(
        MODEL_DEFAULT, "strength of contrastive decoding in the answer (cd_alpha); 0 decodes plainly", real(least=0)
    )
    contrast_cut: float = setting(0.1, "plausibility cut of contrastive decoding (cd_beta)", real(above=0, most=1))
    loss_scale: float = setting(
        400.0, "factor on the energy (alpha); it matters through Adam's epsilon only", real(above=0)
    )
    betas: tuple[float, float] = setting((0.9, 0.999), "Adam's", BETAS)
    eps: float = setting(1e-3, "Adam's", real(above=0))
    early_stop: float = 0.0

    @property
    def contrast_decoding(self) -> Contrast | None:
        return Contrast(self.contrast, self.contrast_cut) if self.contrast else None

    @classmethod
    def reference(cls, **settings: Any) -> "ControlMLLMPlus":
        """The published code's masks and energy, whose form depends on the model; docs/published.md has its settings.

        Args:
            settings: others, or other values of these.
        """
        return cls(**{"rule": "reference", "average": MODEL_DEFAULT, "floor": MODEL_DEFAULT} | settings)

    def start(self, latent: Tensor) -> Updates:
        return AdamSteps(latent, self.step_size, self.betas, self.eps, self.loss_scale)
