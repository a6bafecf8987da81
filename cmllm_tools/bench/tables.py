"""An evaluation's figures as the table that the README shows, with the interval of each."""

from collections.abc import Iterable
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


# Columns of the table of ways.
WAYS_COLUMNS = (
    'names the region\'s object, "A or B"',
    "the same, free description",
    "names something absent",
    "damage",
    "s",
)
WAYS_TITLES = {"ControlMLLMPlus": "ControlMLLM++", "Words": "coordinates in words"}
CONTROL_TITLES = {"region": "the region itself"}


def ways_rows(result: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of ways, its head first: a method and kind each, those that name the object most at the top.

    Args:
        result: of `bench.ways.evaluate_ways`.
    """
    count, rows = result["n"], []
    several = len({kind for kinds in result["methods"].values() for kind in kinds} - {"image"}) > 1
    for name, kinds in result["methods"].items():
        for kind, figures in kinds.items():
            title = WAYS_TITLES.get(name, name) + (f", {kind}" if several and kind != "image" else "")
            texts = [_percent(figures[each], count) for each in ("a_or_b", "describe")]
            low, high = figures["damage_ci"]
            damage = f"{figures['damage']:+.2f} ({low:+.2f} to {high:+.2f})"
            row = [title, *texts, f"{100 * figures['hallucinated']:.0f}", damage, f"{figures['seconds']:.2f}"]
            rows.append((figures["a_or_b"] + figures["describe"], row))
    ranked = [row for _, row in sorted(rows, key=lambda each: -each[0])]
    return [["% of scenes (95 % interval)", *WAYS_COLUMNS], *ranked]


def control_rows(result: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of controls, its head first: how often the answer follows, of each control and method."""
    controls = result["controls"]
    names = dict.fromkeys(name for found in controls.values() for name in found)
    rows = [["answer follows, % (95 % interval)", *(WAYS_TITLES.get(name, name) for name in controls)]]
    for name in names:
        cells = [_within(found[name]["follows"], found[name]["ci"]) if name in found else "" for found in controls.values()]
        rows.append([CONTROL_TITLES.get(name, name.replace("_", " ")), *cells])
    return rows


def ways_table(result: dict[str, Any]) -> str:
    """The result of `evaluate_ways` as plain text; damage is in nats per token, the last column in seconds an answer."""
    parts = [ways_rows(result), *([control_rows(result)] if result["controls"] else [])]
    tables = [text_table(rows, "<" * len(rows[0])) for rows in parts]
    return "\n\n".join([*tables, f"{result['n']} scenes, {result['seconds']:.0f} s"])


def _percent(fraction: float, count: int) -> str:
    """`97 (95 to 98)`."""
    return _within(fraction, wilson(np.array(fraction), count))


def _within(fraction: float, ends: Iterable[float]) -> str:
    low, high = ends
    return f"{100 * fraction:.0f} ({100 * low:.0f} to {100 * high:.0f})"
