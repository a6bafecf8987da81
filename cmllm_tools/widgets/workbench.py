"""Draw a region, press Steer, watch: picker, settings, a run that can be stopped, player and answers in one widget."""

import asyncio
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import ipywidgets as ipw
from PIL import Image

from ..callbacks import Answers
from ..display import card
from ..errors import OptimizationError, RegionError, SettingsError, TraceError
from ..images import ImageSource
from ..layout import RegionWarning
from ..methods import Method
from ..models.mllm import Mllm
from ..optimize import Steering
from ..regions import Regions
from ..trace import Trace
from . import reproduce
from .code_view import CodeView
from .kept import Kept
from .layers_tab import LayersTab, Subject
from .messages import Messages
from .region_picker import RegionPicker
from .settings import Settings
from .step_player import StepPlayer
from .turns import running_loop, take_turns

STOPPED, INTERRUPTED = "stopped", "interrupted"
_BUSY = "A run goes on in this panel: press Stop, or wait for its end, before you steer again."


class Workbench(Kept, ipw.VBox):
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
        player: the `StepPlayer` of the last run, None before the first.
        trace: of the last run, growing while it goes on, None before the first.
        error: what the last run or command failed with, None when it did not.

    Raises:
        ImageError: for an image that cannot be read.
        PromptError: for a question that cannot be asked.
        RegionError: for a region the model does not see.
        SettingsError: for a setting out of range.
    """

    def __init__(
        self,
        mllm: Mllm,
        image: ImageSource,
        question: str = "describe the object.",
        regions: Regions = (),
        method: Method | None = None,
    ):
        self.mllm, self._source = mllm, image
        self.settings = Settings(mllm, method)
        self._prompt = mllm.prepare(image, question)
        self.picker = RegionPicker(self._prompt.image, regions, self._prompt.layout, sigma=self.method.sigma)
        self.player: StepPlayer | None = None
        self.trace: Trace | None = None
        self.error: BaseException | None = None
        self.task: asyncio.Task | None = None
        self._run: Steering | None = None
        self._busy = False
        self._reason: str | None = None
        # Messages of widgets may be handled by another thread. The first guards `_busy`; the second is held during a turn,
        # as a trace must not grow while it is saved.
        self._door, self._turn = threading.Lock(), threading.RLock()
        self._loop = running_loop()
        self._build(question)
        super().__init__(
            [
                ipw.HBox([self._picker_box, self._side], layout=ipw.Layout(flex_flow="row wrap", grid_gap="16px")),
                ipw.Tab([self._player_box, self.layers], titles=["Steps", "Layers"]),
                self._below,
                self._code,
            ]
        )
        self.add_class("cmllm-workbench")

    def _build(self, question: str) -> None:
        wide = {"layout": ipw.Layout(width="auto"), "style": {"description_width": "70px"}}
        self._question = ipw.Text(question, description="question", **wide)
        self._steer = ipw.Button(description="Steer", button_style="primary", tooltip="Move attention into the regions")
        self._stop = ipw.Button(
            description="Stop", disabled=True, tooltip="End the run after this step, and keep its trace"
        )
        self._progress = ipw.IntProgress(0, 0, 1, layout=ipw.Layout(width="auto"))
        self._status = ipw.Label("Draw a region, then press Steer.").add_class("cmllm-run")
        self._message, self._answers, self._player_box = Messages(), ipw.HTML().add_class("cmllm-answers"), ipw.VBox()
        self.layers = LayersTab(self.mllm, self._subject, self.settings, self._try, self._turn)
        self._path = ipw.Text("trace.safetensors", description="file")
        self._save = ipw.Button(description="Save trace", disabled=True)
        self._copy = ipw.Button(description="Copy as code", tooltip="Copy the Python that does the same without this panel")
        self._code = CodeView()
        self._picker_box = ipw.VBox([self.picker])
        self._side = ipw.VBox(
            [
                self._question,
                self.settings,
                ipw.HBox([self._steer, self._stop]),
                self._progress,
                self._status,
                self._message,
                self._answers,
            ],
            layout=ipw.Layout(min_width="340px", flex="1 1 340px"),
        )
        self._below = ipw.HBox([self._path, self._save, self._copy], layout=ipw.Layout(flex_flow="row wrap"))
        self._steer.on_click(lambda _: self._try(self.steer))
        self._stop.on_click(lambda _: self.stop())
        self._save.on_click(lambda _: self._try(self.save))
        self._copy.on_click(lambda _: self._try(lambda: self._code.show(self.code())))
        self._question.observe(self._changed, "value")
        self.settings.listen(self._changed)
        self.picker.observe(self._changed, "regions")

    @property
    def question(self) -> str:
        """What is asked; it may be set."""
        return self._question.value

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

    @property
    def image(self) -> Image.Image:
        """The image, upright RGB. It may be set, to all that `read_image` takes; regions stay if they fit on it."""
        return self.picker.image

    @image.setter
    def image(self, image: ImageSource) -> None:
        prompt = self.mllm.prepare(image, self.question)
        try:
            picker = RegionPicker(prompt.image, self.picker.regions, prompt.layout, sigma=self.picker.sigma)
        except RegionError:
            picker = RegionPicker(prompt.image, (), prompt.layout, sigma=self.picker.sigma)
        self.picker, self._prompt, self._source = picker, prompt, image
        self._picker_box.children = [picker]
        picker.observe(self._changed, "regions")
        self._changed()

    @property
    def running(self) -> bool:
        """Whether a run goes on."""
        return self._busy

    @property
    def answers(self) -> tuple[str | None, str | None]:
        """Before and after the last run; None for one that was not decoded."""
        steps = self.trace.steps if self.trace else []
        return (steps[0].answer, steps[-1].answer) if steps else (None, None)

    def steer(self) -> asyncio.Task | None:
        """Begin a run, as the button does, and return at once; its errors are shown in the panel, and kept in `error`.

        Returns:
            The task of the run, whose result is the trace; None when the run is refused, as another goes on, and when it
            begins in another thread.

        Raises:
            OptimizationError: when there is no event loop; `run` needs none.
        """
        here = running_loop()
        loop = self._loop if self._loop is not None and self._loop.is_running() else here
        if loop is None:
            raise OptimizationError("steer() needs a running event loop, as notebooks have one. Call run() instead.")
        if not self._begin():
            return None
        if loop is here:
            return self._start(loop)
        loop.call_soon_threadsafe(self._start, loop)
        return None

    def run(self) -> Trace:
        """The run of the Steer button, from start to end in this call; its errors are shown, and raised.

        Raises:
            OptimizationError: when another run goes on, or energy or gradient are no longer finite.
            CmllmError: for a region, question or setting that is not possible.
        """
        if not self._begin():
            raise OptimizationError(_BUSY)
        try:
            with self._turn:
                for _ in self._turns():
                    pass
        except (Exception, KeyboardInterrupt) as error:
            self._broke_off(error)
            raise
        finally:
            self._end()
        return self._run.trace  # type: ignore[union-attr]  # set by the first turn

    def stop(self, reason: str = STOPPED) -> None:
        """End the run after the step that is computed now; the trace so far stays, with the reason in it."""
        if not self._busy:
            return
        self._reason = reason
        if self._run is not None:
            self._run.stop(reason)
        self._stop.disabled = True
        self._status.value = "stopping after this step"

    def save(self, path: str | PathLike | None = None) -> Path:
        """Save the trace of the last run to a file, the one in the panel's field when None.

        Raises:
            TraceError: when there is no trace yet, or the file cannot be written.
        """
        if self.trace is None:
            raise TraceError("There is no trace to save yet; press Steer first.")
        with self._turn:
            saved = self.trace.save(self._path.value if path is None else path)
        self._message.say(f"Saved {saved.resolve()} ({len(self.trace)} steps).")
        return saved

    def code(self) -> str:
        """The Python that does what Steer would do now.

        Raises:
            SettingsError: for a setting out of range.
        """
        return reproduce.code(self.mllm, self._source, self.question, self.picker.regions, self.method)

    def __repr__(self) -> str:
        trace = "no run yet" if self.trace is None else repr(self.trace)
        return f"Workbench({self.question!r}, {self.picker!r}, {trace})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and beside it a static picture for fronts and exports that have no widget."""
        bundle = super()._repr_mimebundle_(**options)
        if bundle is not None:
            shown = self.trace if self.trace is not None else self._prompt
            bundle["text/html"] = str(shown._repr_html_())
        return bundle

    # The run.

    def _begin(self) -> bool:
        """Make the panel busy; whether it was free."""
        with self._door:
            free, self._busy = not self._busy, True
        if not free:
            self._message.say(_BUSY)
            return False
        self._run = self._reason = self.error = None
        self._message.clear()
        self._progress.value, self._status.value = 0, "preparing"
        self._stop.disabled = False
        return True

    def _start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task:
        # Kept, as a loop alone does not keep its tasks from being collected.
        self.task = loop.create_task(self._cooperate())
        return self.task

    async def _cooperate(self) -> Trace | None:
        try:
            await take_turns(self._turns(), self._turn, lambda: self.stop(INTERRUPTED))
        except (Exception, KeyboardInterrupt) as error:
            # Shown, and not raised: nobody may await the task, and an interrupt that left it would end the kernel's loop.
            self._broke_off(error)
        finally:
            self._end()
        return self.trace

    def _turns(self) -> Generator[None, None, None]:
        """A run, cut where others have their turn."""
        if not self.picker.regions:
            raise RegionError("Draw at least one region on the image first; there is none yet.")
        self._prepare()
        with warnings.catch_warnings():
            # The picker says it where the region was drawn.
            warnings.simplefilter("ignore", RegionWarning)
            run = self._run = Steering(self.mllm, self._prompt, self.picker.regions, self.method)
        if self._reason is not None:
            run.stop(self._reason)
        answers, last = Answers("ends"), run.method.steps
        self._progress.max = last
        try:
            for step in run:
                self._progress.value = step.number
                if self._reason is None:
                    self._status.value = f"step {step.number} of {last}"
                self._show(run.trace)
                yield
                if step.number == 0:
                    answers.on_step(run, step)
                    self._show(run.trace)
                    yield
        except KeyboardInterrupt:
            if not run.trace.steps:
                raise
            run.trace.stopped = INTERRUPTED
        self._status.value = f"step {run.trace.steps[-1].number} of {last}, now the answer"
        yield
        answers.on_end(run)
        self._show(run.trace)
        self._status.value = f"{run.trace.stopped} (step {run.trace.steps[-1].number} of {last})"

    def _prepare(self) -> None:
        if self.question != self._prompt.question:
            self._prompt = self.mllm.prepare(self._source, self.question)

    def _subject(self) -> Subject:
        """What the tab of layers looks into: the run is one on the very prompt."""
        self._prepare()
        run = self._run
        trace = run.trace if run is not None and run.prompt is self._prompt else None
        return Subject(self._prompt, self.picker.regions, trace)

    def _show(self, trace: Trace) -> None:
        """Show what a trace has become: in the player, which stays at the last step if it was there, and the answers."""
        if self.trace is not trace or self.player is None:
            old, self.trace, self.player = self.player, trace, StepPlayer(trace)
            self._player_box.children = [self.player]
            self._save.disabled = False
            if old is not None:
                old.close()
        else:
            follows = self.player.step == len(self.player.data["steps"]) - 1
            self.player.refresh()
            if follows:
                self.player.step = len(trace) - 1
        before, after = self.answers
        rows = [("before", before), ("after", after if trace.stopped != "running" else None)]
        self._answers.value = card("", [(when, answer or "...") for when, answer in rows])

    def _end(self) -> None:
        self._stop.disabled = True
        self._busy = False
        self.keep()

    # What the panel says.

    def _try(self, action: Callable[[], Any]) -> None:
        """Do what a button asks for; what an exception says is shown, as in a callback nobody would see it."""
        try:
            action()
        except Exception as error:
            self._failed(error)

    def _broke_off(self, error: BaseException) -> None:
        """A run has failed: its trace, which stays, and the panel say so."""
        reason = INTERRUPTED if isinstance(error, KeyboardInterrupt) else "failed"
        if self._run is not None and self._run.trace.stopped == "running":
            self._run.trace.stopped = reason
        self._status.value = reason if self._run is None else self._run.trace.stopped
        self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self.error = error
        self._message.failed(error)

    def _changed(self, change: Any = None) -> None:
        """Something was set: what depends on it follows."""
        # A field may hold what is no setting while it is being typed; Steer says so.
        with suppress(SettingsError):
            self.picker.sigma = self.method.sigma
            if self._code.shown:
                self._code.code = self.code()
