"""Plain answers to several questions about one image in one batch, over its prefix: each is what its prompt alone gives.

Questions of other lengths are filled up between the image and themselves, where nothing looks. Whether a model keeps them
apart is found out, not believed: the first such batch is held against each prompt's own forward.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from .answer import Answer, said
from .decoding import stops, why_ended
from .finite import Finite
from .hooks import in_this_use
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
# Models whose batches were held against single forwards, by the implementation of attention and whether
# questions were filled up: whether they are kept apart.
_CHECKED: WeakKeyDictionary[Any, dict[tuple[str | None, bool], bool]] = WeakKeyDictionary()


def answers_together(mllm: "Mllm", prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
    """Greedy answers to prompts of one look; one by one where they cannot be one batch.

    Args:
        prompts: of different questions.
        max_new_tokens: upper bound on each answer's length.
    """
    prefix = _prefix(mllm, prompts)
    if prefix is not None:
        found = _answered(mllm, prompts, prefix, max_new_tokens)
        if found is not None:
            return found
    return [mllm.generate(prompt, max_new_tokens=max_new_tokens) for prompt in prompts]


def _prefix(mllm: "Mllm", prompts: Sequence[Prompt]) -> Prefix | None:
    """What all of them continue from; None where they cannot be one batch."""
    looks = {id(prompt.look) for prompt in prompts}
    look, model = prompts[0].look, mllm.model
    own = {name: getattr(model.generation_config, name, None) for name in _OF_TOKENS}
    if (
        len(prompts) < 2
        or look is None
        or len(looks) > 1
        or not mllm.family.batch
        or not all(_CHECKED.get(model, {}).get((prompts[0].call.attention, filled), True) for filled in (False, True))
        or "inputs_embeds" not in inspect.signature(model.prepare_inputs_for_generation).parameters
        or any(value not in (None, _OF_TOKENS[name]) for name, value in own.items())
        or not all(map(_is_plain, prompts))
    ):
        return None
    with looked_once():
        return prefix_or_none(mllm, prompts[0]) if look.serves(mllm) else None


def _is_plain(prompt: Prompt) -> bool:
    call = prompt.call
    places = call.arguments.get("position_ids")
    given = {name for name, value in call.arguments.items() if value is not None}
    return call.site.states == "inputs_embeds" and given <= _PLAIN and (places is None or places.dim() == 2)


def _answered(mllm: "Mllm", prompts: Sequence[Prompt], prefix: Prefix, max_new_tokens: int) -> list[Answer] | None:
    """The answers; None for a model that turns out not to keep them apart."""
    model, tokenizer = mllm.model, mllm.processor.tokenizer
    rests = [prompt.call.states[:, prefix.length :] for prompt in prompts]
    longest = max(rest.shape[1] for rest in rests)
    first = prompts[0].call.states[:, : prefix.length]
    fillers = [rest.new_zeros(1, longest - rest.shape[1], rest.shape[2]) for rest in rests]
    states = torch.cat([torch.cat([first, *each], 1) for each in zip(fillers, rests, strict=True)])
    mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    for row, filler in zip(mask, fillers, strict=True):
        row[prefix.length : prefix.length + filler.shape[1]] = 0
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", LAST_ID)
    options = read_options({"max_new_tokens": max_new_tokens}, mllm.family, prompts[0].inputs, vocabulary)
    options["logits_processor"] = LogitsProcessorList([Finite(model.dtype)])
    likelihoods = Likelihoods(model, answers=len(prompts))
    options["stopping_criteria"] = StoppingCriteriaList([likelihoods])
    batch = replace(prefix, call=replace(prefix.call, states=states))
    seen: list[torch.Tensor] = []

    def keep(module: Any, given: tuple[Any, ...], output: Any) -> None:
        if not seen:
            seen.append(float_states(output)[:, -1])

    with undisturbed(model), continued_answer(batch, prefix.layers), likelihoods.heard():
        handle = prefix.call.module.register_forward_hook(in_this_use(keep))
        try:
            output = model.generate(inputs_embeds=states, attention_mask=mask, **options)
        finally:
            handle.remove()
    checked, kind = _CHECKED.setdefault(model, {}), (prompts[0].call.attention, len({rest.shape[1] for rest in rests}) > 1)
    if kind not in checked:
        checked[kind] = all(_alike(model, row, prompt) for row, prompt in zip(seen[0], prompts, strict=True))
    if not checked[kind]:
        return None
    tokens = output if torch.is_tensor(output) else output.sequences
    with locked(tokenizer):
        ends = stops(model, tokenizer, options)
        found = [said(tokenizer, row, ends, why_ended(model, row, options)) for row in tokens.tolist()]
    return [answer.weighed(each) for answer, each in zip(found, likelihoods.found(), strict=True)]


def _alike(model: Any, row: torch.Tensor, prompt: Prompt) -> bool:
    """Whether a prompt's last state in the batch is that of its own forward, but for rounding."""
    with undisturbed(model):
        alone = float_states(prompt.call.replay())[0, -1]
    off = ((row - alone).abs().max() / alone.abs().max()).item()
    return bool(off <= ROUNDING.get(model.dtype, 0.1))
