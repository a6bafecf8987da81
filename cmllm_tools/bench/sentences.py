"""How the models that come with the package name a thing that they are asked for."""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import SettingsError
from ..loading import EMBEDDED
from ..models.smol import NAME
from ..strict import shown

# Names that are said without an article, being of many or of stuff.
WITHOUT_ARTICLE = frozenset(
    "books bread broccoli cheese cherries chocolate coffee corn beer fire fries garlic glasses grapes headphones honey "
    "jeans lightning meat milk money pancakes pasta peanuts popcorn rice salad scissors shorts shrimp socks soup steak "
    "sunglasses sushi wheat".split()
)
Says = Callable[[str], str]


def with_article(name: str) -> str:
    """A thing's name, as `smol` says it.

    Examples:
        >>> from cmllm_tools.bench.sentences import with_article
        >>> with_article("axe"), with_article("basket"), with_article("cheese")
        ('an axe', 'a basket', 'cheese')
    """
    if name in WITHOUT_ARTICLE:
        return name
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"


def smol_says(name: str) -> str:
    """`smol`'s answer of one thing."""
    return f"The thing in the picture is {with_article(name)}."


SAYS: Mapping[str, Says] = {EMBEDDED: str, NAME: smol_says}


def as_says(given: Any) -> Says:
    """What turns a name into an answer.

    Raises:
        SettingsError: for what cannot be called.
    """
    if not callable(given):
        raise SettingsError(f"What a model says of a thing must be given as a function of its name; got {shown(given)}.")
    found: Says = given
    return found
