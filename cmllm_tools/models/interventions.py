"""Interventions: what is done to a model while it answers, as values that are kept, saved, applied again and left out."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .contrast import Contrast

if TYPE_CHECKING:
    from .mllm import Mllm
    from .prompt import Prompt


class Intervention(ABC):
    """What is done to a model while it answers one prompt. A subclass is a frozen dataclass, whose fields are plain values,
    tensors and `contrast`; those of the package can be saved (`refer.outcome_file`).

    Attributes:
        contrast: how the answer is decoded against the one without the intervention; None decodes plainly.
    """

    contrast: Contrast | None

    @abstractmethod
    def opened(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> AbstractContextManager[None]:
        """While open, the model answers the prompt with it: the first of `copies` in a batch, the others without.

        Raises:
            CaptureError: for a prompt that it does not fit.
        """


@runtime_checkable
class Referred(Protocol):
    """What has an intervention: an `Outcome`, a `Trace`, a `Steering`."""

    @property
    def intervention(self) -> Intervention | None:
        """What is to be done to the model for its answer; None where nothing is."""
