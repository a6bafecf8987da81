"""What the steps of a method move: latents on the visual tokens, or offsets on their keys."""

from abc import ABC
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch

from ..attention.key_offsets import visual_keys
from ..attention.recorder import Recorder, capture
from ..models.batch import copies
from ..models.latent import with_all_states
from ..models.mllm import Mllm
from ..models.prompt import Prompt


class Moved(ABC):
    """What a run's latent is added to; `zero` (visual token, width) adds nothing.

    Attributes:
        zero: the latent that a run begins with.
        prompt: what is replayed: as many copies as there are runs, where these are one batch.
        norm: of what the latent is added to, in the latent's own unit.
        forward: what runs the model; None for the prompt's own replay with the latents on its states.
    """

    mllm: Mllm
    zero: torch.Tensor
    prompt: Prompt
    norm: float
    forward: Callable[[], object] | None = None

    def capture(
        self,
        latent: torch.Tensor,
        layers: Sequence[int],
        heads: Sequence[int] | None,
        rows: Sequence[int],
        finite: bool,
    ) -> Recorder:
        """One forward with these latents (run, visual token, width); the rows' attention to the visual tokens."""
        seen, opened = self.prompt.visual, partial(self.opened, latent)
        return capture(self.mllm, self.prompt, layers, heads, rows, seen, latent, finite, opened, self.forward)

    def opened(self, latent: torch.Tensor) -> AbstractContextManager[None]:
        """Opens what latents do that are not added to states."""
        return nullcontext()


class VisualStates(Moved):
    """Latents on the visual tokens: every forward runs the whole sequence."""

    def __init__(self, mllm: Mllm, prompt: Prompt, runs: int = 1):
        self.mllm = mllm
        self.prompt = prompt if prompt.call.copies == runs else copies(mllm, prompt, runs)
        self.zero = prompt.zero_latent().detach()
        self.norm = self.prompt.call.visual_states.float().norm().item()


class AllStates(VisualStates):
    """Latents on all states beside the text's sequence, those without a place in the image (CLS) too.

    Raises:
        CaptureError: where the visual tokens are part of the text's sequence.
    """

    def __init__(self, mllm: Mllm, prompt: Prompt, runs: int = 1):
        super().__init__(mllm, replace(prompt, call=with_all_states(prompt.call)), runs)
        states = self.prompt.call.states
        self.zero = torch.zeros(len(self.prompt.call.visual), states.shape[-1], dtype=torch.float32, device=states.device)


class VisualTokenKeys(Moved):
    """Offsets on the keys of the visual tokens: a forward runs the text alone.

    Args:
        layers: numbers of the layers whose keys are moved; all when None.
        runs: how many are one batch.

    Raises:
        UnsupportedModelError: for a model whose keys of visual tokens cannot be moved by themselves.
    """

    # Offsets are shares of the keys' norm.
    norm = 1.0

    def __init__(self, mllm: Mllm, prompt: Prompt, layers: Sequence[int] | None = None, runs: int = 1):
        self.mllm, self.keys = mllm, visual_keys(mllm, prompt)
        self.prompt = prompt if prompt.call.copies == runs else copies(mllm, prompt, runs)
        self.forward = self.prompt.call.replay
        self.zero = self.keys.zero
        count = len(self.keys.by_layer)
        held = torch.tensor([layers is None or layer in layers for layer in mllm.attention_layers])
        self._held = None if held.all() else held.repeat_interleave(self.zero.shape[1] // count).to(self.zero)

    def opened(self, latent: torch.Tensor) -> AbstractContextManager[None]:
        return self.keys.opened(latent if self._held is None else latent * self._held)
