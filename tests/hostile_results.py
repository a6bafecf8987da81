"""Calls on results, each with arguments that are right: of a run, a sweep, a ranking; figures, pages and widgets."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
from traitlets import TraitError

import cmllm_tools as cm
from cmllm_tools import analysis, figures, widgets
from cmllm_tools.analysis.sweep import FIGURES
from cmllm_tools.bench import embedded
from cmllm_tools.bench.smol import evaluate_smol
from cmllm_tools.bench.stopping import stops
from cmllm_tools.bench.ways import evaluate_ways
from cmllm_tools.bench.window_test import sweep_and_test
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.referring.comparison import Row
from cmllm_tools.show.report import write_report


def made_sweep(answers=True):
    """Four choices on three examples, made up."""
    choices = [analysis.Choice(layers, queries) for layers in ((0, 1), (0, 2)) for queries in ("text", "last")]
    sweep = analysis.Sweep.empty("m", cm.ControlMLLMPlus(), choices, ["a", "b", "c"])
    values = np.random.default_rng(0).random(sweep.values.shape)
    if not answers:
        values[[FIGURES.index(name) for name in ("moved", "damage", "right")]] = np.nan
    return replace(sweep, values=values)


def made_ranking():
    """Two heads of two layers, over twelve examples, made up."""
    interval = np.array([np.zeros((2, 2)), np.full((2, 2), 2.0)])
    hits = np.array([[1, 2], [3, 12]])
    return analysis.HeadRanking("m", (0, 2), (0, 1), 12, hits, 0.1, np.ones((2, 2)), interval)


def of_results(mllm, prompt, box, example):
    """Calls on what a model gives."""
    attention = cm.capture_attention(mllm, prompt)
    cmap = cm.context_map(attention)
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1), callbacks=[cm.Answers("ends")])
    grid = analysis.head_shares(attention, box)
    curves = analysis.insertion_deletion(
        mllm, prompt, "red circle", np.arange(len(prompt.visual)), points=1, orders=2, progress=False
    )
    sweep, ranking, sinks = made_sweep(), made_ranking(), analysis.sinks_in([cmap, cmap], 1.5)
    image, layout, one = example.image, prompt.layout, cm.ControlMLLMPlus(steps=1)
    row = Row("crop", "red", (1.0, -1.0), 0.5, 0.1, 0.1, 1.0, 0)
    compared = cm.Comparison("m", "what?", (box,), image.size, ("red", "blue"), "text", (-1.0, -4.0), (row,))
    return {
        "figures.comparison": (figures.comparison, {"compared": compared}),
        "Trace.save": (trace.save, {"path": "run.safetensors"}),
        "analysis.HeadRanking.top": (ranking.top, {"amount": 1}),
        "analysis.HeadRanking.rows": (ranking.rows, {"pairs": [(0, 1)]}),
        "analysis.HeadRanking.table": (ranking.table, {"count": 1}),
        "analysis.HeadRanking.save": (ranking.save, {"path": "ranking.json"}),
        "analysis.Sweep.figure": (sweep.figure, {"name": "moved"}),
        "analysis.Sweep.means": (sweep.means, {"name": "moved"}),
        "analysis.Sweep.grid": (sweep.grid, {"name": "moved", "queries": "text"}),
        "analysis.Sweep.rows": (sweep.rows, {"by": "moved"}),
        "analysis.Sweep.table": (sweep.table, {"top": 1, "by": "moved"}),
        "analysis.Sweep.subset": (sweep.subset, {"numbers": [0]}),
        "analysis.Sweep.save": (sweep.save, {"path": "sweep.json"}),
        "analysis.recommend": (analysis.recommend, {"sweep": sweep, "by": "moved"}),
        "figures.before_after": (figures.before_after, {"trace": trace, "scale": "common"}),
        "figures.curves": (
            figures.curves,
            {"lines": {"a": ([0, 1], [1.0, 2.0])}, "x": "step", "y": "energy", "title": "runs"},
        ),
        "figures.curves of a line": (curve, {"positions": [0, 1], "values": [1.0, 2.0]}),
        "figures.energy_curve": (figures.energy_curve, {"trace": trace}),
        "figures.head_grid": (figures.head_grid, {"grid": grid, "show": "share"}),
        "figures.head_ranking": (figures.head_ranking, {"ranking": ranking}),
        "figures.insertion_deletion": (figures.insertion_deletion, {"curves": curves}),
        "figures.layer_head_grid": (figures.layer_head_grid, {"attention": attention, "regions": box, "sigma": 0.1}),
        "figures.map_on_image": (figures.map_on_image, {"cmap": cmap, "image": image, "regions": box}),
        "figures.maps_on_image": (
            figures.maps_on_image,
            {"maps": [("a", cmap)], "image": image, "layout": layout, "regions": box, "what": "map", "scale": "common"},
        ),
        "figures.maps_on_image of a map": (titled, {"title": "a", "values": cmap, "image": image, "layout": layout}),
        "figures.sinks_on_image": (figures.sinks_on_image, {"found": sinks, "image": image}),
        "figures.step_player": (figures.step_player, {"trace": trace}),
        "figures.token_weights": (
            figures.token_weights,
            {"layout": layout, "image": image, "panels": {"a": box}, "sigma": 0.1},
        ),
        "figures.visual_tokens": (figures.visual_tokens, {"layout": layout, "image": image}),
        "figures.window_grid": (
            figures.window_grid,
            {"sweep": sweep, "figure": "moved", "recommended": analysis.recommend(sweep)},
        ),
        "write_report": (write_report, {"trace": trace, "path": "page.html"}),
        "widgets.RegionPicker": (widgets.RegionPicker, {"image": image, "regions": box, "layout": layout, "sigma": 0.1}),
        "widgets.StepPlayer": (widgets.StepPlayer, {"trace": trace, "step": -1, "layer": None}),
        "widgets.AnswerStrip": (widgets.AnswerStrip, {"trace": cm.trace_answer(mllm, prompt, regions=box), "token": 0}),
        "widgets.AttentionExplorer": (
            widgets.AttentionExplorer,
            {"mllm": mllm, "prompt": prompt, "region": box, "queries": "text", "layer": 0, "head": 0, "answer": False}
            | {"sigma": 0.1, "latent": None},
        ),
        "widgets.Workbench": (
            widgets.Workbench,
            {"mllm": mllm, "image": image, "question": "describe the object.", "regions": box, "method": one},
        ),
        "bench.ReferringExample.region": (example.region, {"kind": "box"}),
        "bench.ReferringExample.example": (example.example, {"kind": "box"}),
        "bench.evaluate": (
            embedded.evaluate,
            {"count": 1, "mllm": mllm, "methods": {"plus": one}, "regions": ("box",), "skip": 499},
        ),
        "bench.evaluate_smol": (
            evaluate_smol,
            {"count": 1, "mllm": mllm, "methods": {"edit": cm.methods.AttentionEdit()}, "kinds": ("box",), "skip": 299}
            | {"styles": ("seen_styles",)},
        ),
        "bench.evaluate_ways": (
            evaluate_ways,
            {"count": 1, "mllm": mllm, "methods": {"crop": cm.methods.Crop()}, "kinds": ("box",), "controlled": ()}
            | {"skip": 499},
        ),
        "bench.stops": (
            stops,
            {"mllm": mllm, "scenes": [example], "method": cm.methods.KeySteering(steps=1), "steps": (1,), "says": str}
            | {"gains": (2.0,)},
        ),
        "bench.sweep_and_test": (
            sweep_and_test,
            {"mllm": mllm, "lines": read_roc(example.root)[:4], "kind": "box", "method": one, "contexts": ("last",), "n": 2}
            | {"held_out": 0, "path": None, "shard": None, "strict": False, "retry": False},
        ),
    }


def of_widgets(mllm, prompt, box, example):
    """Methods of widgets, and what may be set on them."""
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1))
    picker = widgets.RegionPicker(example.image, box, prompt.layout)
    player = widgets.StepPlayer(trace)
    explorer = widgets.AttentionExplorer(mllm, prompt, box, answer=False)
    strip = widgets.AnswerStrip(cm.trace_answer(mllm, prompt, regions=box))
    bench = widgets.Workbench(mllm, example.image, regions=box, method=cm.ControlMLLMPlus(steps=1))
    bench.run()
    settable = [
        *((picker, name) for name in ("regions", "region", "token_layout", "sigma")),
        *((player, name) for name in ("step", "layer")),
        (strip, "token"),
        *((explorer, name) for name in ("queries", "layer", "head")),
        *((bench, name) for name in ("image", "question", "method")),
        *((bench.layers, "sweep"), (bench.settings, "method")),
    ]
    return {
        "widgets.StepPlayer.write_html": (player.write_html, {"path": "player.html"}),
        "widgets.AnswerStrip.write_html": (strip.write_html, {"path": "strip.html"}),
        "widgets.Workbench.run": (bench.run, {"look": True}),
        "widgets.AttentionExplorer.write_html": (explorer.write_html, {"path": "explorer.html"}),
        "widgets.Workbench.save": (bench.save, {"path": "run.safetensors"}),
        "widgets.Workbench.stop": (bench.stop, {"reason": "enough"}),
        **{f"{type(widget).__name__}.{name} =": (setter(widget, name), {"value": None}) for widget, name in settable},
    }


def setter(widget, name):
    """Sets a trait or a property; traits say what is of another kind in traitlets' words."""

    def set_to(value):
        with suppress(TraitError):
            setattr(widget, name, value)

    return set_to


def curve(positions, values):
    return figures.curves({"a": (positions, values)}, "x", "y")


def titled(title, values, image, layout):
    return figures.maps_on_image([(title, values)], image, layout)
