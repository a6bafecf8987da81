"""The optimisation: one loop that yields steps; callbacks listen to it."""

import time
from collections.abc import Iterator, Sequence

import torch

from .attention import capture_attention
from .callbacks import EARLY_STOP, Callback, changed_enough
from .context import layer_maps
from .energy import Target
from .errors import NotFiniteError, OptimizationError
from .methods import ControlMLLM, Method
from .models.interrupts import uninterrupted
from .models.mllm import Mllm
from .models.prompt import Prompt
from .models.undisturbed import unaffected
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
        PromptError: for a prompt of another model.
    """

    @unaffected(gradient=False)
    def __init__(self, mllm: Mllm, prompt: Prompt, regions: Regions, method: Method | None = None):
        prompt.check(mllm, replayed=True)
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
        return self.mllm.generate(self.prompt, self)

    def __iter__(self) -> Iterator[Step]:
        updates = self.method.start(self.prompt.zero_latent().detach())
        for number in range(self.method.steps + 1):
            step, gradient, latent = self._step(number, updates.latent)
            self._keep(step, latent)
            if self.method.early_stop and changed_enough(self.trace.steps, self.method.early_stop):
                self.stop(EARLY_STOP)
            yield step
            if self._reason is not None:
                self.trace.stopped = self._reason
                return
            if gradient is not None:
                with unaffected(gradient=False):
                    updates.update(gradient)
        self.trace.stopped = "finished"

    @uninterrupted
    def _keep(self, step: Step, latent: torch.Tensor) -> None:
        self.latent = latent
        self.trace.latent = latent.float().cpu()
        self.trace.steps.append(step)

    @unaffected(gradient=True)
    def _step(self, number: int, start: torch.Tensor) -> tuple[Step, torch.Tensor | None, torch.Tensor]:
        method, started = self.method, time.perf_counter()
        needs_gradient = number < method.steps
        latent = start.detach().clone().requires_grad_(needs_gradient)
        try:
            attention = capture_attention(
                self.mllm,
                self.prompt,
                layers=method.layers_of(self.mllm),
                heads=method.heads,
                queries=method.queries,
                latent=latent,
            )
        except NotFiniteError as error:
            if number == 0:
                raise
            raise self._diverged("attention", number) from error
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
        return step, gradient, latent

    def _check_finite(self, what: str, values: torch.Tensor, number: int) -> None:
        if not torch.isfinite(values).all():
            raise self._diverged(what, number)

    def _diverged(self, what: str, number: int) -> OptimizationError:
        self.trace.stopped = f"{what} not finite"
        return OptimizationError(
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

    An interrupt (Ctrl-C, the notebook's stop button) ends the run and returns the trace so far.

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
        NotFiniteError: when attention is not finite before any step.
        OptimizationError: when attention, energy or gradient are no longer finite; it holds the trace so far.
    """
    run = Steering(mllm, prompt, regions, method)
    started: list[Callback] = []
    try:
        for callback in callbacks:
            started.append(callback)
            callback.on_start(run)
        for step in run:
            for callback in callbacks:
                callback.on_step(run, step)
    except KeyboardInterrupt:
        if not run.trace.steps:
            raise
        run.trace.stopped = "interrupted"
    finally:
        for callback in started:
            callback.on_end(run)
    return run.trace
