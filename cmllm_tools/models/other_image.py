"""Another image in the prompt's place, which an answer is decoded against."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from PIL import Image

from ..errors import CaptureError, SettingsError
from .interventions import Intervention
from .latent import as_numbers

if TYPE_CHECKING:
    from .mllm import Mllm
    from .prompt import Prompt


@dataclass(frozen=True, eq=False)
class AgainstImage(Intervention):
    """The model sees its image; what the answer is decoded against, in the same batch, sees another one.

    Without a contrast there is nothing that it changes.

    Args:
        pixels: (height, width, 3), 0..255: an image of the same size as the prompt's.
        contrast: how the answer is decoded against that of the other image.

    Raises:
        CaptureError: for what are no pixels.
    """

    pixels: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        pixels = as_numbers(self.pixels)
        if pixels.dim() != 3 or pixels.shape[-1] != 3 or not bool(((pixels >= 0) & (pixels <= 255)).all()):
            raise CaptureError(f"An image must be pixels (height, width, 3) in 0..255; got shape {tuple(pixels.shape)}.")
        object.__setattr__(self, "pixels", pixels.to("cpu", torch.uint8))

    def opened(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> AbstractContextManager[None]:
        return nullcontext()

    def inputs(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> dict[str, torch.Tensor]:
        size = tuple(self.pixels.shape[1::-1])
        if size != prompt.image.size:
            raise CaptureError(f"The other image must have the size of the prompt's, {prompt.image.size}; got {size}.")
        if copies == 1:
            return prompt.inputs
        if mllm.family.one_image:
            raise SettingsError(
                f"A {mllm.family.name} model cannot decode against another image: {mllm.family.one_image}. Use a method "
                "that changes attention, as AttentionEdit()."
            )
        other = mllm.prepare(*prompt.showing(Image.fromarray(self.pixels.numpy()))).inputs
        # What has a value for each token is the same of both, and longer where an answer follows.
        length = prompt.inputs["input_ids"].shape
        rest = {
            name: value if value.shape[:2] == length or name.startswith(("decoder_", "qformer_")) else other[name]
            for name, value in prompt.inputs.items()
        }
        unlike = [name for name, value in rest.items() if value.shape != prompt.inputs[name].shape]
        if unlike:
            raise CaptureError(f"Both images must become inputs of one shape; these differ: {', '.join(unlike)}.")
        return {name: torch.cat([value, *[rest[name]] * (copies - 1)]) for name, value in prompt.inputs.items()}
