"""How much memory a step of the optimisation will take, found on the first layers before all of them are run."""

import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import psutil
import torch

from ..errors import CaptureError
from ..models.interrupts import Restoring, restoring
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, Queries
from ..models.undisturbed import unaffected
from ..strict import whole_numbers
from .capture import capture_attention


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one step, forward and backward, in bytes above what the model and the prompt take.

    Args:
        step: with the activations of all layers kept.
        checkpointed: with gradient checkpointing.
        free: on the device now.
        checkpointing: whether the model is set to checkpoint.

    Examples:
        >>> estimate = cm.estimate_memory(mllm, prompt)
        >>> estimate.checkpointed <= estimate.step
        True
    """

    step: int
    checkpointed: int
    free: int
    checkpointing: bool

    @property
    def fits(self) -> bool:
        """Whether the step fits, as the model is set."""
        return (self.checkpointed if self.checkpointing else self.step) <= self.free

    def __repr__(self) -> str:
        text = (
            f"MemoryEstimate({_size(self.step)} a step, {_size(self.checkpointed)} with gradient checkpointing, "
            f"{_size(self.free)} free"
        )
        if self.fits:
            return f"{text}: fits)"
        if not self.checkpointing and self.checkpointed <= self.free:
            return f"{text}: does not fit; set mllm.gradient_checkpointing = True)"
        return f"{text}: does not fit; ask for fewer layers, or a smaller image)"


def estimate_memory(
    mllm: Mllm, prompt: Prompt, layers: Iterable[int] | None = None, queries: Queries = "text"
) -> MemoryEstimate:
    """Memory that a step will take: activations, captured rows, graph and backward pass.

    Steps over the first layers are run and measured, and the rest is reckoned from them: what each further layer takes that
    is captured, and each that is only passed through. A model of few layers is measured whole.

    Args:
        mllm: the model that prepared the prompt.
        layers: layer numbers of the step; when None, all that look at visual states.
        queries: as in `capture_attention`.

    Raises:
        CaptureError: for layers out of range.

    Examples:
        >>> estimate = cm.estimate_memory(mllm, prompt, layers=range(3))
        >>> 0 < estimate.step < 100e6  # bytes
        True
    """
    require(mllm, prompt)
    own = mllm.attention_layers
    wanted = sorted(set(own if layers is None else whole_numbers(layers, "the layers", error=CaptureError)))
    if not wanted or not set(wanted) <= set(mllm.attention_layers):
        raise CaptureError(f"Layers must be among {list(mllm.attention_layers)}; got {wanted}.")
    kept, checkpointed = (_reckoned(_set(mllm, switch), prompt, wanted, queries) for switch in (False, True))
    return MemoryEstimate(kept, checkpointed, free_bytes(prompt.call.states.device), mllm.gradient_checkpointing)


def _set(mllm: Mllm, gradient_checkpointing: bool) -> Mllm:
    """The same model under another switch; the user's own is left alone."""
    other = copy(mllm)
    other.gradient_checkpointing = gradient_checkpointing
    return other


def _reckoned(mllm: Mllm, prompt: Prompt, wanted: list[int], queries: Queries) -> int:
    def measured(*layers: int) -> int:
        return peak_bytes(lambda: _step(mllm, prompt, layers, queries), prompt.call.states.device)

    existing = mllm.attention_layers
    if len(existing) < 5 or wanted[-1] <= existing[3]:
        return measured(*wanted)
    first, second, third = existing[1:4]
    short, long = measured(second), measured(third)
    passed = (long - short) / (third - second)
    captured = measured(first, second) - short
    return round(short + (wanted[-1] - second) * passed + (len(wanted) - 1) * captured)


@unaffected(gradient=True)
def _step(mllm: Mllm, prompt: Prompt, layers: tuple[int, ...], queries: Queries) -> torch.Tensor:
    latent = prompt.zero_latent()
    values = capture_attention(mllm, prompt, layers, queries=queries, latent=latent).values.mean((0, 1, 2))
    return torch.autograd.grad(values[0] / values.sum(), latent)[0]


# torch profiles one run at a time in a process.
_PROFILING = threading.Lock()


@restoring
def _quiet() -> Iterator[None]:
    """While open, Kineto does not announce its every start and stop."""
    name = "KINETO_LOG_LEVEL"
    added = name not in os.environ
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if added:
            os.environ.pop(name, None)


@restoring
def _uncollected() -> Iterator[None]:
    """While open, nothing from before is found to be garbage: of blocks that it has not seen come, torch would warn.

    To collect first would do too, but takes longer than a step does.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def peak_bytes(step: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Largest sum of torch's live allocations during `step`, above what was live before."""
    device = torch.device(device)
    if device.type not in ("cuda", "cpu"):
        raise CaptureError(f"Memory can be measured on cuda and cpu devices; got {device}.")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    profiler = partial(torch.profiler.profile, activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with _PROFILING, _quiet(), _uncollected(), Restoring(profiler) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(np.cumsum([event.nbytes() for event in events]).max(initial=0))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        # torch keeps freed blocks for itself, and will use them first.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return int(psutil.virtual_memory().available)


def _size(count: int) -> str:
    power = min(max(0, (len(str(count)) - 1) // 3), 3)
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB')[power]}"
