"""An evaluation's figures as the table that the README shows, with the interval of each."""

from typing import Any

import numpy as np

from ..analysis.intervals import wilson
from ..notation import text_table

# Columns of the table, and what each is of a method's figures for one kind of region.
COLUMNS = {
    'names the region\'s object, "A or B"': "a_or_b",
    "the same, free description": "describe",
    "names something absent": "hallucinated",
}
TITLES = {"controlmllm": "ControlMLLM", "controlmllm_plus": "ControlMLLM++", "key_steering": "KeySteering"}
KINDS = {"random_background": "control: a box in the background"}


def evaluation_table(result: dict[str, Any]) -> str:
    """The result of `evaluate` as plain text: per cent of the scenes, with Wilson's 95 % interval of each figure.

    Args:
        result: of `bench.embedded.evaluate`.
    """
    count, unsteered = result["n"], result["unsteered"]
    rows = [["% of scenes (95 % interval)", *COLUMNS]]
    invalid = f"{_percent(1 - unsteered['describe_valid'], count)} *"
    rows.append(["unsteered", _percent(unsteered["a_or_b"], count), "", invalid])
    for method, kinds in result.items():
        if not isinstance(kinds, dict) or method == "unsteered":
            continue
        for kind, figures in kinds.items():
            title = f"{TITLES.get(method, method)}, {KINDS.get(kind, kind)}"
            rows.append([title, *(_percent(figures[name], count) for name in COLUMNS.values())])
    overlays = ", ".join(f"{name} {fraction:.0%}" for name, fraction in unsteered["marked_by_overlay"].items())
    return "\n".join(
        [
            text_table(rows, "<" * len(rows[0])),
            "",
            "* or names nothing of the scene",
            f"an object marked with an overlay is named in {_percent(unsteered['marked'], count)} % ({overlays})",
            f"{count} scenes, {result['seconds']:.0f} s",
        ]
    )


def _percent(fraction: float, count: int) -> str:
    """`97 (95 to 98)`."""
    low, high = 100 * wilson(np.array(fraction), count)
    return f"{100 * fraction:.0f} ({low:.0f} to {high:.0f})"
