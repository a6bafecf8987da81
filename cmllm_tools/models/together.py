"""Answers in one batch, each what it is alone: plain ones to several prompts, or one prompt's under several interventions.

Questions about one image continue from its prefix; where they have other lengths, they are filled up between the image and
themselves. Prompts of several images, each of which has gone through the vision encoder by itself, are filled up before
their beginning. Nothing looks at what fills. Whether a model keeps them apart is found out, not believed: the first batch
of each kind is held against each prompt's own forward.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from .answer import Answer, said
from .decoding import stops, why_ended
from .finite import Finite
from .hooks import in_this_use, named_arguments
from .interrupts import restoring
from .interventions import Intervention
from .likelihoods import Likelihoods
from .options import LAST_ID, read_options
from .origin import looked_once
from .prefix import ROUNDING, Prefix, continued_answer, float_states, prefix_or_none
from .prompt import Prompt
from .undisturbed import locked, undisturbed

if TYPE_CHECKING:
    from .mllm import Mllm

# Arguments of a call that are the same whatever else is in the batch, or are made anew for it.
_PLAIN = {"attention_mask", "position_ids", "cache_position"}
# Settings of a checkpoint's own that look at the prompt's tokens, and what each is where it does nothing.
_OF_TOKENS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "sequence_bias": None}
# What sets one kind of batch apart: the implementation of attention, the intervention's kind, whether it is over a prefix
# and whether it is filled up.
_Kind = tuple[str | None, type, bool, bool]
# Models whose batches were held against single forwards, by kind: whether they are kept apart.
_CHECKED: WeakKeyDictionary[Any, dict[_Kind, bool]] = WeakKeyDictionary()


def answers_together(mllm: "Mllm", prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
    """Greedy answers to several prompts; one by one where they cannot be one batch.

    They can where the family's batches are kept apart (`Family.batch`), nothing but states, mask and positions is given
    and the checkpoint has no settings that look at a prompt's tokens.

    Args:
        prompts: of different questions about one look, or of different images.
        max_new_tokens: upper bound on each answer's length.
    """
    if _fit(mllm, prompts):
        prefix = _prefix(mllm, prompts)
        found = _answered(mllm, prompts, prefix, max_new_tokens)
        if found is not None:
            return found
    return [mllm.generate(prompt, max_new_tokens=max_new_tokens) for prompt in prompts]


def answers_each(
    mllm: "Mllm", prompt: Prompt, interventions: Sequence[Intervention | None], max_new_tokens: int
) -> list[Answer]:
    """Greedy answers to one prompt under each of several interventions; one by one where they cannot be one batch.

    Args:
        prompt: of this model.
        interventions: in the batch, of one kind that says how several are opened (`Intervention.opened_each`), none of them
            decoded against doing without.
        max_new_tokens: upper bound on each answer's length.

    Raises:
        CaptureError: for an intervention that does not fit the prompt.
    """
    opened = opened_each(mllm, prompt, interventions)
    if opened is not None:
        kind, (states, mask) = _kind_of(prompt, interventions), rows_of(prompt, len(interventions))
        several = [each for each in interventions if each is not None]
        found = _batch(
            mllm,
            [prompt] * len(states),
            states,
            mask,
            0,
            opened,
            max_new_tokens,
            kind,
            lambda number: several[number].opened(mllm, prompt),
        )
        if found is not None:
            return found
    return [mllm.generate(prompt, each, max_new_tokens=max_new_tokens) for each in interventions]


def opened_each(
    mllm: "Mllm", prompt: Prompt, interventions: Sequence[Intervention | None]
) -> AbstractContextManager[None] | None:
    """Opens a batch of the prompt for each of several interventions; None where they cannot be one batch."""
    several = [each for each in interventions if each is not None and each.contrast is None]
    if len(several) < max(2, len(interventions)) or len({type(each) for each in several}) > 1:
        return None
    kind = type(several[0])
    if _home(kind, "opened") is not _home(kind, "opened_each") or not _fit(mllm, [prompt, prompt]):
        # A subclass that says how one is opened says nothing of several.
        return None
    if not _CHECKED.get(mllm.model, {}).get(_kind_of(prompt, several), True):
        return None
    with looked_once():
        return kind.opened_each(several, mllm, prompt)


def rows_of(prompt: Prompt, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States (count, token, width) of a prompt so many times, and their mask (count, token)."""
    states = prompt.call.states.repeat(count, 1, 1)
    return states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device)


def _home(kind: type, name: str) -> type | None:
    """The class that defines a method of another."""
    return next((each for each in kind.__mro__ if name in vars(each)), None)


def _kind_of(prompt: Prompt, interventions: Sequence[Intervention | None]) -> _Kind:
    return prompt.call.attention, type(interventions[0]), False, False


def _fit(mllm: "Mllm", prompts: Sequence[Prompt]) -> bool:
    """Whether they can be one batch, as far as that is seen without running it."""
    model = mllm.model
    own = {name: getattr(model.generation_config, name, None) for name in _OF_TOKENS}
    return (
        len(prompts) > 1
        and mllm.family.batch
        and mllm.family.tested
        and "inputs_embeds" in inspect.signature(model.prepare_inputs_for_generation).parameters
        and all(value in (None, _OF_TOKENS[name]) for name, value in own.items())
        and all(map(_is_plain, prompts))
        and all(prompt.look is None or prompt.look.serves(mllm) for prompt in prompts)
    )


def _prefix(mllm: "Mllm", prompts: Sequence[Prompt]) -> Prefix | None:
    """What all of them continue from; None for prompts of several images, or a model whose text continues from none."""
    look = prompts[0].look
    if look is None or any(prompt.look is not look for prompt in prompts):
        return None
    with looked_once():
        return prefix_or_none(mllm, prompts[0])


def _is_plain(prompt: Prompt) -> bool:
    call = prompt.call
    places = call.arguments.get("position_ids")
    given = {name for name, value in call.arguments.items() if value is not None}
    # What the processor filled up is looked at by nothing, and the batch's mask knows of none of it.
    padded = "attention_mask" in prompt.inputs and not bool(prompt.inputs["attention_mask"].all())
    laid_out = call.site.states == "inputs_embeds" and (places is None or places.dim() in (2, 3))
    return laid_out and given <= _PLAIN and not padded


def _answered(mllm: "Mllm", prompts: Sequence[Prompt], prefix: Prefix | None, max_new_tokens: int) -> list[Answer] | None:
    """The answers; None for a model that turns out not to keep them apart."""
    shared = 0 if prefix is None else prefix.length
    states, mask = _filled_up(prompts, shared)
    filled = any(prompt.call.states.shape[1] < states.shape[1] for prompt in prompts)
    over: AbstractContextManager[None] = nullcontext()
    if prefix is not None:
        over = continued_answer(replace(prefix, call=replace(prefix.call, states=states)))
    kind = (prompts[0].call.attention, type(None), prefix is not None, filled)
    return _batch(mllm, prompts, states, mask, shared, over, max_new_tokens, kind, lambda number: nullcontext())


def _filled_up(prompts: Sequence[Prompt], shared: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States of several prompts as one batch, and the mask of what is theirs: filled up after what they share."""
    rests = [prompt.call.states[:, shared:] for prompt in prompts]
    longest = max(rest.shape[1] for rest in rests)
    first = prompts[0].call.states[:, :shared]
    fillers = [rest.new_zeros(1, longest - rest.shape[1], rest.shape[2]) for rest in rests]
    states = torch.cat([torch.cat([first, *each], 1) for each in zip(fillers, rests, strict=True)])
    mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    for row, filler in zip(mask, fillers, strict=True):
        row[shared : shared + filler.shape[1]] = 0
    return states, mask


def _batch(
    mllm: "Mllm",
    prompts: Sequence[Prompt],
    states: torch.Tensor,
    mask: torch.Tensor,
    shared: int,
    over: AbstractContextManager[None],
    max_new_tokens: int,
    kind: _Kind,
    alone: Callable[[int], AbstractContextManager[None]],
) -> list[Answer] | None:
    """The answers; None for a model that turns out not to keep them apart.

    Args:
        states, mask: of all prompts, filled up.
        shared: number of tokens that all begin with.
        over: what is open meanwhile.
        kind: of batch, which is held against single forwards the first time.
        alone: opens what is done to a prompt of this number by itself.
    """
    model, tokenizer = mllm.model, mllm.processor.tokenizer
    checked = _CHECKED.setdefault(model, {})
    if not checked.get(kind, True):
        return None
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", LAST_ID)
    options = read_options({"max_new_tokens": max_new_tokens}, mllm.family, prompts[0].inputs, vocabulary)
    options["logits_processor"] = LogitsProcessorList([Finite(model.dtype)])
    likelihoods = Likelihoods(model, answers=len(prompts))
    options["stopping_criteria"] = StoppingCriteriaList([likelihoods])
    seen: list[torch.Tensor] = []

    def keep(module: Any, given: tuple[Any, ...], output: Any) -> None:
        if not seen:
            seen.append(float_states(output)[:, -1])

    placed = placed_each(prompts, shared, states.shape[1])
    with undisturbed(model), placed, over, likelihoods.heard():
        handle = prompts[0].call.module.register_forward_hook(in_this_use(keep))
        try:
            output = model.generate(inputs_embeds=states, attention_mask=mask, **options)
        finally:
            handle.remove()
    if kind not in checked:
        rows = enumerate(zip(seen[0], prompts, strict=True))
        checked[kind] = all(_alike(model, row, prompt, alone(number)) for number, (row, prompt) in rows)
    if not checked[kind]:
        return None
    tokens = output if torch.is_tensor(output) else output.sequences
    with locked(tokenizer):
        ends = stops(model, tokenizer, options)
        found = [said(tokenizer, row, ends, why_ended(model, row, options)) for row in tokens.tolist()]
    return [answer.weighed(each) for answer, each in zip(found, likelihoods.found(), strict=True)]


@restoring
def placed_each(prompts: Sequence[Prompt], shared: int, longest: int) -> Iterator[None]:
    """While open, every token is where its prompt alone has it, and new ones go on from there.

    Positions of several kinds (time, row, column) are no count of the tokens before, which is all that `generate` knows of
    states; plain ones are left to it.

    Args:
        shared: number of tokens that all begin with; what is filled up follows them.
        longest: number of tokens of the longest.
    """
    call, filled = prompts[0].call, []
    for prompt in prompts:
        own = prompt.call.arguments.get("position_ids")
        if own is None or own.dim() == 2:
            yield
            return
        nothing = own.new_zeros(*own.shape[:2], longest - own.shape[-1])
        filled.append(torch.cat([own[..., :shared], nothing, own[..., shared:]], -1))
    places, given = torch.cat(filled, 1), 0

    @in_this_use
    def place(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal given
        named = named_arguments(module, arguments, keywords)
        named["position_ids"] = places if given == 0 else places[..., -1:] + given
        given += 1
        return (), named

    handle = call.module.register_forward_pre_hook(place, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _alike(model: Any, row: torch.Tensor, prompt: Prompt, opened: AbstractContextManager[None]) -> bool:
    """Whether a prompt's last state in the batch is that of its own forward, but for rounding."""
    with undisturbed(model), opened:
        alone = float_states(prompt.call.replay())[0, -1]
    off = ((row - alone).abs().max() / alone.abs().max()).item()
    return bool(off <= ROUNDING.get(model.dtype, 0.1))
