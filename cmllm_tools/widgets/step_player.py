"""A trace played step by step in the browser: map, energy, share and answer, without the kernel and without plotly."""

import base64
import json
import warnings
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image

from ..display import data_uri, palette
from ..errors import TraceError
from ..layout import RegionWarning
from ..trace import Step, Trace, check_writable

_HERE = Path(__file__).parent
_MODULE, _STYLE = _HERE / "step_player.js", _HERE / "step_player.css"
_EXPORT = "export default"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>
{style}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 980px; margin: 1.5em auto; padding: 0 1em }}
</style></head><body>
<noscript>{static}</noscript>
<div id="player"></div>
<script type="application/json" id="state">{state}</script>
<script type="module">
{module}
// Stands in for the widget's model, as there is no kernel to tell.
const state = JSON.parse(document.getElementById("state").textContent);
const listeners = {{}};
const model = {{
  get: (name) => state[name],
  set: (name, value) => {{
    if (state[name] === value) return;
    state[name] = value;
    for (const listener of listeners["change:" + name] ?? []) listener();
  }},
  on: (event, listener) => (listeners[event] ??= []).push(listener),
  off: () => {{}},
  save_changes: () => {{}},
}};
player.render({{ model, el: document.getElementById("player") }});
</script></body></html>
"""


class StepPlayer(anywidget.AnyWidget):
    """A slider over the steps of a trace: the map on the image, energy and share with a cursor, the answer.

    Everything is sent to the browser once, so that stepping needs no kernel, also when it is busy or gone. Keys: left and
    right, home and end, space to play. The trace is only read; after it has grown, `refresh` shows the new steps.

    Args:
        trace: with at least one step.
        step: shown first, as an index into `trace.steps`; negative counts from the end.
        layer: number of one of the trace's layers, or None for their mean.

    Raises:
        TraceError: for a trace without steps, or a step or layer it does not have.
    """

    _esm = _MODULE
    _css = _STYLE

    data = traitlets.Dict().tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, trace: Trace, step: int = 0, layer: int | None = None, **options: Any):
        self.trace = trace
        super().__init__(data=player_data(trace), step=step, layer=layer, **options)

    def __repr__(self) -> str:
        layers = "all layers" if self.layer is None else f"layer {self.layer}"
        return f"StepPlayer(step {self.step} of {len(self.trace)}, {layers}, {self.trace!r})"

    def refresh(self) -> None:
        """Show what the trace has become since it was last read."""
        self.data = player_data(self.trace)

    def to_html(self) -> str:
        """One page that opens from disk without a network, at the step and layer shown now."""
        state = {"data": self.data, "step": self.step, "layer": self.layer}
        module = _MODULE.read_text(encoding="utf-8")
        return _PAGE.format(
            title=escape(self.trace.question),
            style=_STYLE.read_text(encoding="utf-8"),
            static=self.trace._repr_html_(),
            # A page's own module cannot import itself, so that its export becomes a name.
            module=module.replace(_EXPORT, "const player ="),
            # "<" is escaped so that no text can end the script element.
            state=json.dumps(state).replace("<", "\\u003c"),
        )

    def write_html(self, path: str | PathLike) -> Path:
        """Write the page of `to_html` to a file.

        Raises:
            TraceError: when the file cannot be written.
        """
        path = check_writable(path)
        path.write_text(self.to_html(), encoding="utf-8")
        return path

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and beside it the trace's static HTML for fronts and exports that have no widget."""
        bundle = super()._repr_mimebundle_(**options)
        if bundle is not None:
            bundle[0]["text/html"] = str(self.trace._repr_html_())
        return bundle

    @traitlets.validate("step")
    def _check_step(self, proposal: Any) -> int:
        step, count = proposal["value"], len(self.data["steps"]) if self.data else len(self.trace)
        if not -count <= step < count:
            raise TraceError(f"The player's step must lie in {-count}..{count - 1}, as the trace has {count}; got {step}.")
        return step % count

    @traitlets.validate("layer")
    def _check_layer(self, proposal: Any) -> int | None:
        layer = proposal["value"]
        if layer is not None and layer not in self.trace.layers:
            raise TraceError(
                f"The player's layer must be one that the trace holds, {list(self.trace.layers)}, or None for their mean; "
                f"got {layer}."
            )
        return layer


def player_data(trace: Trace) -> dict[str, Any]:
    """What the browser needs of a trace, as plain JSON data.

    Maps are uint16 in base64, (step, layer, cell), scaled to each layer's highest value, which `peaks` gives. `energy` and
    `share` are (step, 1 + layer): of the run, then of each layer alone.

    Raises:
        TraceError: for a trace without steps.
    """
    if not trace.steps:
        raise TraceError("A player needs a trace with at least one step; this one has none.")
    layout = trace.layout
    # A running optimisation may add steps meanwhile.
    steps = list(trace.steps)
    grids = np.stack([[layout.raster(layer) for layer in step.maps.numpy()] for step in steps]).astype(float)
    grids = grids.reshape(*grids.shape[:2], -1)
    peaks = np.maximum(grids.max((0, 2)), 1e-30)
    energy, share = _by_layer(trace, steps)
    cells = layout.cells
    return {
        "question": trace.question,
        "method": type(trace.method).__name__,
        "model": trace.model["name"],
        "stopped": trace.stopped,
        "image": data_uri(Image.fromarray(trace.image)),
        "size": list(layout.image_size),
        "xs": _rounded([*cells[0, :, 0], cells[0, -1, 2]]),
        "ys": _rounded([*cells[:, 0, 1], cells[-1, 0, 3]]),
        "outlines": [
            {"marked": region.soft, "lines": [[_rounded(point) for point in line] for line in region.outline()]}
            for region in trace.regions
        ],
        "steps": [
            {
                "number": step.number,
                "answer": step.answer,
                "latent": step.latent_norm,
                "gradient": step.gradient_norm,
                "seconds": step.seconds,
            }
            for step in steps
        ],
        "layers": list(trace.layers),
        "energy": energy,
        "share": share,
        "maps": _base64(np.round(grids / peaks[:, None] * 65535).astype("<u2")),
        "peaks": peaks.tolist(),
        "palette": _base64(palette()),
    }


def _by_layer(trace: Trace, steps: list[Step]) -> tuple[list[list[float]], list[list[float]]]:
    maps = torch.stack([step.maps for step in steps])
    with warnings.catch_warnings():
        # Said when the run began.
        warnings.simplefilter("ignore", RegionWarning)
        target = trace.target.to(maps)
    energies, shares = target.energy(maps).tolist(), target.share(maps).tolist()
    return (
        [[step.energy, *layers] for step, layers in zip(steps, energies, strict=True)],
        [[step.share, *layers] for step, layers in zip(steps, shares, strict=True)],
    )


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 2) for value in values]


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
