"""Effect against damage: `python -m benchmarks.frontier [--model embedded|smol] [--n 20] [--json]`.

Each method at several strengths, on held-out scenes (boxes, "is it a A or a B?"): how far the answer's log-odds move to the
region's object, for how many nats per token of damage.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

import cmllm_tools as cm
from cmllm_tools.analysis.frontier import BOUND, FACTORS, Frontier
from cmllm_tools.bench.sentences import smol_says
from cmllm_tools.bench.smol_sets import smol_held_out
from cmllm_tools.evaluation.matching import names_it

MODELS = ("embedded", "smol")


def ways() -> dict[str, cm.Method]:
    """What is compared, by name."""
    methods = cm.methods
    usual: tuple[cm.Method, ...] = (
        cm.ControlMLLM(),
        cm.ControlMLLMPlus(),
        methods.KeySteering(),
        methods.AttentionEdit(),
        methods.RegionGuidance(),
        methods.PromptHighlighter(),
        methods.RedCircle(),
        methods.OutsideHidden(),
        methods.Crop(),
    )
    return {type(way).__name__: way for way in usual}


def examples(model: str, count: int) -> list[cm.analysis.Example]:
    """The first held-out scenes; of `smol`, answers are its own sentence with either name."""
    if model == "embedded":
        return [scene.example("box") for scene in cm.bench.held_out()[:count]]
    found = []
    for scene in smol_held_out()[:count]:
        other = next(name for name in scene.objects if name != scene.names[0] and names_it(scene.question, name))
        said, wrong = map(smol_says, (scene.names[0], other))
        found.append(replace(scene.example("box"), answer=said, alternatives=(wrong,)))
    return found


def as_json(model: str, found: Frontier) -> dict[str, Any]:
    """The result as plain data."""
    curves = {
        curve.name: [
            [None if value is None or np.isnan(value) else round(float(value), 4) for value in point]
            for point in zip(curve.strengths, *(curve.means(name) for name in ("share", "effect", "damage")), strict=True)
        ]
        for curve in found.curves
    }
    best = {name: each and [round(value, 3) for value in each] for name, each in found.effect_at(BOUND).items()}
    return {
        "model": model,
        "n": found.examples,
        "damage_to": found.damage_to,
        f"effect_at_damage_{BOUND:g}": best,
        "curves": curves,
        "seconds": {curve.name: round(float(np.nanmean(curve.means("seconds"))), 3) for curve in found.curves},
    }


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="embedded")
    parser.add_argument("--n", type=int, default=20, help="scenes")
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS, help="multiples of each method's own strength")
    parser.add_argument("--methods", nargs="+", choices=list(ways()), default=list(ways()))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", metavar="FILE", help="save the frontier, for Frontier.load")
    options = parser.parse_args(None if arguments is None else list(arguments))
    mllm = cm.load() if options.model == "embedded" else cm.load("smol")
    chosen = {name: way for name, way in ways().items() if name in options.methods}
    found = cm.analysis.frontier(
        mllm, examples(options.model, options.n), methods=chosen, factors=options.factors, progress=True
    )
    if options.out:
        found.save(options.out)
    print(json.dumps(as_json(options.model, found)) if options.json else found.table())


if __name__ == "__main__":
    main()
