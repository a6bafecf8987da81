"""HTML pages that open from disk without a network: about a run (answers, player, steps, settings), or of any results."""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import SettingsError, TraceError
from ..files import write_text
from ..inputs.regions import short, where_text
from ..referring.trace import Trace
from ..strict import kind_of, several, shown
from . import figures
from .html import rendered


def report_html(trace: Trace) -> str:
    """The page as a string; plotly.js is inlined once.

    Raises:
        TraceError: for what is no trace, or one without steps.
    """
    kind_of(trace, Trace, "A report is of a Trace, from optimize or Trace.load", TraceError)
    if not trace.steps:
        raise TraceError("A report needs a trace with at least one step; this one has none.")
    settings = {
        "model": trace.model,
        "method": trace.method.to_json(),
        "regions": [region.to_json() for region in trace.regions],
        "text": trace.text,
        "image_sha256": trace.image_hash,
        "seed": trace.seed,
        "versions": trace.versions,
    }
    answers = ["not asked for" if step.answer is None else step.answer for step in (trace.steps[0], trace.steps[-1])]
    return rendered(
        "report.html",
        title=trace.question,
        before=answers[0],
        after=answers[1],
        player=_drawn(figures.step_player(trace), include_plotlyjs=True, auto_play=False),
        rows=[step.cells for step in trace.steps],
        where=short(where_text(trace.regions)),
        stopped=trace.stopped,
        settings=json.dumps(settings, indent=1),
    )


def write_report(trace: Trace, path: str | PathLike[str]) -> Path:
    """Write the page to a file.

    Raises:
        OutputError: when the file cannot be written.
        TraceError: for a trace without steps.
    """
    return write_text(path, report_html(trace))


_PARTS = "A page's parts must be several texts, results' _repr_html_() or figures"


def write_page(title: str, parts: Sequence[Any], path: str | PathLike[str]) -> Path:
    """Write a page of static HTML and plotly figures; plotly.js is inlined once.

    Args:
        title: of the page.
        parts: each a result's `_repr_html_()`, a figure, or plain text.
        path: of the file.

    Raises:
        OutputError: when the file cannot be written.
        SettingsError: for parts that are none of these, or a title that is no text.
    """
    kind_of(title, str, "A page's title must be a text")
    parts = several(parts, _PARTS)
    for part in parts:
        if not isinstance(part, str) and not callable(getattr(part, "to_html", None)):
            raise SettingsError(f"{_PARTS}; got {shown(part)}.")
    drawn = [part for part in parts if not isinstance(part, str)]
    body = [part if isinstance(part, str) else _drawn(part, include_plotlyjs=part is drawn[0]) for part in parts]
    return write_text(path, rendered("page.html", title=title, parts=body))


def _drawn(figure: Any, **options: Any) -> Markup:
    """A plotly figure as a part of a page; the figures have escaped their texts."""
    return Markup(figure.to_html(full_html=False, **options))  # noqa: S704
