"""The optimisation: one loop that yields steps; callbacks listen to it."""

import time
from collections.abc import Iterator, Sequence

import torch

from .attention import capture_attention
from .callbacks import EARLY_STOP, Callback, changed_enough
from .context import layer_maps
from .energy import Target
from .errors import OptimizationError, carry
from .methods import ControlMLLM, Method
from .models.mllm import Mllm
from .models.prompt import Prompt
from .regions import Regions, as_regions
from .trace import Step, Trace


class Steering:
    """One run, iterated step by step: `for step in Steering(mllm, prompt, region, method): ...`.

    Between two steps the model is as it was found, and `trace` is complete up to the step last yielded.

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
    """

    def __init__(self, mllm: Mllm, prompt: Prompt, regions: Regions, method: Method | None = None):
        self.mllm, self.prompt = mllm, prompt
        self.regions = as_regions(regions)
        self.method = (method or ControlMLLM()).resolve(mllm)
        self.target = Target.of(prompt.layout, self.regions, self.method.sigma, self.method.rule)
        self.latent = prompt.zero_latent().detach()
        self.trace = Trace.of(mllm, prompt, self.regions, self.method)
        self._reason: str | None = None

    def stop(self, reason: str) -> None:
        """End the run after the current step; `reason` is kept in the trace."""
        self._reason = reason

    def answer(self) -> str:
        """The model's answer with the current latent, decoded as the method says."""
        return self.mllm.generate(self.prompt, self.latent, self.method.contrast_decoding)

    def __iter__(self) -> Iterator[Step]:
        updates = self.method.start(self.prompt.zero_latent().detach())
        for number in range(self.method.steps + 1):
            latent = updates.latent.detach().clone()
            step, gradient = self._step(number, latent)
            self.latent = latent
            self.trace.latent = latent.float().cpu()
            self.trace.steps.append(step)
            if self.method.early_stop and changed_enough(self.trace.steps, self.method.early_stop):
                self.stop(EARLY_STOP)
            yield step
            if self._reason is not None:
                self.trace.stopped = self._reason
                return
            if gradient is not None:
                updates.update(gradient)
        self.trace.stopped = "finished"

    def _step(self, number: int, latent: torch.Tensor) -> tuple[Step, torch.Tensor | None]:
        method, started = self.method, time.perf_counter()
        needs_gradient = number < method.steps
        attention = capture_attention(
            self.mllm,
            self.prompt,
            layers=method.layers_of(self.mllm),
            heads=method.heads,
            queries=method.queries,
            latent=latent.requires_grad_(needs_gradient),
        )
        maps = layer_maps(attention, without=method.without)
        values = maps.mean(0)
        target = self.target.to(values)
        energy = target.energy(values)
        gradient = torch.autograd.grad(energy, latent)[0] if needs_gradient else None
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
        return step, gradient

    def _check_finite(self, what: str, values: torch.Tensor, number: int) -> None:
        if not torch.isfinite(values).all():
            self.trace.stopped = f"{what} not finite"
            raise OptimizationError(
                f"The {what} must stay finite; at step {number} it is not (dtype {self.mllm.model.dtype}, "
                f"step_size {self.method.step_size:g}). Try a smaller step_size or a wider dtype. "
                f"The trace so far, {len(self.trace)} steps with the last good latent, is in this error's .trace.",
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
        RegionError: for a region the model does not see.
        SettingsError: for a setting out of range.
        OptimizationError: when energy or gradient are no longer finite; it holds the trace so far.
    """
    run, callbacks = Steering(mllm, prompt, regions, method), tuple(callbacks)
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
        reason = type(error).__name__ if run.trace.stopped == "running" else run.trace.stopped
        run.trace.stopped = f"failed: {reason}"
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
