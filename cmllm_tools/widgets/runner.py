"""Runs of a workbench: begun, stopped, and taken step by step in turns with all else that the kernel does."""

import asyncio
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from typing import Any

from ..errors import OptimizationError, RegionError
from ..layout.visual_tokens import RegionWarning
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..referring.callbacks import Answers
from ..referring.latent_method import LatentMethod
from ..referring.method import Method
from ..referring.outcome import Outcome
from ..referring.run import refer
from ..referring.steering import Steering
from ..referring.trace import Step, Trace
from ..strict import flag, kind_of
from .current_prompt import CurrentPrompt
from .event_loop import running_loop, take_turns
from .messages import Messages
from .panel import Panel
from .results import UNSTEERED

STOPPED, INTERRUPTED, CLOSED = "stopped", "interrupted", "closed"
_BUSY = "A run goes on in this panel: press Stop, or wait for its end, before you steer again."


class RunningPanel(Panel):
    """A panel's runs: one at a time, in turns of the kernel's event loop or in one call, and what is said of them."""

    # A panel that was refused is closed too, by ipywidgets, when Python drops it.
    _busy = False

    mllm: Mllm
    _asked: CurrentPrompt

    def _ready(self, mllm: Mllm) -> None:
        self.mllm = mllm
        self.error: BaseException | None = None
        self.task: asyncio.Task[Any] | None = None
        self._run: Steering | None = None
        # What the last run of a method that takes no steps was asked on.
        self._answered_on: Prompt | None = None
        self._busy = False
        self._reason: str | None = None
        # Messages of widgets may be handled by another thread. The first guards `_busy`; the second is held during a turn,
        # as a trace must not grow while it is saved.
        self._door, self._turn = threading.Lock(), threading.RLock()
        self._loop = running_loop()

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
        return self._launch(look=False)

    def look(self) -> asyncio.Task[Any] | None:
        """Begin a run without updates, as Look first does: the unsteered answer, and the map of the tokens to be steered.

        Returns:
            As `steer`; the trace has its first step alone.

        Raises:
            OptimizationError: when there is no event loop; `run(look=True)` needs none.
        """
        return self._launch(look=True)

    def _launch(self, look: bool) -> asyncio.Task[Any] | None:
        here = running_loop()
        loop = self._loop if self._loop is not None and self._loop.is_running() else here
        if loop is None:
            name, other = ("look()", "run(look=True)") if look else ("steer()", "run()")
            raise OptimizationError(f"{name} needs a running event loop, as notebooks have one. Call {other} instead.")
        if not self._begin():
            return None
        if loop is here:
            return self._start(loop, look)
        loop.call_soon_threadsafe(self._start, loop, look)
        return None

    def run(self, look: bool = False) -> Trace | Outcome | None:
        """The run of the Steer button, from start to end in this call; its errors are shown, and raised.

        Args:
            look: without updates, as Look first.

        Returns:
            The trace; the outcome for a method that takes no steps, None where that was stopped.

        Raises:
            OptimizationError: when another run goes on, or energy or gradient are no longer finite.
            CmllmError: for a region, question or setting that is not possible, or a `look` that is neither True nor False.
        """
        look = flag(look, "look")
        if not self._begin():
            raise OptimizationError(_BUSY)
        try:
            with self._turn:
                for _ in self._turns(look):
                    pass
        except (Exception, KeyboardInterrupt) as error:
            self._broke_off(error)
            raise
        finally:
            self._end()
        return self._found(look)

    def _found(self, look: bool) -> Trace | Outcome | None:
        """What the last run came to, of steps or not."""
        if look:
            return self.trace if self.error is None else None
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

    def _start(self, loop: asyncio.AbstractEventLoop, look: bool) -> asyncio.Task[Any]:
        # Kept, as a loop alone does not keep its tasks from being collected.
        self.task = loop.create_task(self._cooperate(look))
        return self.task

    async def _cooperate(self, look: bool = False) -> Trace | Outcome | None:
        try:
            await take_turns(self._turns(look), self._turn, lambda: self.stop(INTERRUPTED))
        except (Exception, KeyboardInterrupt) as error:
            # Shown, and not raised: nobody may await the task, and an interrupt that left it would end the kernel's loop.
            self._broke_off(error)
        finally:
            self._end()
        return self._found(look)

    def _turns(self, look: bool) -> Generator[None, None, None]:
        """A run, or one without updates, cut where others have their turn."""
        if not self.picker.regions:
            raise RegionError("Draw at least one region on the image first; there is none yet.")
        self._asked.ask(self.question)
        if look:
            yield from self._unsteered()
            return
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

    def _unsteered(self) -> Generator[None, None, None]:
        """The first step of a run, and its answer; no run that one could look into the layers of."""
        run, _ = self._again(self._first_step)
        self._run, run.trace.stopped, self._progress.max = None, UNSTEERED, 1
        self._show(run.trace)
        yield
        Answers("ends").on_step(run, run.trace.steps[0])
        self._show(run.trace)
        self._status.value, self._progress.value = "unsteered: this is what Steer begins with", 1

    def _answered(self, method: Method) -> Generator[None, None, None]:
        """A run of a method that takes no steps."""

        def plain() -> str:
            return str(self._again(lambda: self.mllm.generate(self._prompt)))

        def referred() -> Outcome:
            self._answered_on = self._prompt
            asked = self._prompt.image, self.question, self.picker.regions
            return refer(self.mllm, *asked, method, progress=False)

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

    def _show(self, trace: Trace) -> None:
        if self.comm is None:
            # Closed in the midst of a run: nothing is shown any more.
            self._results.trace = trace
        else:
            self._results.show_trace(trace)

    def _end(self) -> None:
        self._stop.disabled = True
        self._busy = False
        self._follow()
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
