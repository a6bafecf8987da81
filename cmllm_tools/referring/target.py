"""What a map is held against: regions as the visual tokens of one layout see them."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from ..attention.context_map import ContextMap
from ..errors import CaptureError, RegionError
from ..inputs.regions import Regions
from ..layout.visual_tokens import RegionWarning, Rule, VisualTokenLayout
from ..models.undisturbed import unaffected
from ..strict import kind_of
from .energy import checked_sigma, hard_of, looked, soft_of, weighted_share


@dataclass(frozen=True, eq=False)
class Target:
    """Regions as seen by the visual tokens of one layout.

    Args:
        measures: (region, visual token): share inside for box and mask, distance for scribble and point.
        soft: whether each region is soft.
        sigma: width of the soft energies' Gaussian.
        average: take the mean of the regions' energies, not their sum.
        floor: added to the sum of a map that its energies divide by.

    Raises:
        SigmaError: for a sigma that is no width.
    """

    measures: Float[torch.Tensor, "region visual"]
    soft: tuple[bool, ...]
    sigma: float
    average: bool = False
    floor: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", checked_sigma(self.sigma))
        if not bool(torch.isfinite(self.measures).all()):
            raise RegionError("A region's shares or distances must be finite for every visual token; these are not.")
        for weights, measure, soft in zip(self._weights(), self.measures, self.soft, strict=True):
            if soft and not bool((weights > 0).any()):
                raise RegionError(
                    "sigma must be wide enough to reach a visual token, the nearest of which is "
                    f"{measure.min().item():.3g} of the largest distance from the scribble or point; got {self.sigma:g}."
                )

    @classmethod
    def of(cls, layout: VisualTokenLayout, regions: Regions, sigma: float = 0.1, rule: Rule = "area") -> "Target":
        """Measure `regions` on a layout.

        Raises:
            RegionError: as the layout does.

        Warns:
            RegionWarning: as the layout does, and for a region that covers all that the model sees.
        """
        kind_of(layout, VisualTokenLayout, "Regions are measured on a layout of visual tokens (prompt.layout)", RegionError)
        several, sigma = layout.on_sheet(regions), checked_sigma(sigma)
        rows = [layout.distance(region, rule) if region.soft else layout.inside(region, rule) for region in several]
        for region, row in zip(several, rows, strict=True):
            if not region.soft and row.min() > 1 - 1e-6:
                warnings.warn(
                    f"{region!r} covers everything that the model sees: its energy is 0 wherever the model looks, and "
                    "steering has no direction to go. Draw a smaller region.",
                    RegionWarning,
                    stacklevel=3,
                )
        return cls(torch.from_numpy(np.stack(rows)), tuple(region.soft for region in several), sigma)

    def to(self, values: torch.Tensor) -> "Target":
        """The same target on the device and in the precision of `values`."""
        return replace(self, measures=self.measures.to(values))

    def energy(self, values: Float[torch.Tensor, "*map visual"]) -> Float[torch.Tensor, "*map"]:
        """Sum (or mean) of the regions' energies of a map (..., visual token); not a number where a map is all zero."""
        energies = torch.stack(
            [
                soft_of(values, measure, self.sigma, self.floor) if soft else hard_of(values, measure, self.floor)
                for measure, soft in zip(self.measures, self.soft, strict=True)
            ]
        )
        return energies.mean(0) if self.average else energies.sum(0)

    def weights(self) -> Float[torch.Tensor, " visual"]:
        """Weight of each visual token: (visual token,) in 0..1.

        A token counts by its share inside a box or mask, by exp(-D^2 / 2 sigma^2) for a scribble or point, and by the
        largest of these for several regions.
        """
        return torch.stack(self._weights()).amax(0)

    def _weights(self) -> list[Float[torch.Tensor, " visual"]]:
        """(visual token,) of each region."""
        return [
            torch.exp(-(measure**2) / (2 * self.sigma**2)) if soft else measure
            for measure, soft in zip(self.measures, self.soft, strict=True)
        ]

    def share(self, values: Float[torch.Tensor, "*map visual"]) -> Float[torch.Tensor, "*map"]:
        """Share of a map (..., visual token) that lies in the regions, each token counted by its weight: 0..1."""
        return weighted_share(values, self.weights())


@unaffected(gradient=True)
def energy(cmap: ContextMap, regions: Regions, *, sigma: float = 0.1, rule: Rule = "area") -> Float[torch.Tensor, ""]:
    """Energy of a map and one or several regions: a scalar that carries the map's gradient.

    Hard for boxes and masks, soft for scribbles and points, summed over regions.

    Args:
        cmap: from `context_map`.
        regions: in pixels of the prompt's image.
        sigma: width of the soft energies' Gaussian: 0.1 in ControlMLLM, 0.4 in ControlMLLM++.
        rule: "area" or "reference"; see `VisualTokenLayout.inside`.

    Raises:
        RegionError: for a region the model does not see.
        CaptureError: for a map that is all zero, or not finite.
        SigmaError: for a sigma that is no width.

    Examples:
        >>> f"{cm.energy(cmap, box).item():.3f}"
        '0.904'
        >>> f"{cm.energy(cmap, [box, cm.Point(20, 20)]).item():.3f}"  # the sum of both
        '1.442'
    """
    kind_of(cmap, ContextMap, "A map must be one from context_map(attention)", CaptureError)
    return Target.of(cmap.layout, regions, sigma, rule).to(cmap.values).energy(looked(cmap.values))


@unaffected(gradient=True)
def region_share(cmap: ContextMap, regions: Regions, *, sigma: float = 0.1, rule: Rule = "area") -> float:
    """Share of the map that lies in the regions, 0..1; see `Target.share`. It raises what `energy` does.

    Examples:
        >>> f"{cm.region_share(cmap, box):.0%}"
        '5%'
    """
    kind_of(cmap, ContextMap, "A map must be one from context_map(attention)", CaptureError)
    return Target.of(cmap.layout, regions, sigma, rule).to(cmap.values).share(looked(cmap.values)).item()
