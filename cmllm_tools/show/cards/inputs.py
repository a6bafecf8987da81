"""Cards of what the user gives: regions, without their image."""

from markupsafe import Markup

from ...inputs.regions import Mask, Region
from ...shown import view
from ..html import card
from ..picture import picture


@view(Region)
def region_card(region: Region) -> Markup:
    """The region on a canvas from the image's corner to a little beyond it."""
    width, height = (max(1.15 * far, 1) for far in region.bounds[2:])
    # A region along an edge of the image would make a strip; the shorter side is at least a third.
    return _card(region, (round(max(width, height / 3)), round(max(height, width / 3))))


@view(Mask)
def mask_card(mask: Mask) -> Markup:
    """The mask on a canvas of its image's size."""
    return _card(mask, mask.size)


def _card(region: Region, canvas: tuple[int, int]) -> Markup:
    return card(type(region).__name__, region.facts(), picture(canvas, regions=[region]))
