"""What a sweep chooses from, and the entries of its file."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import DataError, SettingsError
from ..models.prompt import Queries, as_queries, queries_name
from ..notation import window_text
from ..referring.kinds import FLAG, read_window
from ..referring.latent_method import LatentMethod
from ..referring.registry import method_from_json
from ..stored import Reader, items, object_of, record, text_of, unread
from ..strict import shown, whole_number

# Rows of the figures, in the order that a run gives them.
FIGURES = ("energy before", "energy", "share before", "share", "moved", "damage", "right", "seconds")
# A sweep's grids have this many rows and columns at most, so that a file of a few bytes makes none of gigabytes.
MOST_LAYERS = 1000


@dataclass(frozen=True)
class Choice:
    """What a run averages attention over.

    Args:
        layers: window [a, b).
        queries: which tokens make up the context token.

    Examples:
        >>> cm.analysis.Choice((0, 3), "last")
        Choice(layers=(0, 3), queries='last')
    """

    layers: tuple[int, int]
    queries: Queries

    def __post_init__(self) -> None:
        # So that a choice equals the one that comes back from JSON.
        window = read_window(self.layers, "layers")
        if not window or window[1] > MOST_LAYERS:
            raise SettingsError(
                f"A choice must have a window (a, b) of layers, b at most {MOST_LAYERS}; got {shown(window)}."
            )
        object.__setattr__(self, "layers", window)
        object.__setattr__(self, "queries", as_queries(self.queries, SettingsError))

    def __str__(self) -> str:
        return f"{window_text(self.layers)}, {queries_name(self.queries)}"


def _choice(value: Any, what: str) -> Choice:
    found = record(value, what, {"layers": _window, "queries": _queries})
    return Choice(found["layers"], found["queries"])


def _window(value: Any, what: str) -> tuple[int, int]:
    low, high = (*items(value, what, lambda each, name: whole_number(each, name, 0, MOST_LAYERS, DataError)), -1, -1)[:2]
    if len(value) != 2 or low >= high:
        raise DataError(f"{what} must be a window of layers [a, b); got {shown(value)}.")
    return low, high


def _queries(value: Any, what: str) -> Queries:
    if isinstance(value, list):
        return items(value, what, _queries)
    return value if isinstance(value, str) else whole_number(value, what, error=DataError)


def _method(value: Any, what: str) -> LatentMethod:
    found = method_from_json(object_of(value, what))
    if not isinstance(found, LatentMethod):
        raise DataError(f"{what} must be one that takes steps; got a {found.called()}.")
    if found.step_size is None:
        return found
    # All of its settings are filled in: a flag that is open came later, and what it turns on was not there.
    later: dict[str, Any] = {
        each.name: False for each in found.settings() if each.kind is FLAG and getattr(found, each.name) is None
    }
    return replace(found, **later)


FIELDS: dict[str, Reader] = {
    "model": text_of,
    "method": _method,
    "choices": partial(items, read=_choice),
    "examples": partial(items, read=text_of),
    "figures": partial(items, read=text_of),
    "values": unread,
    "failed": partial(items, read=text_of),
}
