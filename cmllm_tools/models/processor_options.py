"""Options for a processor, for one prompt: those it would ignore, and those that would make another prompt, are refused."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers.processing_utils import ProcessingKwargs

from ..errors import PromptError
from ..strict import one_of, shown

if TYPE_CHECKING:
    from .mllm import Mllm

GROUPS = ("text_kwargs", "images_kwargs", "common_kwargs")
# What a prompt is made of is said by `prepare`; other tensors would be given to a model that has no place for them.
_OWN = {
    "images",
    "text",
    "videos",
    "audio",
    "text_pair",
    "text_target",
    "text_pair_target",
    "is_split_into_words",
    "kwargs",
}
_RETURNED = {"return_attention_mask", "return_token_type_ids", "return_mm_token_type_ids"}


def checked(mllm: Mllm, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by name, those of groups (`text_kwargs`, `images_kwargs`) among them.

    Raises:
        PromptError: for one that the processor does not know or that is not for a prompt, and for settings of the image
            processor that are not its own.
    """
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if name not in GROUPS:
            flat[name] = value
        elif isinstance(value, Mapping):
            flat.update(value)
        else:
            raise PromptError(f"{name} must be a dictionary of options; got {shown(value)}.")
    known = _known(mllm.processor)
    wrong = sorted(str(name) for name in flat if name not in known)
    if wrong:
        raise PromptError(
            "Options of a prompt must be those of the processor for text and images, without what prepare gives itself; "
            f"{type(mllm.processor).__name__} has none that is called {', '.join(wrong)}."
        )
    if flat.get("padding_side") is not None:
        one_of(flat["padding_side"], "padding_side", ("left", "right"), PromptError)
    images = getattr(mllm.processor, "image_processor", None)
    changed = sorted(
        name for name, value in flat.items() if hasattr(images, name) and _plain(getattr(images, name)) != _plain(value)
    )
    if changed and mllm.family.layout is not None:
        raise PromptError(
            f"Settings of the image processor must be set on it, where the layout rule reads them "
            f"(mllm.processor.image_processor.{changed[0]} = ...); got {changed} for one prompt."
        )
    return flat


def _known(processor: Any) -> set[str]:
    kinds = (getattr(processor, "valid_processor_kwargs", None) or ProcessingKwargs).__annotations__
    names = set(inspect.signature(processor.__call__).parameters)
    for kind in (kinds.get("text_kwargs"), kinds.get("images_kwargs")):
        names |= set(getattr(kind, "__annotations__", {}))
    names |= {name for name in kinds if not name.endswith("_kwargs")}
    names |= set(getattr(getattr(getattr(processor, "image_processor", None), "valid_kwargs", None), "__annotations__", {}))
    returned = {name for name in names if name.startswith("return_")} - _RETURNED
    return {name for name in names if not name.endswith("_kwargs")} - _OWN - returned


def cut_at(tokenizer: Any, options: Mapping[str, Any]) -> int | None:
    """At how many tokens these options, or the tokenizer's own, would cut a prompt; None where they do not."""
    own = getattr(tokenizer, "init_kwargs", {})
    truncation = options.get("truncation", own.get("truncation"))
    length = options.get("max_length", own.get("max_length"))
    # Without padding, transformers takes a length for a limit.
    if truncation is None and length is not None and not options.get("padding", False):
        truncation = True
    if truncation in (None, False, "do_not_truncate"):
        return None
    return int(tokenizer.model_max_length if length is None else length)


def _plain(value: Any) -> Any:
    """A setting as it is compared: an array or a tuple is what it holds."""
    return np.asarray(value).tolist() if isinstance(value, list | tuple | np.ndarray) else value
