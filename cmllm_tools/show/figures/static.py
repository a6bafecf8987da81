"""A plotly figure with static HTML beside it. Importing this module loads plotly."""

from functools import partial
from io import StringIO
from os import PathLike
from typing import Any

import plotly.graph_objects
import plotly.io
from plotly.io.base_renderers import PlotlyRenderer

from ...files import write_text


class Figure(plotly.graph_objects.Figure):
    """A plotly figure that a notebook stores with static HTML, for GitHub, an exported page, wherever plotly.js is missing.

    It is the HTML of what the figure was made from: later changes to the figure are not in it.

    Args:
        static: HTML without scripts and style sheets.
        parts, options: plotly's own.
    """

    def __init__(self, *parts: Any, static: str, **options: Any):
        super().__init__(*parts, **options)
        self._static = static

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments = super().__reduce__()
        return partial(make, static=self._static), arguments

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(*args, **options)
        result: dict[str, Any] = bundle | {"text/html": self._static} if _as_json_alone() else bundle
        return result

    def show(self, renderer: str | None = None, **options: Any) -> None:
        """Show the figure; `renderer` and the options are plotly's."""
        if renderer is None and _as_json_alone():
            from IPython.display import display

            display(self._repr_mimebundle_(**options), raw=True)
        else:
            super().show(renderer, **options)

    def write_html(self, file: Any, *args: Any, **options: Any) -> None:
        """Write a page, as plotly does; to a path, whole or not at all (see `files.write_whole`)."""
        beside = "directory" in (options.get("include_plotlyjs"), *args) or options.get("auto_open")
        if beside or not isinstance(file, str | PathLike):
            # What plotly writes beside the page, or opens, it must find by its own path.
            super().write_html(file, *args, **options)
            return
        page = StringIO()
        super().write_html(page, *args, **options)
        write_text(file, page.getvalue())

    # plotly's own shows without asking `show`.
    def _ipython_display_(self) -> None:
        if plotly.io.renderers.render_on_display and _as_json_alone():
            self.show()
        else:
            super()._ipython_display_()


def _as_json_alone() -> bool:
    """Whether plotly's renderer in use stores figures as JSON alone; any other brings what it shows."""
    names = (plotly.io.renderers.default or "").split("+")
    return all(name and isinstance(plotly.io.renderers[name], PlotlyRenderer) for name in names)
