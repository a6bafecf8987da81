"""Errors of the package: each message says what must hold, what was given, and what to do."""

from typing import Any


class CmllmError(Exception):
    """Base of every error raised by this package for something the user can put right.

    Examples:
        >>> try:
        ...     cm.Box(5, 5, 1, 1)
        ... except cm.CmllmError as error:
        ...     print(error)
        A box needs x0 < x1 and y0 < y1; got x 5..1, y 5..1. Give the top left corner first.
    """


class ImageError(CmllmError, ValueError):
    """An image that cannot be read or has no area.

    Examples:
        >>> try:
        ...     cm.read_image("nowhere.png")
        ... except cm.ImageError as error:
        ...     print(error)
        There is no image at nowhere.png.
    """


class PromptError(CmllmError, ValueError):
    """A question that cannot be turned into a prompt, or words that are not in it.

    Examples:
        >>> try:
        ...     cm.capture_attention(mllm, prompt, queries="zebra")
        ... except cm.PromptError as error:
        ...     print(error)
        A highlight word must be in the question; got 'zebra', the question's tokens are: describe the object .. ...
    """


class RegionError(CmllmError, ValueError):
    """A region that is malformed, outside the image, or not seen by the model.

    Examples:
        >>> try:
        ...     cm.energy(cmap, cm.Box(500, 500, 600, 600))
        ... except cm.RegionError as error:
        ...     print(error)
        A box must lie within the image of 192 x 192 px; got x 500..600, y 500..600.
    """


class UnsupportedModelError(CmllmError, ValueError):
    """A model whose visual tokens or attention this package does not understand.

    Examples:
        >>> try:
        ...     cm.load(("a model", "its processor"))
        ... except cm.UnsupportedModelError as error:
        ...     print(error)
        A model must be one of transformers, given as (model, processor); got str in its place.
    """


class CaptureError(CmllmError, ValueError):
    """Attention that cannot be captured as asked: layers, heads or queries that do not exist.

    Examples:
        >>> try:
        ...     cm.capture_attention(mllm, prompt, layers=[99])
        ... except cm.CaptureError as error:
        ...     print(error)
        Layers must be at least one number in 0..5; got [99].
    """


class NotFiniteError(CaptureError):
    """Attention or logits that are not finite: numbers have overflowed in the model.

    Examples:
        >>> issubclass(cm.NotFiniteError, cm.CaptureError)
        True
    """


class OptimizationError(CmllmError, RuntimeError):
    """An optimisation that cannot go on; `trace` holds the steps so far and the last good latent.

    Examples:
        >>> cm.OptimizationError("The energy is not finite.", trace).trace is trace
        True
    """

    def __init__(self, message: str, trace: Any = None):
        super().__init__(message)
        self.trace = trace


class SettingsError(CmllmError, ValueError):
    """A setting of a method outside its range.

    Examples:
        >>> try:
        ...     cm.ControlMLLM(steps=0)
        ... except cm.SettingsError as error:
        ...     print(error)
        steps must be a whole number of at least 1; got 0.
    """


class SigmaError(SettingsError, RegionError):
    """A width of the Gaussian around scribbles and points that is none, wherever it is given."""


class TraceError(CmllmError, ValueError):
    """A trace file that cannot be read, or a trace that cannot be used as asked.

    Examples:
        >>> try:
        ...     cm.Trace.load("nowhere.safetensors")
        ... except cm.TraceError as error:
        ...     print(error)
        There is no trace at nowhere.safetensors.
    """


class DataError(CmllmError, ValueError):
    """A data set or a result whose files are missing or malformed.

    Examples:
        >>> try:
        ...     cm.data.read("nowhere")
        ... except cm.DataError as error:
        ...     print(error)
        A set must be a folder; there is no nowhere.
    """


class OutputError(CmllmError, ValueError):
    """A file that cannot be written, whatever was to be saved.

    Examples:
        >>> try:
        ...     trace.save("nowhere/run.safetensors")
        ... except cm.OutputError as error:
        ...     print(error)
        The folder of an output path must exist; there is no nowhere, so that nowhere/run.safetensors cannot be
        written.
    """


class ClusterError(CmllmError, RuntimeError):
    """Machines that a run was to be spread over, and cannot be.

    Examples:
        >>> try:
        ...     cm.evaluation.spread(examples, loading={}, workers=1, address="nowhere:1")
        ... except cm.ClusterError as error:
        ...     print(error)
        To spread a run, Ray is needed: pip install 'cmllm_tools[cluster]'.
    """


class OutputWarning(UserWarning):
    """A file that could not be written during a run, which goes on; what was to be saved is still in memory.

    Examples:
        >>> issubclass(cm.OutputWarning, UserWarning)
        True
    """


class EnergyWarning(UserWarning):
    """A run whose energy is higher at its end than before any step: attention left the regions.

    Examples:
        >>> issubclass(cm.EnergyWarning, UserWarning)
        True
    """


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
