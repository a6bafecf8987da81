"""The plain card: facts, for every type without a view of its own."""

from ...shown import Shown, view
from ..picture import Html, card


@view(Shown)
def plain(value: Shown) -> Html:
    """The facts as a table under the type's name."""
    return card(type(value).__name__, value.facts())
