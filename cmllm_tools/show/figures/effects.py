"""What ways of referring do to an answer, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...analysis.frontier import Frontier
from ...analysis.intervals import FEWEST, bootstrap
from ...errors import SettingsError
from ...referring.comparison import Comparison
from .compare import curves
from .parts import must_be

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def comparison(compared: Comparison) -> Figure:
    """Each way as a point: how far it moves the answer, up, against the damage that it does, to the right.

    Up are the log-odds of the first candidate, or the share of attention in the regions where there are no candidates. The
    damage is that to the unrelated text; to the unsteered answer where the text is in no language of the model's.

    Raises:
        SettingsError: for what is no comparison, or one in which no way has figures.

    Examples:
        >>> figure = cm.figures.comparison(compared)
        >>> figure.layout.xaxis.title.text
        'damage to the unsteered answer, nats per token'
    """
    must_be(compared, Comparison, "The comparison of a figure", "from compare(...) or Comparison.load(path)")
    known = compared.plain[0] >= compared.plain[1]
    points = {}
    for row in compared.rows:
        up = row.log_odds[0] if row.log_odds else row.share
        damage = row.damage if known else row.own_damage
        if up is not None and damage is not None:
            points[row.name] = ([damage], [up])
    if not points:
        raise SettingsError("A comparison must have at least one way with figures to be drawn; this one has none.")
    what = f"log-odds of {compared.candidates[0]!r}" if compared.candidates else "share of attention in the region"
    to = "an unrelated text" if known else "the unsteered answer"
    return curves(points, f"damage to {to}, nats per token", what, compared.question)


def frontier(found: Frontier) -> Figure:
    """Each way as a curve over its strengths: how far it moves the answer, up, against the damage that it does.

    Points are means over the examples; bars are 95 % intervals of the effect, where there are enough examples for one.

    Raises:
        SettingsError: for what is no frontier.

    Examples:
        >>> example = cm.analysis.Example(scene.image, scene.question, box, "red cross", ["blue zero"])
        >>> found = cm.analysis.frontier(mllm, [example], methods=ways, factors=[0.5, 1], progress=False)
        >>> figure = cm.figures.frontier(found)
    """
    must_be(found, Frontier, "The frontier of a figure", "from analysis.frontier(...) or Frontier.load(path)")
    lines: dict[str, Any] = {}
    for curve in found.curves:
        good = np.isfinite(curve.means("effect"))
        line = curve.means("damage")[good].tolist(), curve.means("effect")[good].tolist()
        enough = found.examples >= FEWEST
        lines[curve.name] = (*line, bootstrap(curve.figure("effect")[good].T).T) if enough and good.any() else line
    to = "an unrelated text" if found.damage_to == "text" else "all that makes sense as an answer"
    words = f"{found.model}, {found.examples} example{'s' * (found.examples != 1)}"
    return curves(lines, f"damage to {to}, nats per token", "gain in log-odds", words)
