"""A prompt several times in one batch, or followed by an answer: its inputs changed, and its call recorded again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..errors import PromptError, SettingsError
from .answer import Answer, read_answer
from .mllm import Mllm
from .prompt import Prompt
from .replay import LanguageCall, record
from .undisturbed import locked, unaffected

# Largest difference between what is recorded of one copy and of two, as a share of the largest value.
ROUNDING = 1e-2
# Beyond this many copies a batch is no faster on any machine tried, and its memory grows.
MAX_COPIES = 16


class Copies:
    """One prompt, as a batch of any number of copies, whose call takes latents (copy, visual token, width).

    What one and two copies are is recorded; of more, every tensor is as much longer along the axis where that of two
    is twice that of one. Where this does not hold they are recorded too, so that the vision encoder runs over them.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        keep_before: keep what ran before the call; see `LanguageCall.resumed`.

    Raises:
        PromptError: for a prompt that is several copies already, or of another model.
    """

    def __init__(self, mllm: Mllm, prompt: Prompt, keep_before: bool = False):
        if prompt.call.copies != 1:
            raise PromptError(f"Copies are made of one prompt; got {prompt.call.copies} copies already.")
        prompt.check(mllm, replayed=True)
        self._mllm, self._prompt, self._keep_before = mllm, prompt, keep_before
        self._recorded: dict[int, LanguageCall] = {} if keep_before else {1: prompt.call}
        self._last = prompt if not keep_before else None

    @unaffected(gradient=False)
    def of(self, count: int) -> Prompt:
        """The prompt `count` times.

        Raises:
            SettingsError: for several copies with a family whose batches are not kept apart.
        """
        if count > 1 and not self._mllm.family.batch:
            raise SettingsError(
                f"Several copies of a prompt in one batch are not kept apart by {self._mllm.family.name} (see "
                f"`cmllm families`); run them one by one, and not {count} at a time."
            )
        last = self._last
        if last is None or last.call.copies != count:
            last = self._last = replace(self._prompt, inputs=self._prompt.repeated(count), call=self._call(count))
        return last

    def _call(self, count: int) -> LanguageCall:
        if count <= 2:
            return self._record(count)
        one, two = self._record(1), self._record(2)
        try:
            return replace(
                two,
                copies=count,
                states=widened(one.states, two.states, count),
                arguments=widened(one.arguments, two.arguments, count),
                before=widened(one.before, two.before, count),
            )
        except _NotTwice:
            return self._record(count)

    def _record(self, count: int) -> LanguageCall:
        if count not in self._recorded:
            call, inputs = self._prompt.call, self._prompt.repeated(count)
            self._recorded[count] = record(self._mllm.model, call.site, inputs, call.visual, count, self._keep_before)
        return self._recorded[count]


def copies(mllm: Mllm, prompt: Prompt, count: int) -> Prompt:
    """The prompt `count` times as one batch; see `Copies`."""
    return Copies(mllm, prompt).of(count)


class _NotTwice(Exception):
    """What was recorded of two copies is not that of one, twice."""


def widened(one: Any, two: Any, count: int) -> Any:
    """What was recorded of one and of two copies, as it is of `count`.

    Raises:
        _NotTwice: where two copies are not one copy twice.
    """
    if torch.is_tensor(one) and torch.is_tensor(two):
        return _repeated(one, two, count)
    if isinstance(one, Mapping) and isinstance(two, Mapping) and list(one) == list(two):
        inner = {key: widened(one[key], two[key], count) for key in one}
        return inner if type(one) is dict else type(one)(**inner)
    if isinstance(one, list | tuple) and type(one) is type(two) and len(one) == len(two):
        return type(one)(widened(a, b, count) for a, b in zip(one, two, strict=True))
    if type(one) is not type(two) or (one is not two and one != two):
        raise _NotTwice
    return one


def _repeated(one: torch.Tensor, two: torch.Tensor, count: int) -> torch.Tensor:
    axes = [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=False)) if a != b]
    if len(one.shape) != len(two.shape) or len(axes) > 1:
        raise _NotTwice
    twice, all_of_them = (torch.cat([one] * number, axes[0]) if axes else one for number in (2, count))
    if twice.shape != two.shape or not _same(twice, two):
        raise _NotTwice
    return all_of_them


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, or apart by what kernels round differently in another batch; positions and counts are never nearly equal."""
    if torch.equal(one, other):
        return True
    if not one.is_floating_point():
        return False
    return bool((one - other).abs().max() <= ROUNDING * other.abs().max())


def answer_of(mllm: Mllm, answer: str | Sequence[int]) -> Answer:
    """An answer with the tokens by which a prompt can be followed; there may be none.

    A model's own answer has them, a text is cut into tokens, and token ids are told as text.

    Raises:
        PromptError: for what is none of these.
    """
    with locked(mllm.processor.tokenizer):
        found = read_answer(mllm.processor.tokenizer, answer, mllm.model.get_input_embeddings().num_embeddings)
    # A placeholder that a model said would ask for another image or video when it is read again.
    return found.without(mllm.image_token_id, mllm.video_token_id)


def answer_tokens(mllm: Mllm, answer: str | Sequence[int]) -> list[int]:
    """The tokens of an answer; see `answer_of`.

    Raises:
        PromptError: for an empty answer, or what is none.
    """
    ids = answer_of(mllm, answer).ids
    if not ids:
        raise PromptError(f"An answer must be a text with at least one word; got {answer!r}.")
    return list(ids)


@unaffected(gradient=False)
def followed_by(mllm: Mllm, prompt: Prompt, ids: Sequence[int]) -> Prompt:
    """The prompt with an answer's tokens after it; an encoder-decoder's decoder is given them."""
    prompt.check(mllm)
    before = prompt.inputs["input_ids"]
    answer = torch.tensor([list(ids)], device=before.device)
    if mllm.model.config.is_encoder_decoder:
        start = torch.full_like(answer[:, :1], mllm.model.generation_config.decoder_start_token_id)
        inputs = prompt.inputs | {"decoder_input_ids": torch.cat([start, answer[:, :-1]], 1)}
        return replace(prompt, inputs=inputs)
    given = {name: value for name, value in prompt.inputs.items() if name != "labels"}
    added = {"input_ids": answer, "token_type_ids": torch.full_like(answer, mllm.family.answer_type)}
    inputs = {name: _longer(name, value, added, before.shape) for name, value in given.items()}
    call = record(mllm.model, prompt.call.site, inputs, prompt.call.visual)
    tokens, answered = prompt.tokens + mllm.words(list(ids)), prompt.answered + len(ids)
    return replace(prompt, inputs=inputs, tokens=tokens, call=call, answered=answered)


def _longer(name: str, value: torch.Tensor, added: dict[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """An input with a value for each of the sequence's tokens, lengthened: by what is added, or its last value."""
    if value.shape[:2] != shape or name.startswith("qformer_"):
        return value
    last = value[:, -1:].expand(-1, added["input_ids"].shape[1], *value.shape[2:])
    return torch.cat([value, added.get(name, last)], 1)
