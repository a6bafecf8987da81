"""The methods as settings of one optimisation: ControlMLLM and ControlMLLM++."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Any

import torch

from .errors import SettingsError
from .heads import pairs_within
from .layout import Rule
from .models.decoding import Contrast
from .models.defaults import method_defaults
from .models.mllm import Mllm
from .models.prompt import Queries

# Stands for a setting that `Method.resolve` takes from the model's own defaults.
MODEL_DEFAULT: Any = None


@dataclass(frozen=True)
class Method(ABC):
    """Settings shared by all methods. What is None is filled in for the model by `resolve`.

    Args:
        steps: number of updates of the latent (T).
        step_size: how far an update goes: the factor on the gradient (alpha) for gradient steps, the learning rate for
            Adam.
        layers: window [a, b) of decoder layers whose attention is averaged, or () for all.
        heads: head numbers, all when None; or (layer, head) pairs, of which those in `layers` count (all layers, where that
            is left open).
        queries: which tokens make up the context token; see `Prompt.positions`. The paper takes "text".
        sigma: width of the Gaussian of scribbles and points.
        rule: how regions become token weights, "area" or "reference".
        early_stop: stop once the energy has changed by this fraction of the first; 0 never stops.
        without: numbers of visual tokens to leave out of map and energy; see `analysis.sinks`.
    """

    steps: int = MODEL_DEFAULT
    step_size: float = MODEL_DEFAULT
    layers: tuple[int, ...] = MODEL_DEFAULT
    heads: tuple[int, ...] | tuple[tuple[int, int], ...] | None = None
    queries: Queries = MODEL_DEFAULT
    sigma: float = MODEL_DEFAULT
    rule: Rule = "area"
    early_stop: float = MODEL_DEFAULT
    without: tuple[int, ...] = ()

    def resolve(self, mllm: Mllm) -> "Method":
        """The same method with every setting filled in for a model.

        Raises:
            SettingsError: for a setting out of range.
            CaptureError: for (layer, head) pairs none of which is in the window of layers.
        """
        config = mllm.model.config
        width = int(config.get_text_config().hidden_size)
        defaults = method_defaults(type(self).__name__, config.model_type, mllm.layers, width)
        if not mllm.family.contrast and "contrast" in defaults:
            defaults["contrast"] = 0.0
        if pairs_within(self.heads, None)[0] is not None:
            defaults["layers"] = ()
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return replace(self, **missing).checked(mllm)

    def checked(self, mllm: Mllm) -> "Method":
        if not isinstance(self.steps, int) or self.steps < 1:
            raise SettingsError(f"steps must be a whole number of at least 1; got {self.steps!r}.")
        for name in ("step_size", "sigma"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise SettingsError(f"{name} must be a finite number above 0; got {value!r}.")
        pairs, _ = pairs_within(self.heads, None)
        unknown = [pair for pair in pairs or () if pair[0] not in mllm.attention_layers or not 0 <= pair[1] < mllm.heads]
        if unknown:
            raise SettingsError(
                f"(layer, head) pairs must name layers of {list(mllm.attention_layers)} and heads in 0..{mllm.heads - 1}; "
                f"got {unknown}."
            )
        if self.layers:
            window = tuple(self.layers)
            if len(window) != 2 or not 0 <= window[0] < window[1] <= mllm.layers:
                raise SettingsError(
                    f"layers must be a window (a, b) with 0 <= a < b <= {mllm.layers}, or () for all; got {self.layers!r}."
                )
            if not self.layers_of(mllm):
                raise SettingsError(
                    f"layers must take in one that looks at visual states, of {list(mllm.attention_layers)}; "
                    f"got {self.layers!r}."
                )
        return self

    def layers_of(self, mllm: Mllm) -> tuple[int, ...]:
        """The window's layers that look at visual states and have one of the heads."""
        low, high = self.layers or (0, mllm.layers)
        window = [layer for layer in mllm.attention_layers if low <= layer < high]
        pairs, _ = pairs_within(self.heads, window)
        return tuple(window) if pairs is None else tuple(sorted({layer for layer, _ in pairs}))

    @property
    def contrast_decoding(self) -> Contrast | None:
        """How the answer is decoded against the unsteered one; None decodes plainly."""
        return None

    @abstractmethod
    def start(self, latent: torch.Tensor) -> "Updates":
        """The state of a run of this method."""

    def to_json(self) -> dict[str, Any]:
        return {"name": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class ControlMLLM(Method):
    """Gradient steps with a moving average (ControlMLLM, arXiv 2407.21534, section 3.3).

    `p <- p - alpha dE/dp`; the latent in use is `beta p + (1 - beta) (latent in use before)`.

    Args:
        ema: weight of the newest latent in the moving average (beta), in (0, 1]; 1 takes no average.
        accumulate: what the published code does: visual tokens are changed in place, so that the latents of all
            iterations add up, and every gradient after the first is scaled by beta. (When the code stops early it adds the
            last latent once more; this is not repeated here.)
    """

    ema: float = MODEL_DEFAULT
    accumulate: bool = False

    @classmethod
    def reference(cls, **settings: Any) -> "ControlMLLM":
        """The published code's variant: accumulation, its mask, and every token after the image as context."""
        variant: dict[str, Any] = {"accumulate": True, "rule": "reference", "queries": "after_image"}
        return cls(**variant | settings)

    def checked(self, mllm: Mllm) -> "Method":
        if self.ema is None or not 0 < self.ema <= 1:
            raise SettingsError(f"ema must be above 0 and at most 1; got {self.ema!r}.")
        return super().checked(mllm)

    def start(self, latent: torch.Tensor) -> "Updates":
        return _GradientSteps(self, latent)


@dataclass(frozen=True)
class ControlMLLMPlus(Method):
    """Adam on the latent, attention of the last token, a window of layers (ControlMLLM++, arXiv 2602.19505).

    The published T counts the final generation; `steps` counts updates, one fewer.

    Args:
        contrast: strength of contrastive decoding in the answer (cd_alpha); 0 decodes plainly.
        contrast_cut: plausibility cut of contrastive decoding (cd_beta).
        loss_scale: factor on the energy (alpha); it matters through Adam's epsilon only.
        betas, eps: Adam's.
    """

    queries: Queries = "last"
    sigma: float = 0.4
    contrast: float = MODEL_DEFAULT
    contrast_cut: float = 0.1
    loss_scale: float = 400.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-3
    early_stop: float = 0.0

    @property
    def contrast_decoding(self) -> Contrast | None:
        return Contrast(self.contrast, self.contrast_cut) if self.contrast else None

    def start(self, latent: torch.Tensor) -> "Updates":
        return _AdamSteps(self, latent)


class Updates(ABC):
    """State of one run: `latent` is what the next forward uses, `update` moves it along a gradient."""

    latent: torch.Tensor

    @abstractmethod
    def update(self, gradient: torch.Tensor) -> None:
        """Move the latent along the energy's gradient."""


class _GradientSteps(Updates):
    def __init__(self, method: ControlMLLM, latent: torch.Tensor):
        self.method = method
        self.raw = self.average = self.latent = latent
        self.first = True

    def update(self, gradient: torch.Tensor) -> None:
        method = self.method
        if method.accumulate and not self.first:
            # The latent in use is beta * raw + ..., and the published code differentiates by raw.
            gradient = gradient * method.ema
        self.first = False
        self.raw = self.raw - method.step_size * gradient
        self.average = method.ema * self.raw + (1 - method.ema) * self.average
        self.latent = self.latent + self.average if method.accumulate else self.average


class _AdamSteps(Updates):
    def __init__(self, method: ControlMLLMPlus, latent: torch.Tensor):
        self.method = method
        self.latent = latent.detach().clone().requires_grad_()
        self.adam = torch.optim.Adam([self.latent], lr=method.step_size, betas=method.betas, eps=method.eps)

    def update(self, gradient: torch.Tensor) -> None:
        self.latent.grad = self.method.loss_scale * gradient
        self.adam.step()


METHODS = {method.__name__: method for method in (ControlMLLM, ControlMLLMPlus)}


def method_from_json(data: dict[str, Any]) -> Method:
    """The method that `to_json` described.

    Raises:
        SettingsError: for a name or a setting that does not exist.
    """
    settings = dict(data)
    name = settings.pop("name", None)
    if name not in METHODS:
        raise SettingsError(f"A method must be one of {', '.join(METHODS)}; got {name!r}.")
    known = {field.name for field in fields(METHODS[name])}
    if unknown := set(settings) - known:
        raise SettingsError(f"{name} has the settings {sorted(known)}; got {sorted(unknown)} too.")
    return METHODS[name](**{key: _as_tuple(value) for key, value in settings.items()})


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
