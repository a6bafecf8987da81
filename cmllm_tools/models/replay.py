"""Record the call that reaches the language model once, and replay it with a latent on the visual tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import CaptureError, UnsupportedModelError

# Switches and state of one call that a replay sets anew.
_NOT_REPLAYED = ("past_key_values", "use_cache", "cache_position", "output_attentions", "output_hidden_states")


class _Recorded(Exception):
    """Ends the model's forward once its language model is reached."""


@dataclass(frozen=True, eq=False)
class LanguageCall:
    """One recorded call of a model's language model.

    Args:
        decoder: the module that was called.
        embeds: its `inputs_embeds`, (1, token, width).
        arguments: the other keyword arguments (masks, position ids, whatever the family passes).
        visual: (visual token,), positions in the sequence where the latent is added.
    """

    decoder: nn.Module
    embeds: torch.Tensor
    arguments: dict[str, Any]
    visual: torch.Tensor

    def replay(self, latent: torch.Tensor | None = None) -> Any:
        """Call the language model again, with `latent` (visual token, width) added to the visual tokens."""
        embeds = self.embeds
        if latent is not None:
            embeds = add_latent(embeds, latent, self.visual)
        return self.decoder(inputs_embeds=embeds, use_cache=False, **self.arguments)


def record(model: nn.Module, decoder: nn.Module, inputs: dict[str, torch.Tensor], visual: torch.Tensor) -> LanguageCall:
    """Run the model's own forward up to the call of `decoder`, and keep that call.

    Raises:
        UnsupportedModelError: when the forward does not call `decoder` with `inputs_embeds`.
    """
    seen: dict[str, Any] = {}

    def keep(module: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
        seen.update(keywords)
        raise _Recorded

    handle = decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad(), undisturbed(model):
            model(**inputs, use_cache=False)
    except _Recorded:
        pass
    finally:
        handle.remove()
    embeds = seen.pop("inputs_embeds", None)
    if embeds is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} must call {type(decoder).__name__} with inputs_embeds; it passed {sorted(seen)}."
        )
    arguments = {name: value for name, value in seen.items() if name not in _NOT_REPLAYED}
    return LanguageCall(decoder, embeds.detach(), arguments, visual.to(embeds.device))


def add_latent(embeds: torch.Tensor, latent: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """`embeds` (batch, token, width) with `latent` (visual token, width) added at the positions `visual`.

    Raises:
        CaptureError: when the latent has another shape.
    """
    expected = (len(visual), embeds.shape[-1])
    if tuple(latent.shape) != expected:
        raise CaptureError(
            f"A latent must have shape (visual token, width) = {expected}; got {tuple(latent.shape)}. "
            "It belongs to one prompt: optimise again for another image or model."
        )
    return embeds.index_add(1, visual, latent.to(embeds).expand(len(embeds), -1, -1))


@contextmanager
def latent_added(call: LanguageCall, latent: torch.Tensor | None, rows: slice = slice(None)) -> Iterator[None]:
    """While open, every prefill of the recorded language model gets the latent on the visual tokens of batch `rows`."""
    if latent is None:
        yield
        return
    length = call.embeds.shape[1]

    def add(module: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        embeds = keywords.get("inputs_embeds")
        # Steps after the prefill bring one new token; the visual tokens' keys are in the cache by then.
        if embeds is not None and embeds.shape[1] >= length:
            visual = call.visual.to(embeds.device)
            changed = torch.cat([part for part in _split(embeds, rows, latent, visual) if len(part)])
            keywords = keywords | {"inputs_embeds": changed}
        return arguments, keywords

    handle = call.decoder.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _split(embeds: torch.Tensor, rows: slice, latent: torch.Tensor, visual: torch.Tensor) -> list[torch.Tensor]:
    start, stop, _ = rows.indices(len(embeds))
    return [embeds[:start], add_latent(embeds[start:stop], latent, visual), embeds[stop:]]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients; each module's and parameter's own flag is restored afterwards."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = [module for module in model.modules() if module.training]
    for parameter in trainable:
        parameter.requires_grad_(False)
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True
