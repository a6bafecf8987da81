"""The methods as settings of one optimisation: ControlMLLM and ControlMLLM++."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from .energy import Target, checked_sigma
from .errors import SettingsError
from .heads import pairs_within
from .layout import Rule, VisualTokenLayout
from .models.decoding import Contrast
from .models.defaults import method_defaults, published_settings
from .models.mllm import Mllm, require
from .models.prompt import Queries, as_queries
from .regions import Regions
from .settings import Reader, read_betas, read_heads, read_share, read_steps, read_window
from .strict import flag, kind_of, number, one_of, shown, whole_numbers
from .updates import AdamSteps, GradientSteps, Updates

# Stands for a setting that `Method.resolve` takes from the model's own defaults.
MODEL_DEFAULT: Any = None
# Settings that, left open, are what the published code has for the model; see `published_settings`.
PUBLISHED = ("accumulate", "average", "floor")


@dataclass(frozen=True)
class Method(ABC):
    """Settings shared by all methods. What is None is filled in for the model by `resolve`.

    Every setting is checked when a method is made, and kept as a plain value: an int, a float, a tuple. A subclass gives
    the readers of settings of its own in `readers`, and has its base class's defaults; `register` it, so that its traces
    can be reopened.

    Args:
        steps: number of updates of the latent (T).
        step_size: how far an update goes: the factor on the gradient (alpha) for gradient steps, the learning rate for
            Adam.
        layers: window [a, b) of decoder layers whose attention is averaged, `range(a, b)` for the same, or () for all.
        heads: head numbers, all when None; or (layer, head) pairs, of which those in `layers` count (all layers, where that
            is left open).
        queries: which tokens make up the context token; see `Prompt.positions`. The paper takes "text".
        sigma: width of the Gaussian of scribbles and points.
        rule: how regions become token weights, "area" or "reference".
        early_stop: stop once the energy has changed by this fraction of the first; 0 never stops.
        without: numbers of visual tokens to leave out of map and energy; see `analysis.sinks`.
        average: take the mean of several regions' energies, not their sum.
        floor: added to the sum of the map that an energy divides by; published for Qwen2.5-VL alone.

    Raises:
        SettingsError: for a setting that is not of its kind or out of its range.
    """

    # The row of the table of defaults.
    defaults: ClassVar[str] = ""
    readers: ClassVar[Mapping[str, Reader]] = {
        "steps": read_steps,
        "step_size": partial(number, above=0),
        "layers": read_window,
        "heads": read_heads,
        "queries": lambda value, what: as_queries(value, SettingsError),
        "sigma": checked_sigma,
        "rule": partial(one_of, choices=("area", "reference")),
        "early_stop": partial(number, least=0),
        "without": whole_numbers,
        "average": flag,
        "floor": partial(number, least=0),
    }

    steps: int = MODEL_DEFAULT
    step_size: float = MODEL_DEFAULT
    layers: tuple[int, ...] = MODEL_DEFAULT
    heads: tuple[int, ...] | tuple[tuple[int, int], ...] | None = None
    queries: Queries = MODEL_DEFAULT
    sigma: float = MODEL_DEFAULT
    rule: Rule = "area"
    early_stop: float = MODEL_DEFAULT
    without: tuple[int, ...] = ()
    average: bool = False
    floor: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            left_open = value is None and (each.default is None or each.name in PUBLISHED)
            if each.name in self.readers and not left_open:
                object.__setattr__(self, each.name, self.readers[each.name](value, each.name))

    def resolve(self, mllm: Mllm) -> "Method":
        """The same method with every setting filled in for a model.

        Raises:
            SettingsError: for a setting out of the model's range, or one left open by a method without defaults.
            CaptureError: for (layer, head) pairs none of which is in the window of layers.
        """
        require(mllm)
        config = mllm.model.config
        width = int(config.get_text_config().hidden_size)
        found = method_defaults(self.defaults, config.model_type, mllm.layers, width) if self.defaults else {}
        if not mllm.family.contrast and "contrast" in found:
            found["contrast"] = 0.0
        if pairs_within(self.heads, None)[0] is not None:
            found["layers"] = ()
        found |= published_settings(config.model_type)
        left_open = {each.name for each in fields(self) if getattr(self, each.name) is None}
        resolved = replace(self, **{name: value for name, value in found.items() if name in left_open})
        missing = [name for name in self.readers if getattr(resolved, name) is None and name != "heads"]
        if missing:
            raise SettingsError(
                f"{type(self).__name__} must be given {', '.join(missing)}: only ControlMLLM, ControlMLLMPlus and their "
                "subclasses have defaults for a model."
            )
        return resolved.checked(mllm)

    def checked(self, mllm: Mllm) -> "Method":
        """This method, if the model has what its settings name; see `resolve`."""
        pairs, heads = pairs_within(self.heads, None)
        unknown = [pair for pair in pairs or () if pair[0] not in mllm.attention_layers or not 0 <= pair[1] < mllm.heads]
        if unknown:
            raise SettingsError(
                f"(layer, head) pairs must name layers of {list(mllm.attention_layers)} and heads in 0..{mllm.heads - 1}; "
                f"got {unknown}."
            )
        if any(head >= mllm.heads for head in heads or ()):
            raise SettingsError(f"heads must be numbers in 0..{mllm.heads - 1}; got {self.heads!r}.")
        if self.layers:
            if self.layers[1] > mllm.layers:
                raise SettingsError(
                    f"layers must be a window (a, b) with 0 <= a < b <= {mllm.layers}, or () for all; got {self.layers!r}."
                )
            if not self.layers_of(mllm):
                raise SettingsError(
                    f"layers must take in one that looks at visual states, of {list(mllm.attention_layers)}; "
                    f"got {self.layers!r}."
                )
        return self

    def target(self, layout: VisualTokenLayout, regions: Regions) -> Target:
        """The regions as this method's energies see them. Raises what `Target.of` does."""
        return replace(Target.of(layout, regions, self.sigma, self.rule), average=self.average, floor=self.floor)

    def layers_of(self, mllm: Mllm) -> tuple[int, ...]:
        """The window's layers that look at visual states and have one of the heads."""
        require(mllm)
        low, high = self.layers or (0, mllm.layers)
        window = [layer for layer in mllm.attention_layers if low <= layer < high]
        pairs, _ = pairs_within(self.heads, window)
        return tuple(window) if pairs is None else tuple(sorted({layer for layer, _ in pairs}))

    @property
    def contrast_decoding(self) -> Contrast | None:
        """How the answer is decoded against the unsteered one; None decodes plainly."""
        return None

    @abstractmethod
    def start(self, latent: Tensor) -> Updates:
        """The state of a run of this method."""

    def to_json(self) -> dict[str, Any]:
        return {"name": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class ControlMLLM(Method):
    """Gradient steps with a moving average (ControlMLLM, arXiv 2407.21534, section 3.3).

    `p <- p - alpha dE/dp`; the latent in use is `beta p + (1 - beta) (latent in use before)`.

    Args:
        ema: weight of the newest latent in the moving average (beta), in (0, 1]; 1 takes no average.
        accumulate: visual tokens are changed in place, as in the published code for LLaVA, so that the latents of all
            iterations add up. After an early stop the last latent is added once more, which is a step of its own. None
            stands for what was published for the model's family.
        scale_gradient: every gradient after the first is scaled by beta, as the published code differentiates by p.
    """

    defaults: ClassVar[str] = "ControlMLLM"
    readers: ClassVar[Mapping[str, Reader]] = {
        **Method.readers,
        "ema": read_share,
        "accumulate": flag,
        "scale_gradient": flag,
    }

    ema: float = MODEL_DEFAULT
    accumulate: bool = False
    scale_gradient: bool = False

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


@dataclass(frozen=True)
class ControlMLLMPlus(Method):
    """Adam on the latent, attention of the last token, a window of layers (ControlMLLM++, arXiv 2602.19505).

    The published T counts the final generation; `steps` counts updates, one fewer.

    Args:
        contrast: strength of contrastive decoding in the answer (cd_alpha); 0 decodes plainly.
        contrast_cut: plausibility cut of contrastive decoding (cd_beta).
        loss_scale: factor on the energy (alpha); it matters through Adam's epsilon only.
        betas, eps: Adam's. Its state is float32, as in the paper; the published code's has the model's dtype.
    """

    defaults: ClassVar[str] = "ControlMLLMPlus"
    readers: ClassVar[Mapping[str, Reader]] = {
        **Method.readers,
        "contrast": partial(number, least=0),
        "contrast_cut": partial(number, above=0, most=1),
        "loss_scale": partial(number, above=0),
        "betas": read_betas,
        "eps": partial(number, above=0),
    }

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

    @classmethod
    def reference(cls, **settings: Any) -> "ControlMLLMPlus":
        """The published code's masks and energy, whose form depends on the model; docs/published.md has its settings.

        Args:
            settings: others, or other values of these.
        """
        return cls(**{"rule": "reference", "average": MODEL_DEFAULT, "floor": MODEL_DEFAULT} | settings)

    def start(self, latent: Tensor) -> Updates:
        return AdamSteps(latent, self.step_size, self.betas, self.eps, self.loss_scale)


def given_method(method: object, otherwise: Method) -> Method:
    """The method that was given, or another when it is None; raises as `as_method`."""
    return otherwise if method is None else as_method(method)


def as_method(method: object) -> Method:
    """The method that was given.

    Raises:
        SettingsError: for what is no method: its name, or its class.
    """
    # mypy takes an abstract class for none of its own.
    return kind_of(method, Method, "A method must be one with its settings, as ControlMLLM()")  # type: ignore[type-abstract]


METHODS: dict[str, type[Method]] = {method.__name__: method for method in (ControlMLLM, ControlMLLMPlus)}


def register(method: type[Method]) -> type[Method]:
    """Make a subclass of a method known by its name, so that traces of it can be reopened; a decorator, too.

    Raises:
        SettingsError: for what is no subclass of `Method`, or a name that another method has.
    """
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise SettingsError(f"A method must be a subclass of Method; got {shown(method)}.")
    known = METHODS.get(method.__name__, method)
    # A notebook's cell that is run again defines its class anew.
    if (known.__module__, known.__qualname__) != (method.__module__, method.__qualname__):
        raise SettingsError(
            f"A method must have a name of its own; there is a {method.__name__} in {known.__module__} already."
        )
    METHODS[method.__name__] = method
    return method


def method_from_json(data: dict[str, Any]) -> Method:
    """The method that `to_json` described.

    Raises:
        SettingsError: for a name that is not known, or a setting that does not exist or is out of range.
    """
    if not isinstance(data, dict):
        raise SettingsError(f"A method must be described by its name and settings; got {shown(data)}.")
    settings = dict(data)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in METHODS:
        raise SettingsError(
            f"A method must be one of {', '.join(METHODS)}; got {shown(name)}. "
            "A class of your own is made known by cmllm_tools.methods.register."
        )
    known = {field.name for field in fields(METHODS[name])}
    if unknown := set(settings) - known:
        raise SettingsError(f"{name} has the settings {sorted(known)}; got {sorted(unknown)} too.")
    return METHODS[name](**{key: _as_tuple(value) for key, value in settings.items()})


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
