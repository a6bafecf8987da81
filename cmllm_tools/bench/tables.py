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


def smol_table(result: dict[str, Any]) -> str:
    """The result of `evaluate_smol` as plain text: per cent of the scenes with 95 % intervals, damage in nats per token."""
    count, parts = result["n"], [f"weights  {result['weights']}"]
    for style, found in (("styles trained on", result), ("held-out style", result.get("held_out_style", {}))):
        if "unsteered" not in found:
            continue
        plain = found["unsteered"]
        rows = [[f"{style}, % of scenes", '"A or B"', "name", "damage"]]
        rows.append(["unsteered", _percent(plain["a_or_b"], count), f"{_percent(plain['names'], count)} *", ""])
        for method, kinds in found.items():
            if not isinstance(kinds, dict) or method in ("unsteered", "tower", "held_out_style"):
                continue
            for kind, figures in kinds.items():
                low, high = figures["damage_ci"]
                damage = f"{figures['damage']:+.2f} ({low:+.2f} to {high:+.2f})"
                row = [_percent(figures[name], count) for name in ("a_or_b", "describe")]
                rows.append([f"{TITLES.get(method, method)}, {kind}", *row, damage])
        parts += ["", text_table(rows, "<" * len(rows[0]))]
    eyes = ", ".join(f"{style.replace('_', ' ')} {share:.0%}" for style, share in result["tower"].items())
    parts += ["", "* names a thing of the scene, and nothing else", f"visual tokens read right: {eyes}"]
    return "\n".join([*parts, f"{count} scenes a style, {result['seconds']:.0f} s"])


def _percent(fraction: float, count: int) -> str:
    """`97 (95 to 98)`."""
    low, high = 100 * wilson(np.array(fraction), count)
    return f"{100 * fraction:.0f} ({low:.0f} to {high:.0f})"
