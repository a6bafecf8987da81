"""Interventions: what is done to a model while it answers, as values that are kept, saved, applied again and left out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from ..errors import SettingsError
from ..strict import kind_of
from .contrast import Contrast

if TYPE_CHECKING:
    import torch

    from .mllm import Mllm
    from .prompt import Prompt


# By name, for files.
KINDS: "dict[str, type[Intervention]]" = {}


@dataclass(frozen=True, eq=False)
class Intervention(ABC):
    """What is done to a model while it answers one prompt.

    A subclass is a frozen dataclass whose fields are plain values and tensors, so that it can be saved.

    Args:
        contrast: how the answer is decoded against the one without the intervention; None decodes plainly.

    Attributes:
        by_token: the field that has a number or a vector for each visual token, and the axis of the tokens; None for none.

    Raises:
        SettingsError: for a contrast that is none.

    Examples:
        >>> isinstance(outcome.intervention, cm.Intervention)
        True
        >>> print(mllm.generate(prompt, outcome.intervention))
        red cross at the right
    """

    by_token: ClassVar[tuple[str, int] | None] = None

    contrast: Contrast | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.contrast is not None:
            kind_of(self.contrast, Contrast, "An intervention's contrast must be a Contrast(alpha, beta), or None")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        KINDS[cls.__name__] = cls

    @abstractmethod
    def opened(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> AbstractContextManager[None]:
        """While open, the model answers the prompt with it: the first of `copies` in a batch, the others without.

        Raises:
            CaptureError: for a prompt that it does not fit.
        """

    @classmethod
    def opened_each(cls, several: "Sequence[Any]", mllm: "Mllm", prompt: "Prompt") -> AbstractContextManager[None] | None:
        """The same for a batch of as many copies of the prompt as there are interventions of this kind, each with its own.

        None, unless a kind says how: then they are taken one after another.

        Raises:
            CaptureError: for a prompt that one of them does not fit.
        """
        return None

    def during(self, first: int, last: int | None) -> "Intervention":
        """The same for the answer's tokens [first, last) alone, None to its end; the first token is 0.

        Raises:
            SettingsError: for one that acts when the image is read, and stays.
        """
        raise SettingsError(
            "An intervention that changes while the model answers must act on each token by itself, as AttentionBias does; "
            f"{type(self).__name__} acts when the prompt is read, and stays. Give it for the whole answer."
        )

    def inputs(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> "dict[str, torch.Tensor]":
        """What the model is given: the prompt, `copies` times as one batch, unless the others are of something else.

        Raises:
            CaptureError: for a prompt that it does not fit.
        """
        return prompt.inputs if copies == 1 else prompt.repeated(copies)


@runtime_checkable
class Referred(Protocol):
    """What has an intervention: an `Outcome`, a `Trace`, a `Steering`."""

    @property
    def intervention(self) -> Intervention | None:
        """What is to be done to the model for its answer; None where nothing is."""
