"""Cards of runs and outcomes, and the table of a run's steps."""

from collections.abc import Sequence

import numpy as np

from ...inputs.regions import where_text
from ...referring.outcome import Outcome
from ...referring.trace import Step, Trace
from ...shown import view
from ..picture import Html, bar, card, picture, table

# A longer run shows this many of its steps in a notebook.
ROWS = 40


@view(Step)
def step_card(step: Step) -> Html:
    """The step as a table of one row."""
    return card(f"{type(step).__name__} {step.number}", [], below=steps_table([step]))


@view(Trace)
def trace_card(trace: Trace) -> Html:
    """The maps of the first and the last step on one scale, and a table of the steps."""
    title, facts = type(trace).__name__, trace.facts()
    if not trace.steps:
        return card(title, facts, _picture(trace, None, ""))
    ends = trace.steps[0], trace.steps[-1]
    grids = [_grid(trace, step) for step in ends]
    top = max(*(float(grid.max()) for grid in grids), 1e-30)
    pictures = [
        _picture(trace, grid / top, f"step {step.number}: {step.share:.0%} {where_text(trace.regions)}")
        for grid, step in zip(grids, ends, strict=True)
    ]
    return card(title, facts, *pictures, below=steps_table(trace.steps))


@view(Outcome)
def outcome_card(outcome: Outcome) -> Html:
    """The image that was sent, with the regions."""
    shown = picture(outcome.sent.size, outcome.sent.image, regions=outcome.regions, caption="sent")
    return card(type(outcome).__name__, outcome.facts(), shown)


def steps_table(steps: Sequence[Step]) -> Html:
    """What `Trace.table` says, as HTML with bars for the share; the middle of a long run is left out."""
    left_out = max(len(steps) - ROWS, 0)
    rows: list[list[object]] = []
    for step in [*steps[: ROWS // 2], *steps[ROWS // 2 + left_out :]]:
        gradient = "-" if step.gradient_norm is None else f"{step.gradient_norm:.3g}"
        numbers = [f"{step.energy:.4f}", f"{step.share:.1%}", bar(step.share), f"{step.latent_norm:.3g}", gradient]
        rows.append([step.number, *numbers, f"{step.seconds:.3f}", step.answer or ""])
    if left_out:
        rows.insert(ROWS // 2, [*["..."] * 7, f"{left_out} more steps"])
    return table(["step", "energy", "share", Html(""), "|latent|", "|gradient|", "seconds", "answer"], rows)


def _grid(trace: Trace, step: Step) -> np.ndarray:
    """A step's mean map as (row, column), as a share of the attention on the image."""
    values = step.maps.mean(0).numpy()
    return trace.layout.raster(values / max(float(values.sum()), 1e-30))


def _picture(trace: Trace, heat: np.ndarray | None, caption: str) -> Html:
    layout = trace.layout
    return picture(layout.image_size, trace.image, cells=layout.cells, heat=heat, regions=trace.regions, caption=caption)
