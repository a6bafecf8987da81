"""A latent as callers give it: a tensor, an array, or a run, whose latent and way of decoding belong together."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ..errors import CaptureError
from ..strict import shown
from .replay import LanguageCall, check_latent
from .undisturbed import unaffected


@runtime_checkable
class Steered(Protocol):
    """What a run leaves behind: a `Trace` or a `Steering`, or anything with these two."""

    @property
    def latent(self) -> torch.Tensor:
        """(visual token, width)."""

    @property
    def method(self) -> Any:
        """Settings, whose `contrast_decoding` says how answers are decoded."""


Latent = torch.Tensor | np.ndarray | Steered


@unaffected(gradient=True)
def read_latent(latent: Latent, call: LanguageCall) -> torch.Tensor:
    """The tensor, where the call's states are; one that requires a gradient keeps it.

    Args:
        latent: (visual token, width), or one for each copy of the prompt, (copy, visual token, width).
        call: whose visual states it is for.

    Raises:
        CaptureError: for one of another shape, that is no array of numbers, or not finite in the states' dtype.
    """
    if isinstance(latent, Steered):
        latent = latent.latent
    values, states = _tensor(latent), call.states
    check_latent(values, states, len(call.visual), call.copies)
    return values.to(states.device, None if values.is_floating_point() else torch.float32)


def _tensor(latent: Any) -> torch.Tensor:
    try:
        # A copy, as an array may be one that must not be written to.
        values = torch.from_numpy(np.array(latent)) if isinstance(latent, np.ndarray) else latent
    except TypeError:
        values = latent
    if (
        not torch.is_tensor(values)
        or values.dtype == torch.bool
        or values.is_complex()
        or values.layout != torch.strided
        or values.is_meta
    ):
        raise CaptureError(
            "A latent must be a tensor or an array of numbers, (visual token, width), or a run that has one (a Trace); "
            f"got {shown(latent)}."
        )
    return values
