"""The prefix run once: keys and values of system prompt and image, which steps and answers continue from.

In a causal decoder what comes before the question does not depend on it. Whether that holds for a model is found out, not
believed: the first prompt's text is run over the cached prefix and beside a plain forward, and what differs is refused.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..errors import UnsupportedModelError
from .hooks import in_this_use, named_arguments
from .interrupts import restoring
from .origin import weights_mark
from .positions import added_at, at_positions
from .replay import LanguageCall
from .undisturbed import undisturbed
from .visual_keys import VisualKeys

if TYPE_CHECKING:
    from .mllm import Mllm
    from .prompt import Prompt

# Largest difference of the text's last states from a plain forward's, as a share of the largest: rounding, in the
# model's dtype, is below this, and a token that another one should have seen is far above.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
# Arguments for visual tokens alone, all of which are in the prefix.
_OF_IMAGES = ("visual_pos_masks", "deepstack_visual_embeds")

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Prefix(VisualKeys):
    """What is cached of a prompt's first tokens, up to the last one of its image.

    Args:
        call: the prompt's recorded call.
        length: number of tokens.
        layers: key and value (1, key head, token, width) of each layer, keys as cached: after rotary embedding.
        weights: mark of the model's weights by which they were made.
    """

    call: LanguageCall
    length: int
    layers: Layers
    weights: int

    @cached_property
    def by_layer(self) -> list[Float[torch.Tensor, "key_head visual width"]]:
        return [at_positions(key[0], 1, self._visual) for key, _ in self.layers]

    @cached_property
    def _visual(self) -> list[int]:
        found: list[int] = self.call.visual.tolist()
        return found

    def opened(self, offsets: Float[torch.Tensor, "copy visual offsets"]) -> AbstractContextManager[None]:
        return continued_answer(self, partial(self.moved, offsets))

    def moved(self, offsets: Float[torch.Tensor, "copy visual offsets"]) -> Layers:
        """The layers for several copies of the prompt, with offsets on the keys of the visual tokens; see `changes`."""
        found, many = [], len(offsets)
        for change, (key, value) in zip(self.changes(offsets), self.layers, strict=True):
            moved = added_at(key.expand(many, -1, -1, -1), 2, self._visual, change)
            found.append((moved, value.expand(many, -1, -1, -1)))
        return found


def prefix_of(mllm: "Mllm", prompt: "Prompt") -> Prefix:
    """`prefilled`, once for a prompt, or for all prompts of a look that begin alike; once more for other weights."""
    # Kept by the call itself: a table of calls would hold each of them for good, as a prefix knows its call.
    known = vars(prompt.call)
    found: Prefix | None = known.get("prefix")
    if found is None or found.weights != weights_mark(mllm.model):
        found = known["prefix"] = _shared(mllm, prompt) or prefilled(mllm, prompt)
    return found


def prefix_at_hand(prompt: "Prompt") -> bool:
    """Whether a prompt's prefix has been run already."""
    return "prefix" in vars(prompt.call)


def prefix_or_none(mllm: "Mllm", prompt: "Prompt") -> Prefix | None:
    """The prefix; None for a model whose text cannot continue from it, which is asked once for a look."""
    known = vars((prompt if prompt.look is None else prompt.look.prompt).call)
    if known.get("refused") is mllm.model:
        return None
    try:
        return prefix_of(mllm, prompt)
    except UnsupportedModelError:
        known["refused"] = mllm.model
        return None


def _shared(mllm: "Mllm", prompt: "Prompt") -> Prefix | None:
    """The prefix of a prompt's look, where the prompt's own states and arguments begin as that does."""
    if prompt.look is None or prompt.call.copies != 1:
        return None
    prompt.check(mllm, replayed=True)
    found, call = prefix_of(mllm, prompt.look.prompt), prompt.call
    begins = [
        (
            each.attention,
            each.visual,
            each.states[:, : found.length],
            _first(each.arguments, found.length, each.states.shape[1]),
        )
        for each in (found.call, call)
    ]
    return replace(found, call=call) if _equal(*begins) else None


def _equal(one: Any, other: Any) -> bool:
    if torch.is_tensor(one) and torch.is_tensor(other):
        return torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and (one is other or bool(one == other))


def prefilled(mllm: "Mllm", prompt: "Prompt", length: int | None = None) -> Prefix:
    """Run a prompt's system prompt and image once.

    Args:
        length: how many of the first tokens, its image among them; up to the image's last one when None.

    Raises:
        UnsupportedModelError: for a model whose text cannot continue from them, naming the reason.
        PromptError: for a prompt of another model, or of another dtype or device.
    """
    prompt.check(mllm, replayed=True)
    call = prompt.call
    reason = _unfit(mllm, prompt)
    if reason:
        raise _refused(mllm, reason)
    length, cache = prompt.image_end if length is None else length, DynamicCache()
    first = _first(call.arguments, length, call.states.shape[1])
    with undisturbed(mllm.model):
        call.module(**{call.site.states: call.states[:, :length], "past_key_values": cache, "use_cache": True} | first)
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    if len(layers) != len(mllm.attention_layers) or len({key.shape[1:] for key, _ in layers}) > 1:
        raise _refused(mllm, "its layers do not all keep keys of the visual tokens, of one size")
    prefix = Prefix(call, length, layers, weights_mark(mllm.model))
    _check(mllm, prompt, prefix)
    return prefix


@restoring
def continued_answer(prefix: Prefix, made: Callable[[], Layers] | None = None) -> Iterator[None]:
    """While open, the model's own forward runs the prompt's text over a cached prefix, and skips what is before it.

    Args:
        prefix: of the prompt.
        made: gives the keys and values that are continued from, for one prompt or several copies; the prefix's own when
            None. It is asked for each forward, so that nothing but the cache holds them meanwhile.
    """
    total = prefix.call.states.shape[1]

    @in_this_use
    def change(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = named_arguments(module, arguments, keywords)
        states, cache = named.get(prefix.call.site.states), named.get("past_key_values")
        if states is None or states.shape[1] < total:
            # Steps after the first bring one new token, and find the prefix in the cache.
            return arguments, keywords
        # Where no cache is to be kept, each forward brings the whole sequence once more, longer by what was said, and some
        # models hand on what the last one was given.
        if cache is not None and cache.get_seq_length():
            cache = None
        layers = prefix.layers if made is None else made()
        rows = len(states) // len(layers[0][0])
        filled = layers if rows == 1 else [tuple(each.repeat_interleave(rows, 0) for each in layer) for layer in layers]
        cache = _filled(cache, filled)
        whole = {name: value for name, value in named.items() if name != "past_key_values"}
        rest = _rest(whole, prefix.length, states.shape[1])
        return (), rest | {"past_key_values": cache, "use_cache": named.get("use_cache") is not False}

    handle = prefix.call.module.register_forward_pre_hook(change, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _unfit(mllm: "Mllm", prompt: "Prompt") -> str:
    """Why a prompt's text cannot continue from its prefix, as far as that is seen without running it; "" otherwise."""
    call, config = prompt.call, mllm.model.config
    types = set(getattr(config.get_text_config(), "layer_types", None) or ())
    # What a family is known for comes first, as the rest asks for what it may not have.
    return mllm.family.no_prefix or next(
        (
            reason
            for unfit, reason in (
                (config.is_encoder_decoder, "it encodes image and question together"),
                (
                    "past_key_values" not in inspect.signature(call.module.forward).parameters,
                    f"{type(call.module).__name__} takes no cache",
                ),
                (
                    call.copies != 1 or call.states.dim() != 3,
                    "its tokens are laid out otherwise than (prompt, token, width)",
                ),
                (bool(types - _KEPT), f"of its layers of {', '.join(sorted(types))} some keep no keys"),
                (prompt.image_end >= call.states.shape[1], "the question stands before the image"),
            )
            if unfit
        ),
        "",
    )


# Kinds of layers that keep the keys of all tokens, or of the last ones.
_KEPT = {"full_attention", "sliding_attention", "chunked_attention"}


def _refused(mllm: "Mllm", reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The text of a {mllm.family.name} model must be able to continue from a cached image; here it cannot: {reason}. "
        "Use a method that changes the visual tokens, as ControlMLLMPlus()."
    )


_CHECKED: WeakKeyDictionary[Any, set[str | None]] = WeakKeyDictionary()


def _check(mllm: "Mllm", prompt: "Prompt", prefix: Prefix) -> None:
    """Refuse a model whose text does not come out as in a plain forward; looked at once for each kind of attention."""
    seen = _CHECKED.setdefault(mllm.model, set())
    if prompt.call.attention in seen:
        return
    with undisturbed(mllm.model):
        plain = float_states(prefix.call.replay())[:, prefix.length :]
        with continued_answer(prefix):
            continued = float_states(prefix.call.replay())
    if plain.shape != continued.shape:
        raise _refused(mllm, "its text has other states over a cached prefix")
    off = ((plain - continued).abs().max() / plain.abs().max()).item()
    if not off <= ROUNDING.get(mllm.model.dtype, 0.1):
        raise _refused(mllm, f"its text's states are {off:.1%} off, as the image's tokens see what comes after them")
    seen.add(prompt.call.attention)


def float_states(output: Any) -> torch.Tensor:
    """The states (prompt, token, width) that a call's module gives, in float32."""
    found = output if torch.is_tensor(output) else output[0]
    result: torch.Tensor = found.float()
    return result


def _filled(cache: Any, layers: Sequence[Sequence[torch.Tensor]]) -> Any:
    """A cache with keys and values in it: the caller's, whose layers may keep only the last of them, or one of our own."""
    if cache is not None:
        for number, (key, value) in enumerate(layers):
            cache.update(key, value, number)
        return cache
    cache = DynamicCache()
    for key, value in layers:
        # `update` would copy them, for nothing to stand before them.
        layer = DynamicLayer()
        layer.dtype, layer.device, layer.is_initialized = key.dtype, key.device, True
        layer.keys, layer.values = key, value
        cache.layers.append(layer)
    return cache


def _first(arguments: Mapping[str, Any], length: int, total: int) -> dict[str, Any]:
    """Arguments of the prefix alone."""
    return {name: _cut(name, value, slice(None, length), total, length) for name, value in arguments.items()}


def _rest(arguments: Mapping[str, Any], length: int, total: int) -> dict[str, Any]:
    """Arguments of what comes after the prefix."""
    return {
        name: None if name in _OF_IMAGES else _cut(name, value, slice(length, None), total, None)
        for name, value in arguments.items()
    }


def _cut(name: str, value: Any, part: slice, total: int, keys: int | None) -> Any:
    """One argument for some of the tokens; a mask keeps the keys that are there by then."""
    if isinstance(value, Mapping):
        return {key: _cut(name, each, part, total, keys) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_cut(name, each, part, total, keys) for each in value)
    if not torch.is_tensor(value):
        return value
    if "mask" in name and value.dim() == 4:
        return value[..., part, :keys]
    if "mask" in name and value.dim() == 2:
        return value[:, :keys]
    axes = [axis for axis in range(value.dim()) if value.shape[axis] == total]
    # The sequence comes after prompts and kinds of position, and before widths.
    axis = next((axis for axis in axes if axis > 0), axes[0] if axes else None)
    return value if axis is None else value[(slice(None),) * axis + (part,)]
