"""KeySteering: offsets on the cached keys of the visual tokens; a step runs the text alone."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...attention.key_offsets import KeyOffsets
from ...models.mllm import Mllm
from ...models.prompt import Prompt
from ..kinds import WINDOW, choice, real
from ..latent_method import LatentMethod
from ..moved import Moved, VisualTokenKeys
from ..registry import register
from ..settings import MODEL_DEFAULT, setting
from ..updates import AdamSteps, NormalisedSteps, Updates


@register
@dataclass(frozen=True)
class KeySteering(LatentMethod):
    """Offsets on the keys of the visual tokens, as attention meets them, along the gradient of the same energy.

    Tokens, values and hidden states stay as they are: the text looks elsewhere, and finds there what was there before. The
    prefix (system prompt and image) is run once; a step runs the text over it, forward and backward, and the answer goes
    on from the same cache. `offsets <- offsets - r |K| g / |g|`, with the norms of keys and gradient taken over all layers
    together, so that one step size means the same for every model. Where visual states stand beside the text's sequence
    (cross-attention, Q-Former), the keys are those of the layers that attend to them, and there is no prefix to run.

    Examples:
        >>> print(cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.KeySteering(steps=3)).answer)
        red cross at the right
    """

    label: ClassVar[str] = "key steering"
    source: ClassVar[tuple[str, ...]] = ("wu2024controlmllm",)
    defaults: ClassVar[str] = "KeySteering"

    step_size: float = setting(
        MODEL_DEFAULT,
        "how far a step moves the keys, as a share of the norm of all of the image's keys (r); Adam's learning rate",
        real(above=0),
        asked=True,
        strength=True,
    )
    relative: bool = True
    sigma: float = 0.4
    early_stop: float = 0.0
    moved_layers: tuple[int, ...] = setting(
        MODEL_DEFAULT, "window [a, b) of layers whose keys are moved, or () for all", WINDOW
    )
    update: str = setting("normalised", "steps of one length along the gradient, or Adam's", choice("normalised", "adam"))

    def moves(self, mllm: Mllm, prompt: Prompt, runs: int = 1) -> Moved:
        low, high = self.moved_layers or (0, mllm.layers)
        return VisualTokenKeys(mllm, prompt, range(low, high), runs)

    def done(self, latent: Tensor) -> KeyOffsets:
        return KeyOffsets(latent, contrast=self.contrast_decoding)

    def start(self, latent: Tensor) -> Updates:
        if self.update == "adam":
            return AdamSteps(latent, self.step_size, (0.9, 0.999), 1e-8, 1.0)
        return NormalisedSteps(latent, self.step_size)
