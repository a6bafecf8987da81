"""What a run of the loop comes to: its steps, latent and trace, checked as they are kept; alone, or one of a batch."""

import hashlib
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from ..errors import EnergyWarning, NotFiniteError, OptimizationError, carry
from ..inputs.regions import Region, Regions
from ..layout.video import VideoLayout
from ..models.finite import all_finite
from ..models.interrupts import uninterrupted
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, queries_name
from ..models.undisturbed import unaffected
from .callbacks import EARLY_STOP, LOOKED_AT, ROSE
from .energy import odds_gain
from .latent_method import LatentMethod, given_latent_method
from .loop import LatentRuns, Measured
from .methods.controlmllm import ControlMLLM
from .provenance import Provenance
from .trace import Step, Trace
from .trace_file import COPY_SIZE, VIDEO_COPY_SIZE


class RecordedRun:
    """One run, and what is kept of it.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        regions: one or several, in pixels of the image.
        method: settings; what they leave open is filled in for the model.

    Attributes:
        target: the regions as the method's energies see them.
        latent: (visual token, width) of the step last kept, on the model's device.
        trace: the steps so far.
        reason: why it ended, or is to end; None while it goes on.
    """

    latent: torch.Tensor
    trace: Trace

    def __init__(self, mllm: Mllm, prompt: Prompt, regions: Regions, method: LatentMethod | None = None):
        require(mllm, prompt)
        prompt.check(mllm, replayed=True)
        self.mllm, self.prompt = mllm, prompt
        self.regions = prompt.layout.on_sheet(regions)
        self.method = given_latent_method(method, ControlMLLM()).resolve(mllm)
        self.target = self.method.target(prompt.layout, self.regions)
        self.reason: str | None = None

    def begin(self, zero: torch.Tensor) -> None:
        """Begin with this latent."""
        self.latent = zero
        self.trace = _begun(self.mllm, self.prompt, self.regions, self.method, zero)

    def take(self, measured: Measured, at: int = 0) -> tuple[Step, str | None]:
        """Keep the step of the run of this number in a batch, and say why the method ends it there.

        Raises:
            OptimizationError: for what is not finite, or a map that is all zero; it holds the trace so far.
        """
        step = self._step(measured, at)
        latent = measured.latent[at]
        # A row of a batch would keep the whole of it.
        self._keep(step, latent if len(measured.latent) == 1 else latent.clone())
        early = self._early() if measured.stopped[at] else None
        if early is not None:
            self.reason = early
        return step, early

    def end(self) -> None:
        """Say in the trace why it ended."""
        self.trace.stopped = "finished" if self.reason is None else self.reason

    def warn_if_rose(self, stacklevel: int) -> None:
        """Warn of a run whose energy is higher at its end than before any step."""
        if self.trace.rose:
            first, last = self.trace.steps[0], self.trace.steps[-1]
            warnings.warn(
                f"The energy rose, from {first.energy:.3g} to {last.energy:.3g}: attention was driven out of the regions, "
                f"and the answer says nothing of them. Try a smaller step_size (now {self.method.step_size:g}), or "
                "relative=True.",
                EnergyWarning,
                stacklevel=stacklevel + 1,
            )

    def attention_not_finite(self) -> OptimizationError:
        """Of a step after the first: it is the step size's fault."""
        return self._not_finite("attention", len(self.trace))

    def _early(self) -> str:
        """Why the method ends the run at the step last kept."""
        first, last = self.trace.steps[0], self.trace.steps[-1]
        if last.energy > first.energy:
            return ROSE
        gain = odds_gain(torch.tensor(first.share), torch.tensor(last.share)).item()
        return LOOKED_AT if self.method.until and gain >= self.method.until else EARLY_STOP

    @uninterrupted
    def _keep(self, step: Step, latent: torch.Tensor) -> None:
        self.latent = latent
        self.trace.latent = latent.float().cpu()
        self.trace.steps.append(step)

    @unaffected(gradient=False)
    def _step(self, measured: Measured, at: int) -> Step:
        number = measured.number
        # A run that was moved by its early stop is measured, and goes no further.
        gradient = None if measured.gradient is None or measured.ending[at] else measured.gradient[at]
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
            maps=measured.maps[at].cpu() if len(measured.maps) == 1 else measured.maps[at].cpu().clone(),
            latent_norm=measured.latent[at].norm().item(),
            # Where the run ends early nothing is updated, though the gradient is known.
            gradient_norm=None if gradient is None else gradient.norm().item(),
            # Its part of what the batch took.
            seconds=measured.seconds / int(measured.going.sum()),
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


def optimize_each(
    mllm: Mllm, prompt: Prompt, regions: Sequence[Regions], method: LatentMethod | None = None
) -> list[Trace]:
    """What `optimize` does, for each of several regions by itself, all in one batch: each trace is what it would be alone.

    An interrupt ends the runs that still go on, once each has a step; so does an error of one of them.

    Raises:
        OptimizationError: as `optimize`, with the trace of the run that failed.
        SettingsError: as `optimize`, and for a family whose batches are not kept apart.
        RegionError, PromptError, CaptureError: as `optimize`.
    """
    runs = [RecordedRun(mllm, prompt, each, method) for each in regions]
    steps = LatentRuns(mllm, prompt, [run.target for run in runs], [run.method for run in runs], sound=True)
    for run in runs:
        run.begin(steps.zero)
    going = runs
    try:
        for measured in steps:
            going = [run for run, goes in zip(runs, measured.going.tolist(), strict=True) if goes]
            for at, run in enumerate(runs):
                if run in going:
                    run.take(measured, at)
            # Not kept through the next step: its gradient is as large as all that is moved.
            del measured
    except KeyboardInterrupt:
        if not all(run.trace.steps for run in runs):
            raise
        for run in going:
            run.reason = run.reason or "interrupted"
    except NotFiniteError as error:
        # Which of them it was is not known: one of those that went on.
        run = next((each for each in going if each.reason is None), going[0])
        if not run.trace.steps:
            raise
        raise run.attention_not_finite() from error
    except BaseException as error:
        if going[0].trace.steps:
            carry(error, "trace", going[0].trace, f"The trace of one of {len(runs)} runs so far,")
        raise
    for run in runs:
        run.end()
        run.warn_if_rose(stacklevel=2)
    return [run.trace for run in runs]
