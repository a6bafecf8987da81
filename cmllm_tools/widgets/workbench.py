"""Draw a region, press Steer, watch: picker, settings, a run that can be stopped, player and answers in one widget."""

import asyncio
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import OptimizationError, RegionError, SettingsError
from ..inputs.images import ImageSource
from ..inputs.regions import Regions
from ..layout.visual_tokens import RegionWarning
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..notation import updates_text
from ..referring.callbacks import Answers
from ..referring.latent_method import LatentMethod
from ..referring.method import Method
from ..referring.outcome import Outcome
from ..referring.run import refer
from ..referring.steering import Steering
from ..referring.trace import Step, Trace
from ..strict import kind_of
from . import reproduce
from .asked import Asked
from .closing import all_or_none, replace_children
from .event_loop import running_loop, take_turns
from .layers_tab import LayersTab, Subject
from .messages import Messages
from .panel import Panel
from .region_picker import RegionPicker
from .settings import SettingsPanel

STOPPED, INTERRUPTED, CLOSED = "stopped", "interrupted", "closed"
_BUSY = "A run goes on in this panel: press Stop, or wait for its end, before you steer again."


class Workbench(Panel):
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
        error: what the last run or command failed with, None when it did not.

    Raises:
        ImageError: for an image that cannot be read.
        PromptError: for a question that cannot be asked.
        RegionError: for a region the model does not see.
        SettingsError: for a setting out of range.
    """

    # A panel that was refused is closed too, by ipywidgets, when Python drops it.
    _busy = False

    def __init__(
        self,
        mllm: Mllm,
        image: ImageSource,
        question: str = "describe the object.",
        regions: Regions = (),
        method: Method | None = None,
    ):
        require(mllm)
        self.mllm = mllm
        self.error: BaseException | None = None
        self.task: asyncio.Task[Any] | None = None
        self._run: Steering | None = None
        self._busy = False
        self._reason: str | None = None
        # Messages of widgets may be handled by another thread. The first guards `_busy`; the second is held during a turn,
        # as a trace must not grow while it is saved.
        self._door, self._turn = threading.Lock(), threading.RLock()
        self._loop = running_loop()
        with all_or_none():
            settings = SettingsPanel(mllm, method)
            self._asked = Asked(mllm, image, question)
            prompt = self._prompt
            picker = RegionPicker(prompt.image, regions, prompt.layout, sigma=settings.sigma_shown)
            layers = LayersTab(mllm, self._subject, settings, self._try, self._again, self._turn, self._state)
            super().__init__(picker, settings, question, layers)
            self._listen()

    def _listen(self) -> None:
        self._steer.on_click(lambda _: self._try(self.steer, self._message))
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
        asked = Asked(self.mllm, image, self.question)
        prompt = asked.prompt
        try:
            picker = RegionPicker(prompt.image, self.picker.regions, prompt.layout, sigma=self.picker.sigma)
        except RegionError:
            picker = RegionPicker(prompt.image, (), prompt.layout, sigma=self.picker.sigma)
        self.picker, self._asked = picker, asked
        replace_children(self._picker_box, picker)
        picker.observe(self._changed, "regions")
        self._changed()

    @property
    def _prompt(self) -> Prompt:
        return self._asked.prompt

    @property
    def running(self) -> bool:
        """Whether a run goes on."""
        return self._busy

    def steer(self) -> asyncio.Task[Any] | None:
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

    def run(self) -> Trace | Outcome | None:
        """The run of the Steer button, from start to end in this call; its errors are shown, and raised.

        Returns:
            The trace; the outcome for a method that takes no steps, None where that was stopped.

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
        return self.outcome if self._run is None else self._run.trace

    def stop(self, reason: str = STOPPED) -> None:
        """End the run after the step that is computed now; the trace so far stays, with the reason in it.

        Raises:
            SettingsError: for a reason that is no text.
        """
        kind_of(reason, str, "The reason to stop must be a text")
        if not self._busy:
            return
        self._reason = reason
        if self._run is not None:
            self._run.stop(reason)
        self._stop.disabled = True
        self._status.value = "stopping after this step"

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
        # What was saved is not what will be shown.
        self._saved.clear()
        self._progress.value, self._status.value = 0, "preparing"
        self._stop.disabled = False
        return True

    def _start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        # Kept, as a loop alone does not keep its tasks from being collected.
        self.task = loop.create_task(self._cooperate())
        return self.task

    async def _cooperate(self) -> Trace | Outcome | None:
        try:
            await take_turns(self._turns(), self._turn, lambda: self.stop(INTERRUPTED))
        except (Exception, KeyboardInterrupt) as error:
            # Shown, and not raised: nobody may await the task, and an interrupt that left it would end the kernel's loop.
            self._broke_off(error)
        finally:
            self._end()
        return self.outcome if self._run is None else self._run.trace

    def _turns(self) -> Generator[None, None, None]:
        """A run, cut where others have their turn."""
        if not self.picker.regions:
            raise RegionError("Draw at least one region on the image first; there is none yet.")
        self._asked.ask(self.question)
        if not isinstance(method := self.method, LatentMethod):
            yield from self._answered(method)
            return
        run, steps = self._again(self._first_step)
        answers, last = Answers("ends"), run.method.steps
        self._progress.max = last
        try:
            for step in steps:
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

    def _answered(self, method: Method) -> Generator[None, None, None]:
        """A run of a method that takes no steps."""

        def plain() -> str:
            return str(self._again(lambda: self.mllm.generate(self._prompt)))

        def referred() -> Outcome:
            return refer(self.mllm, self._prompt.image, self.question, self.picker.regions, method)

        self._progress.max = 2
        for number, said in enumerate(self._results.of_answers(plain, referred)):
            self._status.value, self._progress.value = self._reason or said, number
            if self._reason is not None:
                return
            yield
        self._status.value, self._progress.value = "finished", 2

    def _first_step(self) -> tuple[Steering, Iterator[Step]]:
        with warnings.catch_warnings():
            # The picker says it where the region was drawn.
            warnings.simplefilter("ignore", RegionWarning)
            run = self._run = Steering(self.mllm, self._prompt, self.picker.regions, self.settings.latent_method)
        if self._reason is not None:
            run.stop(self._reason)
        steps = iter(run)
        return run, chain([next(steps)], steps)

    def _again(self, use: Callable[[], Any]) -> Any:
        return self._asked.again(use)

    def _subject(self) -> Subject:
        """What the tab of layers looks into: the run is one on the very image and question."""
        self._asked.ask(self.question)
        run = self._run
        trace = run.trace if run is not None and self._asked.has(run.prompt) else None
        return Subject(self._prompt, self.picker.regions, trace)

    def _state(self) -> tuple[Any, ...]:
        """What the panel shows now, without preparing it."""
        return self.question, self.picker.image, list(self.picker.regions), self._run

    def _show(self, trace: Trace) -> None:
        if self.comm is None:
            # Closed in the midst of a run: nothing is shown any more.
            self._results.trace = trace
        else:
            self._results.show_trace(trace)

    def _end(self) -> None:
        self._stop.disabled = True
        self._busy = False
        self.layers.follow()
        self.keep()

    # What the panel says.

    def _try(self, action: Callable[[], Any], messages: Messages) -> None:
        """Do what a button asks for; what an exception says is shown beside it, as in a callback nobody would see it."""
        messages.clear()
        try:
            action()
        except Exception as error:
            self._failed(error, messages)

    def _broke_off(self, error: BaseException) -> None:
        """A run has failed: its trace, which stays, and the panel say so."""
        reason = INTERRUPTED if isinstance(error, KeyboardInterrupt) else f"failed: {type(error).__name__}"
        if self._run is not None and self._run.trace.stopped == "running":
            self._run.trace.stopped = reason
        self._status.value = reason if self._run is None else self._run.trace.stopped
        self._failed(error, self._message)

    def _failed(self, error: BaseException, messages: Messages) -> None:
        self.error = error
        messages.failed(error)

    def _changed(self, change: Any = None) -> None:
        """Something was set: what depends on it follows."""
        self._warn_of_unknown(self.mllm.processor.tokenizer)
        self.layers.follow()
        # A field may hold what is no setting while it is being typed; Steer says so.
        with suppress(SettingsError):
            self.picker.sigma = self.settings.sigma_shown
            if self._code.shown:
                self._code.code = self.code()
