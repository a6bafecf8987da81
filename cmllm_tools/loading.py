"""Loading a model: the embedded one, a checkpoint, or one already in hand."""

from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from .errors import UnsupportedModelError
from .models.embedded import EMBEDDED_MODEL
from .models.lookup import family_for
from .models.mllm import Mllm
from .models.processors import load_processor
from .models.undisturbed import unaffected
from .selfcheck import self_check


@unaffected(gradient=True)
def load(
    model: str | PathLike | tuple[Any, Any] | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    layout: Literal["table", "probe"] = "table",
    check: bool | None = None,
    **options: Any,
) -> Mllm:
    """Load a model: the embedded one, a checkpoint, or one you already hold.

    Args:
        model: None for the embedded model; a hub id or a local folder; or a pair (model, processor).
        revision: of a hub checkpoint.
        trust_remote_code: run code that comes with a checkpoint; off unless you turn it on.
        layout: how visual tokens are laid out; see `Mllm`.
        check: run `self_check` on the model; when None, where this package's tests do not cover its family.
        **options: for `from_pretrained` (dtype, device_map, quantization_config, attn_implementation, ...).

    Raises:
        UnsupportedModelError: for a checkpoint that is missing or cannot be loaded, a family this package does not know, or
            a model that fails the self-check.
    """
    mllm = _loaded(model, revision, trust_remote_code, layout, options)
    if check if check is not None else not mllm.family.tested:
        self_check(mllm)
    return mllm


def _loaded(
    model: str | PathLike | tuple[Any, Any] | None,
    revision: str | None,
    trust_remote_code: bool,
    layout: Literal["table", "probe"],
    options: dict[str, Any],
) -> Mllm:
    if isinstance(model, tuple):
        if len(model) != 2 or options or revision:
            raise UnsupportedModelError(
                "A model in hand must be given as (model, processor), without loading options; "
                f"got {len(model)} parts and options {sorted(options)}."
            )
        return Mllm(*model, layout=layout)
    if model is None:
        options = {"dtype": torch.float32} | options
    source = EMBEDDED_MODEL if model is None else Path(model).expanduser() if Path(model).expanduser().is_dir() else model
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
        if layout == "table":
            # Before gigabytes of weights are fetched.
            family_for(config)
        loaded = AutoModelForImageTextToText.from_pretrained(source, **common, **options)
        processor = load_processor(source, config.model_type, **common)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(
            f"A model must be a hub id or a folder with an image-text-to-text checkpoint and its processor; "
            f"{source} cannot be loaded: {error}"
        ) from error
    name = "embedded" if model is None else str(model)
    return Mllm(loaded, processor, name, revision, layout)
