"""Layers and heads as a grid: how much of each one's attention lies in a region, against chance and other places."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..attention.capture import Attention
from ..errors import CaptureError, RegionError
from ..inputs.regions import Region, Regions, as_regions, short, where_text
from ..layout.sheet import SheetLayout, numbers_of, on_frames, own_region
from ..layout.visual_tokens import Rule, VisualTokenLayout
from ..models.undisturbed import unaffected
from ..notation import layers_text
from ..referring.target import Target
from ..shown import Fact, Shown
from ..strict import kind_of, several

# At most this many other places are compared with.
PLACES = 24


@dataclass(frozen=True, eq=False, repr=False)
class HeadGrid(Shown):
    """Share of each head's attention on the image that lies in a region.

    Args:
        values: (layer, head), 0..1.
        chance: the share that a uniform map would have: the mean weight of the visual tokens.
        layers: layer numbers of the first axis.
        heads: head numbers of the second.
        elsewhere: (place, layer, head), share over chance of other regions of the image.
        where: in words where the share is counted: of a scribble or point, "near the mark".

    Examples:
        >>> grid = cm.analysis.head_shares(attention, box)
        >>> grid.values.shape, f"{grid.chance:.0%}"
        ((6, 6), '6%')
    """

    values: np.ndarray
    chance: float
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    elsewhere: np.ndarray
    where: str = "in the region"

    @property
    def over_chance(self) -> np.ndarray:
        """(layer, head): share as a multiple of what area alone would give."""
        return self.values / self.chance

    @property
    def rank(self) -> np.ndarray:
        """(layer, head): fraction of the other places that the head looks at less, by share over chance; 0..1.

        Raises:
            RegionError: when there are no other places.
        """
        if not len(self.elsewhere):
            raise RegionError(
                "A rank needs other places to compare with; there are none. Give others=, or a region that leaves room."
            )
        result: np.ndarray = (self.elsewhere < self.over_chance).mean(0)
        return result

    def facts(self) -> list[Fact]:
        layer, head = np.unravel_index(self.values.argmax(), self.values.shape)
        return [
            ("", f"{layers_text(self.layers)} x {len(self.heads)} heads"),
            (
                f"share {short(self.where)}",
                f"{self.values.min():.1%}..{self.values.max():.1%}, mean {self.values.mean():.1%}",
            ),
            ("by area alone", f"{self.chance:.1%}"),
            ("highest", f"layer {self.layers[layer]}, head {self.heads[head]}"),
            ("other places", str(len(self.elsewhere))),
        ]


@unaffected(gradient=False)
def head_shares(
    attention: Attention,
    region: Regions,
    *,
    others: Iterable[Regions] | None = None,
    sigma: float = 0.1,
    rule: Rule = "area",
) -> HeadGrid:
    """Measure what share of each head's attention on the image lies in a region.

    A share by itself says little: a head that looks there whatever is asked, or at everything, has one too. So it comes
    with the share that area alone would give, and with that of other regions.

    Args:
        attention: from `capture_attention`; averaged over its queries.
        region: one or several, in pixels of the image.
        others: regions to compare with; when None, the same shape moved over the image, to at most PLACES places that do
            not overlap it.
        sigma: width of the Gaussian of scribbles and points.
        rule: how regions become token weights; see `VisualTokenLayout.inside`.

    Raises:
        RegionError: for a region the model does not see.

    Examples:
        >>> grid = cm.analysis.head_shares(attention, box)
        >>> grid.values.shape  # (layer, head)
        (6, 6)
    """
    kind_of(attention, Attention, "Shares are of what capture_attention gives", CaptureError)
    layout = attention.prompt.layout
    values = attention.on_image().values.detach().mean(2)
    needs = "Others must be several regions to compare with"
    places = moved_over(layout, region) if others is None else several(others, needs, RegionError)
    weights = torch.stack([Target.of(layout, place, sigma, rule).weights() for place in [region, *places]]).to(values)
    shares = torch.einsum("lht,pt->plh", values, weights) / on_image(values)
    chance = weights.mean(1)
    return HeadGrid(
        values=shares[0].cpu().numpy(),
        chance=chance[0].item(),
        layers=attention.layers,
        heads=attention.heads,
        elsewhere=(shares[1:] / chance[1:, None, None]).cpu().numpy(),
        where=where_text(as_regions(region)),
    )


def on_image(values: torch.Tensor) -> torch.Tensor:
    """Attention on the image (...,) to divide (..., visual token) by; a head with none at all has a share of 0."""
    return values.sum(-1).clamp_min(torch.finfo(values.dtype).tiny)


def moved_over(layout: VisualTokenLayout, region: Regions) -> list[tuple[Region, ...]]:
    """The same shape at places of the image where the model sees it whole and its bounding box is not overlapped.

    Places are a half of the shape (at least one visual token) apart; at most PLACES of them, evenly chosen.
    """
    if isinstance(layout, SheetLayout):
        # Each on the image, or the frames, that it is on.
        numbers = [numbers_of(each, layout.sizes) for each in as_regions(region)]
        own = [own_region(each, layout.sizes) for each in as_regions(region)]
        places = _moved([layout.layouts[first] for first, *_ in numbers], own)
        return [tuple(on_frames(each, on) for each, on in zip(place, numbers, strict=True)) for place in places]
    return _moved([layout], as_regions(region))


def _moved(layouts: Sequence[VisualTokenLayout], shape: Sequence[Region]) -> list[tuple[Region, ...]]:
    """Places of a shape whose parts are on images that have these layouts, moved alike on all of them."""
    bounds = np.array([one.bounds for one in shape])
    low, high = bounds[:, :2].min(0), bounds[:, 2:].max(0)
    seen = np.array([each.seen for each in layouts])
    (x0, y0), (x1, y1) = seen[:, :2].max(0), seen[:, 2:].min(0)
    token = np.max([np.median(each.boxes[:, 2:] - each.boxes[:, :2], axis=0) for each in layouts], axis=0)
    steps = np.maximum(np.maximum((high - low) / 2, token).round(), 1)
    first, last = np.ceil((np.array([x0, y0]) - low) / steps), np.floor((np.array([x1, y1]) - high) / steps)
    clear = np.maximum(high - low, token)
    offsets = [
        (column * steps[0], row * steps[1])
        for row in np.arange(first[1], last[1] + 1)
        for column in np.arange(first[0], last[0] + 1)
        if abs(column) * steps[0] >= clear[0] or abs(row) * steps[1] >= clear[1]
    ]
    chosen = np.unique(np.linspace(0, len(offsets) - 1, min(len(offsets), PLACES)).round().astype(int))
    return [tuple(one.moved(*offsets[index]) for one in shape) for index in chosen]
