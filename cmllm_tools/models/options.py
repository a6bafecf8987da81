"""What callers may tell transformers' `generate`, read strictly: a wrong answer is never given for an option it ignores."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from ..errors import CmllmError, SettingsError
from ..strict import flag, number, several, shown, whole_number, whole_numbers
from .family import Family


def _processors(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not all(callable(each) for each in value):
        raise SettingsError(f"{what} must be a list of objects that can be called, as [it]; got {shown(value)}.")
    return list(value)


# Of what tensors of ids hold.
LAST_ID = 2**31 - 1


def _called(value: Any, what: str) -> Any:
    if not callable(value):
        raise SettingsError(f"{what} must be a function; got {shown(value)}.")
    return value


def _streamer(value: Any, what: str) -> Any:
    if not all(callable(getattr(value, name, None)) for name in ("put", "end")):
        raise SettingsError(f"A {what} must have put(ids) and end(), as transformers.TextStreamer; got {shown(value)}.")
    return value


def _token_ids(value: Any, what: str) -> list[int]:
    return list(whole_numbers(value, what, 0, LAST_ID))


def _one_or_more_ids(value: Any, what: str) -> int | list[int]:
    one = isinstance(value, str) or getattr(value, "shape", None) == () or not isinstance(value, Iterable)
    return whole_number(value, what, 0, LAST_ID) if one else _token_ids(value, what)


def _texts(value: Any, what: str) -> list[str]:
    found = [value] if isinstance(value, str) else list(several(value, f"{what} must be one or more texts"))
    if not found or not all(isinstance(each, str) and each for each in found):
        raise SettingsError(f"{what} must be one or more texts; got {shown(value)}.")
    return found


def _words_of_ids(value: Any, what: str) -> list[list[int]]:
    found = several(value, f"{what} must be lists of token ids, one for each word")
    words = [_token_ids(each, f"each of {what}") for each in found]
    if not words or not all(words):
        raise SettingsError(f"{what} must be lists of one or more token ids; got {shown(value)}.")
    return words


# Each beam is a copy of the prompt.
_MOST_BEAMS = 1000
_READ: dict[str, Callable[[Any, str], Any]] = {
    "max_new_tokens": lambda value, what: whole_number(value, what, 1),
    "min_new_tokens": lambda value, what: whole_number(value, what, 0),
    "num_beams": lambda value, what: whole_number(value, what, 1),
    "no_repeat_ngram_size": lambda value, what: whole_number(value, what, 0),
    "top_k": lambda value, what: whole_number(value, what, 0),
    "logits_processor": _processors,
    "stopping_criteria": _processors,
    "prefix_allowed_tokens_fn": _called,
    "streamer": _streamer,
    "bos_token_id": lambda value, what: whole_number(value, what, 0, LAST_ID),
    "pad_token_id": lambda value, what: whole_number(value, what, 0, LAST_ID),
    "eos_token_id": _one_or_more_ids,
    "suppress_tokens": _token_ids,
    "begin_suppress_tokens": _token_ids,
    "bad_words_ids": _words_of_ids,
    "stop_strings": _texts,
    "min_p": lambda value, what: number(value, what, 0, 1),
    "typical_p": lambda value, what: number(value, what, above=0, most=1),
    "do_sample": flag,
    "use_cache": flag,
    "temperature": lambda value, what: number(value, what, above=0),
    "top_p": lambda value, what: number(value, what, above=0, most=1),
    "repetition_penalty": lambda value, what: number(value, what, above=0),
    "max_time": lambda value, what: number(value, what, above=0),
    "length_penalty": number,
    "encoder_repetition_penalty": lambda value, what: number(value, what, above=0),
    "encoder_no_repeat_ngram_size": lambda value, what: whole_number(value, what, 0),
}
# Arguments of `generate` beside those of its configuration.
_BESIDE = {"logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer", "tokenizer"}
_LENGTHS = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}
_INPUT = "the prompt's tensors are those that `prepare` made"
# Options that are not taken, by why.
_REASONS: dict[str, tuple[str, ...]] = {
    _INPUT: (
        *("inputs", "inputs_embeds", "input_ids", "attention_mask", "position_ids", "past_key_values", "pixel_values"),
        *("encoder_outputs", "decoder_input_ids", "decoder_inputs_embeds", "labels", "token_healing"),
    ),
    "text, ids and log-probabilities are what an Answer has; capture_attention has attention": (
        *("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    ),
    "one answer is given back; to sample several, call it several times with do_sample=True": ("num_return_sequences",),
    "guessed tokens are read several at a time, and answers are to be the model's own": (
        *(
            "assistant_model",
            "assistant_early_exit",
            "prompt_lookup_num_tokens",
            "use_mtp",
            "speculation_type",
            "is_assistant",
        ),
    ),
    "answers are greedy, sampled, or searched for with plain beams": (
        *("num_beam_groups", "diversity_penalty", "constraints", "force_words_ids", "penalty_alpha", "dola_layers"),
    ),
    "contrast= is what decodes against another branch": (
        *("guidance_scale", "negative_prompt_ids", "negative_prompt_attention_mask"),
    ),
    "no code from elsewhere is run": ("custom_generate", "trust_remote_code"),
    "its settings are given by name (num_beams=3)": ("generation_config",),
    "a latent is added to a prompt that is read in one piece": ("prefill_chunk_size",),
    "it runs in one process": ("synced_gpus",),
    **{f"the bound is {bound}=, which does not count the prompt": (name,) for name, bound in _LENGTHS.items()},
}
_REFUSED = {name: reason for reason, names in _REASONS.items() for name in names}


def read_options(options: dict[str, Any], family: Family, inputs: Collection[str], vocabulary: int) -> dict[str, Any]:
    """Options for `model.generate`, with those that make answers before and after steering comparable.

    Args:
        options: as given.
        family: of the model.
        inputs: names of the prompt's own tensors.
        vocabulary: number of tokens that the model can say.

    Raises:
        SettingsError: for one that does not exist, that cannot be kept, out of range, or at odds with another.
    """
    own = vars(GenerationConfig()).keys()
    known = own | _BESIDE
    # Whatever the checkpoint's generation config says.
    read: dict[str, Any] = dict.fromkeys(own & _REFUSED.keys() - _LENGTHS.keys())
    read |= {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}
    for name, value in options.items():
        if name in _REFUSED or name in inputs:
            if value is None or value is False or (name == "num_return_sequences" and value == 1):
                continue
            raise SettingsError(
                f"generate does not take {name}=: {_REFUSED.get(name, _INPUT)}. Leave it out; got {shown(value)}."
            )
        if name not in known or name.startswith("_"):
            raise SettingsError(
                f"An option of generate must be one of transformers' GenerationConfig (num_beams, do_sample, temperature, "
                f"...), or one of {', '.join(sorted(_BESIDE))}; got {name}={shown(value)}."
            )
        if value is not None or name == "max_new_tokens":
            read[name] = _READ[name](value, name) if name in _READ else value
    _check_together(read, family)
    _check_ids(read, vocabulary)
    if function := read.get("prefix_allowed_tokens_fn"):
        read["prefix_allowed_tokens_fn"] = _allowed(function, vocabulary)
    try:
        # What transformers itself says of its settings, before anything is run.
        GenerationConfig(**{name: value for name, value in read.items() if name in own})
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"Options of generate must be ones that transformers takes: {error}") from error
    return read


@contextmanager
def unread_named(read: dict[str, Any]) -> Iterator[None]:
    """While open, what transformers raises is put down to the options that are its own to read, where there are any.

    Raises:
        SettingsError: naming these.
    """
    known = {*_READ, *_BESIDE, *_REFUSED}
    unread = [f"{name}={shown(value)}" for name, value in read.items() if name not in known and value is not None]
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ImportError, RuntimeError, AssertionError) as error:
        if not unread or isinstance(error, CmllmError | torch.OutOfMemoryError):
            raise
        raise SettingsError(f"transformers could not answer with {', '.join(unread)}: {error}. Leave it out.") from error


def _check_together(read: dict[str, Any], family: Family) -> None:
    if read["num_beams"] > 1 and not family.beams:
        raise SettingsError(
            f"Beam search needs several copies of a prompt in one batch, which {family.name} does not keep apart (see "
            "`cmllm families`); leave out num_beams."
        )
    if read.get("logits_processor") and not family.processors:
        raise SettingsError(
            f"A logits_processor must be one that the model's generate heeds, and that of {family.name} does not; leave it "
            "out."
        )
    if read["num_beams"] > _MOST_BEAMS:
        raise SettingsError(f"num_beams must be at most {_MOST_BEAMS}; got {shown(read['num_beams'])}.")
    if read["num_beams"] > 1 and read.get("streamer") is not None:
        raise SettingsError("A streamer is told each token when it is chosen, which no beam is before the end; give one.")
    least, most = read.get("min_new_tokens") or 0, read["max_new_tokens"]
    if least > most:
        raise SettingsError(f"min_new_tokens must be at most max_new_tokens; got {least} and {most}.")


def _allowed(function: Callable[..., Any], vocabulary: int) -> Callable[..., list[int]]:
    """The caller's choice of tokens to go on with, which must be some of the model's."""

    def allowed(batch: int, ids: torch.Tensor) -> list[int]:
        found = list(whole_numbers(function(batch, ids), "what prefix_allowed_tokens_fn gives", 0, vocabulary - 1))
        if not found:
            raise SettingsError("prefix_allowed_tokens_fn must give at least one token to go on with; got none.")
        return found

    return allowed


def _check_ids(read: dict[str, Any], vocabulary: int) -> None:
    """Ids that scores are looked up by; transformers finds one that has no score in the midst of an answer."""
    for name in ("eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"):
        given = read.get(name)
        several = given if isinstance(given, list) else [] if given is None else [given]
        for ids in several:
            whole_numbers(ids if isinstance(ids, list) else [ids], name, 0, vocabulary - 1)
