"""ViCrop: the model is shown, beside the image, the part of it that it looks at itself."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from ...attention.capture import capture_attention
from ...inputs.pixels import beside
from ...layout.visual_tokens import VisualTokenLayout
from ...models.gradient import computes_in_half, gradients
from ...models.mllm import Mllm
from ...models.prompt import Prompt
from ...models.scoring import AnswerScore
from ..kinds import choice, real, text
from ..method import Method, Request
from ..registry import register
from ..settings import setting

# Sizes of the window, as multiples of the smallest.
RATIOS = (1, 1.2, 1.4, 1.6, 1.8, 2)


@register
@dataclass(frozen=True)
class ViCrop(Method):
    """The part of the image that the question makes the model look at, enlarged, beside the whole (arXiv 2502.17422).

    Zhang et al., ICLR 2025. The region is not told: this is what a model finds for itself. Where it looks is the attention
    of the last token in one layer, divided by that under a general question; or the size of the gradient of its first
    token's log-probability at each visual token, divided likewise (the published code takes it at the pixels). Of windows
    of six sizes the one is taken whose attention stands out most from that of its neighbours. Its smallest size is
    `window` times the image's sides (the published code takes the model's input resolution). Both views are in one picture,
    as a prompt has one image.

    Examples:
        >>> outcome = cm.refer(mllm, scene.image, scene.question, box, cm.methods.ViCrop())
        >>> outcome.sent.image.size
        (384, 384)
    """

    label: ClassVar[str] = "vicrop"
    told: ClassVar[bool] = False
    source: ClassVar[tuple[str, ...]] = ("zhang2025vicrop",)

    by: str = setting("attention", "what points to the part", choice("attention", "gradient"), asked=True)
    depth: float = setting(
        0.45, "the layer whose attention is taken, as a share of the model's depth (published: 14 of 32)", real(0, 1)
    )
    window: float = setting(
        0.5, "the smallest window's sides, as a share of the image's", real(above=0, most=1), asked=True
    )
    general: str = setting("Write a general description of the image.", "the general question", text())

    def sent(self, request: Request, mllm: Mllm) -> Request:
        bare = request.named("")
        prompts = [mllm.prepare(bare.image, question) for question in (bare.question, self.general)]
        own, general = (self._looked(mllm, prompt) for prompt in prompts)
        layout = prompts[0].layout
        grid = layout.raster(own / np.maximum(general, 1e-12))
        corners = _pixels(best_window(grid, self.window), layout)
        image, regions = beside(request.image, corners, request.regions)
        return replace(request, image=image, regions=regions)

    def _looked(self, mllm: Mllm, prompt: Prompt) -> np.ndarray:
        """(visual token,): how much each is looked at."""
        if self.by == "attention":
            layers = mllm.attention_layers
            layer = layers[min(int(self.depth * len(layers)), len(layers) - 1)]
            captured = capture_attention(mllm, prompt, [layer], queries="last").values
            looked: np.ndarray = captured.mean((0, 1, 2)).float().cpu().numpy()
            return looked
        # A special token, which some models could say, is no answer.
        special = mllm.processor.tokenizer.all_special_ids
        said = mllm.generate(prompt, min_new_tokens=1, max_new_tokens=1, suppress_tokens=special)
        score = AnswerScore(mllm, prompt, said.ids)
        latent = prompt.zero_latent()[None].detach().requires_grad_()
        with torch.enable_grad():
            (found,) = gradients(score(latent)[0], [latent], computes_in_half(mllm.model))
        sizes: np.ndarray = found[0].norm(dim=-1).float().cpu().numpy()
        return sizes


def best_window(grid: np.ndarray, smallest: float) -> tuple[int, int, int, int]:
    """First and last (exclusive) row and column of the window in a grid (row, column) that stands out most.

    For each size the window with the largest sum; of these the one whose sum is furthest above those of the windows one
    cell to either side, per cell.

    Args:
        smallest: the smallest window's sides, as a share of the grid's.
    """
    found: list[tuple[float, tuple[int, int, int, int]]] = []
    for ratio in RATIOS:
        high, wide = (min(max(round(smallest * ratio * side), 1), side) for side in grid.shape)
        if (high, wide) == grid.shape:
            break
        sums = sliding_window_view(grid, (high, wide)).sum((2, 3))
        row, column = np.unravel_index(sums.argmax(), sums.shape)
        beside_it = [(row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)]
        near = [sums[at] for at in beside_it if 0 <= at[0] < sums.shape[0] and 0 <= at[1] < sums.shape[1]]
        corners = int(row), int(column), int(row) + high, int(column) + wide
        found.append(((sums[row, column] - float(np.mean(near))) / (high * wide), corners))
    return max(found)[1] if found else (0, 0, *grid.shape)


def _pixels(window: tuple[int, int, int, int], layout: VisualTokenLayout) -> tuple[int, int, int, int]:
    """Corners x0, y0, x1, y1 of a window of the layout's cells, on the image."""
    top, left, bottom, right = window
    width, height = layout.image_size
    x0, y0 = layout.cells[top, left, :2].round().astype(int).clip(0, [width - 1, height - 1]).tolist()
    x1, y1 = layout.cells[bottom - 1, right - 1, 2:].round().astype(int).clip([x0 + 1, y0 + 1], [width, height]).tolist()
    return x0, y0, x1, y1
