"""A trace played step by step in the browser: map, energy, share and answer, without the kernel and without plotly."""

import warnings
from itertools import takewhile
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image

from ..errors import TraceError
from ..inputs.regions import where_text
from ..layout.sheet import numbers_of, own_region, sheet_corners
from ..layout.video import VideoLayout
from ..layout.visual_tokens import RegionWarning, VisualTokenLayout
from ..notation import layers_text
from ..referring.trace import Step, Trace
from ..strict import kind_of, shown, whole_number, whole_number_or_none
from .modules import script, style
from .picture import MapWidget, base64_of, page, picture_data


class StepPlayer(MapWidget):
    """A slider over the steps of a trace: the map on the image, energy and share with a cursor, the answer.

    Of a video a second slider is over its frames. Everything is sent to the browser once, so that stepping needs no kernel,
    also when it is busy or gone. Keys: left and right, home and end, space to play, up and down for the frames. The
    trace is only read; after it has grown, `refresh` shows the new steps.

    Args:
        trace: with at least one step.
        step: shown first, as an index into `trace.steps`; negative counts from the end. The last one, as the map of an
            unsteered model shows least.
        layer: number of one of the trace's layers, or None for their mean.
        frame: of a video, shown first; the first one that the regions are on when None.

    Raises:
        TraceError: for a trace without steps, or a step, layer or frame it does not have.

    Examples:
        >>> player = cm.widgets.StepPlayer(trace)
    """

    _esm = script("step_player")
    _css = style("picture", "step_player")

    data = traitlets.Dict().tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(None, allow_none=True).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)

    def __init__(self, trace: Trace, step: int = -1, layer: int | None = None, *, frame: int | None = None, **options: Any):
        self.trace = kind_of(trace, Trace, "A player's trace must be one from optimize or Trace.load", TraceError)
        step = whole_number(step, "The player's step", error=TraceError)
        layer = whole_number_or_none(layer, "The player's layer", error=TraceError)
        frame = whole_number_or_none(frame, "The player's frame", error=TraceError)
        first = min(frames_of(trace)) if frame is None else frame
        super().__init__(data=player_data(trace), step=step, layer=layer, frame=first, **options)

    def __repr__(self) -> str:
        layers = layers_text(self.trace.layers if self.layer is None else [self.layer])
        return f"StepPlayer(step {self.step} of {len(self.trace) - 1}, {layers}, {self.trace!r})"

    def refresh(self) -> None:
        """Show what the trace has become since it was last read: only steps that are new, or answered since, are sent."""
        shown, steps = self.data["steps"], list(self.trace.steps)
        kept = sum(1 for _ in takewhile(lambda pair: pair[0]["answer"] == pair[1].answer, zip(shown, steps, strict=False)))
        # In place, as a trait that is set anew is sent whole; a front that connects later asks for all of it.
        shown[kept:] = steps_data(self.trace, steps[kept:])
        self.data["stopped"] = self.trace.stopped
        if shown[kept:]:
            self.send({"from": kept, "steps": shown[kept:]})
        if self.trace.stopped != "running":
            self.keep()

    def to_html(self) -> str:
        """One page that opens from disk without a network, at the step and layer shown now."""
        state = {"data": self.data, "step": self.step, "layer": self.layer, "frame": self.frame}
        return page("step_player", self.trace.question, self._static(), state)

    def _static(self) -> str:
        return self.trace._repr_html_()

    @traitlets.validate("step")
    def _check_step(self, proposal: Any) -> int:
        step, count = proposal["value"], len(self.data["steps"]) if self.data else len(self.trace)
        if not -count <= step < count:
            raise TraceError(
                f"The player's step must lie in {-count}..{count - 1}, as the trace has {count}; got {shown(step)}."
            )
        return int(step % count)

    @traitlets.validate("layer")
    def _check_layer(self, proposal: Any) -> int | None:
        layer = proposal["value"]
        if layer is not None and layer not in self.trace.layers:
            raise TraceError(
                f"The player's layer must be one that the trace holds, {list(self.trace.layers)}, or None for their mean; "
                f"got {shown(layer)}."
            )
        result: int | None = layer
        return result

    @traitlets.validate("frame")
    def _check_frame(self, proposal: Any) -> int:
        frame, count = proposal["value"], len(self.trace.layout.sizes) if isinstance(self.trace.layout, VideoLayout) else 1
        if not 0 <= frame < count:
            raise TraceError(f"The player's frame must lie in 0..{count - 1}, of {count} in the trace; got {shown(frame)}.")
        return int(frame)


def player_data(trace: Trace) -> dict[str, Any]:
    """What the browser needs of a trace, as plain JSON data.

    Raises:
        TraceError: for a trace without steps.
    """
    if not trace.steps:
        raise TraceError("A player needs a trace with at least one step; this one has none.")
    return {
        **_picture(trace),
        "question": trace.question,
        "where": where_text(trace.regions),
        "method": type(trace.method).__name__,
        "model": trace.model["name"],
        "stopped": trace.stopped,
        "layers": list(trace.layers),
        "all_layers": layers_text(trace.layers),
        # A running optimisation may add steps meanwhile.
        "steps": steps_data(trace, list(trace.steps)),
    }


def frames_of(trace: Trace) -> set[int]:
    """Numbers of the frames that a trace's regions are on; 0 where it is of no video."""
    if not isinstance(trace.layout, VideoLayout):
        return {0}
    return {number for region in trace.regions for number in numbers_of(region, trace.layout.sizes)}


def _picture(trace: Trace) -> dict[str, Any]:
    """The picture that maps are drawn on; of a video those of all frames, and where in a map the cells of each begin."""
    image, layout = Image.fromarray(trace.image), trace.layout
    if not isinstance(layout, VideoLayout):
        return picture_data(image, layout, trace.regions)
    scale, sizes, own = image.width / layout.image_size[0], layout.sizes, layout.layouts[0]
    frames = []
    for number, (left, top) in enumerate(sheet_corners(sizes)):
        corners = (left, top, left + sizes[0][0], top + sizes[0][1])
        regions = [own_region(each, sizes) for each in trace.regions if number in numbers_of(each, sizes)]
        x0, y0, x1, y1 = (round(corner * scale) for corner in corners)
        drawn = picture_data(image.crop((x0, y0, x1, y1)), own, regions)
        begin = number // layout.frames_per_token * int(np.prod(own.grid))
        frames.append({"image": drawn["image"], "outlines": drawn["outlines"], "label": f"frame {number}", "begin": begin})
    return drawn | frames[0] | {"frames": frames, "on": "video"}


def _grids(layout: VisualTokenLayout, maps: np.ndarray) -> np.ndarray:
    """(layer, row, column) of maps (layer, visual token); of a video the frames' rows one below the other."""
    if not isinstance(layout, VideoLayout):
        return layout.raster(maps)
    own = layout.layouts[0]
    return own.raster(maps.reshape(len(maps), -1, len(own))).reshape(len(maps), -1, own.grid[1])


def steps_data(trace: Trace, steps: list[Step]) -> list[dict[str, Any]]:
    """What the browser needs of some steps of a trace.

    Maps are uint16 in base64, (layer, cell), scaled to each layer's highest value, which `peaks` gives. `energy` and
    `share` are those of the run, then of each layer alone.
    """
    if not steps:
        return []
    maps = torch.stack([step.maps for step in steps])
    with warnings.catch_warnings():
        # Said when the run began.
        warnings.simplefilter("ignore", RegionWarning)
        target = trace.target.to(maps)
    energies, shares = target.energy(maps).tolist(), target.share(maps).tolist()
    data = []
    for step, energy, share in zip(steps, energies, shares, strict=True):
        grids = _grids(trace.layout, step.maps.numpy()).astype(float)
        peaks = np.maximum(grids.max((1, 2), keepdims=True), 1e-30)
        data.append(
            {
                "number": step.number,
                "answer": step.answer,
                "latent": step.latent_norm,
                "gradient": step.gradient_norm,
                "seconds": step.seconds,
                "energy": [step.energy, *energy],
                "share": [step.share, *share],
                "maps": base64_of(np.round(grids / peaks * 65535).astype("<u2")),
                "peaks": peaks.ravel().tolist(),
            }
        )
    return data
