"""Observers of a model's attention: they see every call of its attention functions, and may change what a call is given."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import CaptureError
from ..models.hooks import this_use
from ..models.interrupts import restoring
from ..models.mllm import Mllm
from ..models.replay import OBSERVED
from .rows import attention_rows


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """What one layer's attention function is given.

    Args:
        layer: the layer's number.
        module: the attention module that calls.
        query: (prompt, head, token, width).
        key, value: (prompt, key head, token, width).
        mask: boolean or additive (1 or prompt, 1 or head, token, key), or None for causal attention.
        options: the function's other arguments, by name.
    """

    layer: int
    module: Any
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: Any
    options: Mapping[str, Any]

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return self.query.shape[1]

    def rows(self, positions: Sequence[int], heads: Sequence[int] | None = None) -> torch.Tensor:
        """Attention weights (prompt, head, position, key) of some query positions and heads, all heads when None.

        Raises:
            CaptureError: for a mask or bias of a form that is not understood.
        """
        chosen = range(self.heads) if heads is None else heads
        return attention_rows(self.module, self.query, self.key, self.mask, chosen, positions, **self.options)

    def head_values(self, like: torch.Tensor) -> torch.Tensor:
        """The first prompt's values (head, token, width), each key head's for all of its query heads, as `like` is."""
        return self.value[0].to(like).repeat_interleave(self.heads // self.value.shape[1], 0)


class Observer:
    """Sees the attention of the modules that look at visual states while it is open; see `observed`."""

    def before(self, call: AttentionCall) -> AttentionCall:
        """Told of a call that is about to be made; what is returned is made in its place."""
        return call

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """Told of what the kernel made of the call, (prompt, token, head, width); what is returned goes on in its place."""
        return output


# Observers that are open, with the use of the model that each is for and the modules it listens to: calls in other threads,
# and in another use of the model within this one, go on unseen meanwhile.
_Listener = tuple[tuple[int, int], Mapping[Any, int], Observer]
_OPEN: ContextVar[tuple[_Listener, ...]] = ContextVar("cmllm_observers", default=())


@restoring
def observed(mllm: Mllm, observer: Observer, modules: Mapping[Any, int] | None = None) -> Iterator[None]:
    """While open, attention modules show their calls to `observer`.

    Those of `modules`, all that look at visual states when None. Observers may be opened within each other; a later one
    sees what an earlier one has changed.

    Raises:
        CaptureError: for an attention implementation that transformers does not know.
    """
    top = [mllm.decoder.config] if hasattr(mllm.decoder, "config") else []
    configs = {id(config): config for config in [*top, *(module.config for module in mllm.attention_modules)]}
    # Setting a config's implementation sets that of the configs within it: restored innermost last.
    before = [pair for config in configs.values() for pair in _implementations(config)]
    token = _OPEN.set((*_OPEN.get(), (this_use(), mllm.attention_modules if modules is None else modules, observer)))
    try:
        for config in configs.values():
            config._attn_implementation = _registered(config._attn_implementation)
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
        _OPEN.reset(token)


def _implementations(config: Any) -> Iterator[tuple[Any, str | None]]:
    yield config, config._attn_implementation
    for name in config.sub_configs:
        if (inner := getattr(config, name, None)) is not None:
            yield from _implementations(inner)


def _registered(original: str | None) -> str:
    """Name of the attention function that shows its calls, then delegates to `original`."""
    if original is not None and original.startswith(OBSERVED):
        return original
    if original != "eager" and original not in ALL_ATTENTION_FUNCTIONS:
        raise CaptureError(
            "The model's attention implementation must be 'eager' or one that transformers knows; "
            f"got {original!r}. Load it with attn_implementation='sdpa'."
        )
    name = f"{OBSERVED}{original}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _showing(original))
        if original in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[original])
    return name


def _showing(original: str | None) -> Callable[..., Any]:
    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if original == "eager":
            own = sys.modules[type(module).__module__].eager_attention_forward
        else:
            own = ALL_ATTENTION_FUNCTIONS[original]
        attention_mask = _aligned(module, query, key, attention_mask, options)
        now = this_use()
        listening = [
            (modules[module], observer) for use, modules, observer in _OPEN.get() if use == now and module in modules
        ]
        if not listening:
            unseen: tuple[torch.Tensor, torch.Tensor | None] = own(module, query, key, value, attention_mask, **options)
            return unseen
        call = AttentionCall(listening[0][0], module, query, key, value, attention_mask, options)
        for _, observer in listening:
            call = observer.before(call)
        result: tuple[torch.Tensor, torch.Tensor | None] = own(
            module, call.query, call.key, call.value, call.mask, **call.options
        )
        output = result[0]
        for _, observer in listening:
            output = observer.after(call, output)
        return output, result[1]

    return attend


def _aligned(module: Any, query: torch.Tensor, key: torch.Tensor, mask: Any, options: Mapping[str, Any]) -> Any:
    """The mask; of causal attention of the last few tokens over all keys one written out, where there was none.

    PyTorch's kernel sets the first query beside the first key. Models know that of it by its name, which is another here,
    and give their last layers the last tokens alone.
    """
    queries, keys = query.shape[2], key.shape[2]
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if mask is not None or not causal or not 1 < queries < keys:
        return mask
    return torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)[None, None]
