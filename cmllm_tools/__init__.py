"""See where a multimodal language model looks, and steer its attention into a region, step by step."""

from typing import TYPE_CHECKING, Any

from . import figures
from .attention import Attention, capture_attention
from .callbacks import Answers, Callback, Checkpoint, EarlyStopping, ProgressBar
from .context import ContextMap, context_map
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
from .memory import MemoryEstimate, estimate
from .methods import ControlMLLM, ControlMLLMPlus
from .models.decoding import Contrast
from .models.mllm import Mllm
from .models.origin import WeightsWarning
from .models.prompt import Prompt
from .optimize import Steering, optimize
from .regions import Box, Mask, Point, Scribble
from .selfcheck import self_check
from .trace import Step, Trace
from .version import VERSION

if TYPE_CHECKING:
    from . import analysis as analysis
    from . import widgets as widgets

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


def __getattr__(name: str) -> Any:
    """Load these rooms at their first use: `import cmllm_tools` must load neither anywidget nor captum."""
    if name in ("analysis", "widgets"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
