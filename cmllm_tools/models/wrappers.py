"""What may be wrapped around a model: adapters, compilation."""

from typing import Any

from ..errors import UnsupportedModelError


def unwrapped(model: Any) -> Any:
    """The transformers model itself, of which calls can be recorded; the wrapper is left as it is.

    A PEFT model gives its base model, whose layers hold the adapters; one made by `torch.compile(model)` gives the model it
    was made of, which runs uncompiled here.

    Raises:
        UnsupportedModelError: for a PEFT model that adds tokens to the prompt, or a model compiled in place.
    """
    model = getattr(model, "_orig_mod", model)
    if hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
        if any(config.is_prompt_learning for config in model.peft_config.values()):
            raise UnsupportedModelError(
                f"A PEFT model must adapt layers (LoRA and the like); {type(model).__name__} adds tokens to the prompt, "
                "which would move the positions of all others."
            )
        model = model.get_base_model()
    compiled = [path or "the model" for path, module in model.named_modules() if module._compiled_call_impl is not None]
    if compiled:
        raise UnsupportedModelError(
            f"A model must not be compiled in place, as attention cannot be observed within compiled code; "
            f"{', '.join(compiled[:3])} of {type(model).__name__} is. Load it again without compile()."
        )
    return model
