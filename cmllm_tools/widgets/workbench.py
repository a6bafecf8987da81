"""Draw a region, press Steer, watch: picker, settings, a run that can be stopped, player and answers in one widget."""

from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import RegionError, SettingsError
from ..inputs.images import ImageSource
from ..inputs.regions import Regions
from ..models.mllm import Mllm, require
from ..notation import updates_text
from ..referring.method import Method
from ..referring.trace import Trace
from . import reproduce
from .answer_tab import AnswerTab
from .causes_tab import CausesTab
from .closing import all_or_none, replace_children
from .compare_tab import CompareTab
from .current_prompt import CurrentPrompt
from .layers_tab import LayersTab
from .region_picker import RegionPicker
from .runner import CLOSED, RunningPanel
from .settings import SettingsPanel
from .subject import Host, Subject


class Workbench(RunningPanel):
    """A panel to steer a model with the mouse: draw, press Steer, watch, stop, save.

    A run takes one step per turn of the kernel's event loop, so that Stop, other widgets and other cells are served between
    two steps. Steps run in the thread and loop of the cell that made the panel, also where a front has the messages of
    widgets handled by another thread (a subshell, as in JupyterLab): no model is used by two threads at a time. The
    kernel's interrupt ends a run after its last whole step.

    The trait `layout` of every Jupyter widget is its CSS.

    Args:
        mllm: the model.
        image: path, PIL image or uint8 array, as for `read_image`.
        question: to start with.
        regions: to start with, one or several, in pixels of the image.
        method: to start with; what it leaves open is filled in for the model.

    Attributes:
        picker: the `RegionPicker`; `picker.regions` may be set.
        settings: the fields of the method.
        layers: the tab that looks into layers and heads; `layers.sweep` may be set.
        answer: the tab that steps through the answer; `answer.strip` is the last one.
        causes: the tab that knocks attention out; `causes.grid` is the last one.
        ways: the tab that compares ways of referring; `ways.comparison` is the last one.
        error: what the last run or command failed with, None when it did not.

    Raises:
        ImageError: for an image that cannot be read.
        PromptError: for a question that cannot be asked.
        RegionError: for a region the model does not see.
        SettingsError: for a setting out of range.

    Examples:
        >>> bench = cm.widgets.Workbench(mllm, scene.image, regions=box, method=cm.ControlMLLMPlus(steps=3))
        >>> bench.picker.region
        Box(x0=146, y0=79, x1=192, y1=127)
    """

    def __init__(
        self,
        mllm: Mllm,
        image: ImageSource,
        question: str = "describe the object.",
        regions: Regions = (),
        method: Method | None = None,
    ):
        require(mllm)
        self._ready(mllm)
        with all_or_none():
            settings = SettingsPanel(mllm, method)
            self._asked = CurrentPrompt(mllm, image, question)
            prompt = self._prompt
            picker = RegionPicker(prompt.image, regions, prompt.layout, sigma=settings.sigma_shown)
            host = Host(mllm, settings, self._subject, self._state, self._try, self._again, self._turn)
            layers, answer = LayersTab(host), AnswerTab(host)
            ways = CompareTab(host, self._to_compare, lambda: self.method)
            causes = CausesTab(host, self._knockout_code)
            super().__init__(picker, settings, question, layers, ways, answer, causes)
            self._listen()

    def _listen(self) -> None:
        self._steer.on_click(lambda _: self._try(self.steer, self._message))
        self._first.on_click(lambda _: self._try(self.look, self._message))
        self._stop.on_click(lambda _: self.stop())
        self._save.on_click(lambda _: self._try(self.save, self._saved))
        self._copy.on_click(lambda _: self._try(lambda: self._code.show(self.code()), self._saved))
        self._question.observe(self._changed, "value")
        self.settings.listen(self._changed)
        self.picker.observe(self._changed, "regions")
        self._changed()

    @property
    def image(self) -> Image.Image:
        """The image, upright RGB. It may be set, to all that `read_image` takes; regions stay if they fit on it."""
        return self.picker.image

    @image.setter
    def image(self, image: ImageSource) -> None:
        asked = CurrentPrompt(self.mllm, image, self.question)
        prompt = asked.prompt
        try:
            picker = RegionPicker(prompt.image, self.picker.regions, prompt.layout, sigma=self.picker.sigma)
        except RegionError:
            picker = RegionPicker(prompt.image, (), prompt.layout, sigma=self.picker.sigma)
        self.picker, self._asked = picker, asked
        replace_children(self._picker_box, picker)
        picker.observe(self._changed, "regions")
        self._changed()

    def save(self, path: str | PathLike[str] | None = None) -> Path:
        """Save the trace of the last run to a file, the one in the panel's field when None.

        Raises:
            TraceError: when there is no trace yet, or the file cannot be written.
        """
        kept = self._results.kept()
        with self._turn:
            saved = kept.save(self._path.value if path is None else path)
        took = updates_text(len(kept) - 1) if isinstance(kept, Trace) else "an outcome, for cm.Outcome.load"
        self._saved.say(f"Saved {saved.resolve()} ({took}).")
        return saved

    def code(self) -> str:
        """The Python that does what Steer would do now.

        Raises:
            SettingsError: for a setting out of range.
        """
        return reproduce.code(self.mllm, self._asked.source, self.question, self.picker.regions, self.method)

    def close(self) -> None:
        """Close the panel and all that it is made of, and end a run that goes on; its trace stays in `trace`."""
        self.stop(CLOSED)
        # One that was refused has no parts.
        if self.comm is not None:
            self.ways.stop()
            self.causes.stop()
        super().close()

    def __repr__(self) -> str:
        trace = "no run yet" if self.trace is None else repr(self.trace)
        return f"Workbench({self.question!r}, {self.picker!r}, {trace})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and beside it a static picture for fronts and exports that have no widget."""
        bundle = super()._repr_mimebundle_(**options)
        if bundle is not None:
            shown = next(each for each in (self.trace, self.outcome, self._prompt) if each is not None)
            bundle["text/html"] = str(shown._repr_html_())
        return bundle

    def _subject(self) -> Subject:
        """What the tab of layers looks into: the run is one on the very image and question."""
        self._asked.ask(self.question)
        run = self._run
        trace = run.trace if run is not None and self._asked.has(run.prompt) else None
        of_it = self._answered_on is not None and self._asked.has(self._answered_on)
        return Subject(self._prompt, self.picker.regions, trace, self.outcome if of_it else None)

    def _knockout_code(self, arguments: dict[str, Any]) -> str:
        return reproduce.knockout_code(self.mllm, self._asked.source, self.question, self.picker.regions, arguments)

    def _to_compare(self) -> tuple[Image.Image, str, Regions]:
        return self.picker.image, self.question, self.picker.regions

    def _state(self) -> tuple[Any, ...]:
        """What the panel shows now, without preparing it."""
        run = self._run if self._run is not None else self.outcome
        return self.question, self.picker.image, list(self.picker.regions), run

    def _changed(self, change: Any = None) -> None:
        """Something was set: what depends on it follows."""
        self._warn_of_unknown(self.mllm.processor.tokenizer)
        self._follow()
        # A field may hold what is no setting while it is being typed; Steer says so.
        with suppress(SettingsError):
            self.picker.sigma = self.settings.sigma_shown
            if self._code.shown:
                self._code.code = self.code()
