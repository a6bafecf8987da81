"""Loading a model: the embedded one, a checkpoint, or one already in hand."""

from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForImageTextToText

from ..errors import UnsupportedModelError
from .embedded import EMBEDDED_MODEL
from .families import family_of
from .mllm import Mllm
from .processors import load_processor


def load(
    model: str | PathLike | tuple[Any, Any] | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    layout: Literal["table", "probe"] = "table",
    **options: Any,
) -> Mllm:
    """Load a model: the embedded one, a checkpoint, or one you already hold.

    Args:
        model: None for the embedded model; a hub id or a local folder; or a pair (model, processor).
        revision: of a hub checkpoint.
        trust_remote_code: run code that comes with a checkpoint; off unless you turn it on.
        layout: how visual tokens are laid out; see `Mllm`.
        **options: for `from_pretrained` (dtype, device_map, quantization_config, attn_implementation, ...).

    Raises:
        UnsupportedModelError: for a checkpoint that is missing or cannot be loaded, or a family this package does not know.
    """
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
        loaded = AutoModelForImageTextToText.from_pretrained(source, **common, **options)
        _ = family_of(loaded) if layout == "table" else None
        processor = load_processor(source, loaded.config.model_type, **common)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(
            f"A model must be a hub id or a folder with an image-text-to-text checkpoint and its processor; "
            f"{source} cannot be loaded: {error}"
        ) from error
    name = "embedded" if model is None else str(model)
    return Mllm(loaded, processor, name, revision, layout)
