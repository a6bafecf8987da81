"""The residual stream: what each layer gives, kept of one forward, given again in another, or changed on its way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ..errors import UnsupportedModelError
from .hooks import in_this_use
from .interrupts import restoring

# What goes into the first layer stands before layer 0.
INPUT = -1


def states_of(output: Any) -> torch.Tensor:
    """The residual stream (prompt, token, width) of what a layer gave.

    Raises:
        UnsupportedModelError: for a layer that gives something else.
    """
    states = output[0] if isinstance(output, tuple) else output
    if not torch.is_tensor(states) or states.dim() != 3:
        raise UnsupportedModelError(
            f"A layer must give its states as (prompt, token, width); got {type(output).__name__}, of which they cannot be "
            "told. Its residual stream is not known."
        )
    return states


def with_states(output: Any, states: torch.Tensor) -> Any:
    """What a layer gave, with other states."""
    return (states, *output[1:]) if isinstance(output, tuple) else states


def given(output: Any, copies: int) -> Any:
    """What a layer gave of one prompt, for several copies of it; new, as some models write into what they are given."""
    states = states_of(output)
    return with_states(output, states.expand(copies, -1, -1).clone())


@restoring
def kept_outputs(layers: Sequence[Any]) -> Iterator[dict[int, Any]]:
    """While open, what each layer gives is kept, by its number; of several forwards, that of the last."""
    found: dict[int, Any] = {}

    def keeping(number: int) -> Callable[..., None]:
        def keep(module: Any, arguments: tuple[Any, ...], output: Any) -> None:
            found[number] = with_states(output, states_of(output).detach().clone())

        return in_this_use(keep)

    handles = [layer.register_forward_hook(keeping(number)) for number, layer in enumerate(layers)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@restoring
def changed_outputs(changes: Mapping[Any, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """While open, each of these layers gives other states: what its function makes of (prompt, token, width)."""

    def changing(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        return in_this_use(lambda _, arguments, output: with_states(output, change(states_of(output))))

    handles = [layer.register_forward_hook(changing(change)) for layer, change in changes.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
