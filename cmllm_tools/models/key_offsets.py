"""Offsets on the cached keys of the visual tokens, as an intervention: what the text looks for is found elsewhere."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from ..errors import CaptureError
from .interventions import Intervention
from .latent import as_numbers
from .prefix import continued_answer, prefix_of

if TYPE_CHECKING:
    from .mllm import Mllm
    from .prompt import Prompt


@dataclass(frozen=True, eq=False)
class KeyOffsets(Intervention):
    """Offsets on the keys of the visual tokens as cached, after rotary embedding, which the text's queries meet.

    Values, hidden states and the visual tokens themselves stay as they are, and so does what the image's own tokens see of
    each other.

    Args:
        offsets: (visual token, layers x key heads x width), each layer's key heads side by side, as a share of the norm of
            all of the image's keys together.
        contrast: how the answer is decoded against the unsteered one; None decodes plainly.

    Raises:
        CaptureError: for what is no array of finite numbers.
    """

    by_token: ClassVar[tuple[str, int] | None] = ("offsets", 0)

    offsets: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        offsets = as_numbers(self.offsets)
        if offsets.dim() != 2 or not bool(torch.isfinite(offsets).all()):
            raise CaptureError(
                "Offsets on keys must be finite numbers (visual token, layers x key heads x width); got shape "
                f"{tuple(offsets.shape)}."
            )
        object.__setattr__(self, "offsets", offsets)

    def opened(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> AbstractContextManager[None]:
        prefix = prefix_of(mllm, prompt)
        expected = tuple(prefix.zero.shape)
        if tuple(self.offsets.shape) != expected:
            raise CaptureError(
                f"Offsets on keys must have shape (visual token, layers x key heads x width) = {expected}; got "
                f"{tuple(self.offsets.shape)}. They belong to one prompt: optimise again for another image or model."
            )
        offsets = self.offsets.detach().to(prefix.zero)[None]
        every = torch.cat([offsets, *[torch.zeros_like(offsets)] * (copies - 1)])
        return continued_answer(prefix, prefix.moved(every))
