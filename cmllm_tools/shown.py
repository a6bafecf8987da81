"""What a value says of itself, and where the view stands that a notebook has of it.

A value gives its facts in words; its line of text comes of them, and its card does. How a card looks is known in `show`
alone: here is a registry, which finds the views of a room's values by the room's name when one of them is first shown, so
that no value imports a view, and showing a prompt does not load what draws a sweep.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from markupsafe import Markup

# (label, value); a fact that explains itself has an empty label.
Fact = tuple[str, str]

Draw = TypeVar("Draw", bound="Callable[[Any], Markup]")


class Shown:
    """A value that is shown by its facts: as a line of text, and in a notebook by the view of its type.

    A dataclass that wants this line is made with `repr=False`, or `dataclass` writes one of its own.
    """

    def facts(self) -> list[Fact]:
        """What there is to say of the value, most important first."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return one_line(type(self).__name__, self.facts())

    def _repr_html_(self) -> "Markup":
        return view_of(type(self))(self)


def in_words(facts: Iterable[Fact]) -> str:
    """Facts in a row: `value, label value`."""
    return ", ".join(f"{label} {value}".strip() for label, value in facts)


def one_line(name: str, facts: Iterable[Fact]) -> str:
    """Facts as a one-line repr: `Name(value, label value)`; what a card shows as a table."""
    return f"{name}({in_words(facts)})"


def view(kind: type) -> Callable[[Draw], Draw]:
    """Register the function below as the view of a type, in place of the one that it has, if any.

    Args:
        kind: the type, based on `Shown`; subclasses without a view of their own have this one.

    Returns:
        What takes the function: from a value to `Markup`, in which all text is escaped, as `show.html.card` gives it.
    """
    # What the package has for the type comes first, or it would replace this one when it is loaded.
    _load_views(kind.__module__)

    def register(draw: Draw) -> Draw:
        _VIEWS[kind] = draw
        return draw

    return register


def view_of(kind: type) -> "Callable[[Any], Markup]":
    """The view of a type: its own, or that of the next of its bases that has one, at last the plain card of `Shown`."""
    for base in kind.__mro__:
        _load_views(base.__module__)
        if base in _VIEWS:
            return _VIEWS[base]
    raise TypeError(f"{kind.__name__} must be based on Shown to have a view; it is not.")


_VIEWS: "dict[type, Callable[[Any], Markup]]" = {}


@cache
def _load_views(module: str) -> None:
    """Load the views of the room that a module is of, where the room has any."""
    package, _, within = module.partition(".")
    if package == __package__:
        views = f"{package}.show.cards.{within.partition('.')[0]}"
        if find_spec(views):
            import_module(views)
