"""The optimisation: one loop that yields steps; callbacks listen to it."""

import time
from collections.abc import Iterator, Sequence

import torch

from .attention import capture_attention
from .callbacks import EARLY_STOP, Callback, changed_enough
from .context import kept, layer_maps
from .errors import NotFiniteError, OptimizationError, SettingsError, carry
from .methods import ControlMLLM, Method, given_method
from .models.gradient import computes_in_half, gradients
from .models.interrupts import uninterrupted
from .models.mllm import Mllm, require
from .models.prompt import Prompt, queries_name
from .models.undisturbed import unaffected
from .regions import Regions, as_regions
from .strict import kind_of, several, shown
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
        latent: (visual token, width) of the step last yielded, on the model's device.
        trace: the steps so far.

    Raises:
        RegionError: for a region the model does not see.
        SettingsError: for a setting out of range.
        PromptError: for queries that are not in the prompt, or stand before the image, or a prompt of another model.
        CaptureError: for heads, or visual tokens to leave out, that do not exist.
    """

    @unaffected(gradient=False)
    def __init__(self, mllm: Mllm, prompt: Prompt, regions: Regions, method: Method | None = None):
        require(mllm, prompt)
        prompt.check(mllm, replayed=True)
        self.mllm, self.prompt = mllm, prompt
        self.regions = as_regions(regions)
        self.method = given_method(method, ControlMLLM()).resolve(mllm)
        prompt.seeing(self.method.queries)
        self.latent = prompt.zero_latent().detach()
        kept(self.method.without, self.latent[:, 0])
        self.target = self.method.target(prompt.layout, self.regions)
        self.trace = Trace.of(mllm, prompt, self.regions, self.method)
        self._reason: str | None = None
        self._steps = self._run()

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
        method = self.method
        with unaffected(gradient=False):
            updates = method.start(self.latent)
        for number in range(method.steps + 1):
            step, gradient = self._taken(number, updates.latent, number < method.steps)
            if method.early_stop and changed_enough(self.trace.steps, method.early_stop):
                self.stop(EARLY_STOP)
            yield step
            if self._reason is not None:
                # The published code moves the latent once more after an early stop, which is measured like any other.
                left = updates.stopped_early()
                if self._reason == EARLY_STOP and gradient is not None and left is not updates.latent:
                    yield self._taken(number + 1, left, False)[0]
                self.trace.stopped = self._reason
                return
            if gradient is not None:
                with unaffected(gradient=False):
                    updates.update(gradient)
        self.trace.stopped = "finished"

    def _taken(self, number: int, start: torch.Tensor, differentiate: bool) -> tuple[Step, torch.Tensor | None]:
        """A step at a latent, which is then the run's, with the gradient there if it is asked for."""
        step, gradient, latent = self._step(number, start, differentiate)
        self._keep(step, latent)
        return step, gradient

    @uninterrupted
    def _keep(self, step: Step, latent: torch.Tensor) -> None:
        self.latent = latent
        self.trace.latent = latent.float().cpu()
        self.trace.steps.append(step)

    @unaffected(gradient=True)
    def _step(
        self, number: int, start: torch.Tensor, differentiate: bool
    ) -> tuple[Step, torch.Tensor | None, torch.Tensor]:
        method, started = self.method, time.perf_counter()
        latent = start.detach().clone()
        self._check_finite("latent", latent.to(self.prompt.call.states.dtype), number)
        try:
            attention = capture_attention(
                self.mllm,
                self.prompt,
                layers=method.layers_of(self.mllm),
                heads=method.heads,
                queries=method.queries,
                latent=latent.requires_grad_(differentiate),
            )
        except NotFiniteError as error:
            if number == 0:
                raise
            raise self._not_finite("attention", number) from error
        maps = layer_maps(attention, without=method.without)
        values = maps.mean(0)
        self._check_looks(values, number)
        target = self.target.to(values)
        energy = target.energy(values)
        gradient = gradients(energy, [latent], computes_in_half(self.mllm.model))[0] if differentiate else None
        latent.requires_grad_(False)
        self._check_finite("energy", energy, number)
        if gradient is not None:
            self._check_finite("gradient", gradient, number)
        step = Step(
            number=number,
            energy=energy.item(),
            share=target.share(values).item(),
            maps=maps.detach().cpu(),
            latent_norm=latent.norm().item(),
            gradient_norm=None if gradient is None else gradient.norm().item(),
            seconds=time.perf_counter() - started,
        )
        return step, gradient, latent

    def _check_looks(self, values: torch.Tensor, number: int) -> None:
        if not values.any():
            raise self._failed(
                "map all zero",
                f"The context-token map must have some attention on the image; at step {number} it has none. Take query "
                f"tokens that look at the image (now {queries_name(self.method.queries)!r}), other layers or heads, or "
                "leave out fewer visual tokens.",
            )

    def _check_finite(self, what: str, values: torch.Tensor, number: int) -> None:
        if not torch.isfinite(values).all():
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


def optimize(
    mllm: Mllm,
    prompt: Prompt,
    regions: Regions,
    method: Method | None = None,
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
