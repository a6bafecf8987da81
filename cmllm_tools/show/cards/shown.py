"""The plain card: facts, for every type without a view of its own."""

from ...display import Html, card
from ...shown import Shown, view


@view(Shown)
def plain(value: Shown) -> Html:
    """The facts as a table under the type's name."""
    return card(type(value).__name__, value.facts())
