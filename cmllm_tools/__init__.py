"""See where a multimodal language model looks, and steer its attention into a region, step by step.

Names load with their first use: neither torch nor transformers is imported before something needs it.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION

if TYPE_CHECKING:
    from . import analysis as analysis
    from . import bench as bench
    from . import causes as causes
    from . import data as data
    from . import evaluation as evaluation
    from . import methods as methods
    from . import widgets as widgets
    from .analysis.controls import Controls, controls
    from .attention.bias import AttentionBias
    from .attention.capture import Attention, capture_attention
    from .attention.context_map import ContextMap, context_map
    from .attention.memory import MemoryEstimate, estimate_memory
    from .attention.self_check import self_check
    from .bench.heldout import demo_scene
    from .causes.answering import AnswerTrace, trace_answer
    from .causes.reading import Lens, lens
    from .errors import (
        CaptureError,
        ClusterError,
        CmllmError,
        DataError,
        EnergyWarning,
        ImageError,
        NotFiniteError,
        OptimizationError,
        OutputError,
        OutputWarning,
        PromptError,
        RegionError,
        SettingsError,
        TraceError,
        UnsupportedModelError,
    )
    from .evaluation.runner import evaluate
    from .evaluation.summary import Evaluation
    from .inputs.images import read_image
    from .inputs.regions import Box, Mask, Point, Scribble
    from .inputs.video import Video, read_video
    from .layout.visual_tokens import RegionWarning, VisualTokenLayout
    from .loading import load
    from .models.answer import Answer
    from .models.changing import Changing, ChosenBy
    from .models.contrast import Contrast
    from .models.interventions import Intervention
    from .models.latent import LatentAdded
    from .models.look import Look
    from .models.mllm import Mllm
    from .models.origin import WeightsWarning
    from .models.prompt import Prompt
    from .models.scoring import AnswerScore
    from .referring.baseline import Baseline, Effect
    from .referring.callbacks import Answers, Callback, Checkpoint, EarlyStopping, ProgressBar
    from .referring.citing import cite
    from .referring.compare import compare
    from .referring.comparison import Comparison
    from .referring.energy import gaussian, hard_energy, soft_energy
    from .referring.latent_method import LatentMethod
    from .referring.method import Method
    from .referring.methods.controlmllm import ControlMLLM, ControlMLLMPlus
    from .referring.outcome import Outcome
    from .referring.run import refer, refer_each
    from .referring.steering import Steering, optimize
    from .referring.target import energy, region_share
    from .referring.trace import Step, Trace
    from .show import figures as figures

__version__ = VERSION

__all__ = [
    "Answer",
    "AnswerScore",
    "AnswerTrace",
    "Answers",
    "Attention",
    "AttentionBias",
    "Baseline",
    "Box",
    "Callback",
    "CaptureError",
    "Changing",
    "Checkpoint",
    "ChosenBy",
    "ClusterError",
    "CmllmError",
    "Comparison",
    "ContextMap",
    "Contrast",
    "ControlMLLM",
    "ControlMLLMPlus",
    "Controls",
    "DataError",
    "EnergyWarning",
    "EarlyStopping",
    "Effect",
    "Evaluation",
    "ImageError",
    "Intervention",
    "LatentAdded",
    "LatentMethod",
    "Lens",
    "Look",
    "Mask",
    "MemoryEstimate",
    "Method",
    "Mllm",
    "NotFiniteError",
    "OptimizationError",
    "Outcome",
    "OutputError",
    "OutputWarning",
    "Point",
    "ProgressBar",
    "Prompt",
    "PromptError",
    "RegionError",
    "RegionWarning",
    "Scribble",
    "SettingsError",
    "Steering",
    "Step",
    "Trace",
    "TraceError",
    "UnsupportedModelError",
    "Video",
    "VisualTokenLayout",
    "WeightsWarning",
    "capture_attention",
    "causes",
    "cite",
    "compare",
    "context_map",
    "controls",
    "demo_scene",
    "energy",
    "estimate_memory",
    "evaluate",
    "figures",
    "gaussian",
    "hard_energy",
    "lens",
    "load",
    "methods",
    "optimize",
    "read_image",
    "read_video",
    "refer",
    "refer_each",
    "region_share",
    "self_check",
    "soft_energy",
    "trace_answer",
]

# Where each name is; a test compares this with what type checkers are told above.
_MODULES = {
    "analysis.controls": "Controls controls",
    "attention.capture": "Attention capture_attention",
    "bench.heldout": "demo_scene",
    "causes.answering": "AnswerTrace trace_answer",
    "causes.reading": "Lens lens",
    "referring.baseline": "Baseline Effect",
    "referring.citing": "cite",
    "referring.compare": "compare",
    "referring.comparison": "Comparison",
    "referring.callbacks": "Answers Callback Checkpoint EarlyStopping ProgressBar",
    "attention.context_map": "ContextMap context_map",
    "referring.energy": "gaussian hard_energy soft_energy",
    "referring.target": "energy region_share",
    "errors": (
        "CaptureError ClusterError CmllmError DataError EnergyWarning ImageError NotFiniteError OptimizationError "
        "OutputError OutputWarning PromptError RegionError SettingsError TraceError UnsupportedModelError"
    ),
    "evaluation.runner": "evaluate",
    "evaluation.summary": "Evaluation",
    "inputs.images": "read_image",
    "inputs.video": "Video read_video",
    "layout.visual_tokens": "RegionWarning VisualTokenLayout",
    "loading": "load",
    "attention.memory": "MemoryEstimate estimate_memory",
    "referring.methods.controlmllm": "ControlMLLM ControlMLLMPlus",
    "models.answer": "Answer",
    "models.changing": "Changing ChosenBy",
    "models.contrast": "Contrast",
    "models.look": "Look",
    "models.mllm": "Mllm",
    "models.origin": "WeightsWarning",
    "models.prompt": "Prompt",
    "models.scoring": "AnswerScore",
    "referring.steering": "Steering optimize",
    "attention.bias": "AttentionBias",
    "models.interventions": "Intervention",
    "models.latent": "LatentAdded",
    "referring.method": "Method",
    "referring.latent_method": "LatentMethod",
    "referring.outcome": "Outcome",
    "referring.run": "refer refer_each",
    "inputs.regions": "Box Mask Point Scribble",
    "attention.self_check": "self_check",
    "referring.trace": "Step Trace",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
_ROOMS = {
    "analysis": "analysis",
    "bench": "bench",
    "causes": "causes",
    "data": "data",
    "evaluation": "evaluation",
    "figures": "show.figures",
    "methods": "methods",
    "widgets": "widgets",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return _imported(_ROOMS[name])
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_imported(_HOME[name]), name)
    globals()[name] = found
    return found


def _imported(module: str) -> Any:
    """A module of this package; the first that needs torch and transformers takes seconds, of which it is said."""
    if "transformers" in sys.modules:
        return import_module(f".{module}", __name__)
    from .progress import waiting

    with waiting("importing torch and transformers, once in a session"):
        return import_module(f".{module}", __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})
