"""Which layers pull the latent towards a region, and which pull against each other."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ..attention.capture import capture_attention
from ..attention.context_map import layer_maps
from ..attention.heads import Heads
from ..inputs.regions import Regions
from ..layout.visual_tokens import Rule
from ..models.gradient import computes_in_half
from ..models.gradient import gradients as gradients_of
from ..models.latent import Latent, read_latent
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, Queries
from ..models.undisturbed import unaffected
from ..notation import layers_text
from ..progress import progress_bar
from ..referring.target import Target
from ..shown import Fact, Shown


@dataclass(frozen=True, eq=False, repr=False)
class GradientProfile(Shown):
    """Each layer's own pull on the latent: the gradient of the energy of that layer's map alone.

    Args:
        layers: layer numbers.
        energies: (layer,) of each layer's map; not a number for a layer that does not look at the image at all.
        norms: (layer,) Euclidean norm of the gradient at the latent.
        cosines: (layer, layer) between the layers' gradients, -1..1: below 0, a step for one is a step against the other.
        together: (layer,) cosine of each with the gradient of the mean map's energy, along which a method steps.

    Examples:
        >>> profile = cm.analysis.gradient_profile(mllm, prompt, box, progress=False)
        >>> profile.layers, profile.cosines.shape
        ((0, 1, 2, 3, 4, 5), (6, 6))
    """

    layers: tuple[int, ...]
    energies: np.ndarray
    norms: np.ndarray
    cosines: np.ndarray
    together: np.ndarray

    def facts(self) -> list[Fact]:
        one, other = np.unravel_index(self.cosines.argmin(), self.cosines.shape)
        strongest = int(self.norms.argmax())
        return [
            ("", layers_text(self.layers)),
            ("strongest pull", f"layer {self.layers[strongest]}, |gradient| {self.norms[strongest]:.3g}"),
            ("least cosine", f"{self.cosines[one, other]:+.2f}, layers {self.layers[one]} and {self.layers[other]}"),
        ]


@unaffected(gradient=True)
def gradient_profile(
    mllm: Mllm,
    prompt: Prompt,
    region: Regions,
    *,
    layers: Iterable[int] | None = None,
    heads: Heads | None = None,
    queries: Queries = "text",
    sigma: float = 0.1,
    rule: Rule = "area",
    latent: Latent | None = None,
    progress: bool = True,
) -> GradientProfile:
    """Measure how much each layer's attention pulls the latent, and how far the layers' pulls agree.

    One forward, and one backward pass for each layer. Memory is that of a step over these layers (`estimate_memory`), and a
    gradient of the latent's size for each.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        region: one or several, in pixels of the image.
        layers, heads, queries: as in `capture_attention`.
        sigma, rule: as in `energy`.
        latent: (visual token, width) where the gradients are taken, or a run that has one; zeros when None.
        progress: show a progress bar.

    Raises:
        RegionError: for a region the model does not see.
        CaptureError: for layers or heads out of range.
        PromptError: for queries that are not in the prompt.

    Examples:
        >>> profile = cm.analysis.gradient_profile(mllm, prompt, box, layers=[0, 1, 2], progress=False)
        >>> profile.norms.shape
        (3,)
    """
    require(mllm, prompt)
    start = prompt.zero_latent() if latent is None else read_latent(latent, prompt.call).detach().clone().requires_grad_()
    attention = capture_attention(mllm, prompt, layers, heads, queries, start)
    maps = layer_maps(attention)
    target = Target.of(prompt.layout, region, sigma, rule).to(maps)
    energies = [target.energy(values) for values in [*maps, maps.mean(0)]]
    half = computes_in_half(mllm.model)
    gradients = torch.stack(
        [
            gradients_of(energy, [start], half, retain_graph=energy is not energies[-1])[0].flatten()
            for energy in progress_bar(energies, "gradients of layers", shown=progress, unit="gradient")
        ]
    )
    # A layer that looks at other tokens only (a sliding window past the image) has no energy, and pulls at nothing.
    gradients = torch.where(torch.stack(energies).isfinite()[:, None], gradients, 0)
    norms = gradients.norm(dim=1)
    directions = gradients / norms.clamp_min(torch.finfo(norms.dtype).tiny)[:, None]
    cosines = (directions @ directions.T).cpu().numpy()
    return GradientProfile(
        layers=attention.layers,
        energies=torch.stack(energies[:-1]).detach().cpu().numpy(),
        norms=norms[:-1].cpu().numpy(),
        cosines=cosines[:-1, :-1],
        together=cosines[-1, :-1],
    )
