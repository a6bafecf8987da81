"""ControlMLLM and ControlMLLM++: a latent on the visual tokens, moved along the gradient of an energy."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...models.contrast import Contrast
from ...models.interventions import Intervention
from ...models.latent import AllStatesMoved
from ...models.mllm import Mllm
from ...models.prompt import Prompt
from ...strict import one_of
from ..defaults import published_run
from ..kinds import BETAS, FLAG, SHARE, choice, real
from ..latent_method import LatentMethod
from ..method import Request
from ..moved import AllStates, Moved
from ..registry import register
from ..settings import MODEL_DEFAULT, setting
from ..updates import AdamSteps, GradientSteps, Updates

# Dtypes of Adam's state.
STATES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@register
@dataclass(frozen=True)
class ControlMLLM(LatentMethod):
    """Gradient steps with a moving average (ControlMLLM, arXiv 2407.21534, section 3.3).

    `p <- p - alpha dE/dp`; the latent in use is `beta p + (1 - beta) (latent in use before)`.

    Examples:
        >>> trace = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=3))
        >>> [f"{step.share:.0%}" for step in trace.steps]
        ['8%', '11%', '21%', '33%']
    """

    source: ClassVar[tuple[str, ...]] = ("wu2024controlmllm",)
    variants: ClassVar[dict[str, str]] = {"published": "published"}
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

    all_states: bool = setting(
        False,
        "the latent is on all states that the text looks at, CLS too, where these are no part of its sequence; as in the "
        "published code for InstructBLIP",
        FLAG,
    )

    def moves(self, mllm: Mllm, prompt: Prompt, runs: int = 1) -> Moved:
        return AllStates(mllm, prompt, runs) if self.all_states else super().moves(mllm, prompt, runs)

    def done(self, latent: Tensor) -> Intervention:
        return AllStatesMoved(latent) if self.all_states else super().done(latent)

    @classmethod
    def published(cls, model: str | None = None, task: str = "roc", **settings: Any) -> "ControlMLLM":
        """The published code's run, which docs/published.md describes setting by setting.

        Accumulation (not for InstructBLIP) with early stopping's extra latent, gradients scaled by beta, its masks, and
        every token after the image as context. `published_answer` has how it generates answers.

        Args:
            model: "llava-1.5", with the tasks "roc" and "rtc", or "instructblip" with "demo"; None for the published
                variant of the model in hand, which steps as far and as often as that model's defaults say.
            task: what was evaluated; it decides T.
            settings: others, or other values of these.

        Raises:
            SettingsError: for a model or task that was not published.
        """
        variant: dict[str, Any] = {
            "accumulate": MODEL_DEFAULT,
            "scale_gradient": True,
            "average": MODEL_DEFAULT,
            "floor": MODEL_DEFAULT,
            "rule": "reference",
            "queries": "after_image",
        }
        if model is not None:
            variant |= published_run(cls.defaults, model, task)
        elif one_of(task, "task", ("roc", "rtc")) == "rtc":
            variant["steps"] = 4
        return cls(**variant | settings)

    def start(self, latent: Tensor) -> Updates:
        # Left open, it is as published for most models: where the visual tokens stand in the text's sequence.
        accumulate = self.accumulate is not False
        return GradientSteps(latent, self.step_size, self.ema, accumulate, self.scale_gradient, self.relative)


@register
@dataclass(frozen=True)
class ControlMLLMPlus(LatentMethod):
    """Adam on the latent, attention of the last token, a window of layers (ControlMLLM++, arXiv 2602.19505).

    The published T counts the final generation; `steps` counts updates, one fewer.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.ControlMLLMPlus(steps=3)).answer)
        red cross at the right
    """

    label: ClassVar[str] = "ControlMLLM++"
    source: ClassVar[tuple[str, ...]] = ("wu2026controlmllmplus", "wu2024controlmllm")
    defaults: ClassVar[str] = "ControlMLLMPlus"

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
    state: str = setting(
        "float32",
        "dtype of latent and Adam's state; the published code has that of the embeddings, float16 under 4-bit weights: "
        "there the second moment of small gradients underflows, and a step becomes up to 6 times longer",
        choice(*STATES),
    )
    says: str = setting(
        "nothing",
        "what stands for {place} in the question; in the published code for Qwen2.5-VL it is the box",
        choice("nothing", "box"),
    )
    early_stop: float = 0.0

    @property
    def contrast_decoding(self) -> Contrast | None:
        return Contrast(self.contrast, self.contrast_cut) if self.contrast else None

    def sources(self) -> tuple[str, ...]:
        return (*self.source, "leng2024vcd") if self.contrast else self.source

    @classmethod
    def published(cls, model: str | None = None, task: str = "roc", **settings: Any) -> "ControlMLLMPlus":
        """The published code's run, its masks and energy included; docs/published.md has the settings.

        `published_answer` has how it generates answers. Its figures rest on `state="float16"`, probably: 4-bit weights give
        embeddings that dtype.

        Args:
            model: "llava-1.5" or "qwen2.5-vl"; None for the published variant of the model in hand, which steps as far and
                as often as that model's defaults say.
            task: "roc", "rtc", "refcocog" or "screenspot".
            settings: others, or other values of these.

        Raises:
            SettingsError: for a model or task that was not published.
        """
        variant: dict[str, Any] = {"rule": "reference", "average": MODEL_DEFAULT, "floor": MODEL_DEFAULT, "queries": "last"}
        if model is not None:
            variant |= published_run(cls.defaults, model, task)
        return cls(**variant | settings)

    def sent(self, request: Request, mllm: Mllm) -> Request:
        if self.says == "nothing":
            return request
        places = [", ".join(str(int(value)) for value in region.bounds) for region in request.regions]
        return request.named(" and ".join(f"box @ [{place}]" for place in places))

    def start(self, latent: Tensor) -> Updates:
        # Adam's first step moves every number by its rate.
        rate = self.step_size / latent[0].numel() ** 0.5 if self.relative else self.step_size
        return AdamSteps(latent, rate, self.betas, self.eps, self.loss_scale, STATES[self.state])
