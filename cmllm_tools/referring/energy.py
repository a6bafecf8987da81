"""Energies: how far a context-token map is from lying in a region. Pure functions, differentiable in the map."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..attention.context_map import ContextMap
from ..errors import CaptureError, RegionError, SigmaError
from ..inputs.regions import Regions, as_regions
from ..layout.visual_tokens import RegionWarning, Rule, VisualTokenLayout
from ..strict import kind_of, number, shown

# Widths whose square and Gaussian are numbers in float32.
SIGMAS = (1e-4, 1e4)


def hard_energy(values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Energy of a box or mask: `(1 - sum_i r_i A_i / sum_i A_i)^2` (ControlMLLM, equation 4).

    0 with all attention inside, 1 with none; unchanged when the map is scaled.

    Args:
        values: A, (..., visual token), not negative and not all zero.
        inside: r, (visual token,), share of each token inside the region.

    Raises:
        CaptureError: for a map that is all zero, or not finite.
    """
    return _hard(looked(values, inside), inside)


def soft_energy(values: torch.Tensor, distance: torch.Tensor, sigma: float = 0.1) -> torch.Tensor:
    """Energy of a scribble or point: `(1 - sum_i g(D_i) A_i / sum_i A_i)^2` (ControlMLLM, equation 5).

    `g(D) = exp(-D^2 / 2 sigma^2) / (sqrt(2 pi) sigma)`. g(0) is 3.99 for sigma = 0.1, so that the energy is least with a
    quarter of the attention on the mark; for sigma = 0.4 it is 0.997.

    Args:
        values: A, (..., visual token), not negative and not all zero.
        distance: D, (visual token,), as a share of the largest distance.
        sigma: width of the Gaussian, above 0.

    Raises:
        CaptureError: for a map that is all zero, or not finite.
        SigmaError: for a sigma that is no width.
    """
    return _soft(looked(values, distance), distance, checked_sigma(sigma))


# Where there is nothing yet that rates tokens: None is what a caller may have given.
_ANY = object()


def looked(values: torch.Tensor, measure: Any = _ANY) -> torch.Tensor:
    """Maps (..., visual token), each of which has attention to share out among tokens that `measure` (visual token,) rates.

    Raises:
        CaptureError: for a map that is all zero, or not finite.
        RegionError: for measures that are not finite, or of other tokens.
    """
    if not _holds_numbers(values) or not bool((torch.isfinite(sums := values.detach().sum(-1)) & (sums > 0)).all()):
        raise CaptureError(
            "A map must be a tensor with some attention on the image, for its energy or share; this one is no tensor, all "
            "zero or not finite. Take query tokens that stand after the image, and layers and heads that look at it."
        )
    if measure is not _ANY and not (
        _holds_numbers(measure) and measure.shape[-1:] == values.shape[-1:] and bool(torch.isfinite(measure).all())
    ):
        raise RegionError(
            f"A region must have one finite share or distance for each of the {values.shape[-1]} visual tokens; "
            f"got {shown(measure)}."
        )
    return values


def _holds_numbers(values: Any) -> bool:
    """Whether it is a tensor with an axis of numbers: meta tensors have none, and of sparse ones most are not there."""
    return (
        torch.is_tensor(values)
        and values.dim() > 0
        and values.layout == torch.strided
        and not values.is_meta
        and not values.is_complex()
    )


def _hard(values: torch.Tensor, inside: torch.Tensor, floor: float = 0.0) -> torch.Tensor:
    return (1 - _share(values, inside, floor)) ** 2


def _soft(values: torch.Tensor, distance: torch.Tensor, sigma: float, floor: float = 0.0) -> torch.Tensor:
    return (1 - _share(values, _density(distance, sigma), floor)) ** 2


def gaussian(distance: torch.Tensor, sigma: float) -> torch.Tensor:
    """Normal density of `distance` around 0.

    Raises:
        SigmaError: for a sigma that is no width.
    """
    return _density(distance, checked_sigma(sigma))


def _density(distance: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.exp(-(distance**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)


def checked_sigma(sigma: object, what: str = "sigma") -> float:
    """The width of a Gaussian over distances in 0..1, as a plain number.

    Raises:
        SigmaError: for anything else, or a width beyond which every distance, or none, would be the same in float32.
    """
    found = number(sigma, what, error=SigmaError)
    if not found > 0:
        raise SigmaError(f"{what} must be above 0; got {found:g}.")
    low, high = SIGMAS
    if not low <= found <= high:
        raise SigmaError(f"{what} must lie in {low:g}..{high:g}, a share of the largest distance; got {found:g}.")
    return found


def _share(values: torch.Tensor, weights: torch.Tensor, floor: float = 0.0) -> torch.Tensor:
    return (values * weights).sum(-1) / (values.sum(-1) + floor)


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

    measures: torch.Tensor
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
        several, sigma = as_regions(regions), checked_sigma(sigma)
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

    def energy(self, values: torch.Tensor) -> torch.Tensor:
        """Sum (or mean) of the regions' energies of a map (..., visual token); not a number where a map is all zero."""
        energies = torch.stack(
            [
                _soft(values, measure, self.sigma, self.floor) if soft else _hard(values, measure, self.floor)
                for measure, soft in zip(self.measures, self.soft, strict=True)
            ]
        )
        return energies.mean(0) if self.average else energies.sum(0)

    def weights(self) -> torch.Tensor:
        """Weight of each visual token: (visual token,) in 0..1.

        A token counts by its share inside a box or mask, by exp(-D^2 / 2 sigma^2) for a scribble or point, and by the
        largest of these for several regions.
        """
        return torch.stack(self._weights()).amax(0)

    def _weights(self) -> list[torch.Tensor]:
        """(visual token,) of each region."""
        return [
            torch.exp(-(measure**2) / (2 * self.sigma**2)) if soft else measure
            for measure, soft in zip(self.measures, self.soft, strict=True)
        ]

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
        CaptureError: for a map that is all zero, or not finite.
        SigmaError: for a sigma that is no width.
    """
    kind_of(cmap, ContextMap, "A map must be one from context_map(attention)", CaptureError)
    return Target.of(cmap.layout, regions, sigma, rule).to(cmap.values).energy(looked(cmap.values))


def region_share(cmap: ContextMap, regions: Regions, *, sigma: float = 0.1, rule: Rule = "area") -> float:
    """Share of the map that lies in the regions, 0..1; see `Target.share`. It raises what `energy` does."""
    kind_of(cmap, ContextMap, "A map must be one from context_map(attention)", CaptureError)
    return Target.of(cmap.layout, regions, sigma, rule).to(cmap.values).share(looked(cmap.values)).item()
