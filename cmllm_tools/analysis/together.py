"""Runs of one prompt that differ in their layers and context token, optimised together in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..attention.capture import capture
from ..attention.context_map import kept
from ..attention.heads import pairs_within
from ..models.batch import copies
from ..models.gradient import computes_in_half, gradients
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..models.undisturbed import unaffected
from ..referring.energy import Target
from ..referring.latent_method import LatentMethod


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


@unaffected(gradient=True)
def steer_together(mllm: Mllm, prompt: Prompt, target: Target, methods: Sequence[LatentMethod]) -> Ends:
    """Optimise one latent for each method, all in one batch; each ends as `optimize` would end it alone.

    A run whose energy is no longer finite ends there, with nan for its energy and share.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question; or as many copies of them as there are methods.
        target: the regions, as `Steering` measures them.
        methods: resolved, and equal but for `layers`, `heads` and `queries`.

    Raises:
        SettingsError: for several methods with a family whose batches are not kept apart.
        CaptureError: for visual tokens to leave out that do not exist.
        NotFiniteError: when attention is not finite before any step.
    """
    if prompt.call.copies != len(methods):
        prompt = copies(mllm, prompt, len(methods))
    method, zero = methods[0], prompt.zero_latent().detach()
    layers = sorted({layer for each in methods for layer in each.layers_of(mllm)})
    rows = sorted({row for each in methods for row in prompt.seeing(each.queries)})
    weights = torch.stack([_weights(mllm, prompt, each, layers, rows) for each in methods]).to(zero.device)
    half = computes_in_half(mllm.model)
    updates = method.start(zero.expand(len(methods), *zero.shape).clone())
    # Runs that go on; and those that an early stop moved once more, which are measured and end.
    going = torch.ones(len(methods), dtype=torch.bool, device=zero.device)
    ending = torch.zeros_like(going)
    latent = updates.latent.detach()
    final, first, last = latent.clone(), torch.empty(0), torch.empty(0)
    for number in range(method.steps + 1):
        sound = torch.isfinite(latent.to(prompt.call.states.dtype)).flatten(1).all(1)
        # A latent that is not finite ends its run, and would be refused for all.
        latent = torch.where(sound[:, None, None], latent, 0).requires_grad_(number < method.steps and bool(going.any()))
        recorder = capture(mllm, prompt, layers, None, rows, prompt.visual, latent, finite=number == 0)
        parts = [
            torch.einsum("rhqv,rhq->rv", values.to(zero.device), weights[:, index].to(values.dtype))
            for index, values in enumerate(recorder.captured[layer] for layer in layers)
        ]
        maps = torch.stack(parts).sum(0)
        maps = maps * kept(method.without, maps) if method.without else maps
        measured = target.to(maps)
        energy = measured.energy(maps)
        now = torch.stack([energy, measured.share(maps)]).detach()
        now = torch.where(sound, now, torch.nan)
        finite, latest = torch.isfinite(now[0]), going | ending
        first, last = (now, now) if number == 0 else (first, torch.where(latest, now, last))
        final = torch.where((latest & finite)[:, None, None], latent.detach(), final)
        going = going & finite
        ending = torch.zeros_like(going)
        left = updates.stopped_early()
        if method.early_stop and number > 0:
            stopped = going & ((now[0] - first[0]).abs() >= method.early_stop * first[0])
            going = going & ~stopped
            ending = stopped & (left is not updates.latent)
        if number == method.steps or not (going | ending).any():
            break
        if going.any():
            updates.update(gradients(energy, [latent], half)[0])
        latent = torch.where(ending[:, None, None], left, updates.latent).detach()
    return Ends(final, torch.stack([first[0], last[0]]).cpu(), torch.stack([first[1], last[1]]).cpu())


def _weights(mllm: Mllm, prompt: Prompt, method: LatentMethod, layers: list[int], rows: list[int]) -> torch.Tensor:
    """(layer, head, query): how much each counts in the context-token map of a method."""
    weights = torch.zeros(len(layers), mllm.heads, len(rows))
    positions = [rows.index(row) for row in prompt.positions(method.queries)]
    chosen = method.layers_of(mllm)
    pairs, heads = pairs_within(method.heads, chosen)
    numbers = range(mllm.heads) if heads is None else heads
    for layer, head in pairs if pairs is not None else [(layer, head) for layer in chosen for head in numbers]:
        weights[layers.index(layer), head, positions] = 1
    return weights / weights.sum()
