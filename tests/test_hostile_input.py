"""Every public call with hostile values in each of its arguments: the package's own errors, or a right result.

Found by hypothesis, in a quick form that is the same in each run; CMLLM_HOSTILE=500 tries that many of each call.
"""

import os
import warnings

import numpy as np
import pytest
import torch
from hostile import MAKERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cmllm_tools as cm
from cmllm_tools import analysis, figures
from cmllm_tools.layout import fixed_grid
from cmllm_tools.regions import region_from_json

EXAMPLES = int(os.environ.get("CMLLM_HOSTILE", "0"))

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
        )
    },
    "region_from_json": (region_from_json, {"data": BOX.to_json(), "size": (96, 96)}),
    "stored box": (from_json, {"kind": "box", "corners": [0, 0, 5, 5]}),
    "stored mask": (from_json, {"kind": "mask", "size": [2, 2], "counts": [0, 4]}),
    "stored scribble": (from_json, {"kind": "scribble", "points": [[1, 1]]}),
    "stored point": (from_json, {"kind": "point", "position": [1, 1]}),
    "VisualTokenLayout": (
        cm.VisualTokenLayout,
        {"image_size": (96, 96), "boxes": LAYOUT.boxes, "grid": (4, 4), "rule": "fixed grid", "merged": False},
    ),
    "layout.inside": (LAYOUT.inside, {"region": BOX, "rule": "area"}),
    "layout.distance": (LAYOUT.distance, {"region": POINT, "rule": "area"}),
    "layout.raster": (LAYOUT.raster, {"values": np.ones(16)}),
    "layout.from_json": (cm.VisualTokenLayout.from_json, {"data": LAYOUT.to_json()}),
    "ControlMLLM": (cm.ControlMLLM, {**METHOD, "ema": 0.5, "accumulate": False, "scale_gradient": False}),
    "ControlMLLM.reference": (cm.ControlMLLM.reference, {"task": "roc"}),
    "ControlMLLMPlus": (
        cm.ControlMLLMPlus,
        {**METHOD, "contrast": 0.5, "contrast_cut": 0.1, "loss_scale": 4.0, "betas": (0.9, 0.99), "eps": 0.1},
    ),
    "Contrast": (cm.Contrast, {"alpha": 0.5, "beta": 0.1}),
    "EarlyStopping": (cm.EarlyStopping, {"threshold": 0.2, "on_rise": False}),
    "Checkpoint": (cm.Checkpoint, {"path": "run.safetensors", "every": 1}),
    "Answers": (cm.Answers, {"at": "each"}),
    "read_image": (cm.read_image, {"image": np.zeros((8, 8), np.uint8)}),
    "soft_energy": (cm.soft_energy, {"values": torch.ones(4), "distance": torch.ones(4), "sigma": 0.1}),
    "hard_energy": (cm.hard_energy, {"values": torch.ones(4), "inside": torch.ones(4)}),
    "Trace.load": (cm.Trace.load, {"path": None}),
    "HeadRanking.load": (analysis.HeadRanking.load, {"path": None}),
    "Sweep.load": (analysis.Sweep.load, {"path": None}),
    "Sweep.from_json": (analysis.Sweep.from_json, {"data": None}),
}


def hostile_calls(examples):
    """Several hostile calls in one test, the same in every run."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def own_error_or_result(call, arguments, name, make):
    """Call with one hostile argument; the result, or None after an error of the package's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call(**{**arguments, name: make()})
        except cm.CmllmError as error:
            # It can be printed, and is no longer than one reads.
            assert len(str(error).encode()) < 1000


@pytest.mark.parametrize("name", PLAIN)
@hostile_calls(16)
@given(data=st.data())
def test_hostile_arguments_are_refused_or_right(name, data, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    call, arguments = PLAIN[name]
    own_error_or_result(call, arguments, data.draw(st.sampled_from(list(arguments))), data.draw(st.sampled_from(MAKERS)))


@pytest.fixture(scope="session")
def with_model(mllm, prompt, box, example):
    """Calls that use a model, and those on what they give; and a look at whether the model is as it was."""
    attention = cm.capture_attention(mllm, prompt)
    cmap = cm.context_map(attention)
    one = cm.ControlMLLMPlus(steps=1)
    trace = cm.optimize(mllm, prompt, box, one)
    both = {"mllm": mllm, "prompt": prompt}
    values = np.ones(len(prompt.visual), np.float32)
    calls = {
        "prepare": (mllm.prepare, {"image": example.image, "question": "describe the object.", "padding_side": "left"}),
        "words": (mllm.words, {"ids": [1, 2]}),
        "Prompt.positions": (prompt.positions, {"queries": "text"}),
        "Prompt.words": (prompt.words, {"positions": [1]}),
        "Prompt.repeated": (prompt.repeated, {"count": 1}),
        "generate": (
            mllm.generate,
            {"prompt": prompt, "latent": trace.latent, "contrast": 0.5, "max_new_tokens": 1}
            | dict.fromkeys(("num_beams", "logits_processor", "eos_token_id", "pad_token_id", "bad_words_ids"))
            | dict.fromkeys(("suppress_tokens", "stop_strings", "streamer", "prefix_allowed_tokens_fn", "min_p")),
        ),
        "capture_attention": (
            cm.capture_attention,
            both | {"layers": [0], "heads": [0], "queries": "text", "latent": trace.latent},
        ),
        "context_map": (
            cm.context_map,
            {"attention": attention, "queries": "text", "layers": [0], "heads": [0], "without": ()},
        ),
        "energy": (cm.energy, {"cmap": cmap, "regions": box, "sigma": 0.1, "rule": "area"}),
        "region_share": (cm.region_share, {"cmap": cmap, "regions": box, "sigma": 0.1, "rule": "area"}),
        "estimate": (cm.estimate, both | {"layers": [0], "queries": "text"}),
        "optimize": (cm.optimize, both | {"regions": box, "method": one, "callbacks": ()}),
        "self_check": (cm.self_check, {"mllm": mllm}),
        "Mllm": (cm.Mllm, {"model": mllm.model, "processor": mllm.processor, "layout": "table"}),
        "resolve": (one.resolve, {"mllm": mllm}),
        "sinks_in": (analysis.sinks_in, {"maps": [cmap, cmap], "factor": 5.0, "questions": None}),
        "rank_correlations": (analysis.rank_correlations, {"attention": attention, "values": values}),
        "analysis.region_share": (
            analysis.region_share,
            {"attention": attention, "region": box, "others": None, "sigma": 0.1, "rule": "area"},
        ),
        "rollout": (analysis.rollout, both | {"queries": "text", "residual": 0.5, "latent": None}),
        "map_on_image": (figures.map_on_image, {"cmap": cmap, "image": example.image, "regions": box}),
        "maps_on_image": (
            figures.maps_on_image,
            {"maps": [("a", cmap)], "image": example.image, "layout": prompt.layout, "what": "map", "scale": "common"},
        ),
        "energy_curve": (figures.energy_curve, {"trace": trace}),
    }

    def state():
        return (
            [config._attn_implementation for config in (mllm.model.config, mllm.decoder.config)],
            [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in mllm.model.modules()],
            [module.training for module in mllm.model.modules()],
            [(each.requires_grad, each.grad is None) for each in mllm.model.parameters()],
            (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        )

    return calls, state


@hostile_calls(60)
@given(data=st.data())
def test_a_model_is_left_as_found_after_hostile_arguments(with_model, data):
    calls, state = with_model
    call, arguments = calls[data.draw(st.sampled_from(list(calls)))]
    before = state()
    own_error_or_result(call, arguments, data.draw(st.sampled_from(list(arguments))), data.draw(st.sampled_from(MAKERS)))
    assert state() == before
