"""A plotly figure with static HTML beside it, whose height may follow its width. Importing this module loads plotly.

Plotly gives a figure one height for all widths; but resized, it takes the height that the page's style gives to its place.
A figure of pictures (see `panels.set_height`) comes with such a style: in its own page, and in JupyterLab as an output
just before it. Where that is not understood, the figure has the height of a narrow page.
"""

from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

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

            self._style_next_output()
            display(self._repr_mimebundle_(**options), raw=True)
        else:
            super().show(renderer, **options)

    def _height(self, width: str) -> str | None:
        """The height, for a width, both as CSS; None where it does not follow the width, or is another by now."""
        grown = self.layout.meta.get("height") if isinstance(self.layout.meta, dict) else None
        if not grown or self.layout.height != grown["least"]:
            return None
        more = f"clamp(0px, {grown['slope']} * ({width} - {grown['page']}px), {grown['most']}px)"
        return f"calc({grown['least']}px + {more})"

    def _style_next_output(self) -> None:
        from IPython import get_ipython

        shell, height = get_ipython(), self._height("100cqw - var(--jp-cell-prompt-width, 64px)")
        if shell is None or height is None:
            return
        # A notebook that is opened again shows a picture first, of the size that it was.
        name = f"cmllm-{uuid4().hex[:12]}"
        this = f".jp-OutputArea-child:has(#{name})"
        rules = (
            f"{this} {{ display: none }} {this} + * {{ container-type: inline-size }} "
            f"{this} + * > .jp-RenderedPlotly:has(.plot-container) {{ height: {height} }}"
        )
        shell.display_pub.publish({"text/html": f'<style id="{name}">{rules}</style>', "text/plain": ""})

    def to_html(self, *args: Any, **options: Any) -> str:
        """A page or a part of one, as plotly makes it; its height follows its width."""
        height = self._height("100cqw")
        if height is None:
            return str(super().to_html(*args, **options))
        figure = self.to_dict()
        del figure["layout"]["height"]
        page = plotly.io.to_html(figure, *args, **{"default_height": height, "validate": False, **options})
        return str(page) if options.get("full_html", True) else f'<div style="container-type: inline-size">{page}</div>'

    def write_html(self, file: Any, *args: Any, **options: Any) -> None:
        """Write a page, as plotly does; to a path, whole or not at all (see `files.write_whole`)."""
        beside = "directory" in (options.get("include_plotlyjs"), *args) or options.get("auto_open")
        if beside or not isinstance(file, str | PathLike):
            # What plotly writes beside the page, or opens, it must find by its own path.
            super().write_html(file, *args, **options)
            return
        options.pop("auto_open", None)
        write_text(file, self.to_html(*args, **options))

    def save(
        self, path: str | PathLike[str], columns: Literal[1, 2] = 1, *, width: float | None = None, title: bool = False
    ) -> Path:
        """Write the figure for a paper, as it is now: drawn by matplotlib, letters embedded, no browser needed.

        Args:
            path: ending in .pdf, .svg or .png (300 dots an inch).
            columns: of a two-column page that it is as wide as: 3.3 or 6.9 inches.
            width: in inches, in place of these.
            title: whether the figure's title stands above it; a paper has that in the caption.

        Raises:
            SettingsError: for another ending, or a width out of range.
            OutputError: when the file cannot be written.
            ModuleNotFoundError: without matplotlib.
        """
        from .printed import save

        return save(self, path, columns, width=width, title=title)

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
