"""Offsets on the keys of the visual tokens, as an intervention: what the text looks for is found elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float

from ..errors import CaptureError, UnsupportedModelError
from ..models.finite import all_finite
from ..models.interrupts import restoring
from ..models.interventions import Intervention
from ..models.latent import as_numbers
from ..models.mllm import Mllm
from ..models.origin import weights_mark
from ..models.positions import added_at, at_positions
from ..models.prefix import prefix_of
from ..models.prompt import Prompt
from ..models.visual_keys import VisualKeys
from .observe import AttentionCall, Observer, observed
from .recorder import check_seen, replay


@dataclass(frozen=True, eq=False)
class KeyOffsets(Intervention):
    """Offsets on the keys of the visual tokens as cached, after rotary embedding, which the text's queries meet.

    Values, hidden states and the visual tokens themselves stay as they are, and so does what the image's own tokens see of
    each other. Where visual states stand beside the text's sequence, these are keys of the layers that attend to them.

    Args:
        offsets: (visual token, layers x key heads x width), each layer's key heads side by side, as a share of the norm of
            all of the image's keys together.
        contrast: how the answer is decoded against the unsteered one; None decodes plainly.

    Raises:
        CaptureError: for what is no array of finite numbers.
    """

    by_token: ClassVar[tuple[str, int] | None] = ("offsets", 0)

    offsets: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        offsets = as_numbers(self.offsets)
        if offsets.dim() != 2 or not all_finite(offsets):
            raise CaptureError(
                "Offsets on keys must be finite numbers (visual token, layers x key heads x width); got shape "
                f"{tuple(offsets.shape)}."
            )
        object.__setattr__(self, "offsets", offsets)

    def opened(self, mllm: Mllm, prompt: Prompt, copies: int = 1) -> AbstractContextManager[None]:
        keys = visual_keys(mllm, prompt)
        offsets = self._fitting(keys)[None]
        return keys.opened(torch.cat([offsets, *[torch.zeros_like(offsets)] * (copies - 1)]))

    @classmethod
    def opened_each(cls, several: "Sequence[KeyOffsets]", mllm: Mllm, prompt: Prompt) -> AbstractContextManager[None]:
        keys = visual_keys(mllm, prompt)
        return keys.opened(torch.stack([each._fitting(keys) for each in several]))

    def _fitting(self, keys: VisualKeys) -> Float[torch.Tensor, "visual offsets"]:
        """The offsets as those of these keys."""
        expected = tuple(keys.zero.shape)
        if tuple(self.offsets.shape) != expected:
            raise CaptureError(
                f"Offsets on keys must have shape (visual token, layers x key heads x width) = {expected}; got "
                f"{tuple(self.offsets.shape)}. They belong to one prompt: optimise again for another image or model."
            )
        return self.offsets.detach().to(keys.zero)


def visual_keys(mllm: Mllm, prompt: Prompt) -> VisualKeys:
    """The keys of a prompt's visual tokens: those cached, or those beside the text's sequence.

    Raises:
        UnsupportedModelError: for a model whose text cannot continue from a cached image.
        CaptureError: for layers beside the text's sequence that do not call transformers' attention interface.
        PromptError: for a prompt of another model, or of another dtype or device.
    """
    return _beside(mllm, prompt) if mllm.family.beside else prefix_of(mllm, prompt)


@dataclass(frozen=True, eq=False)
class KeysBeside(VisualKeys):
    """Keys of visual states beside the text's sequence: every forward makes them, and offsets are added on the way.

    Args:
        mllm: the model that prepared the prompt.
        visual: which of a layer's keys are the visual tokens', ascending.
        keys: (1, key head, state, width) of each layer.
        weights: mark of the model's weights by which they were made.
    """

    mllm: Mllm = field(repr=False)
    visual: tuple[int, ...] = field(repr=False)
    keys: Mapping[int, torch.Tensor] = field(repr=False)
    weights: int

    @cached_property
    def by_layer(self) -> list[Float[torch.Tensor, "key_head visual width"]]:
        return [at_positions(self.keys[layer][0], 1, self.visual) for layer in self.mllm.attention_layers]

    @restoring
    def opened(self, offsets: Float[torch.Tensor, "copy visual offsets"]) -> Iterator[None]:
        changes = dict(zip(self.mllm.attention_layers, self.changes(offsets), strict=True))
        with observed(self.mllm, _Moving(changes, self.visual)):
            yield


def _beside(mllm: Mllm, prompt: Prompt) -> KeysBeside:
    """The keys, once for a prompt; once more for other weights."""
    # With the call itself, as its prefix is elsewhere: a table of calls would hold each of them for good.
    known = vars(prompt.call)
    found: KeysBeside | None = known.get("keys")
    if found is None or found.weights != weights_mark(mllm.model):
        seen = _Keys()
        replay(mllm, prompt, seen, None)
        check_seen(mllm, mllm.attention_layers, seen.found)
        if len({key.shape for key in seen.found.values()}) > 1:
            raise UnsupportedModelError(
                f"The keys of a {mllm.family.name} model's visual tokens must be of one size in all layers; here they are "
                "not. Use a method that changes the visual tokens, as ControlMLLMPlus()."
            )
        found = known["keys"] = KeysBeside(mllm, prompt.visual, seen.found, weights_mark(mllm.model))
    return found


class _Keys(Observer):
    """Keeps each layer's keys."""

    def __init__(self) -> None:
        self.found: dict[int, torch.Tensor] = {}

    def before(self, call: AttentionCall) -> AttentionCall:
        self.found[call.layer] = call.key.detach()
        return call


class _Moving(Observer):
    """Adds changes (copy, key head, visual token, width) to each layer's keys."""

    def __init__(self, changes: Mapping[int, torch.Tensor], visual: Sequence[int]):
        self.changes, self.visual = changes, visual

    def before(self, call: AttentionCall) -> AttentionCall:
        change = self.changes[call.layer].to(call.key)
        # Beams and returned sequences are rows of a copy.
        change = change.repeat_interleave(len(call.key) // len(change), 0)
        return replace(call, key=added_at(call.key, 2, self.visual, change))
