"""The optimisation: one loop that yields steps; callbacks listen to it."""

from collections.abc import Iterator, Sequence

import torch

from ..errors import NotFiniteError, SettingsError, carry
from ..inputs.regions import Regions
from ..models.interventions import Intervention
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..models.undisturbed import unaffected
from ..strict import kind_of, several, shown
from .callbacks import Callback
from .latent_method import LatentMethod
from .loop import LatentRuns, Measured
from .recorded import RecordedRun
from .trace import Step, Trace


class Steering:
    """One run, iterated step by step: `for step in Steering(mllm, prompt, region, method): ...`.

    It is gone through once; a loop that was left goes on, in another `for step in run`, where it was. Between two steps
    the model is as it was found, and `trace` is complete up to the step last yielded.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        regions: one or several, in pixels of the image.
        method: settings; what they leave open is filled in for the model.

    Attributes:
        trace: the steps so far.

    Raises:
        RegionError: for a region the model does not see.
        SettingsError: for a setting out of range.
        PromptError: for queries that are not in the prompt, or stand before the image, or a prompt of another model.
        CaptureError: for heads, or visual tokens to leave out, that do not exist.

    Examples:
        >>> run = cm.Steering(mllm, prompt, box, cm.ControlMLLM(steps=5))
        >>> for step in run:
        ...     if step.share > 0.3:
        ...         run.stop("enough")
        >>> run.trace.stopped
        'enough'
    """

    @unaffected(gradient=False)
    def __init__(self, mllm: Mllm, prompt: Prompt, regions: Regions, method: LatentMethod | None = None):
        self._record = RecordedRun(mllm, prompt, regions, method)
        self.mllm, self.prompt, self.regions = mllm, prompt, self._record.regions
        self.method, self.target = self._record.method, self._record.target
        self._runs = LatentRuns(mllm, prompt, self.target, [self.method], sound=True)
        self._record.begin(self._runs.zero)
        self.trace = self._record.trace
        self._steps = self._run()

    @property
    def latent(self) -> torch.Tensor:
        """(visual token, width) of the step last yielded, on the model's device."""
        return self._record.latent

    @property
    def intervention(self) -> Intervention:
        """The latent of the step last yielded, with the method's way of decoding."""
        return self.method.done(self.latent)

    def stop(self, reason: str) -> None:
        """End the run after the current step; `reason` is kept in the trace.

        Raises:
            SettingsError: for a reason that is no text, which could not be saved.
        """
        self._record.reason = kind_of(reason, str, "The reason to stop must be a text")

    def answer(self) -> str:
        """The model's answer with the current latent, decoded as the method says."""
        return self.mllm.generate(self.prompt, self)

    def __iter__(self) -> Iterator[Step]:
        return self._steps

    def _run(self) -> Iterator[Step]:
        record = self._record
        for measured in self._measured():
            step, early = record.take(measured)
            # Not kept through the next step: its gradient is as large as all that is moved.
            del measured
            yield step
            if record.reason is not None and record.reason != early:
                self._runs.end()
                break
        record.end()

    def _measured(self) -> Iterator[Measured]:
        """The loop's steps; attention that is not finite is the step size's fault once something was steered."""
        try:
            yield from self._runs
        except NotFiniteError as error:
            if not self.trace.steps:
                raise
            raise self._record.attention_not_finite() from error


def optimize(
    mllm: Mllm,
    prompt: Prompt,
    regions: Regions,
    method: LatentMethod | None = None,
    *,
    callbacks: Sequence[Callback] = (),
) -> Trace:
    """Optimise a latent on the visual tokens so that the context token's attention moves into the regions.

    An interrupt (Ctrl-C, the notebook's stop button) ends the run and returns the trace so far, also while callbacks are
    told of the end. Any other error, of a callback too, has the trace so far in its attribute `trace`. Every callback that
    was started is told of the end, and the first error is raised after that.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        regions: one or several, in pixels of the image; their energies are summed.
        method: `ControlMLLM(...)` (the default) or `ControlMLLMPlus(...)`.
        callbacks: told of every step, in their order. The method's own early stopping needs none.

    Returns:
        The trace, with `method.steps + 1` steps when nothing stopped it: step 0 is unsteered.

    Raises:
        RegionError, SettingsError, PromptError, CaptureError: before the first step, as `Steering` does; SettingsError for
            what are no callbacks, too.
        NotFiniteError: when attention is not finite before any step.
        OptimizationError: when attention, energy or gradient are no longer finite; it holds the trace so far.

    Warns:
        EnergyWarning: for a run whose energy is higher at its end than it was before any step.

    Examples:
        >>> trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=3))
        >>> len(trace.steps), trace.stopped
        (4, 'finished')
        >>> print(mllm.generate(prompt, trace))
        red cross at the right
    """
    callbacks = _listeners(callbacks)
    run = Steering(mllm, prompt, regions, method)
    try:
        _run(run, callbacks)
    except KeyboardInterrupt:
        if not run.trace.steps:
            raise
        run.trace.stopped = "interrupted"
    except BaseException as error:
        if run.trace.steps:
            carry(error, "trace", run.trace, f"The trace so far, {len(run.trace)} steps,")
        raise
    run._record.warn_if_rose(stacklevel=2)
    return run.trace


def _listeners(callbacks: object) -> tuple[Callback, ...]:
    what = "callbacks must be several objects with on_start, on_step and on_end, as (ProgressBar(),)"
    found = several(callbacks, what)
    for each in found:
        # A class has these too, but no state.
        if isinstance(each, type) or not all(
            callable(getattr(each, f"on_{name}", None)) for name in ("start", "step", "end")
        ):
            raise SettingsError(f"{what}; got {shown(each)}.")
    return found


def _run(run: Steering, callbacks: Sequence[Callback]) -> None:
    """Every step, and then every `on_end` of a callback that was started; the first error is raised after these."""
    started: list[Callback] = []
    errors: list[BaseException] = []
    try:
        for callback in callbacks:
            started.append(callback)
            callback.on_start(run)
        for step in run:
            for callback in callbacks:
                callback.on_step(run, step)
    except KeyboardInterrupt as interrupt:
        run.trace.stopped = "interrupted"
        errors.append(interrupt)
    except BaseException as error:
        if run.trace.stopped == "running":
            run.trace.stopped = f"failed: {type(error).__name__}"
        errors.append(error)
    for callback in started:
        try:
            callback.on_end(run)
        except BaseException as error:
            errors.append(error)
    if errors:
        # An interrupt leaves a trace to return, so that an error says more.
        first = next((error for error in errors if not isinstance(error, KeyboardInterrupt)), errors[0])
        for other in errors:
            if other is not first:
                first.add_note(f"There was also: {other!r}")
        raise first
