"""A latent on the visual states: added to those of a recorded call, or while the model's own forward runs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import CaptureError
from .finite import all_finite
from .hooks import in_this_use, named_arguments
from .interrupts import restoring

if TYPE_CHECKING:
    from .replay import LanguageCall


def add_latent(states: torch.Tensor, latent: torch.Tensor, visual: torch.Tensor, rows: int) -> torch.Tensor:
    """States with a latent at the visual positions of every prompt.

    Args:
        states: (prompt x rows, ..., width).
        latent: (visual token, width) for every prompt, or (prompt, visual token, width).
        visual: (visual token,), positions in the flattened states of one prompt.
        rows: length of the first axis that belongs to one prompt.

    Raises:
        CaptureError: when the latent has another shape, or is not finite.
    """
    prompts = states.reshape(len(states) // rows, -1, states.shape[-1])
    if latent.is_inference():
        # What was made in inference mode takes no part in a graph.
        latent = latent.clone()
    check_latent(latent, states, len(visual), len(prompts))
    return prompts.index_add(1, visual, latent.to(states).expand(len(prompts), -1, -1)).view_as(states)


def check_latent(latent: torch.Tensor, states: torch.Tensor, tokens: int, copies: int) -> None:
    """Refuse a latent that does not fit `tokens` visual tokens of each of `copies` prompts.

    Raises:
        CaptureError: when it has another shape, or is not finite in the states' dtype.
    """
    expected = (tokens, states.shape[-1])
    if tuple(latent.shape) not in (expected, (copies, *expected)):
        raise CaptureError(
            f"A latent must have shape (visual token, width) = {expected}; got {tuple(latent.shape)}, for a batch of "
            f"{copies}. It belongs to one prompt: optimise again for another image or model."
        )
    there = latent.detach().to(states.dtype)
    if not all_finite(there):
        finite = torch.isfinite(there)
        raise CaptureError(
            f"A latent must be finite; {int((~finite).sum())} of these {finite.numel()} values are not in {states.dtype}. "
            "Take one of an earlier step, or a wider dtype."
        )


@restoring
def latent_added(call: "LanguageCall", latent: torch.Tensor | None) -> Iterator[None]:
    """While open, the model's own forward gets the latent on its visual tokens: one for all of a batch, or each its own."""
    if latent is None:
        yield
        return

    def changed(states: torch.Tensor) -> torch.Tensor:
        # Steps after the prefill bring one new token; the visual tokens' keys are in the cache by then. Without a cache
        # the sequence comes again, longer.
        same = states.shape[1:] == call.states.shape[1:]
        if not same and not (call.site.in_sequence and states.shape[1] >= call.states.shape[1]):
            return states
        return add_latent(states, latent, call.visual.to(states.device), call.rows)

    @in_this_use
    def change_call(
        module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = named_arguments(module, arguments, keywords)
        states = named.get(call.site.states)
        if states is None:
            return arguments, keywords
        return (), named | {call.site.states: changed(states)}

    @in_this_use
    def change_input(
        module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (changed(arguments[0]), *arguments[1:]), keywords

    @in_this_use
    def change_output(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        if torch.is_tensor(output):
            return changed(output)
        if isinstance(output, tuple):
            return (changed(output[0]), *output[1:])
        output["last_hidden_state"] = changed(output["last_hidden_state"])
        return output

    if call.source is None:
        handle = call.module.register_forward_pre_hook(change_call, with_kwargs=True)
    elif call.site.side == "input":
        handle = call.source.register_forward_pre_hook(change_input, with_kwargs=True)
    else:
        handle = call.source.register_forward_hook(change_output)
    try:
        yield
    finally:
        handle.remove()
