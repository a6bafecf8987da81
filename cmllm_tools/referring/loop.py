"""The one loop: n latents of one prompt, each with a context token of its own, moved together in one batch."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..attention.context_token import left_out, mean_maps
from ..errors import SettingsError
from ..models.finite import finite_runs
from ..models.gradient import computes_in_half, gradients
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..models.undisturbed import unaffected
from .cost import settle
from .energy import odds_gain
from .latent_method import LatentMethod
from .target import Target
from .updates import Updates


@dataclass(frozen=True, eq=False)
class Measured:
    """One forward of all runs, before the update that follows it; step 0 is unsteered.

    Args:
        number: how many updates the latents have had.
        latent: (run, visual token, width), those that are not finite as zeros.
        sound: (run,), whether a run's latent is finite.
        maps: (run, layer, visual token), of all layers that some run has: each one's part in a run's map, which is their
            sum over the number of its own layers.
        values: (run, visual token), the maps that were scored.
        energy: (run,).
        share: (run,), of a map in the regions.
        gradient: (run, visual token, width), of the energy; None where no update follows.
        going: (run,), whether a run takes part in this step; of those that do not nothing else is of use.
        ending: (run,), whether it is measured for the last time, after an early stop that moved it once more.
        stopped: (run,), whether its method ends it early here.
        seconds: for forward and backward.
    """

    number: int
    latent: torch.Tensor
    sound: torch.Tensor
    maps: torch.Tensor
    values: torch.Tensor
    energy: torch.Tensor
    share: torch.Tensor
    gradient: torch.Tensor | None
    going: torch.Tensor
    ending: torch.Tensor
    stopped: torch.Tensor
    seconds: float


class LatentRuns:
    """Runs of one prompt that differ in their context token and regions at most. They are gone through once.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question; or as many copies of them as there are methods.
        targets: the regions, of each run or of all.
        methods: resolved, and equal but for `layers`, `heads` and `queries`.
        sound: whether attention must be finite at every step, not at the first alone.

    Attributes:
        layers: numbers of the layers that some run has.
        zero: (visual token, width), the latent that each begins with.

    Raises:
        SettingsError: for several methods with a family whose batches are not kept apart.
        CaptureError, PromptError: as `ContextToken.resolve` does.
    """

    @unaffected(gradient=False)
    def __init__(
        self,
        mllm: Mllm,
        prompt: Prompt,
        targets: Target | Sequence[Target],
        methods: Sequence[LatentMethod],
        sound: bool = False,
    ):
        count = len(methods)
        self._moved = methods[0].moves(mllm, prompt, count)
        prompt = self._moved.prompt
        self.mllm, self.prompt, self.targets, self.method, self.sound = mllm, prompt, targets, methods[0], sound
        tokens = [method.token(mllm).resolve(mllm, prompt) for method in methods]
        self.layers = tuple(sorted({layer for token in tokens for layer in token.layers}))
        self._heads = tuple(sorted({head for token in tokens for head in token.heads}))
        self._rows = tuple(sorted({row for token in tokens for row in token.queries}))
        self._without = tokens[0].without
        zero = self.zero = self._moved.zero
        self._weights = torch.stack([token.weights(self.layers, self._heads, self._rows) for token in tokens]).to(zero)
        self._counts = torch.tensor([len(token.layers) for token in tokens], device=zero.device)
        self._updates = self.method.absolute(self._moved.norm).start(zero.expand(count, *zero.shape))
        self._half = computes_in_half(mllm.model)
        self._ended = torch.zeros(count, dtype=torch.bool, device=zero.device)
        self._steps = self._run()

    def __iter__(self) -> Iterator[Measured]:
        return self._steps

    def end(self, run: int = 0) -> None:
        """Let a run take no further step."""
        self._ended[run] = True

    def _run(self) -> Iterator[Measured]:
        latent, first = self.zero.expand_as(self._updates.latent), None
        going = torch.ones_like(self._ended)
        # Runs that an early stop moved once more, which are measured and end.
        ending = torch.zeros_like(going)
        for number in range(self.method.steps + 1):
            last = number == self.method.steps
            step = self._measured(number, latent, going, ending, first, not last)
            first = (step.energy, step.share) if first is None else first
            yield step
            if last:
                return
            latent, going, ending = self._next(step, going)
            # Its gradient is as large as all that is moved.
            del step
            if not (going | ending).any():
                return

    @unaffected(gradient=False)
    def _next(self, step: Measured, going: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The latents of the next step, and which runs go on and which are measured once more."""
        updates, stopped = self._updates, step.stopped & ~self._ended
        going = going & torch.isfinite(step.energy) & ~step.stopped & ~self._ended
        left = updates.stopped_early()
        # The published code moves the latent once more after an early stop, which is measured like any other.
        ending = stopped & (left is not updates.latent)
        if step.gradient is not None and going.any():
            _update(updates, step.gradient)
        latent = torch.where(ending[:, None, None], left, updates.latent) if ending.any() else updates.latent
        return latent.detach(), going, ending

    @unaffected(gradient=True)
    def _measured(
        self,
        number: int,
        start: torch.Tensor,
        going: torch.Tensor,
        ending: torch.Tensor,
        first: tuple[torch.Tensor, torch.Tensor] | None,
        differentiate: bool,
    ) -> Measured:
        started, states = time.perf_counter(), self.prompt.call.states
        live = going | ending
        if not live.all():
            # Runs that have ended are no longer moved, and what they came to must not end the others.
            start = torch.where(live[:, None, None], start, 0)
        sound = finite_runs(start.to(states.dtype))
        # A latent that is not finite ends its run, and would be refused for all.
        latent = start.detach() if sound.all() else torch.where(sound[:, None, None], start.detach(), 0)
        latent.requires_grad_(differentiate and bool(going.any()))
        finite = self.sound or number == 0
        heads = None if len(self._heads) == self.mllm.heads else self._heads
        recorder = self._moved.capture(latent, self.layers, heads, self._rows, finite)
        captured = [recorder.captured[layer].to(states.device) for layer in self.layers]
        # Layer by layer, as rows of all together would be there twice.
        parts = [mean_maps(rows, self._weights[:, at]) for at, rows in enumerate(captured)]
        maps = left_out(torch.stack(parts, 1), self._without)
        values = maps.sum(1) / self._counts[:, None]
        energy, share = self._scored(values)
        gradient = gradients(energy[live & sound].sum(), [latent], self._half)[0] if latent.requires_grad else None
        now = torch.where(sound, energy.detach(), torch.nan)
        share = torch.where(sound, share.detach(), torch.nan)
        stopped = torch.zeros_like(going)
        if first is not None:
            stops = self.method.stops(first[0], now, odds_gain(first[1], share))
            stopped = going & torch.isfinite(now) & stops
        settle(states.device)
        return Measured(
            number=number,
            latent=latent.detach(),
            sound=sound,
            maps=maps.detach(),
            values=values.detach(),
            energy=now,
            share=share,
            gradient=gradient,
            going=live,
            ending=ending,
            stopped=stopped,
            seconds=time.perf_counter() - started,
        )

    def _scored(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy and share (run,) of maps (run, visual token)."""
        if isinstance(self.targets, Target):
            target = self.targets.to(values)
            return target.energy(values), target.share(values)
        own = [(target.to(values), row) for target, row in zip(self.targets, values, strict=True)]
        return torch.stack([to.energy(row) for to, row in own]), torch.stack([to.share(row) for to, row in own])


def _update(updates: Updates, gradient: torch.Tensor) -> None:
    """Update a latent.

    Raises:
        SettingsError: for an update that writes into the latent that is in use.
    """
    used = updates.latent
    version = used._version
    try:
        updates.update(gradient)
        written = used._version != version
    except RuntimeError as error:
        # Of what torch repeats without a copy, as the zeros that a run begins with, it refuses to write to a part.
        if "single memory location" not in str(error):
            raise
        written = True
    if written:
        raise SettingsError(
            f"{type(updates).__name__}.update must give `latent` a new tensor, self.latent = self.latent - step: "
            "it wrote into the one in use, which belongs to the step before."
        )


@dataclass(frozen=True, eq=False)
class Ends:
    """First and last step of several runs.

    Args:
        latent: (run, visual token, width) of the last step.
        energy: (2, run).
        share: (2, run), of the map in the regions.
    """

    latent: torch.Tensor
    energy: torch.Tensor
    share: torch.Tensor


@unaffected(gradient=False)
def steer_together(mllm: Mllm, prompt: Prompt, target: Target, methods: Sequence[LatentMethod]) -> Ends:
    """Optimise one latent for each method, all in one batch; each ends as `optimize` would end it alone.

    A run whose energy is no longer finite ends there, with nan for its energy and share. Args and errors are those of
    `LatentRuns`.

    Raises:
        NotFiniteError: when attention is not finite before any step.
    """
    latent, first, last = torch.empty(0), torch.empty(0), torch.empty(0)
    for step in LatentRuns(mllm, prompt, target, methods):
        now = torch.stack([step.energy, step.share])
        if step.number == 0:
            latent, first, last = step.latent.clone(), now, now
        last = torch.where(step.going, now, last)
        good = step.going & torch.isfinite(step.energy)
        latent = torch.where(good[:, None, None], step.latent, latent)
        # Its gradient is as large as all that is moved.
        del step
    return Ends(latent, torch.stack([first[0], last[0]]).cpu(), torch.stack([first[1], last[1]]).cpu())
