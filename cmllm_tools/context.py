"""Context-token maps: attention reduced to one weight per visual token, by a choice of queries, layers and heads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from .attention import Attention
from .display import Fact, card, one_line, picture
from .errors import CaptureError
from .layout import VisualTokenLayout
from .models.prompt import Queries


@dataclass(frozen=True, eq=False)
class ContextMap:
    """How much the context token attends to each visual token (ControlMLLM, section 3.2).

    Args:
        values: (visual token,) mean attention weight; it carries the attention's gradient.
        layout: where each visual token looks.
        words: the query tokens it is the mean of.
        image: what the visual tokens look at, for showing the map on it.
    """

    values: torch.Tensor
    layout: VisualTokenLayout = field(repr=False)
    words: tuple[str, ...]
    image: Image.Image | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return one_line("ContextMap", self._facts())

    def _repr_html_(self) -> str:
        heat = self.grid / max(self.grid.max(), 1e-30)
        return card(
            "ContextMap",
            self._facts(),
            picture(self.layout.image_size, self.image, cells=self.layout.cells, heat=heat),
        )

    def _facts(self) -> list[Fact]:
        rows, columns = self.layout.grid
        peak = int(self.values.argmax())
        x0, y0, x1, y1 = self.layout.boxes[peak]
        return [
            ("", f"{len(self.layout)} visual tokens on {rows} x {columns}"),
            ("mean over", repr(" ".join(self.words))),
            ("", f"{self.values.sum().item():.1%} of it on the image"),
            ("highest at", f"x {x0:.0f}..{x1:.0f} y {y0:.0f}..{y1:.0f}"),
        ]

    @property
    def grid(self) -> np.ndarray:
        """The map as (rows, columns), detached and on the CPU; see `VisualTokenLayout.raster`."""
        return self.layout.raster(self.values.detach().float().cpu().numpy())


def context_map(
    attention: Attention,
    queries: Queries | None = None,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
) -> ContextMap:
    """Average captured attention over queries, layers and heads.

    Args:
        attention: from `capture_attention`.
        queries: which of the captured queries, in the words of `Prompt.positions`; all when None.
        layers: which of the captured layers; all when None.
        heads: which of the captured heads; all when None.

    Raises:
        CaptureError: for queries, layers or heads that were not captured.
        PromptError: for queries that are not in the prompt.
    """
    prompt = attention.prompt
    positions = attention.queries if queries is None else prompt.positions(queries)
    values = attention.values
    for axis, (wanted, captured, what) in enumerate(
        (
            (layers, attention.layers, "layers"),
            (heads, attention.heads, "heads"),
            (positions, attention.queries, "query positions"),
        )
    ):
        if wanted is not None:
            index = _index(list(wanted), captured, what)
            if index != list(range(len(captured))):
                values = values.index_select(axis, torch.tensor(index, device=values.device))
    words = prompt.words(positions)
    return ContextMap(values.mean((0, 1, 2)), prompt.layout, words, prompt.image)


def _index(wanted: Sequence[int], captured: Sequence[int], what: str) -> list[int]:
    missing = [number for number in wanted if number not in captured]
    if missing or not wanted:
        raise CaptureError(
            f"The map's {what} must be among those captured, {list(captured)}; got {list(wanted)}. "
            f"Capture attention with these {what} first."
        )
    return [captured.index(number) for number in wanted]
