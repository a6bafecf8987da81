"""Public calls, each with arguments that are right: those of regions, layouts, methods, files and texts; and of a model."""

import numpy as np
import torch

import cmllm_tools as cm
from cmllm_tools import analysis
from cmllm_tools.bench.heldout import HELDOUT, held_out
from cmllm_tools.bench.smol_sets import smol_held_out
from cmllm_tools.bench.word_pictures import word_picture, word_reader
from cmllm_tools.data import Dataset, Example, check, read
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.evaluation import Evaluation, Record, Unsteered
from cmllm_tools.evaluation.matching import names_it, reference_match, strict_match
from cmllm_tools.inputs.regions import region_from_json
from cmllm_tools.layout.visual_tokens import fixed_grid
from cmllm_tools.show.report import write_page

LAYOUT = fixed_grid((96, 96), (96, 96), None, (4, 4))
BOX, POINT, SCRIBBLE, MASK = cm.Box(1, 1, 50, 50), cm.Point(3, 3), cm.Scribble([(1, 1), (5, 5)]), cm.Mask(np.eye(96))
METHOD = {
    "steps": 2,
    "step_size": 1.0,
    "layers": (0, 2),
    "heads": (0,),
    "queries": "text",
    "sigma": 0.1,
    "rule": "area",
    "early_stop": 0.0,
    "without": (),
    "average": False,
    "floor": 0.0,
}


def from_json(kind, **data):
    return region_from_json({"kind": kind, **data})


def first_asked(**fields):
    """What is done with an example of one's own: it is asked for from a set."""
    return check([Example(**fields)], progress=False)


def cited(used):
    return cm.cite(used)


ANSWERED = Evaluation(
    (Record(id=0, method="plus", settings={}, model="m", answer="a", names=("a",), scores={"right": 1.0}),)
)


# Call, and arguments that are right.
PLAIN = {
    "Box": (cm.Box, {"x0": 0, "y0": 0, "x1": 5, "y1": 5}),
    "Point": (cm.Point, {"x": 1, "y": 1}),
    "Scribble": (cm.Scribble, {"points": [(1, 1)]}),
    "Mask": (cm.Mask, {"pixels": np.eye(4)}),
    "Mask.from_file": (cm.Mask.from_file, {"source": np.full((4, 4), 255, np.uint8), "size": (4, 4)}),
    **{
        f"{type(region).__name__}.{name}": (getattr(region, name), arguments)
        for region in (BOX, POINT, SCRIBBLE, MASK)
        for name, arguments in (
            ("moved", {"right": 1, "down": 1}),
            ("check", {"width": 96, "height": 96}),
            ("cover", {"width": 96, "height": 96}),
            ("on", {"image": 1}),
            ("during", {"frames": (2, 5)}),
            ("on_place", {"image": None, "frames": (2, 5)}),
        )
    },
    **{f"{type(region).__name__}.given": (region.given, {"width": 96, "height": 96}) for region in (POINT, SCRIBBLE)},
    "region_from_json": (region_from_json, {"data": BOX.to_json(), "size": (96, 96)}),
    "stored box": (from_json, {"kind": "box", "corners": [0, 0, 5, 5]}),
    "stored mask": (from_json, {"kind": "mask", "size": [2, 2], "counts": [0, 4]}),
    "stored scribble": (from_json, {"kind": "scribble", "points": [[1, 1]]}),
    "stored point": (from_json, {"kind": "point", "position": [1, 1]}),
    "VisualTokenLayout": (
        cm.VisualTokenLayout,
        {"image_size": (96, 96), "boxes": LAYOUT.boxes, "grid": (4, 4), "rule": "fixed grid", "merged": False},
    ),
    "VisualTokenLayout.inside": (LAYOUT.inside, {"region": BOX, "rule": "area"}),
    "VisualTokenLayout.distance": (LAYOUT.distance, {"region": POINT, "rule": "area"}),
    "VisualTokenLayout.on_sheet": (LAYOUT.on_sheet, {"regions": BOX}),
    "VisualTokenLayout.raster": (LAYOUT.raster, {"values": np.ones(16)}),
    "VisualTokenLayout.from_json": (cm.VisualTokenLayout.from_json, {"data": LAYOUT.to_json()}),
    "ControlMLLM": (cm.ControlMLLM, {**METHOD, "ema": 0.5, "accumulate": False, "scale_gradient": False}),
    "ControlMLLM.published": (cm.ControlMLLM.published, {"model": "llava-1.5", "task": "roc", "steps": 2}),
    "ControlMLLM.times": (cm.ControlMLLM(step_size=1.0).times, {"factor": 2.0}),
    "ControlMLLM.target": (cm.ControlMLLM().target, {"layout": LAYOUT, "regions": BOX}),
    "ControlMLLMPlus": (
        cm.ControlMLLMPlus,
        {**METHOD, "contrast": 0.5, "contrast_cut": 0.1, "loss_scale": 4.0, "betas": (0.9, 0.99), "eps": 0.1},
    ),
    "ControlMLLMPlus.published": (
        cm.ControlMLLMPlus.published,
        {"model": None, "task": "roc", "steps": 2, "queries": "last"},
    ),
    "ControlMLLMPlus.times": (cm.ControlMLLMPlus(step_size=1.0).times, {"factor": 2.0}),
    "ControlMLLMPlus.target": (cm.ControlMLLMPlus().target, {"layout": LAYOUT, "regions": BOX}),
    "cite": (cited, {"used": cm.methods.RedCircle()}),
    "Changing": (cm.Changing, {"parts": (None, None), "since": (0, 2)}),
    "ChosenBy": (cm.ChosenBy, {"choose": lambda number, text: None}),
    "Contrast": (cm.Contrast, {"alpha": 0.5, "beta": 0.1}),
    "EarlyStopping": (cm.EarlyStopping, {"threshold": 0.2, "on_rise": False}),
    "ProgressBar": (cm.ProgressBar, {"after": 0.0}),
    "Checkpoint": (cm.Checkpoint, {"path": "run.safetensors", "every": 1}),
    "Answers": (cm.Answers, {"at": "each"}),
    "read_image": (cm.read_image, {"image": np.zeros((8, 8), np.uint8)}),
    "read_video": (cm.read_video, {"video": np.zeros((2, 8, 8, 3), np.uint8), "take": 2, "fps": 1.0}),
    "gaussian": (cm.gaussian, {"distance": torch.ones(4), "sigma": 0.1}),
    "analysis.bootstrap": (analysis.bootstrap, {"values": [0.0, 1.0, 1.0], "seed": 0}),
    "soft_energy": (cm.soft_energy, {"values": torch.ones(4), "distance": torch.ones(4), "sigma": 0.1}),
    "hard_energy": (cm.hard_energy, {"values": torch.ones(4), "inside": torch.ones(4)}),
    "Trace.load": (cm.Trace.load, {"path": None}),
    "analysis.Choice": (analysis.Choice, {"layers": (0, 2), "queries": "text"}),
    "analysis.HeadRanking.load": (analysis.HeadRanking.load, {"path": None}),
    "analysis.Frontier.load": (analysis.Frontier.load, {"path": None}),
    "analysis.Sweep.load": (analysis.Sweep.load, {"path": None}),
    "analysis.Sweep.from_json": (analysis.Sweep.from_json, {"data": None}),
    "data.read": (read, {"folder": HELDOUT, "format": "roc", "region": "box", "located": False}),
    "data.check": (check, {"dataset": read(HELDOUT)[:2], "progress": False}),
    "data.Example": (
        first_asked,
        {"image": np.zeros((8, 8), np.uint8), "question": "what?", "region": BOX, "names": ("a",)},
    ),
    "data.Dataset.of": (Dataset.of, {"examples": [], "name": "mine"}),
    "data.Dataset.shuffled": (read(HELDOUT).shuffled, {"seed": 0}),
    "data.Dataset.shard": (read(HELDOUT).shard, {"number": 1, "of": 2}),
    "data.Dataset.split": (read(HELDOUT).split, {"name": "test"}),
    "Evaluation.load": (Evaluation.load, {"path": None}),
    "Evaluation.of": (ANSWERED.of, {"method": "plus"}),
    "Evaluation.figures": (ANSWERED.figures, {"method": "plus"}),
    "Evaluation.difference": (ANSWERED.difference, {"method": "plus", "against": "plus"}),
    "bench.read_roc": (read_roc, {"root": HELDOUT, "file": "question_roc.json"}),
    "bench.held_out": (held_out, {"questions": "question_roc.json"}),
    "bench.smol_held_out": (smol_held_out, {"style": "seen_styles", "questions": "question_roc.json"}),
    "bench.word_picture": (word_picture, {"cells": [["."] * 8] * 8}),
    "bench.reference_match": (reference_match, {"answer": "a cat", "names": ["cat_(animal)"]}),
    "bench.strict_match": (strict_match, {"answer": "a cat", "names": ["cat"], "others": ["dog"]}),
    "bench.names_it": (names_it, {"answer": "a cat", "name": "cat"}),
    "write_page": (write_page, {"title": "page", "parts": ["text"], "path": "page.html"}),
}


def answered_with(mllm, prompt, kind):
    """A call that makes an intervention and answers with it."""
    return lambda **arguments: mllm.generate(prompt, kind(**arguments), max_new_tokens=1)


def of_a_model(mllm, prompt, box, example):
    """Calls that use a model, and those on what they give, by name."""
    attention = cm.capture_attention(mllm, prompt)
    cmap = cm.context_map(attention)
    one = cm.ControlMLLMPlus(steps=1)
    latent = cm.optimize(mllm, prompt, box, one).latent
    both = {"mllm": mllm, "prompt": prompt}
    values = np.ones(len(prompt.visual), np.float32)
    outcome = cm.refer(mllm, example.image, "describe the object.", box, cm.methods.AttentionEdit())
    two = ("red circle", "blue square")
    seen = {"mllm": mllm, "image": example.image, "question": "describe the object."}
    measured = {"candidates": two, "text": "a red circle", "max_new_tokens": 1}
    baseline, edit = cm.Baseline(**seen, **measured), cm.methods.AttentionEdit()
    compared = cm.compare(**seen, **measured, regions=box, methods=[edit], progress=False)
    controls = cm.controls(mllm, outcome, candidates=two, count=1, progress=False)
    answered = both | {"answer": "red circle", "token": None, "against": None, "baseline": "mean", "batch": None, "seed": 0}
    ablation = {"method": "feature_ablation", "features": (1, 1), "steps": 1, "samples": 1, "window": 1}
    wanted = [analysis.Example(example.image, example.question, box, "red circle", ("blue square",))]
    single = {"layers": [0], "heads": [0], "queries": "text"}
    return {
        "bench.word_reader": (word_reader, {"mllm": mllm}),
        "Mllm.prepare": (
            mllm.prepare,
            {"image": example.image, "question": "describe the object.", "padding_side": "left"},
        ),
        "Mllm.prepare of a text": (
            mllm.prepare,
            {"image": example.image, "question": "describe the object.", "text": "<image> describe the object. :"},
        ),
        "Mllm.prepare of inputs": (
            mllm.prepare,
            {"image": example.image, "question": "describe the object.", "inputs": prompt.inputs},
        ),
        "Mllm.look": (mllm.look, {"image": example.image, "padding_side": "left"}),
        "Mllm.words": (mllm.words, {"ids": [1, 2]}),
        "Mllm.generate": (
            mllm.generate,
            {"prompt": prompt, "latent": latent, "contrast": 0.5, "max_new_tokens": 1}
            | dict.fromkeys(("num_beams", "logits_processor", "eos_token_id", "pad_token_id", "bad_words_ids"))
            | dict.fromkeys(("suppress_tokens", "stop_strings", "streamer", "min_p")),
        ),
        "Mllm": (
            cm.Mllm,
            {"model": mllm.model, "processor": mllm.processor, "name": "m", "revision": "r", "layout": "table"},
        ),
        "load": (
            cm.load,
            {"model": None, "revision": None, "trust_remote_code": False, "layout": "table", "check": False, "dtype": None},
        ),
        "load in hand": (cm.load, {"model": (mllm.model, mllm.processor), "revision": None, "check": False}),
        "Prompt.positions": (prompt.positions, {"queries": "text"}),
        "Prompt.seeing": (prompt.seeing, {"queries": "text"}),
        "Prompt.words": (prompt.words, {"positions": [1]}),
        "Prompt.repeated": (prompt.repeated, {"count": 1}),
        "Prompt.check": (prompt.check, {"mllm": mllm, "replayed": True}),
        "capture_attention": (cm.capture_attention, both | single | {"latent": latent}),
        "context_map": (cm.context_map, {"attention": attention, **single, "without": ()}),
        "AnswerScore": (cm.AnswerScore, both | {"answer": "red"}),
        "AnswerScore.tokens": (
            cm.AnswerScore(mllm, prompt, "red").tokens,
            {"latent": prompt.zero_latent().detach()[None], "finite": True},
        ),
        "energy": (cm.energy, {"cmap": cmap, "regions": box, "sigma": 0.1, "rule": "area"}),
        "region_share": (cm.region_share, {"cmap": cmap, "regions": box, "sigma": 0.1, "rule": "area"}),
        "estimate_memory": (cm.estimate_memory, both | {"layers": [0], "queries": "text"}),
        "refer": (
            cm.refer,
            {"mllm": mllm, "image": example.image, "question": "describe the object.", "regions": box, "method": one}
            | {"callbacks": (), "max_new_tokens": 1, "progress": False},
        ),
        "refer_each": (
            cm.refer_each,
            {"mllm": mllm, "image": example.image, "question": "describe the object.", "regions": [box, box], "method": one}
            | {"max_new_tokens": 1, "max_copies": 2, "progress": False},
        ),
        "Baseline": (cm.Baseline, seen | measured),
        "Baseline.unsteered": (baseline.unsteered, {"regions": box}),
        "Baseline.effect": (baseline.effect, {"outcome": outcome}),
        "Baseline.odds": (baseline.odds, {"outcome": outcome}),
        "compare": (cm.compare, seen | measured | {"regions": box, "methods": [edit], "progress": False}),
        "Comparison.save": (compared.save, {"path": "ways.json"}),
        "Comparison.load": (cm.Comparison.load, {"path": compared.save("kept.json")}),
        "controls": (
            cm.controls,
            {"mllm": mllm, "outcome": outcome, "image": example.image, "candidates": two, "wrong": (), "count": 1}
            | {"seed": 0, "progress": False},
        ),
        "Controls.pooled": (cm.Controls.pooled, {"several_controls": [controls]}),
        "Outcome.prompt": (outcome.prompt, {"mllm": mllm}),
        "Outcome.save": (outcome.save, {"path": "outcome.safetensors"}),
        "Outcome.load": (cm.Outcome.load, {"path": outcome.save("kept.safetensors")}),
        "AttentionBias": (
            answered_with(mllm, prompt, cm.AttentionBias),
            {"bias": values, "layers": (0,), "heads": (1,), "since": (0,), "contrast": None},
        ),
        "LatentAdded": (answered_with(mllm, prompt, cm.LatentAdded), {"latent": latent, "contrast": None}),
        "evaluate": (
            cm.evaluate,
            {"mllm": mllm, "dataset": read(HELDOUT)[:1], "methods": [Unsteered()], "path": None, "scorer": "strict"}
            | {"max_new_tokens": 2, "effects": False, "strict": False, "retry": False, "progress": False},
        ),
        "optimize": (cm.optimize, both | {"regions": box, "method": one, "callbacks": ()}),
        "Steering": (cm.Steering, both | {"regions": box, "method": one}),
        "Steering.stop": (stopped, both | {"regions": box, "reason": "enough"}),
        "self_check": (cm.self_check, {"mllm": mllm}),
        **{
            f"{type(method).__name__}.{name}": (getattr(method, name), {"mllm": mllm})
            for method in (one, cm.ControlMLLM())
            for name in ("resolve", "checked", "layers_of")
        },
        "analysis.sinks": (
            analysis.sinks,
            {"mllm": mllm, "image": example.image, "questions": ["describe the object."], "blank": ".", "factor": 5.0}
            | single,
        ),
        "analysis.sinks_in": (analysis.sinks_in, {"maps": [cmap, cmap], "factor": 5.0, "questions": None}),
        "analysis.rank_correlations": (analysis.rank_correlations, {"attention": attention, "values": values}),
        "analysis.head_shares": (
            analysis.head_shares,
            {"attention": attention, "region": box, "others": None, "sigma": 0.1, "rule": "area"},
        ),
        "analysis.rollout": (analysis.rollout, both | {"queries": "text", "residual": 0.5, "latent": None}),
        "analysis.relevancy": (analysis.relevancy, both | {"answer": "red circle", "latent": None}),
        "analysis.token_activation": (
            analysis.token_activation,
            both | {"answer": "red circle", "token": 0, "context": True, "smooth": True, "latent": None},
        ),
        "analysis.grad_cam": (
            analysis.grad_cam,
            both | {"answer": "red circle", "token": 0, "layer": -1, "latent": None},
        ),
        "analysis.gradient_profile": (
            analysis.gradient_profile,
            both | single | {"region": box, "sigma": 0.1, "rule": "area", "latent": None},
        ),
        "analysis.attribute": (analysis.attribute, answered | ablation | {"progress": False}),
        "analysis.insertion_deletion": (
            analysis.insertion_deletion,
            answered | {"values": values, "points": 1, "orders": 2, "progress": False},
        ),
        "analysis.infidelity": (
            analysis.infidelity,
            answered | {"values": values, "samples": 1, "progress": False},
        ),
        "analysis.sensitivity": (
            analysis.sensitivity,
            answered | ablation | {"radius": 0.1, "progress": False},
        ),
        "analysis.agreement": (
            analysis.agreement,
            {name: value for name, value in answered.items() if name != "token"}
            | {"queries": ("last",), "also": {"even": values}, "method": "input_x_gradient", "points": 1, "orders": 2}
            | {"progress": False},
        ),
        "analysis.Example": (
            ranked,
            {"mllm": mllm, "image": example.image, "question": example.question, "region": box}
            | {"answer": "red circle", "alternatives": ("blue square",)},
        ),
        "analysis.answer_words": (analysis.answer_words, {"example": wanted[0]}),
        "analysis.rank_heads": (
            analysis.rank_heads,
            {"mllm": mllm, "examples": wanted, "queries": "last", "layers": [0], "sigma": 0.1, "seed": 0}
            | {"strict": False, "retry": False},
        ),
        "analysis.sweep_windows": (
            analysis.sweep_windows,
            {"mllm": mllm, "examples": wanted, "windows": [(0, 1)], "contexts": ["last"], "method": one, "max_copies": 1}
            | {"path": None, "strict": False, "retry": False, "progress": False},
        ),
    }


def stopped(mllm, prompt, regions, reason):
    """A run that is told to stop."""
    run = cm.Steering(mllm, prompt, regions, cm.ControlMLLMPlus(steps=1))
    run.stop(reason)
    return list(run)


def ranked(mllm, **fields):
    """What is done with an example: heads are ranked by it."""
    return analysis.rank_heads(mllm, [analysis.Example(**fields)], "last", layers=[0])
