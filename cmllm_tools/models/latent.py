"""A latent on the visual tokens: as an intervention, and as callers give it (a tensor, an array, or a run that has one)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch

from ..errors import CaptureError
from ..strict import shown
from .changing import ChosenBy
from .interventions import Intervention, Referred
from .latent_states import check_latent, latent_added
from .replay import LanguageCall
from .undisturbed import unaffected

if TYPE_CHECKING:
    from .mllm import Mllm
    from .prompt import Prompt


@dataclass(frozen=True, eq=False)
class LatentAdded(Intervention):
    """A latent added to the visual tokens (ControlMLLM, arXiv 2407.21534, section 3.3).

    Args:
        latent: (visual token, width).
        contrast: how the answer is decoded against the unsteered one; None decodes plainly.

    Raises:
        CaptureError: for what is no array of numbers.

    Examples:
        >>> print(mllm.generate(prompt, cm.LatentAdded(trace.latent)))
        red cross at the right
    """

    by_token: ClassVar[tuple[str, int] | None] = ("latent", 0)

    latent: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "latent", as_numbers(self.latent))

    def opened(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> AbstractContextManager[None]:
        values = read_latent(self.latent, prompt.call).detach()
        values = values.reshape(1, *values.shape[-2:]) if copies > 1 else values
        return latent_added(prompt.call, torch.cat([values, *[torch.zeros_like(values)] * (copies - 1)]))

    @classmethod
    def opened_each(cls, several: "Sequence[LatentAdded]", mllm: "Mllm", prompt: "Prompt") -> AbstractContextManager[None]:
        return latent_added(prompt.call, torch.stack([read_latent(each.latent, prompt.call).detach() for each in several]))


@dataclass(frozen=True, eq=False)
class AllStatesMoved(Intervention):
    """A latent added to all states that a Q-Former reads, CLS included, as the published code for InstructBLIP does.

    Args:
        latent: (state, width).
        contrast: how the answer is decoded against the unsteered one; None decodes plainly.

    Raises:
        CaptureError: for what is no array of numbers.
    """

    latent: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "latent", as_numbers(self.latent))

    def opened(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> AbstractContextManager[None]:
        call = with_all_states(prompt.call)
        values = read_latent(self.latent, call).detach()[None]
        return latent_added(call, torch.cat([values, *[torch.zeros_like(values)] * (copies - 1)]))


def with_all_states(call: LanguageCall) -> LanguageCall:
    """The same call with every state as a visual token, those that have no place in the image (CLS) too.

    Raises:
        CaptureError: where the states are the text's own sequence.
    """
    if call.site.in_sequence:
        raise CaptureError(
            "All states can be moved where they are no part of the text's sequence; move the visual tokens alone."
        )
    return call.with_visual(torch.arange(call.states[: call.rows].flatten(0, -2).shape[0]))


@runtime_checkable
class Steered(Protocol):
    """What a run leaves behind: a `Trace` or a `Steering`, or anything with these two."""

    @property
    def latent(self) -> torch.Tensor:
        """(visual token, width)."""

    @property
    def method(self) -> Any:
        """Settings, whose `contrast_decoding` says how answers are decoded."""


Latent = torch.Tensor | np.ndarray | Steered | Referred


def read_intervention(given: Any, call: LanguageCall) -> Intervention | None:
    """What is to be done to the model: an intervention, what has one, or a latent to add.

    A run is decoded as its method says, a bare latent plainly.

    Raises:
        CaptureError: for what is none of these, or a latent that does not fit the call.
    """
    given = _meant(given)
    if isinstance(given, Steered):
        given = LatentAdded(given.latent, contrast=given.method.contrast_decoding)
    if given is None or (isinstance(given, Intervention) and not isinstance(given, LatentAdded)):
        return given
    found = given if isinstance(given, LatentAdded) else LatentAdded(given)
    return replace(found, latent=read_latent(found.latent, call).detach())


def _meant(given: Any) -> Any:
    """What is to be done, of what has it; a function chooses it."""
    if isinstance(given, Referred):
        return given.intervention
    return ChosenBy(given) if callable(given) and not isinstance(given, Intervention | torch.Tensor | Steered) else given


def read_latent_or_other(given: Any, call: LanguageCall) -> tuple[torch.Tensor | None, Intervention | None]:
    """The latent that was given, with its gradient, or the intervention that is none; None for what there is not.

    Raises:
        CaptureError: as `read_latent`.
    """
    found = _meant(given)
    if isinstance(found, Intervention) and not isinstance(found, LatentAdded):
        return None, found
    return None if found is None else read_latent(found, call), None


@unaffected(gradient=True)
def read_latent(latent: Latent, call: LanguageCall) -> torch.Tensor:
    """The tensor, where the call's states are; one that requires a gradient keeps it.

    Args:
        latent: (visual token, width), or one for each copy of the prompt, (copy, visual token, width).
        call: whose visual states it is for.

    Raises:
        CaptureError: for one of another shape, that is no array of numbers, or not finite in the states' dtype; for another
            intervention, or a run that has one.
    """
    given: Any = latent.intervention if isinstance(latent, Referred) else latent
    if isinstance(given, Intervention) and not isinstance(given, LatentAdded):
        raise CaptureError(
            f"What is asked for here is known with latents on the visual tokens alone; got {type(given).__name__}. Give a "
            "latent, or a run of a method that has one, as ControlMLLMPlus()."
        )
    given = given.latent if isinstance(given, LatentAdded | Steered) else given
    values, states = as_numbers(given), call.states
    check_latent(values, states, len(call.visual), call.copies)
    return values.to(states.device, None if values.is_floating_point() else torch.float32)


def as_numbers(latent: Any) -> torch.Tensor:
    """A tensor, or a copy of an array as one.

    Raises:
        CaptureError: for what holds no numbers.
    """
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
        file = " Read a file first, by Trace.load." if isinstance(latent, str | PathLike) else ""
        raise CaptureError(
            "A latent must be a tensor or an array of numbers, (visual token, width), or a run that has one (a Trace); "
            f"got {shown(latent)}.{file}"
        )
    return values
