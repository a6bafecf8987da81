"""See where a multimodal language model looks, and steer its attention into a region, step by step.

Names load with their first use: neither torch nor transformers is imported before something needs it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .version import VERSION

if TYPE_CHECKING:
    from . import analysis as analysis
    from . import figures as figures
    from . import widgets as widgets
    from .attention.capture import Attention, capture_attention
    from .attention.context_map import ContextMap, context_map
    from .attention.memory import MemoryEstimate, estimate
    from .attention.self_check import self_check
    from .bench.demo import demo_scene
    from .callbacks import Answers, Callback, Checkpoint, EarlyStopping, ProgressBar
    from .energy import energy, hard_energy, region_share, soft_energy
    from .errors import (
        CaptureError,
        CmllmError,
        DataError,
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
    from .images import read_image
    from .layout import RegionWarning, VisualTokenLayout
    from .loading import load
    from .methods import ControlMLLM, ControlMLLMPlus
    from .models.contrast import Contrast
    from .models.mllm import Mllm
    from .models.origin import WeightsWarning
    from .models.prompt import Prompt
    from .optimize import Steering, optimize
    from .regions import Box, Mask, Point, Scribble
    from .trace import Step, Trace

__version__ = VERSION

__all__ = [
    "Answers",
    "Attention",
    "Box",
    "Callback",
    "CaptureError",
    "Checkpoint",
    "CmllmError",
    "ContextMap",
    "Contrast",
    "ControlMLLM",
    "ControlMLLMPlus",
    "DataError",
    "EarlyStopping",
    "ImageError",
    "Mask",
    "MemoryEstimate",
    "Mllm",
    "NotFiniteError",
    "OptimizationError",
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
    "VisualTokenLayout",
    "WeightsWarning",
    "capture_attention",
    "context_map",
    "demo_scene",
    "energy",
    "estimate",
    "figures",
    "hard_energy",
    "load",
    "optimize",
    "read_image",
    "region_share",
    "self_check",
    "soft_energy",
]

# Where each name is; a test compares this with what type checkers are told above.
_MODULES = {
    "attention.capture": "Attention capture_attention",
    "bench.demo": "demo_scene",
    "callbacks": "Answers Callback Checkpoint EarlyStopping ProgressBar",
    "attention.context_map": "ContextMap context_map",
    "energy": "energy hard_energy region_share soft_energy",
    "errors": (
        "CaptureError CmllmError DataError ImageError NotFiniteError OptimizationError OutputError OutputWarning "
        "PromptError RegionError SettingsError TraceError UnsupportedModelError"
    ),
    "images": "read_image",
    "layout": "RegionWarning VisualTokenLayout",
    "loading": "load",
    "attention.memory": "MemoryEstimate estimate",
    "methods": "ControlMLLM ControlMLLMPlus",
    "models.contrast": "Contrast",
    "models.mllm": "Mllm",
    "models.origin": "WeightsWarning",
    "models.prompt": "Prompt",
    "optimize": "Steering optimize",
    "regions": "Box Mask Point Scribble",
    "attention.self_check": "self_check",
    "trace": "Step Trace",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
_ROOMS = ("analysis", "figures", "widgets")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})


class _Package(ModuleType):
    """This package: some functions are named like their modules (`energy`, `optimize`), and are meant by that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing such a module would put it in its function's place.
        super().__setattr__(
            name, getattr(value, name) if _HOME.get(name) == name and isinstance(value, ModuleType) else value
        )


sys.modules[__name__].__class__ = _Package
