"""What the steps of a method move: latents on the visual tokens, or offsets on their cached keys."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..attention.capture import Recorder, capture
from ..models.batch import copies
from ..models.latent import with_all_states
from ..models.mllm import Mllm
from ..models.prefix import prefix_of
from ..models.prompt import Prompt


class Moved(ABC):
    """What a run's latent is added to; `zero` (visual token, width) adds nothing.

    Attributes:
        zero: the latent that a run begins with.
        prompt: what is replayed: as many copies as there are runs, where these are one batch.
        norm: of what the latent is added to, in the latent's own unit.
    """

    mllm: Mllm
    zero: torch.Tensor
    prompt: Prompt
    norm: float

    def capture(
        self,
        latent: torch.Tensor,
        layers: Sequence[int],
        heads: Sequence[int] | None,
        rows: Sequence[int],
        finite: bool,
    ) -> Recorder:
        """One forward with these latents (run, visual token, width); the rows' attention to the visual tokens."""
        forward = self.forward(latent)
        return capture(self.mllm, self.prompt, layers, heads, rows, self.prompt.visual, latent, finite, forward=forward)

    @abstractmethod
    def forward(self, latent: torch.Tensor) -> Callable[[], object] | None:
        """What runs the model with these latents; None for the prompt's own replay."""


class VisualStates(Moved):
    """Latents on the visual tokens: every forward runs the whole sequence."""

    def __init__(self, mllm: Mllm, prompt: Prompt, runs: int = 1):
        self.mllm = mllm
        self.prompt = prompt if prompt.call.copies == runs else copies(mllm, prompt, runs)
        self.zero = prompt.zero_latent().detach()
        self.norm = self.prompt.call.visual_states.float().norm().item()

    def forward(self, latent: torch.Tensor) -> None:
        return None


class AllStates(VisualStates):
    """Latents on all states beside the text's sequence, those without a place in the image (CLS) too.

    Raises:
        CaptureError: where the visual tokens are part of the text's sequence.
    """

    def __init__(self, mllm: Mllm, prompt: Prompt, runs: int = 1):
        super().__init__(mllm, replace(prompt, call=with_all_states(prompt.call)), runs)
        states = self.prompt.call.states
        self.zero = torch.zeros(len(self.prompt.call.visual), states.shape[-1], dtype=torch.float32, device=states.device)


class CachedKeys(Moved):
    """Offsets on the cached keys of the visual tokens: a forward runs the text alone, over the prefix.

    Args:
        layers: numbers of the layers whose keys are moved; all when None.

    Raises:
        UnsupportedModelError: for a model whose text cannot continue from a cached image.
    """

    # Offsets are shares of the keys' norm.
    norm = 1.0

    def __init__(self, mllm: Mllm, prompt: Prompt, layers: Sequence[int] | None = None):
        self.mllm, self.prompt = mllm, prompt
        self.prefix = prefix_of(mllm, prompt)
        self.zero = self.prefix.zero
        count = len(self.prefix.layers)
        held = torch.tensor([layers is None or layer in layers for layer in mllm.attention_layers])
        self._held = None if held.all() else held.repeat_interleave(self.zero.shape[1] // count).to(self.zero)

    def forward(self, latent: torch.Tensor) -> Callable[[], object]:
        return lambda: self.prefix.continued(self.prefix.moved(latent if self._held is None else latent * self._held))
