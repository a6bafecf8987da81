"""Settings of the methods for models that have some of their own."""

from typing import Any

from ..errors import SettingsError
from ..strict import shown

# Published settings (ControlMLLM section 4.1; ControlMLLM++ code), and those fitted to the embedded model, by
# (model_type, decoder layers, hidden size). Models without one have ELSEWHERE, with the first row's window scaled to their
# depth.
METHOD_DEFAULTS: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = {
    ("llava", 32, 4096): {
        "ControlMLLM": {
            "steps": 5,
            "step_size": 400.0,
            "ema": 0.5,
            "early_stop": 0.25,
            "layers": (),
            "queries": "text",
            "sigma": 0.1,
        },
        "ControlMLLMPlus": {"steps": 3, "step_size": 0.03, "layers": (14, 26), "queries": "last", "contrast": 0.7},
        # Not published: what was found on SmolLM2-135M over pictures made of words.
        "KeySteering": {"steps": 1, "step_size": 0.003, "layers": (), "queries": "text", "moved_layers": ()},
    },
    ("qwen2_5_vl", 28, 3584): {
        "ControlMLLMPlus": {"steps": 1, "step_size": 0.02, "layers": (12, 28), "queries": "last", "contrast": 0.01},
    },
    # SmolLM2-135M-Instruct with eyes of its own (`load("smol")`).
    ("llava", 30, 576): {
        # Its last token says how the answer begins: steered by that one alone, it no longer begins as a sentence does.
        "ControlMLLMPlus": {"steps": 2, "step_size": 0.006, "layers": (), "queries": "text", "contrast": 0.0},
        # Attention moved in the lower layers drives its answers away (docs/findings.md).
        "KeySteering": {"steps": 1, "step_size": 0.0065, "layers": (), "queries": "text", "moved_layers": (20, 30)},
    },
    ("llava", 6, 192): {
        "ControlMLLM": {
            "steps": 12,
            "step_size": 1000.0,
            "ema": 0.5,
            "early_stop": 0.65,
            "layers": (0, 3),
            "queries": "last",
            "sigma": 0.4,
        },
        "ControlMLLMPlus": {"steps": 10, "step_size": 0.3, "layers": (0, 3), "queries": "last", "contrast": 0.0},
        "KeySteering": {"steps": 3, "step_size": 0.1, "layers": (0, 3), "queries": "last", "moved_layers": ()},
    },
}


# What replaces the first row's settings where a model has none of its own: its step sizes and contrast are those of one
# model, and steps are measured by the norm of the model's own visual tokens.
ELSEWHERE: dict[str, dict[str, Any]] = {
    "ControlMLLM": {"step_size": 0.1, "relative": True},
    "ControlMLLMPlus": {"steps": 5, "step_size": 0.06, "relative": True, "contrast": 0.0},
    "KeySteering": {"step_size": 0.01},
}


def method_defaults(method: str, model_type: str, layers: int, hidden_size: int) -> dict[str, Any]:
    """Settings of a method for a model: its own row, or ELSEWHERE's."""
    own = METHOD_DEFAULTS.get((model_type, layers, hidden_size), {})
    if method in own:
        return dict(own[method])
    (_, published_layers, _), rows = next(iter(METHOD_DEFAULTS.items()))
    settings = rows[method] | ELSEWHERE[method]
    if settings["layers"]:
        low, high = settings["layers"]
        settings["layers"] = (low * layers // published_layers, -(-high * layers // published_layers))
    return settings


# What the published code does with a family, by model_type, where that is not what it does with LLaVA: its script for
# InstructBLIP does not change the visual tokens in place, and that for Qwen2.5-VL has an energy of its own.
PUBLISHED: dict[str, dict[str, Any]] = {
    "llava": {"accumulate": True, "average": False, "floor": 0.0},
    "instructblip": {"accumulate": False},
    "qwen2_5_vl": {"average": True, "floor": 1e-6},
}


def published_settings(model_type: str) -> dict[str, Any]:
    """The settings that `published` methods leave open: those of a family's own script, or of LLaVA's."""
    return PUBLISHED["llava"] | PUBLISHED.get(model_type, {})


# Every published run, by method, model and task (docs/published.md): what all of a model's tasks share is at "". The T of
# ControlMLLM++ counts the final generation; steps are one fewer. Its contrast for Qwen2.5-VL is parsed, and never used.
RUNS: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
    "ControlMLLM": {
        "llava-1.5": {
            "": {"step_size": 400.0, "ema": 0.5, "early_stop": 0.25, "layers": (), "sigma": 0.1, **PUBLISHED["llava"]},
            "roc": {"steps": 5},
            "rtc": {"steps": 4},
        },
        "instructblip": {
            "": {"step_size": 400.0, "ema": 0.5, "early_stop": 0.25, "layers": (), "sigma": 0.1, "average": False}
            | {"floor": 0.0, "all_states": True, **PUBLISHED["instructblip"]},
            "demo": {"steps": 5},
        },
    },
    "ControlMLLMPlus": {
        "llava-1.5": {
            "": {"step_size": 0.03, "layers": (14, 26), "average": False, "floor": 0.0},
            "roc": {"steps": 3, "contrast": 0.7},
            "rtc": {"steps": 1, "contrast": 0.7},
            "refcocog": {"steps": 3, "contrast": 0.1},
            "screenspot": {"steps": 2, "contrast": 0.1},
        },
        "qwen2.5-vl": {
            "": {"step_size": 0.03, "layers": (12, 28), "contrast": 0.0, "says": "box", **PUBLISHED["qwen2_5_vl"]},
            "roc": {"steps": 1, "step_size": 0.02},
            "rtc": {"steps": 2},
            "refcocog": {"steps": 3},
            "screenspot": {"steps": 4},
        },
    },
}


def published_run(method: str, model: str, task: str) -> dict[str, Any]:
    """The settings of a published run.

    Raises:
        SettingsError: for a model or task that was not published for the method.
    """
    runs = RUNS[method]
    tasks = runs.get(model, {}) if isinstance(model, str) else {}
    if not isinstance(task, str) or not task or task not in tasks:
        known = "; ".join(f"{name}: {', '.join(filter(None, each))}" for name, each in runs.items())
        raise SettingsError(f"{method} was published for {known}; got {shown(model)}, {shown(task)}.")
    return tasks[""] | tasks[task]


def published_answer(model: str, task: str) -> dict[str, Any]:
    """How a published run generates its answer: options for `refer` and `Mllm.generate`.

    Args:
        model: as `ControlMLLM.published` and `ControlMLLMPlus.published` take it.
        task: likewise.

    Raises:
        SettingsError: for a model or task that was not published.

    Examples:
        >>> cm.methods.published_answer("llava-1.5", "roc")
        {'max_new_tokens': 30}
    """
    if not task or not any(task in runs.get(model, {}) for runs in RUNS.values()):
        known = ", ".join(dict.fromkeys(name for runs in RUNS.values() for name in runs))
        raise SettingsError(f"Answers were published for tasks of {known}; got {shown(model)}, {shown(task)}.")
    if model == "instructblip":
        return {"num_beams": 5, "repetition_penalty": 1.5, "length_penalty": 1.0, "max_new_tokens": 50}
    return {"max_new_tokens": 50 if task == "refcocog" else 30}


# The papers' tables: per cent of right answers, or CIDEr, by method's name on the command line, model, table, and what was
# pointed with. Without steering the region makes no difference; for RTC's masks ControlMLLM's paper has 55.47 nevertheless.
UNSTEERED = "unsteered"
FIGURES: dict[str, dict[str, dict[str, dict[str, float]]]] = {
    "controlmllm": {
        "llava-1.5": {
            "roc": {UNSTEERED: 54.72, "box": 60.59, "mask": 60.79, "scribble": 58.33, "point": 58.85},
            "rtc": {UNSTEERED: 53.57, "box": 61.22, "mask": 60.28},
        }
    },
    "controlmllm++": {
        "llava-1.5": {
            "roc": {UNSTEERED: 54.72, "box": 71.19},
            "rtc": {UNSTEERED: 57.42, "box": 74.66},
            "refcocog": {UNSTEERED: 55.61, "box": 67.37},
            "screenspot": {UNSTEERED: 9.80, "box": 40.01},
        },
        "qwen2.5-vl": {"roc": {UNSTEERED: 78.81, "box": 79.20}, "rtc": {UNSTEERED: 81.91, "box": 88.23}},
    },
}
# Their models, by model_type and number of layers; those that are asked with coordinates; and the most pixels of an image.
MODELS = {("llava", 32): "llava-1.5", ("qwen2_5_vl", 28): "qwen2.5-vl"}
LOCATED = ("qwen2.5-vl",)
MAX_PIXELS = {"qwen2.5-vl": 512 * 28 * 28}
