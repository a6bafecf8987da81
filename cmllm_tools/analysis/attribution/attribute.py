"""What an answer depends on: attribution to visual tokens and image regions, by Captum."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ...errors import SettingsError
from ...layout.visual_tokens import VisualTokenLayout
from ...models.gradient import rescaled
from ...models.interrupts import Restoring
from ...models.mllm import Mllm
from ...models.prompt import Prompt
from ...models.undisturbed import unaffected
from ...shown import Fact, Shown
from ...strict import shown, whole_number, whole_seed
from .features import Features, feature_numbers, is_tokens
from .token_mask import BaselineStates, PresenceScore

AttributionMethod = Literal["integrated_gradients", "input_x_gradient", "feature_ablation", "occlusion", "kernel_shap"]

# Integrated gradients double their steps until they are complete to this share, or at MOST_STEPS.
COMPLETE = 0.01
MOST_STEPS = 256


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Shown):
    """How much each visual token adds to an answer's log-probability.

    Args:
        values: (visual token,) float32 on the CPU, in nats; negative where a token speaks against the answer. What is
            attributed to a feature of several tokens is spread evenly over them.
        layout: where each visual token looks.
        target: what was attributed.
        answer: the answer's text.
        method: how.
        features: (visual token,) number of the feature that each token belongs to.
        score: the target's value for the prompt as it is.
        baseline_score: its value with every visual token at the baseline.
        completeness_error: of integrated gradients, `|sum of values - (score - baseline_score)|` as a share of
            `|score - baseline_score|`; None for the other methods, which do not promise to be complete.
        image: what the visual tokens look at.

    Examples:
        >>> found = cm.analysis.attribute(mllm, prompt, method="input_x_gradient", progress=False)
        >>> found.answer, found.values.shape
        ('blue zero at the center', torch.Size([64]))
    """

    values: torch.Tensor
    layout: VisualTokenLayout = field(repr=False)
    target: str
    answer: str
    method: str
    features: np.ndarray
    score: float
    baseline_score: float
    completeness_error: float | None = None
    image: Image.Image | None = field(default=None, repr=False)

    def facts(self) -> list[Fact]:
        x0, y0, x1, y1 = self.layout.boxes[int(self.values.argmax())]
        error = self.completeness_error
        facts = [
            ("", f"of {self.target}"),
            ("by", self.method),
            ("score", f"{self.score:.3f}, {self.baseline_score:.3f} at the baseline"),
            ("highest at", f"x {x0:.0f}..{x1:.0f} y {y0:.0f}..{y1:.0f}"),
        ]
        if error is not None:
            missed = "" if error <= COMPLETE else f", above {COMPLETE:.0%}: not to be trusted"
            facts.append(("completeness error", f"{error:.2%}{missed}"))
        return facts

    @property
    def grid(self) -> np.ndarray:
        """The values as (row, column); see `VisualTokenLayout.raster`."""
        return self.layout.raster(self.values.numpy())

    @property
    def of_features(self) -> np.ndarray:
        """(feature,): what is attributed to each feature. Of regions, the last is all that lies in none of them."""
        return np.bincount(self.features, self.values.numpy())


def attribute(
    mllm: Mllm,
    prompt: Prompt,
    answer: str | None = None,
    method: AttributionMethod = "integrated_gradients",
    features: Features = "tokens",
    *,
    token: int | None = None,
    against: str | None = None,
    baseline: BaselineStates = "mean",
    steps: int = 32,
    samples: int | None = None,
    window: int = 3,
    batch: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Attribution:
    """Attribute an answer's log-probability to visual tokens or image regions.

    Captum sees the presence of each visual token, 1 for its own state and 0 for the baseline's (see `PresenceScore`).
    Integrated gradients over presence are those over the visual states, summed over their width: Captum's
    LayerIntegratedGradients with the visual tokens as the layer. The vision encoder runs once for each size of batch.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: the answer to explain; the model's own when None.
        method: "integrated_gradients" (Sundararajan et al. 2017), "input_x_gradient" (its first-order part: state minus
            baseline, times gradient), "feature_ablation" (each feature to the baseline), "occlusion" (a window slid over
            the tokens' grid), "kernel_shap" (Lundberg and Lee 2017).
        features: what is taken away at once in an ablation or by KernelShap: "tokens"; (rows, columns) of a grid over what
            the model sees; or regions, to which the tokens that they touch belong, those touched by several to the one
            that covers most. What is in no region is one more feature.
        token: number of the answer's token to explain alone; all when None.
        against: another answer: explain what speaks for the one rather than the other.
        baseline: "mean", "blank", "zero" or states; see `PresenceScore`. Away from the states that a model knows, its norms
            undo the path: with "zero", integrated gradients of the embedded model stay a tenth short of complete.
        steps: of integrated gradients (Gauss-Legendre) at first; doubled to at most MOST_STEPS until the completeness
            error is at most COMPLETE.
        samples: of KernelShap; 8 for each feature when None.
        window: side of occlusion's window in visual tokens; 1 or more. Its steps are one token.
        batch: copies of the prompt in one forward, which bounds the memory; see `PresenceScore`.
        seed: of KernelShap's samples.
        progress: show a progress bar.

    Raises:
        ImportError: without Captum.
        PromptError: for an empty answer.
        RegionError: for a region that the model does not see, or that loses all its tokens to others.
        SettingsError: for a method, features, or other setting that does not exist or does not go together.

    Examples:
        >>> found = cm.analysis.attribute(mllm, prompt, "red cross", "input_x_gradient", against="blue zero")
        >>> found.values.shape  # (visual token,), what speaks for the one rather than the other
        torch.Size([64])
    """
    settings = AttributionSettings(method, features, steps, samples, window, seed, progress)
    captum("attr")
    score = PresenceScore(mllm, prompt, answer, token=token, against=against, baseline=baseline, batch=batch)
    values, numbers, error = attributed(score, prompt.layout, settings)
    return Attribution(
        values=values.float().cpu(),
        layout=prompt.layout,
        target=score.target,
        answer=score.answer,
        method=method,
        features=numbers,
        score=score.present,
        baseline_score=score.absent,
        completeness_error=error,
        image=prompt.image,
    )


@dataclass(frozen=True, eq=False)
class AttributionSettings:
    """What `attribute` is told about the method."""

    method: AttributionMethod
    features: Features = "tokens"
    steps: int = 32
    samples: int | None = None
    window: int = 3
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or self.method not in _METHODS:
            raise SettingsError(f"A method must be one of {', '.join(_METHODS)}; got {shown(self.method)}.")
        if not is_tokens(self.features) and self.method not in ("feature_ablation", "kernel_shap"):
            raise SettingsError(
                f"Features other than 'tokens' are for feature_ablation and kernel_shap; got {shown(self.features)} "
                f"for {self.method}."
            )
        for name in ("steps", "samples", "window"):
            value = getattr(self, name)
            if value is not None and whole_number(value, name) < 1:
                raise SettingsError(f"{name} must be at least 1; got {value}.")
        whole_seed(self.seed)


@unaffected(gradient=True)
def attributed(
    score: PresenceScore, layout: VisualTokenLayout, settings: AttributionSettings
) -> tuple[torch.Tensor, np.ndarray, float | None]:
    """Values (visual token,), each token's feature (visual token,), and the completeness error of integrated gradients."""
    numbers = feature_numbers(layout, settings.features)
    values, error = _METHODS[settings.method](score, layout, numbers, settings)
    return values.detach()[0], numbers, error


def captum(part: str) -> Any:
    """A module of Captum's, loaded when first needed."""
    try:
        return import_module(f"captum.{part}")
    except ImportError as error:
        raise ImportError("Attribution needs Captum: pip install 'cmllm_tools[attribution]'.") from error


_Result = tuple[torch.Tensor, float | None]


def _there(score: PresenceScore) -> torch.Tensor:
    """(1, visual token): every visual token present; Captum warns unless it requires a gradient."""
    return score.states.new_ones(1, len(score)).requires_grad_()


def _integrated_gradients(score: PresenceScore, layout: Any, numbers: Any, settings: AttributionSettings) -> _Result:
    there, change = _there(score), score.present - score.absent
    steps = settings.steps
    while True:
        with score.progress(steps, "integrated gradients", settings.progress):
            (values,) = rescaled(partial(_integrated, score, there, steps), score.half)
        error = abs(values.sum().item() - change) / max(abs(change), 1e-12)
        if error <= COMPLETE or steps >= MOST_STEPS:
            return values, error
        steps = min(2 * steps, MOST_STEPS)


def _integrated(score: PresenceScore, there: torch.Tensor, steps: int, scale: float) -> list[torch.Tensor]:
    method = captum("attr").IntegratedGradients(_times(score, scale))
    return [method.attribute(there, baselines=0, n_steps=steps, internal_batch_size=score.batch)]


def _input_x_gradient(score: PresenceScore, layout: Any, numbers: Any, settings: AttributionSettings) -> _Result:
    (values,) = rescaled(
        lambda scale: [captum("attr").InputXGradient(_times(score, scale)).attribute(_there(score))], score.half
    )
    return values, None


def _times(score: PresenceScore, scale: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda presence: score(presence) * scale


def _feature_ablation(score: PresenceScore, layout: Any, numbers: np.ndarray, settings: AttributionSettings) -> _Result:
    mask = torch.from_numpy(numbers).to(score.states.device)[None]
    with unaffected(gradient=False), score.progress(int(mask.max()) + 2, "feature ablation", settings.progress):
        values = (
            captum("attr")
            .FeatureAblation(score)
            .attribute(_there(score), baselines=0, feature_mask=mask, perturbations_per_eval=score.batch)
        )
    return values / _sizes(mask), None


def _occlusion(score: PresenceScore, layout: VisualTokenLayout, numbers: Any, settings: AttributionSettings) -> _Result:
    (rows, columns), window = layout.grid, settings.window
    if layout.merged or window > min(rows, columns):
        raise SettingsError(
            f"Occlusion slides its window over the grid of visual tokens, which must be at least as large ({window}); this "
            f"layout is {layout!r}. Use feature_ablation with features=(rows, columns)."
        )

    def on_grid(presence: torch.Tensor) -> torch.Tensor:
        return score(presence.flatten(1))

    total = (rows - window + 1) * (columns - window + 1) + 1
    with unaffected(gradient=False), score.progress(total, "occlusion", settings.progress):
        values = (
            captum("attr")
            .Occlusion(on_grid)
            .attribute(
                _there(score).view(1, rows, columns),
                sliding_window_shapes=(window, window),
                strides=1,
                baselines=0,
                perturbations_per_eval=score.batch,
            )
        )
    return values.flatten(1), None


def _kernel_shap(score: PresenceScore, layout: Any, numbers: np.ndarray, settings: AttributionSettings) -> _Result:
    mask = torch.from_numpy(numbers).to(score.states.device)[None]
    count = int(mask.max()) + 1
    if count < 2:
        raise SettingsError(f"KernelShap shares a score out over features, 2 or more; got {settings.features!r}.")
    samples = settings.samples or 8 * count
    devices = [score.states.device] if score.states.is_cuda else []
    random = Restoring(partial(torch.random.fork_rng, devices))
    with unaffected(gradient=False), random, score.progress(samples, "KernelShap", settings.progress):
        torch.manual_seed(settings.seed)
        values = (
            captum("attr")
            .KernelShap(score)
            .attribute(_there(score), baselines=0, feature_mask=mask, n_samples=samples, perturbations_per_eval=score.batch)
        )
    return values / _sizes(mask), None


def _sizes(mask: torch.Tensor) -> torch.Tensor:
    """(1, visual token): number of tokens in each token's feature."""
    return torch.bincount(mask[0])[mask]


_METHODS: dict[str, Callable[..., _Result]] = {
    "integrated_gradients": _integrated_gradients,
    "input_x_gradient": _input_x_gradient,
    "feature_ablation": _feature_ablation,
    "occlusion": _occlusion,
    "kernel_shap": _kernel_shap,
}
