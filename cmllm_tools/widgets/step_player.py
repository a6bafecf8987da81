"""A trace played step by step in the browser: map, energy, share and answer, without the kernel and without plotly."""

import warnings
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image

from ..errors import TraceError
from ..layout import RegionWarning
from ..trace import Step, Trace
from .picture import MapWidget, base64_of, module, page, picture_data, style


class StepPlayer(MapWidget):
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

    _esm = module("step_player")
    _css = style("step_player")

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
        return page("step_player", self.trace.question, self._static(), state)

    def _static(self) -> str:
        return self.trace._repr_html_()

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
    grids = layout.raster(np.stack([step.maps.numpy() for step in steps])).astype(float)
    grids = grids.reshape(*grids.shape[:2], -1)
    peaks = np.maximum(grids.max((0, 2)), 1e-30)
    energy, share = _by_layer(trace, steps)
    return {
        **picture_data(Image.fromarray(trace.image), layout, trace.regions),
        "question": trace.question,
        "method": type(trace.method).__name__,
        "model": trace.model["name"],
        "stopped": trace.stopped,
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
        "maps": base64_of(np.round(grids / peaks[:, None] * 65535).astype("<u2")),
        "peaks": peaks.tolist(),
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
