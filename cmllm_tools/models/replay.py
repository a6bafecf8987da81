"""Record the call in which text meets the visual states once, and replay it with a latent on those states."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from ..errors import UnsupportedModelError
from .hooks import given_again, in_this_use, named_arguments
from .interrupts import restoring
from .latent_states import add_latent, latent_added
from .undisturbed import undisturbed

# Switches and state of one call that a replay sets anew.
_NOT_REPLAYED = (
    "past_key_values",
    "use_cache",
    "cache_position",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "labels",
    "logits_to_keep",
)


@dataclass(frozen=True)
class CallSite:
    """Where a model's own forward hands the visual states to the modules that attend to them.

    Args:
        call: path of the module that is called again at every replay.
        states: its argument that takes the visual states; "" where it adds them to its own, at the input of `source`.
        source: path of a module inside `call` that reads or makes the states, where the model's forward does not pass
            them to `call` itself; "" where it does.
        side: whether the states are the first input or the output of `source`.
        replaces: arguments of `call` that the states stand for in a replay.
        lifted: whether `states` has an axis of prompts before the first axis of what `source` shows.
    """

    call: str = "model.language_model"
    states: str = "inputs_embeds"
    source: str = ""
    side: Literal["input", "output"] = "input"
    replaces: tuple[str, ...] = ()
    lifted: bool = False

    @property
    def in_sequence(self) -> bool:
        """Whether the visual states are tokens of the text's own sequence."""
        return self.states in ("inputs_embeds", "")


class _Recorded(Exception):
    """Ends the model's forward once the visual states are known."""


@dataclass(frozen=True, eq=False)
class LanguageCall:
    """One recorded call.

    Args:
        site: where in the model it was recorded.
        module: the module that was called.
        source: the module that reads or makes the states, where it is another one.
        states: what `site.states` held, (..., width); the axes before the last are counted as one, row-major.
        arguments: the other keyword arguments (masks, position ids, whatever the family passes).
        visual: (visual token,), positions in one prompt's part of `states` where the latent is added.
        attention: the model's attention implementation then; its masks are made for it.
        copies: how many copies of the prompt the call was recorded with, as one batch.
        before: the modules that ran before it, outermost ones only, with what they gave, call by call; kept when asked for.
    """

    site: CallSite
    module: nn.Module
    source: nn.Module | None
    states: torch.Tensor
    arguments: dict[str, Any]
    visual: torch.Tensor
    attention: str | None
    copies: int = 1
    before: Mapping[nn.Module, list[Any]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LanguageCall":
        """A copy of the tensors; a copy of the modules would be another model's, and steer nothing."""
        own = {name: getattr(self, name) for name in ("states", "arguments", "visual")}
        return replace(self, **deepcopy(own, memo))

    def with_visual(self, visual: torch.Tensor) -> "LanguageCall":
        """The same call with the visual tokens at other positions of its states."""
        return replace(self, visual=visual.to(self.states.device))

    @property
    def visual_states(self) -> torch.Tensor:
        """(visual token, width): the states at the visual positions."""
        return self.states[: self.rows].flatten(0, -2)[self.visual]

    @property
    def rows(self) -> int:
        """Length of the first axis of `states` that belongs to one prompt."""
        return len(self.states) // self.copies

    def replay(self, latent: torch.Tensor | None = None) -> Any:
        """Call the module again, with `latent` added to the visual states: one for all copies, or one each.

        Args:
            latent: (visual token, width) or (copy, visual token, width).
        """
        with latent_added(self, latent) if not self.site.states else nullcontext():
            return self.module(**self._given(latent))

    def _given(self, latent: torch.Tensor | None) -> dict[str, Any]:
        """The call's arguments, with the latent on the states where these are one of them."""
        switches = {"use_cache": False} if "use_cache" in inspect.signature(self.module.forward).parameters else {}
        if not self.site.states:
            return {**switches, **self.arguments}
        states = self.states if latent is None else add_latent(self.states, latent, self.visual, self.rows)
        if self.site.lifted:
            states = states.unflatten(0, (self.copies, self.rows))
        return {self.site.states: states, **switches, **self.arguments}

    @restoring
    def resumed(self, latent: torch.Tensor | None) -> Iterator[None]:
        """While open, the model's own forward makes this call, with the latent, and skips what came before it."""

        @in_this_use
        def change_call(
            module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return (), self._given(latent)

        handle = self.module.register_forward_pre_hook(change_call, with_kwargs=True)
        try:
            with (
                given_again(self.before),
                latent_added(self, latent) if not self.site.states else nullcontext(),
            ):
                yield
        finally:
            handle.remove()


def record(
    model: Any,
    site: CallSite,
    inputs: dict[str, torch.Tensor],
    visual: torch.Tensor,
    copies: int = 1,
    keep_before: bool = False,
    known: Mapping[nn.Module, list[Any]] | None = None,
) -> LanguageCall:
    """Run the model's own forward up to the call at `site`, and keep that call.

    Args:
        inputs: of one prompt, or of `copies` of it as one batch.
        visual: positions of the visual tokens in one prompt's part of the states.
        keep_before: keep what the modules before the call gave, for `LanguageCall.resumed`.
        known: what modules before the call give, which are not run.

    Raises:
        UnsupportedModelError: when the forward makes no such call.
    """
    module = model.get_submodule(site.call)
    source = model.get_submodule(site.source) if site.source else None
    seen: dict[str, Any] = {}
    states: list[torch.Tensor] = []
    before: dict[nn.Module, list[Any]] = {}

    def keep_output_before(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        # A copy, as some models write into what they were given.
        before.setdefault(module, []).append(copy(output))

    def keep_call(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.update(named_arguments(module, arguments, keywords))
        if source is None:
            raise _Recorded

    def keep_input(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        states.append(arguments[0])
        raise _Recorded

    def keep_output(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        states.append(output if torch.is_tensor(output) else output[0])
        raise _Recorded

    @restoring
    def watched() -> Iterator[None]:
        handles = [module.register_forward_pre_hook(in_this_use(keep_call), with_kwargs=True)]
        try:
            if keep_before:
                keep = in_this_use(keep_output_before)
                handles += [each.register_forward_hook(keep) for each in _beside(model, site.call)]
            if source is not None and site.side == "input":
                handles.append(source.register_forward_pre_hook(in_this_use(keep_input), with_kwargs=True))
            elif source is not None:
                handles.append(source.register_forward_hook(in_this_use(keep_output)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    with undisturbed(model), given_again(known or {}), watched(), suppress(_Recorded):
        model(**inputs, use_cache=False)
    found = states[0] if states else seen.get(site.states)
    if found is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} must call {type(module).__name__} with {site.states}; it passed {sorted(seen)}."
        )
    left_out = {*_NOT_REPLAYED, *site.replaces, site.states}
    arguments = {name: value for name, value in seen.items() if name not in left_out}
    attention = implementation(model, site)
    visual = visual.to(found.device)
    return LanguageCall(site, module, source, found.detach(), arguments, visual, attention, copies, before)


def _beside(model: nn.Module, path: str) -> list[nn.Module]:
    """The outermost modules that are neither on the way to the one at `path` nor within it."""
    inner, found = model, []
    for name in path.split("."):
        found += [child for other, child in inner.named_children() if other != name]
        inner = inner.get_submodule(name)
    return found


# What a model's implementation is called while its attention is observed, before its own name.
OBSERVED = "cmllm_"


def implementation(model: Any, site: CallSite) -> str | None:
    """Attention implementation of the module at `site`; the whole model's may be another, where a part does not have it."""
    config = getattr(model.get_submodule(site.call), "config", model.config)
    named: str | None = config._attn_implementation
    return None if named is None else named.removeprefix(OBSERVED)
