"""Energies: how far a context-token map is from lying in a region. Pure functions, differentiable in the map."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from .context import ContextMap
from .errors import RegionError
from .layout import RegionWarning, Rule, VisualTokenLayout
from .regions import Regions, as_regions
from .strict import number

# Widths whose square and Gaussian are numbers in float32.
SIGMAS = (1e-4, 1e4)


def hard_energy(values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Energy of a box or mask: `(1 - sum_i r_i A_i / sum_i A_i)^2` (ControlMLLM, equation 4).

    0 with all attention inside, 1 with none; unchanged when the map is scaled.

    Args:
        values: A, (..., visual token), not negative and not all zero.
        inside: r, (visual token,), share of each token inside the region.
    """
    return (1 - _share(values, inside)) ** 2


def soft_energy(values: torch.Tensor, distance: torch.Tensor, sigma: float = 0.1) -> torch.Tensor:
    """Energy of a scribble or point: `(1 - sum_i g(D_i) A_i / sum_i A_i)^2` (ControlMLLM, equation 5).

    `g(D) = exp(-D^2 / 2 sigma^2) / (sqrt(2 pi) sigma)`. g(0) is 3.99 for sigma = 0.1, so that the energy is least with a
    quarter of the attention on the mark; for sigma = 0.4 it is 0.997.

    Args:
        values: A, (..., visual token), not negative and not all zero.
        distance: D, (visual token,), as a share of the largest distance.
        sigma: width of the Gaussian, above 0.
    """
    return (1 - _share(values, gaussian(distance, sigma))) ** 2


def gaussian(distance: torch.Tensor, sigma: float) -> torch.Tensor:
    """Normal density of `distance` around 0."""
    sigma = checked_sigma(sigma)
    return torch.exp(-(distance**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)


def checked_sigma(sigma: object) -> float:
    """The width of a Gaussian over distances in 0..1, as a plain number.

    Raises:
        RegionError: for anything else, or a width beyond which every distance, or none, would be the same in float32.
    """
    found = number(sigma, "sigma", error=RegionError)
    if not found > 0:
        raise RegionError(f"sigma must be above 0; got {found:g}.")
    low, high = SIGMAS
    if not low <= found <= high:
        raise RegionError(f"sigma must lie in {low:g}..{high:g}, a share of the largest distance; got {found:g}.")
    return found


def _share(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (values * weights).sum(-1) / values.sum(-1)


@dataclass(frozen=True, eq=False)
class Target:
    """Regions as seen by the visual tokens of one layout.

    Args:
        measures: (region, visual token): share inside for box and mask, distance for scribble and point.
        soft: whether each region is soft.
        sigma: width of the soft energies' Gaussian.
    """

    measures: torch.Tensor
    soft: tuple[bool, ...]
    sigma: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", checked_sigma(self.sigma))

    @classmethod
    def of(cls, layout: VisualTokenLayout, regions: Regions, sigma: float = 0.1, rule: Rule = "area") -> "Target":
        """Measure `regions` on a layout.

        Raises:
            RegionError: as the layout does, and where sigma is so small that no token has any weight.

        Warns:
            RegionWarning: as the layout does, and for a region that covers all that the model sees.
        """
        several, sigma = as_regions(regions), checked_sigma(sigma)
        rows = [layout.distance(region, rule) if region.soft else layout.inside(region, rule) for region in several]
        for region, row in zip(several, rows, strict=True):
            if region.soft and not gaussian(torch.from_numpy(row), sigma).any():
                raise RegionError(
                    f"sigma must let the nearest visual token count, at {row.min():.3g} of the largest distance from "
                    f"{region!r}; got {sigma:g}, under which all weights are 0. Take at least {row.min() / 10:.1g}."
                )
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
        return Target(self.measures.to(values), self.soft, self.sigma)

    def energy(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of the regions' energies of a map (..., visual token); the reference sums them too."""
        return torch.stack(
            [
                soft_energy(values, measure, self.sigma) if soft else hard_energy(values, measure)
                for measure, soft in zip(self.measures, self.soft, strict=True)
            ]
        ).sum(0)

    def weights(self) -> torch.Tensor:
        """Weight of each visual token: (visual token,) in 0..1.

        A token counts by its share inside a box or mask, by exp(-D^2 / 2 sigma^2) for a scribble or point, and by the
        largest of these for several regions.
        """
        weights = [
            torch.exp(-(measure**2) / (2 * self.sigma**2)) if soft else measure
            for measure, soft in zip(self.measures, self.soft, strict=True)
        ]
        return torch.stack(weights).amax(0)

    def share(self, values: torch.Tensor) -> torch.Tensor:
        """Share of a map (..., visual token) that lies in the regions, each token counted by its weight: 0..1."""
        return _share(values, self.weights())


def energy(cmap: ContextMap, regions: Regions, *, sigma: float = 0.1, rule: Rule = "area") -> torch.Tensor:
    """Energy of a map and one or several regions: a scalar that carries the map's gradient.

    Hard for boxes and masks, soft for scribbles and points, summed over regions.

    Args:
        cmap: from `context_map`.
        regions: in pixels of the prompt's image.
        sigma: width of the soft energies' Gaussian: 0.1 in ControlMLLM, 0.4 in ControlMLLM++.
        rule: "area" or "reference"; see `VisualTokenLayout.inside`.

    Raises:
        RegionError: for a region the model does not see.
    """
    return Target.of(cmap.layout, regions, sigma, rule).to(cmap.values).energy(cmap.values)


def region_share(cmap: ContextMap, regions: Regions, *, sigma: float = 0.1, rule: Rule = "area") -> float:
    """Share of the map that lies in the regions, 0..1; see `Target.share`."""
    return Target.of(cmap.layout, regions, sigma, rule).to(cmap.values).share(cmap.values).item()
