"""Methods that take steps: settings of an optimisation of a latent on the visual tokens."""

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..attention.context_token import ContextToken
from ..attention.heads import pairs_within
from ..errors import SettingsError
from ..inputs.regions import Regions
from ..layout.visual_tokens import Rule, VisualTokenLayout
from ..models.contrast import Contrast
from ..models.interventions import Intervention
from ..models.latent import LatentAdded
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, Queries
from .defaults import ELSEWHERE, method_defaults, published_settings
from .kinds import FLAG, GAIN, HEADS, NUMBERS, QUERIES, SIGMA, STEPS, WINDOW, choice, real
from .method import Method, given_method
from .moved import Moved, VisualStates
from .settings import MODEL_DEFAULT, setting
from .target import Target
from .updates import Updates


@dataclass(frozen=True)
class LatentMethod(Method):
    """Settings shared by all methods that optimise a latent. What is left open is filled in for the model by `resolve`.

    Every setting is checked when a method is made, and kept as a plain value: an int, a float, a tuple. A subclass has its
    base class's defaults for models.

    Raises:
        SettingsError: for a setting that is not of its kind or out of its range.

    Examples:
        >>> method = cm.ControlMLLM(steps=3)
        >>> isinstance(method, cm.LatentMethod), method.steps
        (True, 3)
    """

    # The row of the table of defaults.
    defaults: ClassVar[str] = ""

    steps: int = setting(MODEL_DEFAULT, "number of updates of the latent (T)", STEPS, asked=True)
    step_size: float = setting(
        MODEL_DEFAULT,
        "how far an update goes: the factor on the gradient (alpha) for gradient steps, the learning rate for Adam",
        real(above=0),
        asked=True,
        strength=True,
    )
    relative: bool = setting(
        MODEL_DEFAULT,
        "step_size is how far the first step goes, as a share of the norm of the visual tokens, and so means the same for "
        "every model; so it is for models without settings of their own, unless step_size is given",
        FLAG,
    )
    layers: tuple[int, ...] = setting(
        MODEL_DEFAULT,
        "window [a, b) of decoder layers whose attention is averaged, range(a, b) for the same, or () for all",
        WINDOW,
        asked=True,
    )
    heads: tuple[int, ...] | tuple[tuple[int, int], ...] | None = setting(
        None,
        "head numbers, all when None; or (layer, head) pairs, of which those in layers count (all layers, where these are "
        "left open)",
        HEADS,
        asked=True,
        left_open=False,
    )
    queries: Queries = setting(
        MODEL_DEFAULT, "which tokens make up the context token; the paper takes text", QUERIES, asked=True
    )
    sigma: float = setting(MODEL_DEFAULT, "width of the Gaussian of scribbles and points", SIGMA, asked=True)
    rule: Rule = setting("area", "how regions become token weights", choice("area", "reference"))
    early_stop: float = setting(
        MODEL_DEFAULT, "stop once the energy has changed by this fraction of the first; 0 never stops", real(least=0)
    )
    until: float = setting(
        0.0,
        "stop once attention in the regions, against that elsewhere, is so many times what it was before any step; 0 never "
        "stops",
        GAIN,
    )
    without: tuple[int, ...] = setting((), "numbers of visual tokens to leave out of map and energy", NUMBERS)
    average: bool = setting(False, "take the mean of several regions' energies, not their sum", FLAG, left_open=True)
    floor: float = setting(
        0.0,
        "added to the sum of the map that an energy divides by; published for Qwen2.5-VL alone",
        real(least=0),
        left_open=True,
    )

    def resolve(self, mllm: Mllm) -> "LatentMethod":
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
        elsewhere = ELSEWHERE.get(self.defaults, {})
        if self.relative and elsewhere.get("relative"):
            # A model's own step size is no share of a norm.
            found["step_size"] = elsewhere["step_size"]
        left_open = {each.name for each in fields(self) if getattr(self, each.name) is None}
        if "step_size" not in left_open or "relative" not in found:
            found["relative"] = False
        resolved = replace(self, **{name: value for name, value in found.items() if name in left_open})
        missing = [each.name for each in self.settings() if each.open and getattr(resolved, each.name) is None]
        if missing:
            raise SettingsError(
                f"{type(self).__name__} must be given {', '.join(missing)}: only ControlMLLM, ControlMLLMPlus and their "
                "subclasses have defaults for a model."
            )
        return resolved.checked(mllm)

    def checked(self, mllm: Mllm) -> "LatentMethod":
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

    def token(self, mllm: Mllm) -> ContextToken:
        """The context token whose map is scored."""
        return ContextToken(self.queries, self.layers_of(mllm), self.heads, self.without)

    def stops(self, first: Tensor, now: Tensor, gain: Tensor) -> Tensor:
        """Whether runs end early: (run,).

        Args:
            first, now: (run,), their energy before any step, and now.
            gain: (run,), how many times what it was before any step attention in the regions is, against that elsewhere.
        """
        never = torch.zeros_like(now, dtype=torch.bool)
        changed = (now - first).abs() >= self.early_stop * first if self.early_stop else never
        return changed | (gain >= self.until if self.until else never)

    def absolute(self, norm: float) -> "LatentMethod":
        """The method with the length of its first step for its size, where that is a share of what is moved.

        Args:
            norm: of what is moved.
        """
        return replace(self, step_size=self.step_size * norm) if self.relative else self

    def moves(self, mllm: Mllm, prompt: Prompt, runs: int = 1) -> Moved:
        """What the latents of so many runs are added to: the visual tokens."""
        return VisualStates(mllm, prompt, runs)

    def done(self, latent: Tensor) -> Intervention:
        """What a latent that was found does to the model."""
        return LatentAdded(latent, contrast=self.contrast_decoding)

    @property
    def contrast_decoding(self) -> Contrast | None:
        """How the answer is decoded against the unsteered one; None decodes plainly."""
        return None

    @abstractmethod
    def start(self, latent: Tensor) -> Updates:
        """The state of a run of this method."""


def given_latent_method(method: object, otherwise: LatentMethod) -> LatentMethod:
    """The method that was given, or another when it is None.

    Raises:
        SettingsError: for what is no method, or one that takes no steps.
    """
    found = given_method(method, otherwise)
    if not isinstance(found, LatentMethod):
        raise SettingsError(
            f"A method that takes steps is needed, as ControlMLLM(); {found.called()} takes none. "
            "Use cmllm_tools.refer, which takes any."
        )
    return found
