"""Calls that look for causes, and on what they give, each with arguments that are right; frontiers, and their figures."""

import numpy as np
from hostile_calls import answered_with

import cmllm_tools as cm
from cmllm_tools import analysis, causes, figures
from cmllm_tools.analysis.frontier import FIGURES, Curve


def made_frontier():
    """Two ways on three examples, made up."""
    values = np.random.default_rng(0).random((len(FIGURES), 2, 3))
    curves = Curve("keys", "step_size", (0.1, 0.2), values), Curve("crop", "", (None,), values[:, :1])
    return analysis.Frontier("m", 3, "text", curves)


def of_causes(mllm, prompt, box, example):
    """Calls that use a model, and those on what they give, by name."""
    both = {"mllm": mllm, "prompt": prompt}
    single = {"layers": [0], "heads": [0]}
    measured = {"answer": None, "candidates": ("red circle", "blue square")}
    several = measured | {"window": 1, "step": 1, "max_copies": 2, "path": None, "progress": False}
    lens, trace = cm.lens(mllm, prompt, layers=[5], top=1), cm.trace_answer(mllm, prompt, regions=box)
    grid = causes.knockout_grid(mllm, prompt, **single, **several)
    outcome = cm.refer(mllm, example.image, "describe the object.", box, cm.methods.AttentionEdit())
    baseline = cm.Baseline(mllm, example.image, "describe the object.", candidates=measured["candidates"], max_new_tokens=1)
    steered = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1))
    found = made_frontier()
    wanted = [analysis.Example(example.image, example.question, box, "red circle", ("blue square",))]
    put = {"pairs": ((0, 0),), "queries": (0,), "onwards": True, "contrast": None}
    return {
        "lens": (cm.lens, both | {"tokens": "last", "layers": [0], "how": "embeddings", "top": 1}),
        "Lens.name_of": (lens.name_of, {"token": 0}),
        "trace_answer": (
            cm.trace_answer,
            both
            | single
            | {"intervention": None, "regions": box, "answer": "red", "max_new_tokens": 1}
            | {"maps": "activation"},
        ),
        "AnswerTrace.map": (trace.map, {"token": 0}),
        "AnswerTrace.top_heads": (trace.top_heads, {"token": 0, "count": 1}),
        "Baseline.moved": (baseline.moved, {"outcome": outcome}),
        "Baseline.prompt_of": (baseline.prompt_of, {"outcome": outcome}),
        "causes.knockout": (causes.knockout, both | single | measured | {"from_": "last", "to": "image"}),
        "causes.knockout_grid": (
            causes.knockout_grid,
            both | single | several | {"from_": "last", "to": "image", "together": False},
        ),
        "causes.ablate": (causes.ablate, both | measured | {"heads": [(0, 0)], "how": "zero", "tokens": "last"}),
        "causes.ablate_grid": (
            causes.ablate_grid,
            both | single | several | {"how": "zero", "tokens": "last", "together": False},
        ),
        "causes.patch": (
            causes.patch,
            {"mllm": mllm, "clean": prompt, "corrupted": prompt, "where": "residual", "tokens": "last", "source": None}
            | {"layers": [0], "heads": None}
            | several,
        ),
        "causes.AttentionCut": (
            answered_with(mllm, prompt, causes.AttentionCut),
            {"queries": (0,), "keys": (0,), "onwards": True, "layers": (0,), "heads": (0,), "contrast": None},
        ),
        "causes.HeadsPut": (
            answered_with(mllm, prompt, causes.HeadsPut),
            put | {"values": causes.ablate(mllm, prompt, [(0, 0)], answer="red").intervention.values},
        ),
        "causes.CauseGrid.strongest": (grid.strongest, {"count": 1}),
        "analysis.frontier": (
            analysis.frontier,
            {
                "mllm": mllm,
                "examples": wanted,
                "methods": [cm.methods.RedCircle()],
                "factors": (1.0,),
                "text": "a red circle",
            }
            | {"progress": False},
        ),
        "analysis.Frontier.effect_at": (found.effect_at, {"damage": 0.1}),
        "analysis.Frontier.table": (found.table, {"damage": 0.1}),
        "analysis.Frontier.save": (found.save, {"path": "frontier.json"}),
        "figures.answer_regions": (figures.answer_regions, {"trace": trace}),
        "figures.cause_grid": (figures.cause_grid, {"grid": grid, "show": "change"}),
        "figures.frontier": (figures.frontier, {"found": found}),
        "figures.head_maps": (
            figures.head_maps,
            {"attention": cm.capture_attention(mllm, prompt, layers=[0]), "scale": "own"},
        ),
        "figures.runs_side_by_side": (figures.runs_side_by_side, {"traces": {"plus": steered}, "scale": "common"}),
        "figures.words_by_token": (figures.words_by_token, {"lens": lens}),
        "figures.words_on_image": (figures.words_on_image, {"lens": lens}),
    }
