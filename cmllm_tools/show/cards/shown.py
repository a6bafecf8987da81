"""The plain card: facts, for every type without a view of its own."""

from markupsafe import Markup

from ...shown import Shown, view
from ..html import card


@view(Shown)
def plain(value: Shown) -> Markup:
    """The facts as a table under the type's name."""
    return card(type(value).__name__, value.facts())
