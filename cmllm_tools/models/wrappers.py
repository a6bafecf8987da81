"""What may be wrapped around a model: adapters, compilation, copies over devices."""

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..errors import UnsupportedModelError


def unwrapped(model: Any) -> Any:
    """The transformers model itself, of which calls can be recorded; the wrapper is left as it is.

    A PEFT model gives its base model, whose layers hold the adapters; one made by `torch.compile(model)` gives the model it
    was made of, which runs uncompiled here; one in DataParallel or DistributedDataParallel gives the model within.

    Raises:
        UnsupportedModelError: for what is no transformers model, a PEFT model that adds tokens to the prompt, or a model
            compiled in place.
    """
    model = _within(model)
    if hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
        if any(config.is_prompt_learning for config in model.peft_config.values()):
            raise UnsupportedModelError(
                f"A PEFT model must adapt layers (LoRA and the like); {type(model).__name__} adds tokens to the prompt, "
                "which would move the positions of all others."
            )
        model = _within(model.get_base_model())
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise UnsupportedModelError(
            f"A model must be one of transformers, given as (model, processor); got {type(model).__name__} in its place."
        )
    compiled = [path or "the model" for path, module in model.named_modules() if module._compiled_call_impl is not None]
    if compiled:
        raise UnsupportedModelError(
            f"A model must not be compiled in place, as attention cannot be observed within compiled code; "
            f"{', '.join(compiled[:3])} of {type(model).__name__} is. Load it again without compile()."
        )
    return model


def _within(model: Any) -> Any:
    """What was compiled, or copied over devices, in whatever order."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(model, nn.Module) and hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model
