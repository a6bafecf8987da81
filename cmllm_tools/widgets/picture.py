"""What the widgets that show a map on an image share: its data, and a page without a kernel."""

import base64
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from markupsafe import Markup
from PIL import Image

from ..files import write_text
from ..inputs.regions import Region
from ..layout.visual_tokens import VisualTokenLayout
from ..show.html import rendered
from ..show.palette import DIM, OPACITY, RISE, SHADE, ramp
from ..show.picture import data_uri
from .modules import script, style
from .snapshot import Snapshot

_EXPORT = "export default"


class MapWidget(Snapshot, anywidget.AnyWidget):
    """A widget with a page of its own, and with static HTML for fronts and exports that have no widget."""

    def to_html(self) -> str:
        """One page that opens from disk without a network, at what is shown now."""
        raise NotImplementedError

    def _static(self) -> str:
        raise NotImplementedError

    def write_html(self, path: str | PathLike[str]) -> Path:
        """Write the page of `to_html` to a file.

        Raises:
            OutputError: when the file cannot be written.
        """
        return write_text(path, self.to_html())

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and beside it the static HTML."""
        bundle = super()._repr_mimebundle_(**options)
        if bundle is not None:
            bundle[0]["text/html"] = str(self._static())
        return bundle


def page(name: str, title: str, static: str, state: dict[str, Any]) -> str:
    """One page that shows a widget in this state, from disk and without a network; `static` where scripts are off."""
    return rendered(
        "widget.html",
        title=title,
        style=Markup(style("picture", name)),  # noqa: S704 (files of this package, as the module is)
        static=Markup(static),  # noqa: S704 (escaped where it was made)
        # A page's own module cannot import itself, so that its export becomes a name.
        module=Markup(script(name).replace(_EXPORT, "const widget =")),  # noqa: S704
        state=state,
    )


def picture_data(
    image: Image.Image, layout: VisualTokenLayout, regions: Iterable[Region], of: str = "attention"
) -> dict[str, Any]:
    """What `js/picture.js` needs to draw maps of this layout, as plain JSON data.

    Args:
        image: the user's, or a copy of it of any size.
        layout: where each visual token looks.
        regions: to outline.
        of: what the maps are of.
    """
    cells = layout.cells
    return {
        "image": data_uri(image),
        "size": list(layout.image_size),
        "of": of,
        "xs": _rounded([*cells[0, :, 0], cells[0, -1, 2]]),
        "ys": _rounded([*cells[:, 0, 1], cells[-1, 0, 3]]),
        "outlines": [
            {"marked": region.soft, "lines": [[_rounded(point) for point in line] for line in region.outline()]}
            for region in regions
        ],
        "palette": base64_of(ramp()),
        "opacity": OPACITY,
        "rise": RISE,
        "dim": DIM,
        "shade": SHADE,
    }


def base64_of(values: np.ndarray) -> str:
    """The array's bytes as text."""
    return base64.b64encode(values.tobytes()).decode()


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 2) for value in values]
