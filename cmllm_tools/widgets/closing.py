"""Widgets that leave nothing behind when they are closed, or when making them fails.

ipywidgets keeps every widget in a registry until it is closed, and closes one at a time: a box that is closed leaves its
children, and each of them its layout and its style.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as ipw
from ipywidgets.widgets.widget import _instances


def close_whole(root: ipw.Widget) -> None:
    """Close a widget and all that it is made of: children, layouts, styles. Listeners hear nothing any more.

    A layout or style that a widget outside shows itself with stays.
    """
    closing = _within(root)
    own = {id(widget) for widget in closing}
    outside = [widget for widget in list(_instances.values()) if id(widget) not in own]
    shared = {id(part) for widget in outside for part in _parts(widget)}
    for widget in closing:
        if isinstance(widget, ipw.DOMWidget) or id(widget) not in shared:
            widget.unobserve_all()
            ipw.Widget.close(widget)


def replace_children(box: ipw.Box, *widgets: ipw.Widget) -> None:
    """Show other widgets in a box, and close those that were there."""
    old, box.children = box.children, widgets
    for widget in old:
        if widget not in widgets:
            close_whole(widget)


@contextmanager
def all_or_none() -> Iterator[None]:
    """While open, widgets are made; when that fails, those that were made are closed."""
    before = set(_instances)
    try:
        yield
    except BaseException:
        for number in set(_instances) - before:
            ipw.Widget.close(_instances[number])
        raise


def _within(root: ipw.Widget) -> list[ipw.Widget]:
    found, waiting = {id(root): root}, [root]
    while waiting:
        for part in _parts(waiting.pop()):
            if id(part) not in found:
                found[id(part)] = part
                waiting.append(part)
    return list(found.values())


def _parts(widget: ipw.Widget) -> Iterator[ipw.Widget]:
    """The widgets that a widget's state names."""
    for name in widget.keys:
        value: Any = getattr(widget, name)
        several = value if isinstance(value, list | tuple) else (value,)
        yield from (part for part in several if isinstance(part, ipw.Widget))
