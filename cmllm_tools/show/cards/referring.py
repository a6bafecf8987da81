"""Cards of runs and outcomes, and the table of a run's steps."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ...inputs.regions import where_text
from ...models.other_image import AgainstImage
from ...referring.comparison import SHARE, Comparison
from ...referring.outcome import Outcome
from ...referring.trace import STEP_COLUMNS, Step, Trace
from ...shown import view
from ..html import bar, card, table, text
from ..picture import map_picture, picture

# A longer run shows this many of its steps in a notebook.
ROWS = 40
# Where the share's bar stands in the table of steps: behind its number.
BAR_AT = STEP_COLUMNS.index("share") + 1


@view(Step)
def step_card(step: Step) -> Markup:
    """The step as a table of one row."""
    return card(f"{type(step).__name__} {step.number}", [], below=steps_table([step]))


@view(Trace)
def trace_card(trace: Trace) -> Markup:
    """The maps of the first and the last step on one scale, and a table of the steps."""
    title, facts = type(trace).__name__, trace.facts()
    if not trace.steps:
        return card(title, facts, picture(trace.layout.image_size, trace.image, regions=trace.regions))
    ends = trace.steps[0], trace.steps[-1]
    grids = [_share_grid(trace, step) for step in ends]
    top = max(*(float(grid.max()) for grid in grids), 1e-30)
    where = where_text(trace.regions)
    pictures = [
        map_picture(
            grid,
            trace.layout,
            trace.image,
            top=top,
            regions=trace.regions,
            caption=f"step {step.number}: {step.share:.0%} {where}",
        )
        for grid, step in zip(grids, ends, strict=True)
    ]
    return card(title, facts, *pictures, below=steps_table(trace.steps))


@view(Outcome)
def outcome_card(outcome: Outcome) -> Markup:
    """The image that was sent, with the regions; and the one that the answer was decoded against, where there is one."""
    sent, pictures = outcome.sent, []
    if isinstance(outcome.intervention, AgainstImage):
        pictures.append(picture(sent.size, outcome.intervention.pixels.numpy(), caption="decoded against"))
    shown = picture(sent.size, sent.image, regions=sent.regions, caption="sent")
    return card(type(outcome).__name__, outcome.facts(), shown, *pictures)


@view(Comparison)
def comparison_card(comparison: Comparison) -> Markup:
    """What each way was sent, and a table of the ways with a bar for the share in the region."""
    return comparison_sent(comparison, below=comparison_table(comparison))


def comparison_sent(comparison: Comparison, below: Markup | None = None) -> Markup:
    """What each way was sent, and on what the figures stand."""
    by_image: dict[str, list[str]] = {}
    for name, outcome in comparison.outcomes.items():
        by_image.setdefault(outcome.sent.image_hash, []).append(name)
    pictures = []
    for names in by_image.values():
        sent = comparison.outcomes[names[0]].sent
        pictures.append(picture(sent.size, sent.image, regions=sent.regions, caption=f"sent by {', '.join(names)}"))
    return card(type(comparison).__name__, comparison.facts(), *pictures, below=below)


def comparison_table(comparison: Comparison) -> Markup:
    """What `Comparison.table` says, as HTML."""
    at = comparison.head.index(SHARE) + 1
    rows: list[list[object]] = []
    for row in comparison.rows:
        name, *cells = row.cells(len(comparison.candidates))
        rows.append([text(name), *cells[: at - 1], bar(row.share or 0.0), *cells[at - 1 :]])
    head = comparison.head
    return table([text(head[0]), *head[1:at], text(""), *head[at:]], rows)


def steps_table(steps: Sequence[Step]) -> Markup:
    """What `Trace.table` says, as HTML with bars for the share; the middle of a long run is left out."""
    left_out = max(len(steps) - ROWS, 0)
    rows: list[list[object]] = []
    for step in [*steps[: ROWS // 2], *steps[ROWS // 2 + left_out :]]:
        rows.append([*step.cells[:BAR_AT], bar(step.share), *step.cells[BAR_AT:]])
    if left_out:
        rows.insert(ROWS // 2, [*["..."] * len(STEP_COLUMNS), f"{left_out} more steps"])
    return table([*STEP_COLUMNS[:BAR_AT], text(""), *STEP_COLUMNS[BAR_AT:]], rows)


def _share_grid(trace: Trace, step: Step) -> np.ndarray:
    """A step's mean map as (row, column), as a share of the attention on the image."""
    values = step.maps.mean(0).numpy()
    return trace.layout.raster(values / max(float(values.sum()), 1e-30))
