"""Widgets for notebooks. Loaded at the first use of `cm.widgets`, as they need anywidget and ipywidgets."""

try:
    import anywidget as anywidget
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "cmllm_tools.widgets needs anywidget, which is not installed here. Run: pip install 'cmllm_tools[notebook]'"
    ) from error

from .answer_strip import AnswerStrip
from .attention_explorer import AttentionExplorer
from .region_picker import RegionPicker
from .step_player import StepPlayer
from .workbench import Workbench

__all__ = ["AnswerStrip", "AttentionExplorer", "RegionPicker", "StepPlayer", "Workbench"]
