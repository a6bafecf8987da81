"""Energies: how far a context-token map is from lying in a region. Pure functions, differentiable in the map."""

import math
from typing import Any

import torch
from jaxtyping import Float

from ..errors import CaptureError, RegionError, SigmaError
from ..models.undisturbed import unaffected
from ..strict import number, shown

# Widths whose square and Gaussian are numbers in float32.
SIGMAS = (1e-4, 1e4)


@unaffected(gradient=True)
def hard_energy(
    values: Float[torch.Tensor, "*map visual"], inside: Float[torch.Tensor, " visual"]
) -> Float[torch.Tensor, "*map"]:
    """Energy of a box or mask: `(1 - sum_i r_i A_i / sum_i A_i)^2` (ControlMLLM, equation 4).

    0 with all attention inside, 1 with none; unchanged when the map is scaled.

    Args:
        values: A, (..., visual token), not negative and not all zero.
        inside: r, (visual token,), share of each token inside the region.

    Raises:
        CaptureError: for a map that is all zero, or not finite.

    Examples:
        >>> import torch
        >>> values, inside = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([0.0, 1.0, 0.5])
        >>> cm.hard_energy(values, inside).item()  # (1 - 2.5 / 4) ** 2
        0.140625
    """
    return hard_of(looked(values, inside), inside)


@unaffected(gradient=True)
def soft_energy(
    values: Float[torch.Tensor, "*map visual"], distance: Float[torch.Tensor, " visual"], sigma: float = 0.1
) -> Float[torch.Tensor, "*map"]:
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

    Examples:
        >>> import torch
        >>> values, distance = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])
        >>> round(cm.soft_energy(values, distance, sigma=0.4).item(), 3)
        0.058
    """
    return soft_of(looked(values, distance), distance, checked_sigma(sigma))


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


def _holds_numbers(values: Any, axes: int = 1) -> bool:
    """Whether it is a tensor of numbers with this many axes or more; meta and sparse tensors do not hold theirs."""
    return (
        torch.is_tensor(values)
        and values.dim() >= axes
        and values.layout == torch.strided
        and not values.is_meta
        and not values.is_complex()
    )


def hard_of(
    values: Float[torch.Tensor, "*map visual"], inside: Float[torch.Tensor, " visual"], floor: float = 0.0
) -> Float[torch.Tensor, "*map"]:
    """`hard_energy` of what is checked already; `floor` is added to the sum that it divides by."""
    return (1 - weighted_share(values, inside, floor)) ** 2


def soft_of(
    values: Float[torch.Tensor, "*map visual"], distance: Float[torch.Tensor, " visual"], sigma: float, floor: float = 0.0
) -> Float[torch.Tensor, "*map"]:
    """`soft_energy` of what is checked already; `floor` is added to the sum that it divides by."""
    return (1 - weighted_share(values, _density(distance, sigma), floor)) ** 2


def gaussian(distance: Float[torch.Tensor, "*any"], sigma: float) -> Float[torch.Tensor, "*any"]:
    """Normal density of `distance` (...) around 0.

    Raises:
        RegionError: for distances that are no tensor of numbers.
        SigmaError: for a sigma that is no width.

    Examples:
        >>> import torch
        >>> [round(value, 2) for value in cm.gaussian(torch.tensor([0.0, 0.1, 0.3]), 0.1).tolist()]
        [3.99, 2.42, 0.04]
    """
    if not _holds_numbers(distance, axes=0):
        raise RegionError(f"Distances must be a tensor of numbers; got {shown(distance)}.")
    return _density(distance, checked_sigma(sigma))


def _density(distance: Float[torch.Tensor, "*any"], sigma: float) -> Float[torch.Tensor, "*any"]:
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


def weighted_share(
    values: Float[torch.Tensor, "*map visual"], weights: Float[torch.Tensor, " visual"], floor: float = 0.0
) -> Float[torch.Tensor, "*map"]:
    """`sum_i w_i A_i / (sum_i A_i + floor)` of maps (..., visual token)."""
    return (values * weights).sum(-1) / (values.sum(-1) + floor)


def odds_gain(first: Float[torch.Tensor, "*run"], now: Float[torch.Tensor, "*run"]) -> Float[torch.Tensor, "*run"]:
    """How many times what they were the odds are of shares in 0..1: of attention in the regions against that elsewhere."""
    before, after = (each.clamp(1e-12, 1 - 1e-6) for each in (first, now))
    return after / (1 - after) * (1 - before) / before
