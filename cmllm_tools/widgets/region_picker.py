"""A widget to draw regions on an image: box, mask, scribble, point; with the visual tokens that see them."""

import warnings
from base64 import b64encode
from io import BytesIO
from typing import Any

import anywidget
import numpy as np
import traitlets
from markupsafe import Markup
from PIL import Image

from ..errors import ImageError, RegionError
from ..inputs.images import ImageSource, read_image
from ..inputs.regions import Region, Regions, Repeated, as_regions, region_from_json
from ..layout.visual_tokens import RegionWarning, VisualTokenLayout
from ..referring.energy import checked_sigma
from ..referring.target import Target
from ..show.picture import draw_outlines
from ..strict import kind_of
from .checked import Checked
from .closing import all_or_none
from .modules import script, style
from .snapshot import Snapshot

# The widget shows at most 640 px; twice that stays sharp on dense screens. Regions do not depend on it.
SENT_PIXELS = 1280
STATIC_PIXELS = 640
# A PNG above this many bytes is a photograph, which JPEG stores in a fraction of them.
LARGEST_PNG = 150_000


class RegionPicker(Snapshot, anywidget.AnyWidget):
    """Draw regions on an image with the mouse, touch or keys.

    `regions` is a tuple of `Box`, `Mask`, `Scribble` and `Point` in pixels of the image, however large it is shown; setting
    it draws them. `picker.observe(listener, "regions")` calls the listener after each drawing. A drawing that is no valid
    region leaves `regions` as they were, and the widget shows the words of the error.

    The trait `layout` of every Jupyter widget is its CSS; what is given here as `layout` is the trait `token_layout`.

    Args:
        image: path, PIL image or uint8 array, as for `read_image`; with a layout, the prompt's image (`prompt.image`).
        regions: to start with, one or several.
        layout: of the prompt (`prompt.layout`): shows the visual tokens, tinted by the weight that each gets.
        sigma: width of the Gaussian of the distance to a scribble or point, above 0; see `soft_energy`.

    Raises:
        ImageError: when the image cannot be read, or has not the size that the layout was made for.
        RegionError: for a region outside the image or outside what the layout sees, or for a sigma that is not above 0.

    Examples:
        >>> picker = cm.widgets.RegionPicker(prompt.image, box, layout=prompt.layout)
        >>> picker.region
        Box(x0=146, y0=79, x1=192, y1=127)
    """

    _esm = script("region_picker")
    _css = style("region_picker")

    regions: Any = Checked(())
    token_layout: Any = traitlets.Instance(VisualTokenLayout, allow_none=True)
    sigma: Any = traitlets.Float(0.1)

    # What the module reads. `_regions` (as of `Region.to_json`) and `_error` are also written by it.
    _image = traitlets.Bytes().tag(sync=True)
    _size: Any = traitlets.List().tag(sync=True)
    _regions: Any = traitlets.List().tag(sync=True)
    _boxes: Any = traitlets.List().tag(sync=True)
    _weights: Any = traitlets.List().tag(sync=True)
    _error = traitlets.Unicode().tag(sync=True)
    _note = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        image: ImageSource,
        regions: Regions = (),
        layout: VisualTokenLayout | None = None,
        *,
        sigma: float = 0.1,
    ):
        self._picture = read_image(image)
        self._small = _reduced(self._picture, STATIC_PIXELS)
        self._last: Any = None
        with all_or_none():
            super().__init__(_image=_encoded(self._picture, SENT_PIXELS)[1], _size=list(self._picture.size))
            self.sigma = checked_sigma(sigma)
            if layout is not None:
                self.token_layout = kind_of(
                    layout, VisualTokenLayout, "A layout must be a VisualTokenLayout, as prompt.layout", RegionError
                )
            self.regions = regions

    @property
    def image(self) -> Image.Image:
        """The image that is drawn on, upright RGB."""
        return self._picture

    @property
    def region(self) -> Region | None:
        """The last region; None where there is none. Setting it replaces all regions, and None clears them."""
        return self.regions[-1] if self.regions else None

    @region.setter
    def region(self, region: Region | None) -> None:
        self.regions = () if region is None else (region,)

    def weights(self) -> np.ndarray:
        """Weight of each visual token in the regions, as the tint shows it: (visual token,) in 0..1; see `Target.weights`.

        Empty without a layout, zero without regions.
        """
        return self._measured(self.regions, self.token_layout, self.sigma)[0]

    @traitlets.validate("regions")
    def _check_regions(self, proposal: Any) -> tuple[Region, ...]:
        given = proposal["value"]
        regions = () if isinstance(given, list | tuple) and not given else as_regions(given)
        if self.token_layout is not None:
            regions = self.token_layout.on_sheet(regions) if regions else ()
        for region in regions:
            if isinstance(region, Repeated):
                raise RegionError(
                    f"A picker's regions are each on one frame, as Box(..., image=3), to be drawn there; got {region!r}."
                )
            region.check(*self._picture.size)
        self._measured(regions, self.token_layout, self.sigma)
        return regions

    @traitlets.validate("token_layout")
    def _check_layout(self, proposal: Any) -> VisualTokenLayout | None:
        layout = proposal["value"]
        if layout is not None and layout.image_size != self._picture.size:
            (width, height), (across, down) = self._picture.size, layout.image_size
            raise ImageError(
                f"A layout must be of the image that is shown; got an image of {width} x {height} px and a layout for "
                f"{across} x {down} px. Give prompt.image with prompt.layout."
            )
        self._measured(self.regions, layout, self.sigma)
        result: VisualTokenLayout | None = layout
        return result

    @traitlets.validate("sigma")
    def _check_sigma(self, proposal: Any) -> float:
        if not proposal["value"] > 0:
            raise RegionError(f"sigma must be above 0; got {proposal['value']}.")
        return checked_sigma(proposal["value"])

    @traitlets.observe("token_layout")
    def _show_layout(self, change: Any) -> None:
        layout = change["new"]
        boxes = [] if layout is None else np.clip(layout.boxes, 0, [*layout.image_size] * 2).round(2).tolist()
        with self.hold_sync():
            self._boxes = boxes
            self._show_weights()

    @traitlets.observe("regions")
    def _show_regions(self, change: Any) -> None:
        with self.hold_sync():
            self._error = ""
            self._regions = [region.to_json() for region in change["new"]]
            self._show_weights()
        self.keep()

    @traitlets.observe("sigma")
    def _show_weights(self, _change: Any = None) -> None:
        weights, self._note = self._measured(self.regions, self.token_layout, self.sigma)
        self._weights = weights.astype(float).round(3).tolist()

    @traitlets.observe("_regions")
    def _take_drawn(self, change: Any) -> None:
        """Make regions of what was drawn, or put the last valid ones back."""
        stored = [region.to_json() for region in self.regions]
        if change["new"] == stored:
            return
        known = list(zip(stored, self.regions, strict=True))
        try:
            self.regions = [
                next((region for data, region in known if data == drawn), None)
                or region_from_json(drawn, self._picture.size)
                for drawn in change["new"]
            ]
        except RegionError as error:
            with self.hold_sync():
                self._regions = stored
                self._error = str(error)

    def _measured(
        self, regions: tuple[Region, ...], layout: VisualTokenLayout | None, sigma: float
    ) -> tuple[np.ndarray, str]:
        """Weight of each visual token, and what the layout warns of. Raises RegionError as the layout does."""
        if layout is None:
            return np.zeros(0, np.float32), ""
        if not regions:
            return np.zeros(len(layout), np.float32), ""
        # Asked for twice for each drawing, to check it and to show it; a second on a mask of twelve megapixels.
        if self._last is None or self._last[0] is not regions or self._last[1:3] != (layout, sigma):
            # Shown in the widget, where the person who draws looks, instead of printed below it.
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", RegionWarning)
                weights = Target.of(layout, regions, sigma).weights().numpy()
            self._last = (regions, layout, sigma, (weights, " ".join(str(warning.message) for warning in caught)))
        result: tuple[np.ndarray, str] = self._last[3]
        return result

    def __repr__(self) -> str:
        width, height = self._picture.size
        drawn = ", ".join(map(repr, self.regions)) or "no region yet"
        return f"RegionPicker(image {width} x {height} px: {drawn})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The widget, and beside it a picture for readers without a kernel: GitHub, nbconvert."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        outlined = self._small.copy()
        draw_outlines(outlined, self.regions, outlined.width / self._picture.width, 2)
        kind, picture = _encoded(outlined, STATIC_PIXELS)
        source = f"data:{kind};base64,{b64encode(picture).decode('ascii')}"
        return {**data, "text/html": str(Markup('<img src="{}" alt="{}">').format(source, repr(self)))}, metadata


def _encoded(image: Image.Image, longest: int) -> tuple[str, bytes]:
    """MIME type and bytes of an image, its longer side reduced to `longest` px: PNG, or JPEG for a large photograph."""
    image = _reduced(image, longest)
    for kind, options in (("png", {}), ("jpeg", {"quality": 90})):
        file = BytesIO()
        image.save(file, kind, **options)
        if file.tell() <= LARGEST_PNG:
            break
    return f"image/{kind}", file.getvalue()


def _reduced(image: Image.Image, longest: int) -> Image.Image:
    scale = min(1.0, longest / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0) if scale < 1 else image
