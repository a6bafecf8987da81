"""The workbench's parts and where they stand; what they do is in `workbench.py`."""

from typing import Any

import anywidget
import ipywidgets as ipw

from ..models.vocabulary import known_words, unknown_words
from ..referring.method import Method
from ..referring.outcome import Outcome
from ..referring.trace import Trace
from .answer_tab import AnswerTab
from .causes_tab import CausesTab
from .code_view import CodeView
from .compare_tab import CompareTab
from .layers_tab import LayersTab
from .messages import Messages, hint, unknown_text
from .modules import script, style
from .region_picker import RegionPicker
from .results import Results
from .settings import SettingsPanel
from .snapshot import Snapshot
from .step_player import StepPlayer

_NO_STEPS = (
    "Here a run is shown step by step: where the tokens that are steered look, energy, and answers. Press Steer, or before "
    "that Look first, to see them unsteered."
)


class PanelView(anywidget.AnyWidget):
    """What ipywidgets' own views of a panel lack: its keys stay in it, and the question's field is as high as its text."""

    _esm = script("panel")
    _css = style("panel")


class Panel(Snapshot, ipw.VBox):
    """The parts of a workbench.

    Args:
        picker: on the image.
        settings: the fields of the method.
        question: to start with.
        layers: the tab of layers and heads.
        ways: the tab that compares ways of referring.
        answer: the tab that steps through the answer.
        causes: the tab that knocks attention out.
    """

    def __init__(
        self,
        picker: RegionPicker,
        settings: SettingsPanel,
        question: str,
        layers: LayersTab,
        ways: CompareTab,
        answer: AnswerTab,
        causes: CausesTab,
    ):
        self.picker, self.settings, self.layers, self.ways = picker, settings, layers, ways
        self.answer, self.causes = answer, causes
        self._make_run(question)
        self._make_files()
        self._picker_box, self._player_box = ipw.VBox([picker]), ipw.VBox([hint(_NO_STEPS)])
        self._results = Results(self._player_box, self._answers, self._save)
        super().__init__(
            [
                ipw.HBox([self._picker_box, self._side], layout=ipw.Layout(flex_flow="row wrap", grid_gap="16px")),
                ipw.Tab(
                    [self._player_box, answer, layers, causes, ways],
                    titles=["Steps", "Answer", "Layers", "Causes", "Compare"],
                ),
                self._below,
                self._code,
                PanelView(),
            ]
        )
        self.add_class("cmllm-workbench")

    def _follow(self) -> None:
        """Something was set, or a run has ended: what is shown in the tabs may be of the past."""
        for tab in (self.answer, self.layers, self.causes):
            tab.follow()

    def _make_run(self, question: str) -> None:
        """Question, settings, and what a run says: beside the buttons that begin and end it."""
        wide = {"layout": ipw.Layout(width="auto"), "style": {"description_width": "70px"}}
        self._question = ipw.Textarea(question, description="question", rows=1, **wide).add_class("cmllm-question")
        self._unknown = ipw.HTML().add_class("cmllm-unknown")
        self._steer = ipw.Button(description="Steer", button_style="primary", tooltip="Move attention into the regions")
        self._first = ipw.Button(
            description="Look first", tooltip="The answer and the map of the tokens that will be steered, as they are"
        )
        self._stop = ipw.Button(
            description="Stop", disabled=True, tooltip="End the run after this step, and keep its trace"
        )
        self._progress = ipw.IntProgress(0, 0, 1, layout=ipw.Layout(width="auto"))
        self._status = ipw.Label("Draw a region, then press Steer.").add_class("cmllm-run")
        self._message, self._answers = Messages(), ipw.HTML().add_class("cmllm-answers")
        self._side = ipw.VBox(
            [
                self._question,
                self._unknown,
                self.settings,
                ipw.HBox([self._steer, self._first, self._stop], layout=ipw.Layout(flex_flow="row wrap")),
                self._progress,
                self._status,
                self._message,
                self._answers,
            ],
            layout=ipw.Layout(min_width="340px", flex="1 1 340px"),
        )

    def _make_files(self) -> None:
        """What can be taken along, and what became of it."""
        self._path = ipw.Text("trace.safetensors", description="file", style={"description_width": "70px"})
        self._save = ipw.Button(description="Save trace", disabled=True)
        self._copy = ipw.Button(description="Copy as code", tooltip="Copy the Python that does the same without this panel")
        self._saved, self._code = Messages(), CodeView()
        row = [self._path, self._save, self._copy, self._saved]
        self._below = ipw.HBox(row, layout=ipw.Layout(flex_flow="row wrap"))

    @property
    def answers(self) -> tuple[str | None, str | None]:
        """Before and after the last run; None for one that was not decoded."""
        return self._results.answers

    @property
    def player(self) -> StepPlayer | None:
        """Of the last run's steps; None before the first, and for a method that takes none."""
        return self._results.player

    @property
    def trace(self) -> Trace | None:
        """Of the last run, growing while it goes on; None before the first, and where the method takes no steps."""
        return self._results.trace

    @property
    def outcome(self) -> Outcome | None:
        """Of the last run, where its method takes no steps; None before its end."""
        return self._results.outcome

    @property
    def question(self) -> str:
        """What is asked; it may be set."""
        return str(self._question.value)

    @question.setter
    def question(self, question: str) -> None:
        self._question.value = question

    @property
    def method(self) -> Method:
        """The method as set in the panel, every setting filled in; it may be set.

        Raises:
            SettingsError: for a setting out of range.
        """
        return self.settings.method

    @method.setter
    def method(self, method: Method) -> None:
        self.settings.method = method

    def _warn_of_unknown(self, tokenizer: Any) -> None:
        """Name the words of the question that the model does not know, below it."""
        self._unknown.value = unknown_text(unknown_words(tokenizer, self.question), known_words(tokenizer))
