"""Errors of the package: each message says what must hold, what was given, and what to do."""

from typing import Any


class CmllmError(Exception):
    """Base of every error raised by this package for something the user can put right."""


class ImageError(CmllmError, ValueError):
    """An image that cannot be read or has no area."""


class PromptError(CmllmError, ValueError):
    """A question that cannot be turned into a prompt, or words that are not in it."""


class RegionError(CmllmError, ValueError):
    """A region that is malformed, outside the image, or not seen by the model."""


class UnsupportedModelError(CmllmError, ValueError):
    """A model whose visual tokens or attention this package does not understand."""


class CaptureError(CmllmError, ValueError):
    """Attention that cannot be captured as asked: layers, heads or queries that do not exist."""


class NotFiniteError(CaptureError):
    """Attention or logits that are not finite: numbers have overflowed in the model."""


class OptimizationError(CmllmError, RuntimeError):
    """An optimisation that cannot go on; `trace` holds the steps so far and the last good latent."""

    def __init__(self, message: str, trace: Any = None):
        super().__init__(message)
        self.trace = trace


class SettingsError(CmllmError, ValueError):
    """A setting of a method outside its range."""


class SigmaError(SettingsError, RegionError):
    """A width of the Gaussian around scribbles and points that is none, wherever it is given."""


class TraceError(CmllmError, ValueError):
    """A trace file that cannot be read, or a trace that cannot be used as asked."""


class DataError(CmllmError, ValueError):
    """A data set or a result whose files are missing or malformed."""


class OutputError(CmllmError, ValueError):
    """A file that cannot be written, whatever was to be saved."""


class ClusterError(CmllmError, RuntimeError):
    """Machines that a run was to be spread over, and cannot be."""


class OutputWarning(UserWarning):
    """A file that could not be written during a run, which goes on; what was to be saved is still in memory."""


class EnergyWarning(UserWarning):
    """A run whose energy is higher at its end than before any step: attention left the regions."""


def carry(error: BaseException, name: str, value: Any, words: str) -> None:
    """Give an error that ends a long run what there is so far: as an attribute of this name, and a note that says so.

    An error that has the attribute already keeps its own; an error's type stays as it was.
    """
    if getattr(error, name, None) is None:
        try:
            setattr(error, name, value)
        except (AttributeError, TypeError):
            return
        error.add_note(f"{words} is in this error's .{name}.")
