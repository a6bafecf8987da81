"""Every public call with hostile values in each of its arguments: the package's own errors, or a right result.

Found by hypothesis, in a quick form that is the same in each run; CMLLM_HOSTILE=500 tries that many of each call.
"""

import inspect
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from hostile import tried
from hostile_calls import PLAIN, of_a_model
from hostile_causes import of_causes
from hostile_results import of_results, of_widgets

import cmllm_tools as cm
from cmllm_tools import analysis, bench, causes, data, figures, widgets

# Public calls that are not tried, by why.
_INTERVENTIONS = ("Intervention", "LatentAdded", "AttentionBias", "Changing", "ChosenBy")
_CAUSED = ("causes.AttentionCut", "causes.HeadsPut")
EXEMPT = {
    "called while a model answers": "ChosenBy.read",
    "made by the package, of what it has computed or read": (
        "Answer AnswerTrace Attention Comparison ContextMap Controls Effect Lens Look MemoryEstimate Outcome Prompt "
        "Step Trace analysis.Agreement analysis.Attribution analysis.Curves analysis.Frontier analysis.GradientProfile "
        "analysis.HeadGrid analysis.HeadRanking analysis.Recommendation analysis.Sinks analysis.Sweep bench.HeldOut "
        "bench.Stops causes.CauseGrid causes.Change data.Dataset Evaluation data.Findings data.Findings.table data.Row "
        "Video"
    ),
    "called by a run, with itself": " ".join(
        f"{kind}.on_{when}"
        for kind in ("Callback", "ProgressBar", "EarlyStopping", "Answers", "Checkpoint")
        for when in ("start", "step", "end")
    ),
    "written by a subclass": " ".join(
        ["Intervention", "LatentMethod", "LatentMethod.start"]
        + [f"Method.{name}" for name in ("intervention", "resolve", "sent", "times")]
        + [f"LatentMethod.{name}" for name in ("checked", "intervention", "layers_of", "resolve", "sent", "target")]
        + [f"LatentMethod.{name}" for name in ("absolute", "done", "moves", "stops", "times", "token")]
    ),
    "asked by refer or generate, with what these have read": " ".join(
        [f"{kind}.{name}" for kind in _INTERVENTIONS + _CAUSED for name in ("inputs", "opened", "opened_each", "during")]
        + [f"{kind}.{name}" for kind in ("ControlMLLM", "ControlMLLMPlus") for name in ("intervention", "sent")]
        + [f"{kind}.{name}" for kind in ("ControlMLLM", "ControlMLLMPlus") for name in ("done", "moves", "stops", "token")]
        + ["ControlMLLM.absolute", "ControlMLLMPlus.absolute"]
    ),
    "written by a subclass of data.Format, or registers one": (
        "data.Format data.Format.example data.Format.found data.Format.rows data.register"
    ),
    "asked by a layout, with positions of its own": (
        "Box.placed Point.placed Scribble.placed Mask.placed "
        "Box.areas Point.areas Scribble.areas Mask.areas Mask.at Box.touched Point.touched Scribble.touched Mask.touched"
    ),
    "takes as long as there are scenes, whose number may be large; what it gives is made by one that is tried": (
        "bench.rule_beside_fixed bench.word_scenes"
    ),
    "a step of a call that is tried, given what the package made": (
        "Answer.without Answer.weighed Video.asked ChosenBy.schedule Prompt.showing Contrast.mixed "
        "Trace.restored Contrast.combine Baseline.odds_of Controls.cells ControlMLLM.start ControlMLLMPlus.start "
        "analysis.Sweep.empty analysis.Sweep.with_found "
        "bench.chooses bench.absent_names bench.background_box bench.evaluation_table "
        "bench.Stops.of bench.Stops.summary bench.control_rows bench.ways_rows bench.ways_table "
        "bench.as_json bench.smol_table bench.words_right "
        "bench.with_article bench.smol_says bench.as_says Look.check Look.fits Look.serves"
    ),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def state(mllm):
    """A look at whether the model is as it was."""
    return lambda: (
        [config._attn_implementation for config in (mllm.model.config, mllm.decoder.config)],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in mllm.model.modules()],
        [module.training for module in mllm.model.modules()],
        [(each.requires_grad, each.grad is None) for each in mllm.model.parameters()],
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    )


def test_hostile_arguments_are_refused_or_right():
    tried(PLAIN, 16)


@pytest.mark.slow
def test_a_model_is_left_as_found_after_hostile_arguments(mllm, prompt, box, example, state):
    tried(of_a_model(mllm, prompt, box, example), 25, state)


@pytest.mark.slow
def test_a_model_is_left_as_found_after_hostile_questions_for_causes(mllm, prompt, box, example, state):
    tried(of_causes(mllm, prompt, box, example), 25, state)


@pytest.mark.slow
def test_hostile_arguments_of_what_shows_results_are_refused_or_right(mllm, prompt, box, example, state):
    tried(of_results(mllm, prompt, box, example), 25, state)


@pytest.mark.slow
def test_hostile_values_set_on_widgets_are_refused_or_right(mllm, prompt, box, example, state):
    tried(of_widgets(mllm, prompt, box, example), 25, state)


def public_calls():
    """Names of all public functions and classes, and of their methods, that take arguments."""
    rooms = {"": cm, "analysis.": analysis, "causes.": causes, "data.": data, "figures.": figures, "widgets.": widgets}
    named = [(f"{room}{name}", getattr(module, name)) for room, module in rooms.items() for name in module.__all__]
    for info in iter_modules(bench.__path__):
        module = import_module(f"{bench.__name__}.{info.name}")
        own = {name: each for name, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__}
        named += [(f"bench.{name}", each) for name, each in own.items() if name[0] != "_"]
    for name, each in named:
        if not callable(each) or (isinstance(each, type) and issubclass(each, Exception)):
            continue
        if inspect.signature(each).parameters:
            yield name
        parents = each.__mro__ if isinstance(each, type) else ()
        for method in sorted({key for kind in parents if kind.__module__.startswith("cmllm_tools") for key in vars(kind)}):
            function = getattr(each, method)
            if method[0] == "_" or not (inspect.isfunction(function) or inspect.ismethod(function)):
                continue
            if len(inspect.signature(function).parameters) > (not inspect.ismethod(function)):
                yield f"{name}.{method}"


def test_every_public_call_is_tried_or_exempt_for_a_reason(mllm, prompt, box, example):
    tables = [PLAIN, *(make(mllm, prompt, box, example) for make in (of_a_model, of_causes, of_results, of_widgets))]
    tried_calls = {name for table in tables for name in table}
    exempt = {name for names in EXEMPT.values() for name in names.split()}
    public = set(public_calls())
    assert public - tried_calls - exempt == set()
    # The list does not go stale.
    assert exempt - public == set()
    assert exempt & tried_calls == set()


@pytest.mark.slow
def test_many_more_hostile_arguments_are_refused_or_right():
    tried(PLAIN, 100)
