"""Static HTML of results for notebooks: plain functions that take plain data and return `Markup`, in which text is escaped.

Only tables and `<img>` with their data inside are needed to read the result: GitHub strips scripts and style sheets from
notebooks, and one reopened without a kernel has nothing to ask.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from PIL import Image

from ..shown import Fact
from . import palette
from .picture import data_uri

# Pictures in a row: more are wider than a notebook's output in a window of 700 px.
COLUMNS = 2
# Longer values are folded.
FOLD = 240
# The longest bar, in pixels, and how high each is.
BAR_WIDTH, BAR_HEIGHT = 80, 9


def card(title: str, facts: Iterable[Fact], *pictures: Markup, below: Markup | None = None) -> Markup:
    """A result: its title, pictures side by side, COLUMNS in a row, and a table of facts beside the first."""
    rows = [pictures[at : at + COLUMNS] for at in range(0, len(pictures), COLUMNS)]
    return rendered("card.html", title=title, facts=list(facts), rows=rows, below=below or "", fold=FOLD)


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """A table with a row of headings; the last column is text, the others are numbers, or bars: what is `Markup`."""

    def sided(cells: Sequence[object]) -> list[tuple[object, str]]:
        last = len(cells) - 1
        return [(cell, "left" if at == last or isinstance(cell, Markup) else "right") for at, cell in enumerate(cells)]

    return rendered("table.html", head=sided(head), rows=[sided(cells) for cells in rows])


def text(value: object) -> Markup:
    """A cell of a table that is text, and not aligned as a number."""
    return escape(value)


def bar(share: float) -> Markup:
    """A bar as long as `share` (0..1) of BAR_WIDTH.

    An image, as it must be seen where styles are stripped; of its own size, as notebooks override the height asked for.
    """
    width = round(BAR_WIDTH * min(max(share, 0.0), 1.0))
    return Markup('<img src="{}" alt="">').format(_bar(width)) if width else Markup()


def rendered(template: str, **values: Any) -> Markup:
    """A template of this room's folder with values, each of which is escaped unless it is `Markup`."""
    return Markup(_templates().get_template(template).render(values))  # noqa: S704 (escaped by the template)


@cache
def _templates() -> Environment:
    found = Environment(autoescape=True, loader=PackageLoader(__package__), auto_reload=False)
    found.globals["palette"] = palette
    # As it is given: Jinja sorts by default.
    found.policies["json.dumps_kwargs"] = {}
    return found


@cache
def _bar(width: int) -> str:
    return data_uri(Image.new("RGB", (width, BAR_HEIGHT), palette.MORE))
