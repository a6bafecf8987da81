"""HTML pages that open from disk without a network: about a run (answers, player, steps, settings), or of any results."""

import json
from collections.abc import Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from . import figures
from .errors import TraceError
from .trace import Step, Trace, check_writable

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1020px; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }} th, td {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }}
td:last-child, th:last-child {{ text-align: left }}
.answers td, .answers th {{ text-align: left }}
pre {{ background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 13px }}
</style></head><body>
"""
_PAGE = """<h1>{title}</h1>
<table class="answers"><tr><th>before steering</th><td>{before}</td></tr><tr><th>after</th><td>{after}</td></tr></table>
{player}
<h2>Steps</h2>
<table><tr><th>step</th><th>energy</th><th>share in region</th><th>latent norm</th><th>gradient norm</th><th>seconds</th>
<th>answer</th></tr>
{rows}
</table>
<p>Ended: {stopped}.</p>
<h2>To reproduce</h2>
<pre>{settings}</pre>
</body></html>
"""


def report_html(trace: Trace) -> str:
    """The page as a string; plotly.js is inlined once.

    Raises:
        TraceError: for a trace without steps.
    """
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
    return (_HEAD + _PAGE).format(
        title=escape(trace.question),
        before=_answer(trace.steps[0]),
        after=_answer(trace.steps[-1]),
        player=figures.step_player(trace).to_html(full_html=False, include_plotlyjs=True, auto_play=False),
        rows="\n".join(_row(step) for step in trace.steps),
        stopped=escape(trace.stopped),
        settings=escape(json.dumps(settings, indent=1)),
    )


def write_report(trace: Trace, path: str | PathLike) -> Path:
    """Write the page to a file.

    Raises:
        TraceError: when the file cannot be written.
    """
    path = check_writable(path)
    path.write_text(report_html(trace), encoding="utf-8")
    return path


def write_page(title: str, parts: Sequence[Any], path: str | PathLike) -> Path:
    """Write a page of static HTML and plotly figures; plotly.js is inlined once.

    Args:
        title: of the page.
        parts: each a result's `_repr_html_()`, or a figure.
        path: of the file.

    Raises:
        TraceError: when the file cannot be written.
    """
    path = check_writable(path)
    drawn = [part for part in parts if not isinstance(part, str)]
    body = [
        part if isinstance(part, str) else part.to_html(full_html=False, include_plotlyjs=part is drawn[0])
        for part in parts
    ]
    page = "\n".join([_HEAD.format(title=escape(title)), f"<h1>{escape(title)}</h1>", *body, "</body></html>\n"])
    path.write_text(page, encoding="utf-8")
    return path


def _answer(step: Step) -> str:
    return "not asked for" if step.answer is None else escape(step.answer)


def _row(step: Step) -> str:
    gradient = "" if step.gradient_norm is None else f"{step.gradient_norm:.3g}"
    cells = [
        str(step.number),
        f"{step.energy:.4f}",
        f"{step.share:.1%}",
        f"{step.latent_norm:.3g}",
        gradient,
        f"{step.seconds:.3f}",
        escape(step.answer or ""),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
