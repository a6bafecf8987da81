"""The optimisation: one loop that yields steps; callbacks listen to it."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..errors import EnergyWarning, NotFiniteError, OptimizationError, SettingsError, carry
from ..inputs.regions import Region, Regions
from ..layout.video import VideoLayout
from ..models.finite import all_finite
from ..models.interrupts import uninterrupted
from ..models.interventions import Intervention
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, queries_name
from ..models.undisturbed import unaffected
from ..strict import kind_of, several, shown
from .callbacks import EARLY_STOP, LOOKED_AT, ROSE, Callback
from .energy import odds_gain
from .latent_method import LatentMethod, given_latent_method
from .loop import LatentRuns, Measured
from .methods.controlmllm import ControlMLLM
from .provenance import Provenance
from .trace import Step, Trace
from .trace_file import COPY_SIZE, VIDEO_COPY_SIZE


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
        latent: (visual token, width) of the step last yielded, on the model's device.
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
        require(mllm, prompt)
        prompt.check(mllm, replayed=True)
        self.mllm, self.prompt = mllm, prompt
        self.regions = prompt.layout.on_sheet(regions)
        self.method = given_latent_method(method, ControlMLLM()).resolve(mllm)
        self.target = self.method.target(prompt.layout, self.regions)
        self._runs = LatentRuns(mllm, prompt, self.target, [self.method], sound=True)
        self.latent = self._runs.zero
        self.trace = _begun(mllm, prompt, self.regions, self.method, self.latent)
        self._reason: str | None = None
        self._steps = self._run()

    @property
    def intervention(self) -> Intervention:
        """The latent of the step last yielded, with the method's way of decoding."""
        return self.method.done(self.latent)

    def stop(self, reason: str) -> None:
        """End the run after the current step; `reason` is kept in the trace.

        Raises:
            SettingsError: for a reason that is no text, which could not be saved.
        """
        self._reason = kind_of(reason, str, "The reason to stop must be a text")

    def answer(self) -> str:
        """The model's answer with the current latent, decoded as the method says."""
        return self.mllm.generate(self.prompt, self)

    def __iter__(self) -> Iterator[Step]:
        return self._steps

    def _run(self) -> Iterator[Step]:
        for measured in self._measured():
            step, early = self._taken(measured, 0)
            # Not kept through the next step: its gradient is as large as all that is moved.
            del measured
            yield step
            if self._reason is not None and self._reason != early:
                self._runs.end()
                break
        self._end()

    def _taken(self, measured: Measured, at: int) -> tuple[Step, str | None]:
        """The step of the run that is this one in a batch, kept, and why the method ends it there."""
        step = self._step(measured, at)
        self._keep(step, measured.latent[at])
        early = self._early() if measured.stopped[at] else None
        if early is not None:
            self.stop(early)
        return step, early

    def _end(self) -> None:
        self.trace.stopped = "finished" if self._reason is None else self._reason

    def _early(self) -> str:
        """Why the method ends the run at the step last kept."""
        first, last = self.trace.steps[0], self.trace.steps[-1]
        if last.energy > first.energy:
            return ROSE
        gain = odds_gain(torch.tensor(first.share), torch.tensor(last.share)).item()
        return LOOKED_AT if self.method.until and gain >= self.method.until else EARLY_STOP

    def _measured(self, runs: LatentRuns | None = None) -> Iterator[Measured]:
        """The loop's steps; attention that is not finite is the step size's fault once something was steered."""
        try:
            yield from self._runs if runs is None else runs
        except NotFiniteError as error:
            if not self.trace.steps:
                raise
            raise self._not_finite("attention", len(self.trace)) from error

    @uninterrupted
    def _keep(self, step: Step, latent: torch.Tensor) -> None:
        self.latent = latent
        self.trace.latent = latent.float().cpu()
        self.trace.steps.append(step)

    @unaffected(gradient=False)
    def _step(self, measured: Measured, at: int) -> Step:
        number, gradient = measured.number, None if measured.gradient is None else measured.gradient[at]
        if not measured.sound[at]:
            raise self._not_finite("latent", number)
        self._check_looks(measured.values[at], number)
        self._check_finite("energy", measured.energy[at], number)
        if gradient is not None:
            self._check_finite("gradient", gradient, number)
        return Step(
            number=number,
            energy=measured.energy[at].item(),
            share=measured.share[at].item(),
            maps=measured.maps[at].cpu(),
            latent_norm=measured.latent[at].norm().item(),
            # Where the run ends early nothing is updated, though the gradient is known.
            gradient_norm=None if gradient is None else gradient.norm().item(),
            seconds=measured.seconds,
        )

    def _check_looks(self, values: torch.Tensor, number: int) -> None:
        if not values.any():
            raise self._failed(
                "map all zero",
                f"The context-token map must have some attention on the image; at step {number} it has none. Take query "
                f"tokens that look at the image (now {queries_name(self.method.queries)!r}), other layers or heads, or "
                "leave out fewer visual tokens.",
            )

    def _check_finite(self, what: str, values: torch.Tensor, number: int) -> None:
        if not all_finite(values):
            raise self._not_finite(what, number)

    def _not_finite(self, what: str, number: int) -> OptimizationError:
        dtype = self.mllm.model.dtype
        # An unsteered step cannot be the fault of the step size.
        met = (
            f"dtype {dtype}, step_size {self.method.step_size:g}). Try a smaller step_size or a wider dtype."
            if number
            else f"dtype {dtype}, nothing steered yet). Try a wider dtype."
        )
        return self._failed(f"{what} not finite", f"The {what} must stay finite; at step {number} it is not ({met}")

    def _failed(self, stopped: str, message: str) -> OptimizationError:
        self.trace.stopped = f"failed: {stopped}"
        return OptimizationError(
            f"{message} The trace so far, {len(self.trace)} steps with the last good latent, is in this error's .trace.",
            self.trace,
        )


def _begun(mllm: Mllm, prompt: Prompt, regions: tuple[Region, ...], method: LatentMethod, zero: torch.Tensor) -> Trace:
    """The trace of a run that has not begun."""
    copy = prompt.image.copy()
    most = VIDEO_COPY_SIZE if isinstance(prompt.layout, VideoLayout) else COPY_SIZE
    copy.thumbnail((most, most))
    return Trace(
        steps=[],
        latent=zero.float().cpu(),
        stopped="running",
        method=method,
        regions=regions,
        layout=prompt.layout,
        layers=method.layers_of(mllm),
        queries=prompt.positions(method.queries),
        tokens=prompt.tokens,
        question=prompt.question,
        text=prompt.text,
        image=np.asarray(copy),
        image_hash=hashlib.sha256(np.asarray(prompt.image).tobytes()).hexdigest(),
        provenance=Provenance.of(mllm),
    )


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
    _warn_if_rose(run)
    return run.trace


def optimize_each(
    mllm: Mllm, prompt: Prompt, regions: Sequence[Regions], method: LatentMethod | None = None
) -> list[Trace]:
    """`optimize` for each of several regions by itself, all in one batch: each trace is what it would be alone.

    An interrupt, and an error of one run, end all. It raises what `optimize` and `Copies` do.
    """
    runs = [Steering(mllm, prompt, each, method) for each in regions]
    steps = LatentRuns(mllm, prompt, [run.target for run in runs], [run.method for run in runs], sound=True)
    try:
        for measured in runs[0]._measured(steps):
            for at, run in enumerate(runs):
                if measured.going[at]:
                    run._taken(measured, at)
            del measured
    except KeyboardInterrupt:
        if not all(run.trace.steps for run in runs):
            raise
        for run in runs:
            run.stop("interrupted")
    for run in runs:
        run._end()
        _warn_if_rose(run)
    return [run.trace for run in runs]


def _warn_if_rose(run: Steering) -> None:
    if run.trace.rose:
        first, last = run.trace.steps[0], run.trace.steps[-1]
        warnings.warn(
            f"The energy rose, from {first.energy:.3g} to {last.energy:.3g}: attention was driven out of the regions, and "
            f"the answer says nothing of them. Try a smaller step_size (now {run.method.step_size:g}), or relative=True.",
            EnergyWarning,
            stacklevel=3,
        )


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
